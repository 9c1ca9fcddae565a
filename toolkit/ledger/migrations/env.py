"""Alembic's entry: migrate on the connection that ``Ledger.open`` hands over.

The caller holds the transaction and the lock, so nothing is begun or committed here.
"""

from __future__ import annotations

from alembic import context

from toolkit.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place; later migrations copy the table.
    render_as_batch=True,
)
context.run_migrations()
