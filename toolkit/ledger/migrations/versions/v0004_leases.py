"""Format version 4: runners of runs hold leases, so that other machines see whether they are gone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table; no row is rewritten.  A run that runs meanwhile has no lease, as before."""
    op.create_table(
        "leases",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("runner", sa.Text, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="leases_pk"),
        sqlite_with_rowid=False,
    )
