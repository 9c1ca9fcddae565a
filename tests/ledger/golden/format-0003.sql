BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
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
CREATE TABLE cases (
	run_id TEXT NOT NULL, 
	case_id TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	inputs TEXT NOT NULL, 
	handed INTEGER NOT NULL, 
	answer_n BIGINT, 
	CONSTRAINT cases_pk PRIMARY KEY (run_id, case_id)
);
INSERT INTO "cases" VALUES('eval-golden','b',0,'{"text":"hä"}',1,4);
INSERT INTO "cases" VALUES('eval-golden','a',1,'{"text":"two"}',1,NULL);
INSERT INTO "cases" VALUES('eval-golden','d',2,'{"text":"three"}',0,NULL);
INSERT INTO "cases" VALUES('eval-golden','c',3,'{"text":"four"}',0,NULL);
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
INSERT INTO "entries" VALUES('eval-golden',1,'run.created',NULL,NULL,1790000000000000,'','sha256:c78c371b8144b9abd9fc355ba92d96a523ff42f6cdf8663cb6fbd8f8da811e94','{"run_id":"eval-golden","kind":"evaluation","environment":"production","user":"ana","state":"queued","cause":null,"message":null,"team":"legal","job":"review","version":3,"notebook":null,"parameters":{},"results_expected":[],"source_run_id":null,"parent_run_id":null,"policy_digest":null,"token_digest":null,"tags":{},"created_us":1790000000000000,"started_us":null,"ended_us":null,"mlflow_run_id":null,"runner":null}');
INSERT INTO "entries" VALUES('eval-golden',2,'run.updated',NULL,NULL,1790000001000000,'sha256:c78c371b8144b9abd9fc355ba92d96a523ff42f6cdf8663cb6fbd8f8da811e94','sha256:6dd9324adb091780b11ddd43bde193b5cb89620b7537ad49380707735ea9c02f','{"state":"running","started_us":1790000001000000}');
INSERT INTO "entries" VALUES('eval-golden',3,'cases.put',NULL,NULL,1790000002000000,'sha256:6dd9324adb091780b11ddd43bde193b5cb89620b7537ad49380707735ea9c02f','sha256:d9f07d8a29d13873786927166bb12b67ea348da58c05ef84d73ae17600d216e4','{"cases":{"b":"sha256:ccb7642e8af7b087648bbe4420bd43d9285ac80ca80d6643145a9975f860d7da","a":"sha256:d039f9902822fcdcc6f5c05a7b694296f03ff409e2c30aa401d8eb2f2f55db5f","d":"sha256:7289ef177599601c39f837023523f4df16ac9af986199b25fd5bd2575ef5ae6f","c":"sha256:a0eb3007dc31ca4715d1c783f7950bd31bdc574b74d093a3ae4b8ad8b705378f"}}');
INSERT INTO "entries" VALUES('eval-golden',4,'case.answered',NULL,NULL,1790000003000000,'sha256:d9f07d8a29d13873786927166bb12b67ea348da58c05ef84d73ae17600d216e4','sha256:cfcc899f9db35661c6b3e68bbf6d0b99da7a4ad97912ded7ef2616235d22168d','{"case_id":"b","output":{"licence":"MIT"},"error":null}');
CREATE TABLE rate_calls (
	scope TEXT NOT NULL, 
	slot BIGINT NOT NULL, 
	at_us BIGINT NOT NULL, 
	CONSTRAINT rate_calls_pk PRIMARY KEY (scope, slot)
)
 WITHOUT ROWID

;
CREATE TABLE rates (
	scope TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	made BIGINT NOT NULL, 
	CONSTRAINT rates_pk PRIMARY KEY (scope)
)
 WITHOUT ROWID

;
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
INSERT INTO "runs" VALUES(1,'eval-golden','evaluation','production','ana','running',NULL,NULL,'legal','review',3,NULL,'{}','[]',NULL,NULL,NULL,NULL,'{}',1790000000000000,1790000001000000,NULL,NULL,NULL);
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
CREATE TABLE traces (
	run_id TEXT NOT NULL, 
	base TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	CONSTRAINT traces_pk PRIMARY KEY (run_id, base)
)
 WITHOUT ROWID

;
CREATE INDEX runs_token_digest ON runs (token_digest);
CREATE INDEX runs_job ON runs (job, number);
CREATE INDEX calls_run ON calls (run_id, seq);
CREATE INDEX calls_unshipped ON calls (seq) WHERE shipped = 0 AND outcome_n IS NOT NULL;
CREATE INDEX approvals_state ON approvals (state, number);
CREATE INDEX cases_waiting ON cases (run_id, position) WHERE handed = 0 AND answer_n IS NULL;
COMMIT;
