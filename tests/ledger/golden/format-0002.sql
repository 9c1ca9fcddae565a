BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE approvals (
	number INTEGER NOT NULL, 
	approval_id TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	call_key TEXT NOT NULL, 
	generation BIGINT NOT NULL, 
	digest TEXT NOT NULL, 
	role TEXT NOT NULL, 
	requested_by TEXT NOT NULL, 
	"view" TEXT NOT NULL, 
	state TEXT NOT NULL, 
	requested_us BIGINT NOT NULL, 
	expires_us BIGINT NOT NULL, 
	decided_by TEXT, 
	decided_us BIGINT, 
	reason TEXT, 
	arguments TEXT, 
	escalated_to TEXT, 
	ask_n BIGINT NOT NULL, 
	answer_n BIGINT, 
	PRIMARY KEY (number), 
	CONSTRAINT approvals_id UNIQUE (approval_id), 
	CONSTRAINT approvals_call UNIQUE (run_id, call_key, generation)
);
INSERT INTO "approvals" VALUES(1,'ask-dc7e5df93b443bdd','run-golden','18b21b6278251f6bbe663939232524db',0,'sha256:7283f6506e4b577c8cdc4c9f03f9acb6de12fce4b4ffe55bcab50490e4c4f204','legal','ana','{"title":"Pay $5"}','changed',1790000005000000,1790003605000000,'di',1790000007000000,NULL,'{"usd":4}','board',6,8);
INSERT INTO "approvals" VALUES(2,'ask-fd2d7e72110ffb4d','run-golden','a0fe1bd1209dc29922b02043587246f6',0,'sha256:73d2eb3a5f84d81e854fb021d7a484958691455c3f7cdba27e1ae3815d299e14','legal','ana','{"title":"Pay $6"}','expired',1790000015000000,1790003615000000,NULL,1790000016000000,'the run has ended',NULL,NULL,16,18);
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
	spent_calls BIGINT NOT NULL, limit_us BIGINT, limit_concurrent BIGINT, reserved_us BIGINT DEFAULT 0 NOT NULL, spent_us BIGINT DEFAULT 0 NOT NULL, 
	CONSTRAINT budgets_pk PRIMARY KEY (scope)
)
 WITHOUT ROWID

;
INSERT INTO "budgets" VALUES('run:run-golden',10000,NULL,20,0,0,0,1120,119,4,90000000,NULL,0,22250000);
INSERT INTO "budgets" VALUES('team:legal:2026-09',NULL,1000,NULL,0,0,0,1120,119,4,NULL,4,0,22250000);
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
	shipped INTEGER NOT NULL, agent TEXT, released_n BIGINT, 
	PRIMARY KEY (seq), 
	CONSTRAINT calls_key UNIQUE (run_id, call_key, generation), 
	CONSTRAINT calls_request UNIQUE (run_id, request_id)
);
INSERT INTO "calls" VALUES(1,'run-golden','5553a712820a6c3c685ff2ca45429ef7',0,'r1','model','default',NULL,'read',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}','{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":900,"tokens":50,"calls":1,"us":12500000}',3,1790000002000000,'ok',4,1790000003000000,700,10,5,2,'openai','small','{}',0,'review',NULL);
INSERT INTO "calls" VALUES(2,'run-golden','18b21b6278251f6bbe663939232524db',0,'r2','tool','pay',NULL,'write',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}','{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":100,"tokens":50,"calls":1,"us":12500000}',5,1790000004000000,'ok',10,1790000008000000,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0,NULL,NULL);
INSERT INTO "calls" VALUES(3,'run-golden','022217a9d85b9c28f685f6f644b01e34',0,'r3','model','default',NULL,'read',NULL,'loose:0','deny','{"verdict":"deny","policies":["stop"],"reasons":["all was stopped by bo at 2026-09-21T14:13:29Z: a drill"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}',NULL,11,1790000010000000,'denied',12,1790000010000000,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0,NULL,NULL);
INSERT INTO "calls" VALUES(4,'run-golden','fad302bc4e6637d634ebb11899cbef34',0,'r4','model','default',NULL,'read',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}','{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":200,"tokens":50,"calls":1,"us":12500000}',13,1790000012000000,'ok',21,1790000017000000,20,3,1,0,'openai','small','{}',0,NULL,19);
INSERT INTO "calls" VALUES(5,'run-golden','46afeb2c72cd7da14f3376a672d43883',0,'r5','model','default',NULL,'read',NULL,'loose:0','allow','{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}','{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":300,"tokens":50,"calls":1,"us":12500000}',14,1790000013000000,'started',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0,NULL,20);
INSERT INTO "calls" VALUES(6,'run-golden','a0fe1bd1209dc29922b02043587246f6',0,'r6','tool','pay',NULL,'read',NULL,'loose:0','ask','{"verdict":"ask","policies":["ask-legal"],"reasons":["money leaves"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"approver":"legal","expires_s":3600.0}',NULL,15,1790000014000000,'started',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',0,NULL,NULL);
CREATE TABLE cases (
	run_id TEXT NOT NULL, 
	case_id TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	inputs TEXT NOT NULL, 
	handed INTEGER NOT NULL, 
	answer_n BIGINT, 
	CONSTRAINT cases_pk PRIMARY KEY (run_id, case_id)
);
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
INSERT INTO "entries" VALUES('run-golden',1,'run.created',NULL,NULL,1790000000000000,'','sha256:314e184b7d411dc9665f790628a4007b34ceb64b9814e13df2895a35df8f6400','{"run_id":"run-golden","kind":"run","environment":"production","user":"ana","state":"queued","cause":null,"message":null,"team":"legal","job":"review","version":2,"notebook":null,"parameters":{},"results_expected":[],"source_run_id":null,"parent_run_id":null,"policy_digest":null,"token_digest":null,"tags":{},"created_us":1790000000000000,"started_us":null,"ended_us":null,"mlflow_run_id":null,"runner":null}');
INSERT INTO "entries" VALUES('run-golden',2,'run.updated',NULL,NULL,1790000001000000,'sha256:314e184b7d411dc9665f790628a4007b34ceb64b9814e13df2895a35df8f6400','sha256:c8ae67cbc03043c6fb7684c1e5ab905e3a0bd2ec3c73bb75755e10700c02a2c6','{"state":"running","started_us":1790000001000000}');
INSERT INTO "entries" VALUES('run-golden',3,'call.intent','5553a712820a6c3c685ff2ca45429ef7',0,1790000002000000,'sha256:c8ae67cbc03043c6fb7684c1e5ab905e3a0bd2ec3c73bb75755e10700c02a2c6','sha256:0239d1d0865d3b9b4d5ada3673300a69882ac30bbab51a5e8a2c87b26708e5e9','{"kind":"model","name":"default","parent":null,"occurrence":0,"request_id":"r1","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]},"reserved":{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":900,"tokens":50,"calls":1,"us":12500000},"arguments_digest":"sha256:d6c6772b12e24fa279d32e4a6c28c084b24dec543a8cca33f44f09daaf3cab63","agent":"review","purpose":"decide","labels":{"messages":{"sources":["untrusted"],"classes":["pii"]}},"traceparent":"00-11111111111111111111111111111111-2222222222222222-01","arguments":{"messages":["hä"]}}');
INSERT INTO "entries" VALUES('run-golden',4,'call.outcome','5553a712820a6c3c685ff2ca45429ef7',0,1790000003000000,'sha256:0239d1d0865d3b9b4d5ada3673300a69882ac30bbab51a5e8a2c87b26708e5e9','sha256:201da619109000d0effd7ec80aa0790e330af1a825608640446656f6379c5a46','{"state":"ok","error":null,"usage":{"input_tokens":10,"output_tokens":5,"cached_tokens":2},"cost_nanos":700,"provider":"openai","model":"small","attempts":[["openai/big",1790000003000000,1790000003000000,"429"],["openai/small",1790000003000000,1790000003000000,null,"fallback: 429"]],"charged":{"nanos":700,"tokens":15,"calls":1,"us":750000},"labels":{"sources":["untrusted"],"classes":["pii"]},"seconds":0.75,"answer":{"text":"yes"}}');
INSERT INTO "entries" VALUES('run-golden',5,'call.intent','18b21b6278251f6bbe663939232524db',0,1790000004000000,'sha256:201da619109000d0effd7ec80aa0790e330af1a825608640446656f6379c5a46','sha256:725e7992933a8cf5f7707eca7b9d5b542b133ed99262f4115b489a9e0ca9e450','{"kind":"tool","name":"pay","parent":null,"occurrence":0,"request_id":"r2","effect":"write","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"ask","policies":["ask-legal"],"reasons":["money leaves"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"approver":"legal","expires_s":3600.0},"reserved":{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":100,"tokens":50,"calls":1,"us":12500000},"arguments_digest":"sha256:d293f61699baacf1c43e3d7bf7c087d61227aa5e911e70cca856338cc8e1f592","arguments":{"usd":5}}');
INSERT INTO "entries" VALUES('run-golden',6,'call.ask','18b21b6278251f6bbe663939232524db',0,1790000005000000,'sha256:725e7992933a8cf5f7707eca7b9d5b542b133ed99262f4115b489a9e0ca9e450','sha256:f8d915098f066cd6594bbede5adc010c1e8736c646bd9cf9b36b7f720c76823b','{"id":"ask-dc7e5df93b443bdd","digest":"sha256:7283f6506e4b577c8cdc4c9f03f9acb6de12fce4b4ffe55bcab50490e4c4f204","role":"legal","requested_by":"ana","expires_us":1790003605000000,"view":{"title":"Pay $5"}}');
INSERT INTO "entries" VALUES('run-golden',7,'call.answered','18b21b6278251f6bbe663939232524db',0,1790000006000000,'sha256:f8d915098f066cd6594bbede5adc010c1e8736c646bd9cf9b36b7f720c76823b','sha256:ae4da59777ae79130f5d98dcac2132f9ba6b5268402d5e785ac79c3194fb47b4','{"id":"ask-dc7e5df93b443bdd","state":"escalated","by":"bo","reason":"too much","escalated_to":"board"}');
INSERT INTO "entries" VALUES('run-golden',8,'call.answered','18b21b6278251f6bbe663939232524db',0,1790000007000000,'sha256:ae4da59777ae79130f5d98dcac2132f9ba6b5268402d5e785ac79c3194fb47b4','sha256:3fd73a416c956361b82e2dd851887c04a4c1265aac333f3cfec385cedae94eda','{"id":"ask-dc7e5df93b443bdd","state":"changed","by":"di","reason":null,"arguments":{"usd":4}}');
INSERT INTO "entries" VALUES('run-golden',9,'call.decided','18b21b6278251f6bbe663939232524db',0,1790000008000000,'sha256:3fd73a416c956361b82e2dd851887c04a4c1265aac333f3cfec385cedae94eda','sha256:1d358615613c33b50709d0fc1538bc0c615855e5a5b9934b7f06f60ab0de72fe','{"decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]}}');
INSERT INTO "entries" VALUES('run-golden',10,'call.outcome','18b21b6278251f6bbe663939232524db',0,1790000008000000,'sha256:1d358615613c33b50709d0fc1538bc0c615855e5a5b9934b7f06f60ab0de72fe','sha256:3b756ba083f1d63a868633d473398bb4097f7de438b4c3cf1d665c8d22e87819','{"state":"ok","error":null,"usage":null,"cost_nanos":null,"provider":null,"model":null,"attempts":[],"charged":{"nanos":100,"tokens":50,"calls":1,"us":4000000},"answer":{"paid":4}}');
INSERT INTO "entries" VALUES('switches',1,'switch.stopped',NULL,NULL,1790000009000000,'','sha256:85deac8333efb757d00ba6b39215045b66334e33437b57141dfc30c4d3587c64','{"scope":"all","by":"bo","reason":"a drill"}');
INSERT INTO "entries" VALUES('run-golden',11,'call.intent','022217a9d85b9c28f685f6f644b01e34',0,1790000010000000,'sha256:3b756ba083f1d63a868633d473398bb4097f7de438b4c3cf1d665c8d22e87819','sha256:ed2cc3469241005eba2ff831ac9a8b2adf11a34d8490460ae46c7972fd927463','{"kind":"model","name":"default","parent":null,"occurrence":0,"request_id":"r3","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"deny","policies":["stop"],"reasons":["all was stopped by bo at 2026-09-21T14:13:29Z: a drill"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]},"reserved":null,"arguments_digest":"sha256:215ddd5567ca2590efd4ea109b4e56cbe591e2676fbf54a9262692c539166da6","arguments":{"n":3}}');
INSERT INTO "entries" VALUES('run-golden',12,'call.outcome','022217a9d85b9c28f685f6f644b01e34',0,1790000010000000,'sha256:ed2cc3469241005eba2ff831ac9a8b2adf11a34d8490460ae46c7972fd927463','sha256:227f153606f254647230cde25eaef09f786c77d50a34994da94f18a7e6f6e9da','{"state":"denied","error":{"code":"denied","message":"policy denies the call: all was stopped by bo at 2026-09-21T14:13:29Z: a drill","where":null,"next_step":"ask the owner of the policy, or change the call","details":{"policies":["stop"],"reasons":["all was stopped by bo at 2026-09-21T14:13:29Z: a drill"]}},"usage":null,"cost_nanos":null,"provider":null,"model":null,"attempts":[],"charged":null,"answer":null}');
INSERT INTO "entries" VALUES('switches',2,'switch.started',NULL,NULL,1790000011000000,'sha256:85deac8333efb757d00ba6b39215045b66334e33437b57141dfc30c4d3587c64','sha256:0005dfba5d1db27132f24529f57b6b54f48b085e4e5cf1adfb754ce81030f978','{"scope":"all","by":"bo","reason":"the drill is over"}');
INSERT INTO "entries" VALUES('switches',3,'switch.stopped',NULL,NULL,1790000011000000,'sha256:0005dfba5d1db27132f24529f57b6b54f48b085e4e5cf1adfb754ce81030f978','sha256:5c18d467deef8686edb57f114b4ca5b8abb260401518a10e54d14909874f04c3','{"scope":"team:sales","by":"bo","reason":"too dear"}');
INSERT INTO "entries" VALUES('run-golden',13,'call.intent','fad302bc4e6637d634ebb11899cbef34',0,1790000012000000,'sha256:227f153606f254647230cde25eaef09f786c77d50a34994da94f18a7e6f6e9da','sha256:1dc9217487acab7cd7542f82fea9eeb96a27a332e54bcbf195cf5a410a8e59d6','{"kind":"model","name":"default","parent":null,"occurrence":0,"request_id":"r4","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]},"reserved":{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":200,"tokens":50,"calls":1,"us":12500000},"arguments_digest":"sha256:f3e0792e105e2bfe88e7b3bab5097b93a59a8c5b239fe3c6f87a8d0f72ab9032","arguments":{"n":4}}');
INSERT INTO "entries" VALUES('run-golden',14,'call.intent','46afeb2c72cd7da14f3376a672d43883',0,1790000013000000,'sha256:1dc9217487acab7cd7542f82fea9eeb96a27a332e54bcbf195cf5a410a8e59d6','sha256:a76dd2a5b0596bc27349b5a9f2932ae792eacdd0ce6cfa178368f112de1c8aea','{"kind":"model","name":"default","parent":null,"occurrence":0,"request_id":"r5","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"allow","policies":["allow-models"],"reasons":["models are allowed"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"shadow":["forbid-pii would deny it"]},"reserved":{"scopes":["run:run-golden","team:legal:2026-09"],"nanos":300,"tokens":50,"calls":1,"us":12500000},"arguments_digest":"sha256:11d0a8967009cbcdf468f09e5b09e73e7119b528c35a0e0b23f2ae052786b8fa","arguments":{"n":5}}');
INSERT INTO "entries" VALUES('run-golden',15,'call.intent','a0fe1bd1209dc29922b02043587246f6',0,1790000014000000,'sha256:a76dd2a5b0596bc27349b5a9f2932ae792eacdd0ce6cfa178368f112de1c8aea','sha256:3db625b7243aca24be7a0ef7b16a2ca2b3099f5b13c79d7aca3e4c8c43f06d68','{"kind":"tool","name":"pay","parent":null,"occurrence":0,"request_id":"r6","effect":"read","cell":null,"case_id":null,"trace_key":"loose:0","decision":{"verdict":"ask","policies":["ask-legal"],"reasons":["money leaves"],"policy_digest":"sha256:00","production_verdict":null,"production_reasons":[],"approver":"legal","expires_s":3600.0},"reserved":null,"arguments_digest":"sha256:f22c048ddf0d380e09c214efb84227fd1de70d886749bead212cbfe3e4faa91f","arguments":{"usd":6}}');
INSERT INTO "entries" VALUES('run-golden',16,'call.ask','a0fe1bd1209dc29922b02043587246f6',0,1790000015000000,'sha256:3db625b7243aca24be7a0ef7b16a2ca2b3099f5b13c79d7aca3e4c8c43f06d68','sha256:90997cecfce430540c746f60f8979a89dc4c4af7238dc9b05bdd0123e5b18de3','{"id":"ask-fd2d7e72110ffb4d","digest":"sha256:73d2eb3a5f84d81e854fb021d7a484958691455c3f7cdba27e1ae3815d299e14","role":"legal","requested_by":"ana","expires_us":1790003615000000,"view":{"title":"Pay $6"}}');
INSERT INTO "entries" VALUES('run-golden',17,'run.updated',NULL,NULL,1790000016000000,'sha256:90997cecfce430540c746f60f8979a89dc4c4af7238dc9b05bdd0123e5b18de3','sha256:d4cd812ca675b48009c75addadb7439e4cfcd7ffa978d48ba49b779bd8ef47f3','{"state":"killed","cause":"signal","ended_us":1790000016000000}');
INSERT INTO "entries" VALUES('run-golden',18,'call.answered','a0fe1bd1209dc29922b02043587246f6',0,1790000016000000,'sha256:d4cd812ca675b48009c75addadb7439e4cfcd7ffa978d48ba49b779bd8ef47f3','sha256:a59311f8219586d9772af3c9d607430030cb68b9887fdd087a200137781228bd','{"id":"ask-fd2d7e72110ffb4d","state":"expired","by":null,"reason":"the run has ended"}');
INSERT INTO "entries" VALUES('run-golden',19,'call.released','fad302bc4e6637d634ebb11899cbef34',0,1790000016000000,'sha256:a59311f8219586d9772af3c9d607430030cb68b9887fdd087a200137781228bd','sha256:1d3e5835ad7a53d6c61a9c86208b07b10b57bd5c003d98b74c300b22e977c7ee','{"charged":{"nanos":200,"tokens":50,"calls":1,"us":12500000}}');
INSERT INTO "entries" VALUES('run-golden',20,'call.released','46afeb2c72cd7da14f3376a672d43883',0,1790000016000000,'sha256:1d3e5835ad7a53d6c61a9c86208b07b10b57bd5c003d98b74c300b22e977c7ee','sha256:95395c480630cdd2045a0d70b86921db3f2a85e1a8df9659e8a0d80449eff4a9','{"charged":{"nanos":300,"tokens":50,"calls":1,"us":12500000}}');
INSERT INTO "entries" VALUES('run-golden',21,'call.outcome','fad302bc4e6637d634ebb11899cbef34',0,1790000017000000,'sha256:95395c480630cdd2045a0d70b86921db3f2a85e1a8df9659e8a0d80449eff4a9','sha256:1107cb9c11ecdd5fe903b651ec5f8debccd9a328c4e9109ee0f80bb0156ffd17','{"state":"ok","error":null,"usage":{"input_tokens":3,"output_tokens":1,"cached_tokens":0},"cost_nanos":20,"provider":"openai","model":"small","attempts":[],"charged":{"nanos":20,"tokens":4,"calls":1,"us":5000000},"answer":{"text":"late"}}');
CREATE TABLE rate_calls (
	scope TEXT NOT NULL, 
	slot BIGINT NOT NULL, 
	at_us BIGINT NOT NULL, 
	CONSTRAINT rate_calls_pk PRIMARY KEY (scope, slot)
)
 WITHOUT ROWID

;
INSERT INTO "rate_calls" VALUES('user:ana',0,1790000002000000);
INSERT INTO "rate_calls" VALUES('user:ana',1,1790000004000000);
INSERT INTO "rate_calls" VALUES('user:ana',2,1790000012000000);
INSERT INTO "rate_calls" VALUES('user:ana',3,1790000013000000);
CREATE TABLE rates (
	scope TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	made BIGINT NOT NULL, 
	CONSTRAINT rates_pk PRIMARY KEY (scope)
)
 WITHOUT ROWID

;
INSERT INTO "rates" VALUES('user:ana',5,4);
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
INSERT INTO "runs" VALUES(1,'run-golden','run','production','ana','killed','signal',NULL,'legal','review',2,NULL,'{}','[]',NULL,NULL,NULL,NULL,'{}',1790000000000000,1790000001000000,1790000016000000,NULL,NULL);
CREATE TABLE stops (
	scope TEXT NOT NULL, 
	stopped_by TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	at_us BIGINT NOT NULL, 
	n BIGINT NOT NULL, 
	CONSTRAINT stops_pk PRIMARY KEY (scope)
)
 WITHOUT ROWID

;
INSERT INTO "stops" VALUES('team:sales','bo','too dear',1790000011000000,3);
CREATE TABLE traces (
	run_id TEXT NOT NULL, 
	base TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	CONSTRAINT traces_pk PRIMARY KEY (run_id, base)
)
 WITHOUT ROWID

;
INSERT INTO "traces" VALUES('run-golden','loose',6);
INSERT INTO "traces" VALUES('run-golden','loose:0',6);
CREATE INDEX runs_token_digest ON runs (token_digest);
CREATE INDEX runs_job ON runs (job, number);
CREATE INDEX calls_run ON calls (run_id, seq);
CREATE INDEX calls_unshipped ON calls (seq) WHERE shipped = 0 AND outcome_n IS NOT NULL;
CREATE INDEX approvals_state ON approvals (state, number);
COMMIT;
