BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE budgets (
	scope TEXT NOT NULL, 
	limit_nanos BIGINT, 
	limit_tokens BIGINT, 
	limit_calls BIGINT, 
	reserved_nanos BIGINT NOT NULL, 
	reserved_tokens BIGINT NOT NULL, 
	reserved_calls BIGINT NOT NULL, 
	spent_nanos BIGINT NOT NULL, 
	spent_tokens BIGINT NOT NULL, 
	spent_calls BIGINT NOT NULL, 
	CONSTRAINT budgets_pk PRIMARY KEY (scope)
)
 WITHOUT ROWID

;
INSERT INTO "budgets" VALUES('run:golden',1000000,NULL,NULL,100,0,1,700,15,1);
CREATE TABLE calls (
	seq INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	call_key TEXT NOT NULL, 
	generation BIGINT NOT NULL, 
	request_id TEXT, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	parent TEXT, 
	effect TEXT NOT NULL, 
	case_id TEXT, 
	trace_key TEXT NOT NULL, 
	verdict TEXT NOT NULL, 
	decision TEXT NOT NULL, 
	reserved TEXT, 
	intent_n BIGINT NOT NULL, 
	started_us BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	outcome_n BIGINT, 
	ended_us BIGINT, 
	cost_nanos BIGINT, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	provider TEXT, 
	model TEXT, 
	tags TEXT NOT NULL, 
	shipped INTEGER NOT NULL, 
	PRIMARY KEY (seq), 
	CONSTRAINT calls_key UNIQUE (run_id, call_key, generation), 
	CONSTRAINT calls_request UNIQUE (run_id, request_id)
);
INSERT INTO "calls" VALUES(1,'run-golden','34cc46382ad905ee32dc26abf59806f7',0,'r1','agent','review',NULL,'read','c1','34cc46382ad905ee32dc26abf59806f7:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}',NULL,3,1790000001000000,'ok',6,1790000004000000,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0);
INSERT INTO "calls" VALUES(2,'run-golden','6180349223aaf4e046ef6be086450bdb',0,'r2','model','default','34cc46382ad905ee32dc26abf59806f7','read',NULL,'34cc46382ad905ee32dc26abf59806f7:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}','{"scopes":["run:golden"],"nanos":900,"tokens":50,"calls":1}',4,1790000002000000,'ok',5,1790000004000000,700,10,5,2,'openai','small','{}',0);
INSERT INTO "calls" VALUES(3,'run-golden','f8b7845ee3728db17ca43d78d35b7465',0,'r3','tool','mail',NULL,'write',NULL,'loose:0','deny','{"verdict":"deny","policies":["no-mail"],"reasons":["mail is not allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}',NULL,7,1790000005000000,'denied',8,1790000005000000,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0);
INSERT INTO "calls" VALUES(4,'run-golden','e3bbbd3aae82472adc8143a6bbc7db24',0,'r4','human','ask',NULL,'read',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}','{"scopes":["run:golden"],"nanos":100,"tokens":0,"calls":1}',9,1790000006000000,'started',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"restarts":"1","review":"open"}',0);
INSERT INTO "calls" VALUES(5,'run-golden','cb63e331e9b80265ec4a71135e934747',0,'r5','result','score',NULL,'read',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}',NULL,13,1790000007000000,'ok',14,1790000007000000,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0);
CREATE TABLE cases (
	run_id TEXT NOT NULL, 
	case_id TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	inputs TEXT NOT NULL, 
	handed INTEGER NOT NULL, 
	answer_n BIGINT, 
	CONSTRAINT cases_pk PRIMARY KEY (run_id, case_id)
);
INSERT INTO "cases" VALUES('run-golden','c1',0,'{"text":"MIT"}',1,16);
INSERT INTO "cases" VALUES('run-golden','c2',1,'{"text":"GPL"}',0,NULL);
CREATE TABLE entries (
	run_id TEXT NOT NULL, 
	n BIGINT NOT NULL, 
	type TEXT NOT NULL, 
	call_key TEXT, 
	generation BIGINT, 
	at_us BIGINT NOT NULL, 
	prev TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	body TEXT NOT NULL, 
	CONSTRAINT entries_pk PRIMARY KEY (run_id, n)
);
INSERT INTO "entries" VALUES('run-golden',1,'run.created',NULL,NULL,1790000000000000,'','sha256:5213860ad7fecaa4adab5cadd5a55f2e75a23cb051768dd0fe28aeb81ce4964e','{"run_id":"run-golden","kind":"run","environment":"production","user":"ana","state":"queued","cause":null,"message":null,"team":null,"job":"licence-review","version":3,"notebook":null,"parameters":{"z":1.0,"a":"ü"},"results_expected":[],"source_run_id":null,"parent_run_id":null,"policy_digest":null,"token_digest":"sha256:aa","tags":{"commit":"abc"},"created_us":1790000000000000,"started_us":null,"ended_us":null,"mlflow_run_id":null,"runner":null}');
INSERT INTO "entries" VALUES('run-golden',2,'run.updated',NULL,NULL,1790000000000000,'sha256:5213860ad7fecaa4adab5cadd5a55f2e75a23cb051768dd0fe28aeb81ce4964e','sha256:b38bc72caf157c686f05945772baad758f427688288b00fc2d1202793ff42e04','{"state":"running","started_us":1790000000000000}');
INSERT INTO "entries" VALUES('run-golden',3,'call.intent','34cc46382ad905ee32dc26abf59806f7',0,1790000001000000,'sha256:b38bc72caf157c686f05945772baad758f427688288b00fc2d1202793ff42e04','sha256:9c81df31bc7766fe8f28b90de028c1e7d0a212a7a85fb9a83bcca5633d0e38ec','{"kind":"agent","name":"review","parent":null,"occurrence":0,"request_id":"r1","effect":"read","cell":null,"case_id":"c1","trace_key":"34cc46382ad905ee32dc26abf59806f7:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]},"reserved":null,"arguments_digest":"sha256:4967b6ab4ba91a2f7326d4ee79384a00f349ad812c9882b29d925824bd77e3f5","arguments":{"text":"MIT"}}');
INSERT INTO "entries" VALUES('run-golden',4,'call.intent','6180349223aaf4e046ef6be086450bdb',0,1790000002000000,'sha256:9c81df31bc7766fe8f28b90de028c1e7d0a212a7a85fb9a83bcca5633d0e38ec','sha256:e5a527c244d12cf682d039462dd5eebde06e1281010044010776335b3d9581ed','{"kind":"model","name":"default","parent":"34cc46382ad905ee32dc26abf59806f7","occurrence":0,"request_id":"r2","effect":"read","cell":null,"case_id":null,"trace_key":"34cc46382ad905ee32dc26abf59806f7:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]},"reserved":{"scopes":["run:golden"],"nanos":900,"tokens":50,"calls":1},"arguments_digest":"sha256:4ece5469c0434f63bdd456f306e64726d35d906147a01d6865ec1b80d116dd9f","arguments":{"messages":[{"role":"user","content":"Is MIT permissive? \ud83d"}],"temperature":0.0}}');
INSERT INTO "entries" VALUES('run-golden',5,'call.outcome','6180349223aaf4e046ef6be086450bdb',0,1790000004000000,'sha256:e5a527c244d12cf682d039462dd5eebde06e1281010044010776335b3d9581ed','sha256:2687e125c7009fa4195434f894516d4e49e0f33293b226fe932c9be26d4663c3','{"state":"ok","error":null,"usage":{"input_tokens":10,"output_tokens":5,"cached_tokens":2},"cost_nanos":700,"provider":"openai","model":"small","attempts":[["openai/small",1,2,"429"]],"charged":{"nanos":700,"tokens":15,"calls":1},"answer":{"text":"yes","data":{"score":1.0,"big":1180591620717411303424}}}');
INSERT INTO "entries" VALUES('run-golden',6,'call.outcome','34cc46382ad905ee32dc26abf59806f7',0,1790000004000000,'sha256:2687e125c7009fa4195434f894516d4e49e0f33293b226fe932c9be26d4663c3','sha256:633d2ed3234694d870e6da9a21befdb6b90fff110ebf0076879d8d801c2dd57e','{"state":"ok","error":null,"usage":null,"cost_nanos":null,"provider":null,"model":null,"attempts":[],"charged":null,"answer":{"permissive":true}}');
INSERT INTO "entries" VALUES('run-golden',7,'call.intent','f8b7845ee3728db17ca43d78d35b7465',0,1790000005000000,'sha256:633d2ed3234694d870e6da9a21befdb6b90fff110ebf0076879d8d801c2dd57e','sha256:94377597b0a3d7b822886062476c0916f35835e7652bc1bd50d60989e533217b','{"kind":"tool","name":"mail","parent":null,"occurrence":0,"request_id":"r3","effect":"write","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"deny","policies":["no-mail"],"reasons":["mail is not allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]},"reserved":null,"arguments_digest":"sha256:3e4b0029213fcdbc0f70e0c0421dc2f368027d4fdae3af732fd07ae91650b016","arguments":{"to":"eve"}}');
INSERT INTO "entries" VALUES('run-golden',8,'call.outcome','f8b7845ee3728db17ca43d78d35b7465',0,1790000005000000,'sha256:94377597b0a3d7b822886062476c0916f35835e7652bc1bd50d60989e533217b','sha256:f501dcba51fcc77f5b810e272e8a708e279f522cbd4032e972bde13117102cee','{"state":"denied","error":{"code":"denied","message":"policy denies the call: mail is not allowed","where":null,"next_step":"ask the owner of the policy, or change the call","details":{"policies":["no-mail"],"reasons":["mail is not allowed"]}},"usage":null,"cost_nanos":null,"provider":null,"model":null,"attempts":[],"charged":null,"answer":null}');
INSERT INTO "entries" VALUES('run-golden',9,'call.intent','e3bbbd3aae82472adc8143a6bbc7db24',0,1790000006000000,'sha256:f501dcba51fcc77f5b810e272e8a708e279f522cbd4032e972bde13117102cee','sha256:326bb13a01cb7403a6ef833f792e8dd8af383e4d6681c2141b7c7522f62b7879','{"kind":"human","name":"ask","parent":null,"occurrence":0,"request_id":"r4","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"ask","policies":[],"reasons":[],"policy_digest":null,"production_verdict":"deny","production_reasons":["no"]},"reserved":{"scopes":["run:golden"],"nanos":100,"tokens":0,"calls":1},"arguments_digest":"sha256:c7f4828daffc76b524b5c0a5d22bfeecfa242f416176ea1786f9b9db5ef36963","arguments":{"q":"may I?"}}');
INSERT INTO "entries" VALUES('run-golden',10,'call.decided','e3bbbd3aae82472adc8143a6bbc7db24',0,1790000006000000,'sha256:326bb13a01cb7403a6ef833f792e8dd8af383e4d6681c2141b7c7522f62b7879','sha256:f36f4203aeb2cd4dbdf399f74dd183c857b3b9b7ecaa788bf3dd88113303d878','{"decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]}}');
INSERT INTO "entries" VALUES('run-golden',11,'call.restarted','e3bbbd3aae82472adc8143a6bbc7db24',0,1790000006000000,'sha256:f36f4203aeb2cd4dbdf399f74dd183c857b3b9b7ecaa788bf3dd88113303d878','sha256:7e057ae04f8c6284e910a1393c6685d6a45dee0caaaf951f3f31e494b2c8671d','{"restarts":"1"}');
INSERT INTO "entries" VALUES('run-golden',12,'call.tagged','e3bbbd3aae82472adc8143a6bbc7db24',0,1790000006000000,'sha256:7e057ae04f8c6284e910a1393c6685d6a45dee0caaaf951f3f31e494b2c8671d','sha256:f15632654a109469baa9129c25dc9a1971a5ca289e227d81d4d8f3413fed417f','{"tags":{"review":"open"}}');
INSERT INTO "entries" VALUES('run-golden',13,'call.intent','cb63e331e9b80265ec4a71135e934747',0,1790000007000000,'sha256:f15632654a109469baa9129c25dc9a1971a5ca289e227d81d4d8f3413fed417f','sha256:2cc91845d6dff5fd5a7da8a3c64508d3e514076247e63671ee442e977fa0a4da','{"kind":"result","name":"score","parent":null,"occurrence":0,"request_id":"r5","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[]},"reserved":null,"arguments_digest":"sha256:68da71bdd6fb631e3752113b5e21644440fdbb640467f34eca0d1e239b103907","arguments":{"value":0.5}}');
INSERT INTO "entries" VALUES('run-golden',14,'call.outcome','cb63e331e9b80265ec4a71135e934747',0,1790000007000000,'sha256:2cc91845d6dff5fd5a7da8a3c64508d3e514076247e63671ee442e977fa0a4da','sha256:9b49cf150e6590e2c6e49db41f28f42dcb62d91c0a0356ec92a2d61f3d0b0c7c','{"state":"ok","error":null,"usage":null,"cost_nanos":null,"provider":null,"model":null,"attempts":[],"charged":null,"answer":null}');
INSERT INTO "entries" VALUES('run-golden',15,'cases.put',NULL,NULL,1790000007000000,'sha256:9b49cf150e6590e2c6e49db41f28f42dcb62d91c0a0356ec92a2d61f3d0b0c7c','sha256:b5922d91f9f8976e2db78b1b495140eb1996223ccc3d19ef954a84b107c5a3df','{"cases":{"c1":"sha256:4967b6ab4ba91a2f7326d4ee79384a00f349ad812c9882b29d925824bd77e3f5","c2":"sha256:0fca81390da28927699795eeace459735efcf43b1fcca47d16ba87ed482f83cc"}}');
INSERT INTO "entries" VALUES('run-golden',16,'case.answered',NULL,NULL,1790000007000000,'sha256:b5922d91f9f8976e2db78b1b495140eb1996223ccc3d19ef954a84b107c5a3df','sha256:1074dfe1891fb1d7500ba0423e2108f9018d31e6b28f89c059551a75f08f4c01','{"case_id":"c1","output":{"permissive":true},"error":null}');
INSERT INTO "entries" VALUES('run-golden',17,'run.updated',NULL,NULL,1790000007000000,'sha256:1074dfe1891fb1d7500ba0423e2108f9018d31e6b28f89c059551a75f08f4c01','sha256:83bca999de64490cef6ab692545086459cc753b5c6a6c2528aeb4208891a164f','{"state":"failed","cause":"cell_error","message":"cell 3 raised","ended_us":1790000007000000}');
CREATE TABLE runs (
	number INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	environment TEXT NOT NULL, 
	user_name TEXT NOT NULL, 
	state TEXT NOT NULL, 
	cause TEXT, 
	message TEXT, 
	team TEXT, 
	job TEXT, 
	version BIGINT, 
	notebook TEXT, 
	parameters TEXT NOT NULL, 
	results_expected TEXT NOT NULL, 
	source_run_id TEXT, 
	parent_run_id TEXT, 
	policy_digest TEXT, 
	token_digest TEXT, 
	tags TEXT NOT NULL, 
	created_us BIGINT NOT NULL, 
	started_us BIGINT, 
	ended_us BIGINT, 
	mlflow_run_id TEXT, 
	runner TEXT, 
	PRIMARY KEY (number), 
	CONSTRAINT runs_run_id UNIQUE (run_id)
);
INSERT INTO "runs" VALUES(1,'run-golden','run','production','ana','failed','cell_error','cell 3 raised',NULL,'licence-review',3,NULL,'{"z":1.0,"a":"ü"}','[]',NULL,NULL,NULL,'sha256:aa','{"commit":"abc"}',1790000000000000,1790000000000000,1790000007000000,NULL,NULL);
CREATE TABLE traces (
	run_id TEXT NOT NULL, 
	base TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	CONSTRAINT traces_pk PRIMARY KEY (run_id, base)
)
 WITHOUT ROWID

;
INSERT INTO "traces" VALUES('run-golden','34cc46382ad905ee32dc26abf59806f7:0',2);
INSERT INTO "traces" VALUES('run-golden','loose',3);
INSERT INTO "traces" VALUES('run-golden','loose:0',3);
CREATE INDEX runs_token_digest ON runs (token_digest);
CREATE INDEX runs_job ON runs (job, number);
CREATE INDEX calls_run ON calls (run_id, seq);
CREATE INDEX calls_unshipped ON calls (seq) WHERE shipped = 0 AND outcome_n IS NOT NULL;
COMMIT;
