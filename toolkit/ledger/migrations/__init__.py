"""Alembic migrations of the ledger, run by ``Ledger.open``; numbered, never edited once released."""
