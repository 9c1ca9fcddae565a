"""Format version 2: seconds and concurrency in budgets, rates, approvals, stops, agents of calls."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_BATCH = 500


def upgrade() -> None:
    """Add what version 2 has more; nothing of version 1 is rewritten but the agents of calls."""
    for name in ("limit_us", "limit_concurrent"):
        op.add_column("budgets", sa.Column(name, sa.BigInteger))
    for name in ("reserved_us", "spent_us"):
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
        op.add_column("budgets", column)
    op.add_column("calls", sa.Column("agent", sa.Text))
    op.add_column("calls", sa.Column("released_n", sa.BigInteger))
    _create_rates()
    _create_approvals()
    op.create_table(
        "stops",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("stopped_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="stops_pk"),
        sqlite_with_rowid=False,
    )
    _fill_agents()


def _create_rates() -> None:
    op.create_table(
        "rates",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="rates_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rate_calls",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("slot", sa.BigInteger, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "slot", name="rate_calls_pk"),
        sqlite_with_rowid=False,
    )


def _create_approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("approval_id", "run_id", "call_key")
        ),
        sa.Column("generation", sa.BigInteger, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("digest", "role", "requested_by", "view", "state")
        ),
        sa.Column("requested_us", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_us", sa.BigInteger),
        *(sa.Column(name, sa.Text) for name in ("reason", "arguments", "escalated_to")),
        sa.Column("ask_n", sa.BigInteger, nullable=False),
        sa.Column("answer_n", sa.BigInteger),
        sa.UniqueConstraint("approval_id", name="approvals_id"),
        sa.UniqueConstraint("run_id", "call_key", "generation", name="approvals_call"),
    )
    op.create_index("approvals_state", "approvals", ["state", "number"])


def _fill_agents() -> None:
    """Copy the agent from the bodies that name one; read here, as databases read JSON differently."""
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT run_id, n, body FROM entries"
            """ WHERE type = 'call.intent' AND body LIKE '%"agent":"%'"""
        )
    ).all()
    change = sa.text("UPDATE calls SET agent = :agent WHERE run_id = :run AND intent_n = :n")
    for start in range(0, len(found), _BATCH):
        rows = [
            {"run": row.run_id, "n": row.n, "agent": agent}
            for row in found[start : start + _BATCH]
            if isinstance(agent := json.loads(row.body).get("agent"), str)
        ]
        if rows:
            connection.execute(change, rows)
