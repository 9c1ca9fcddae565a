"""Format version 3: the next case of an evaluation is found without reading all of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index; no row is rewritten."""
    waits = sa.text("handed = 0 AND answer_n IS NULL")
    op.create_index(
        "cases_waiting",
        "cases",
        ["run_id", "position"],
        sqlite_where=waits,
        postgresql_where=waits,
    )
