"""Runs that a run started: their ids follow from its calls, so no index is needed to find them."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from toolkit.ledger.codec import run_from
from toolkit.ledger.schema import calls, runs
from toolkit.values import CallKind, RunRecord, child_run_id

__all__ = ["children_of"]

_AT_ONCE = 500
_JOBS = (
    select(calls.c.call_key, calls.c.generation)
    .where(calls.c.run_id == bindparam("run"), calls.c.kind == CallKind.JOB.value)
    .order_by(calls.c.seq)
)


def children_of(connection: Connection, run_id: str) -> list[RunRecord]:
    """Return the runs that a run started, in the order in which it asked for them."""
    asked = connection.execute(_JOBS, {"run": run_id})
    ids = [child_run_id(f"{run_id}/{row.call_key}/{row.generation}") for row in asked]
    found: dict[str, RunRecord] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = select(runs).where(runs.c.run_id.in_(ids[start : start + _AT_ONCE]))
        found |= {row.run_id: run_from(row) for row in connection.execute(part)}
    return [found[one] for one in ids if one in found]
