BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
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
INSERT INTO "entries" VALUES('run-golden',1,'run.created',NULL,NULL,1790000000000000,'','sha256:4ed8f5ce8fb9ae4a828a73089bb66ba267aea9864dbdfc7de17e8f6d97cf62db','{"run_id":"run-golden","kind":"run","environment":"production","user":"ana","state":"running","cause":null,"message":null,"team":null,"job":null,"version":null,"notebook":null,"parameters":{},"results_expected":[],"source_run_id":null,"parent_run_id":null,"policy_digest":null,"token_digest":"sha256:aa","tags":{},"created_us":1790000000000000,"started_us":null,"ended_us":null,"mlflow_run_id":null,"runner":"machine-a:7:123@0011223344556677.4026531836"}');
CREATE TABLE leases (
	run_id TEXT NOT NULL, 
	runner TEXT NOT NULL, 
	until_us BIGINT NOT NULL, 
	CONSTRAINT leases_pk PRIMARY KEY (run_id)
)
 WITHOUT ROWID

;
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
INSERT INTO "runs" VALUES(1,'run-golden','run','production','ana','running',NULL,NULL,NULL,NULL,NULL,NULL,'{}','[]',NULL,NULL,NULL,'sha256:aa','{}',1790000000000000,NULL,NULL,NULL,'machine-a:7:123@0011223344556677.4026531836');
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
CREATE TABLE told (
	run_id TEXT NOT NULL, 
	at_us BIGINT NOT NULL, 
	cells TEXT NOT NULL, 
	CONSTRAINT told_pk PRIMARY KEY (run_id)
);
INSERT INTO "told" VALUES('run-golden',1790000000000000,'[{"label":"cell 1","status":"running","text":"\u001b[1m55 licences\u001b[0m\n…","seconds":null,"code":true,"cut":12}]');
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
