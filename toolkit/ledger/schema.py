"""The tables of the newest format version; ``migrations/versions`` builds them.

Integers hold microseconds, nano-dollars, tokens and flags; text holds everything else, JSON
included, so both databases keep the very bytes that were hashed.  On SQLite each page that a
commit touches is written and later copied, so small tables are kept in their key (no rowid) and
rows, which are never deleted, are numbered without SQLite's own counter table.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "CASE_WAITS",
    "HEAD_VERSION",
    "approvals",
    "budgets",
    "calls",
    "cases",
    "entries",
    "leases",
    "metadata",
    "rate_calls",
    "rates",
    "runs",
    "stops",
    "told",
    "traces",
]

HEAD_VERSION = "0005"
"""The migration that makes exactly these tables."""

metadata = MetaData()

# SQLite numbers rows itself only for a column that is declared INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("cause", Text),
    Column("message", Text),
    Column("team", Text),
    Column("job", Text),
    Column("version", BigInteger),
    Column("notebook", Text),
    Column("parameters", Text, nullable=False),
    Column("results_expected", Text, nullable=False),
    Column("source_run_id", Text),
    Column("parent_run_id", Text),
    Column("policy_digest", Text),
    Column("token_digest", Text),
    Column("tags", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("mlflow_run_id", Text),
    Column("runner", Text),
    UniqueConstraint("run_id", name="runs_run_id"),
)
Index("runs_token_digest", runs.c.token_digest)
Index("runs_job", runs.c.job, runs.c.number)

# Kept beside the runs: renewing one every few seconds must not rewrite a run's row.
leases = Table(
    "leases",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("runner", Text, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", name="leases_pk"),
    sqlite_with_rowid=False,
)

told = Table(
    "told",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("cells", Text, nullable=False),
    PrimaryKeyConstraint("run_id", name="told_pk"),
)

entries = Table(
    "entries",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("call_key", Text),
    Column("generation", BigInteger),
    Column("at_us", BigInteger, nullable=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
    # Last, so that reading the links of a chain need not walk over large bodies.
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "n", name="entries_pk"),
)

calls = Table(
    "calls",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("call_key", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("request_id", Text),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("parent", Text),
    Column("effect", Text, nullable=False),
    Column("case_id", Text),
    Column("trace_key", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reserved", Text),
    Column("intent_n", BigInteger, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome_n", BigInteger),
    Column("ended_us", BigInteger),
    Column("cost_nanos", BigInteger),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("provider", Text),
    Column("model", Text),
    Column("tags", Text, nullable=False),
    Column("shipped", Integer, nullable=False),
    Column("agent", Text),
    # The entry that settled what the call held, when its run ended without an outcome of it.
    Column("released_n", BigInteger),
    UniqueConstraint("run_id", "call_key", "generation", name="calls_key"),
    UniqueConstraint("run_id", "request_id", name="calls_request"),
)
Index("calls_run", calls.c.run_id, calls.c.seq)
_WAITING = text("shipped = 0 AND outcome_n IS NOT NULL")
Index("calls_unshipped", calls.c.seq, sqlite_where=_WAITING, postgresql_where=_WAITING)

traces = Table(
    "traces",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("calls", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "base", name="traces_pk"),
    sqlite_with_rowid=False,
)

budgets = Table(
    "budgets",
    metadata,
    Column("scope", Text, nullable=False),
    Column("limit_nanos", BigInteger),
    Column("limit_tokens", BigInteger),
    Column("limit_calls", BigInteger),
    Column("reserved_nanos", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("reserved_calls", BigInteger, nullable=False),
    Column("spent_nanos", BigInteger, nullable=False),
    Column("spent_tokens", BigInteger, nullable=False),
    Column("spent_calls", BigInteger, nullable=False),
    Column("limit_us", BigInteger),
    Column("limit_concurrent", BigInteger),
    Column("reserved_us", BigInteger, nullable=False, server_default=text("0")),
    Column("spent_us", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("scope", name="budgets_pk"),
    sqlite_with_rowid=False,
)

rates = Table(
    "rates",
    metadata,
    Column("scope", Text, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("made", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", name="rates_pk"),
    sqlite_with_rowid=False,
)

rate_calls = Table(
    "rate_calls",
    metadata,
    Column("scope", Text, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "slot", name="rate_calls_pk"),
    sqlite_with_rowid=False,
)

approvals = Table(
    "approvals",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("approval_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("call_key", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("view", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("decided_by", Text),
    Column("decided_us", BigInteger),
    Column("reason", Text),
    Column("arguments", Text),
    Column("escalated_to", Text),
    Column("ask_n", BigInteger, nullable=False),
    Column("answer_n", BigInteger),
    UniqueConstraint("approval_id", name="approvals_id"),
    UniqueConstraint("run_id", "call_key", "generation", name="approvals_call"),
)
Index("approvals_state", approvals.c.state, approvals.c.number)

stops = Table(
    "stops",
    metadata,
    Column("scope", Text, nullable=False),
    Column("stopped_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", name="stops_pk"),
    sqlite_with_rowid=False,
)

cases = Table(
    "cases",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("handed", Integer, nullable=False),
    Column("answer_n", BigInteger),
    PrimaryKeyConstraint("run_id", "case_id", name="cases_pk"),
)
CASE_WAITS = text("handed = 0 AND answer_n IS NULL")
Index(
    "cases_waiting",
    cases.c.run_id,
    cases.c.position,
    sqlite_where=CASE_WAITS,
    postgresql_where=CASE_WAITS,
)
