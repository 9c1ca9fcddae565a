"""Format version 5: what a run's cells show, for people on machines without its folder."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table; no row is rewritten.  Of a run that ended before, nothing is told."""
    op.create_table(
        "told",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("cells", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="told_pk"),
    )
