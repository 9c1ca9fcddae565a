"""Format version 1: runs, entries, calls, traces, budgets, cases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text) for name in names]


def _needed(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _numbers(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]


def upgrade() -> None:
    """Create every table of version 1."""
    _create_runs()
    _create_entries()
    _create_calls()
    op.create_table(
        "traces",
        *_needed("run_id", "base"),
        *_numbers("calls"),
        sa.PrimaryKeyConstraint("run_id", "base", name="traces_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budgets",
        *_needed("scope"),
        *_numbers("limit_nanos", "limit_tokens", "limit_calls", nullable=True),
        *_numbers("reserved_nanos", "reserved_tokens", "reserved_calls"),
        *_numbers("spent_nanos", "spent_tokens", "spent_calls"),
        sa.PrimaryKeyConstraint("scope", name="budgets_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cases",
        *_needed("run_id", "case_id"),
        *_numbers("position"),
        *_needed("inputs"),
        sa.Column("handed", sa.Integer, nullable=False),
        *_numbers("answer_n", nullable=True),
        sa.PrimaryKeyConstraint("run_id", "case_id", name="cases_pk"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        *_needed("run_id", "kind", "environment", "user_name", "state"),
        *_texts("cause", "message", "team", "job"),
        *_numbers("version", nullable=True),
        *_texts("notebook"),
        *_needed("parameters", "results_expected"),
        *_texts("source_run_id", "parent_run_id", "policy_digest", "token_digest"),
        *_needed("tags"),
        *_numbers("created_us"),
        *_numbers("started_us", "ended_us", nullable=True),
        *_texts("mlflow_run_id", "runner"),
        sa.UniqueConstraint("run_id", name="runs_run_id"),
    )
    op.create_index("runs_token_digest", "runs", ["token_digest"])
    op.create_index("runs_job", "runs", ["job", "number"])


def _create_entries() -> None:
    op.create_table(
        "entries",
        *_needed("run_id"),
        *_numbers("n"),
        *_needed("type"),
        *_texts("call_key"),
        *_numbers("generation", nullable=True),
        *_numbers("at_us"),
        *_needed("prev", "hash", "body"),
        sa.PrimaryKeyConstraint("run_id", "n", name="entries_pk"),
    )


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
        *_needed("run_id", "call_key"),
        *_numbers("generation"),
        *_texts("request_id"),
        *_needed("kind", "name"),
        *_texts("parent"),
        *_needed("effect"),
        *_texts("case_id"),
        *_needed("trace_key", "verdict", "decision"),
        *_texts("reserved"),
        *_numbers("intent_n", "started_us"),
        *_needed("state"),
        *_numbers(
            *("outcome_n", "ended_us", "cost_nanos"),
            *("input_tokens", "output_tokens", "cached_tokens"),
            nullable=True,
        ),
        *_texts("provider", "model"),
        *_needed("tags"),
        sa.Column("shipped", sa.Integer, nullable=False),
        sa.UniqueConstraint("run_id", "call_key", "generation", name="calls_key"),
        sa.UniqueConstraint("run_id", "request_id", name="calls_request"),
    )
    op.create_index("calls_run", "calls", ["run_id", "seq"])
    waiting = sa.text("shipped = 0 AND outcome_n IS NOT NULL")
    op.create_index(
        "calls_unshipped", "calls", ["seq"], sqlite_where=waiting, postgresql_where=waiting
    )
