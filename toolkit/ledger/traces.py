"""Which trace of its run a call is drawn in.

MLflow's page stays quick up to some hundred spans, so a trace holds at most 200 calls.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select

from toolkit.ledger.schema import calls, traces
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import CallKind, Intent

__all__ = ["LOOSE_CALLS", "TRACE_CALLS", "assign_trace"]

LOOSE_CALLS = 100
"""Top-level calls outside of an agent that share one trace."""
TRACE_CALLS = 200
"""Calls in one trace before a continuation begins."""

_BUMP = {
    name: insert(traces)
    .values(run_id=bindparam("run_id"), base=bindparam("base"), calls=1)
    .on_conflict_do_update(index_elements=["run_id", "base"], set_={"calls": traces.c.calls + 1})
    .returning(traces.c.calls)
    for name, insert in INSERTS.items()
}
_PARENT = (
    select(calls.c.trace_key)
    .where(calls.c.run_id == bindparam("run"), calls.c.call_key == bindparam("key"))
    .order_by(calls.c.generation.desc())
    .limit(1)
)


def assign_trace(tx: Transaction, intent: Intent, key: str, generation: int) -> str:
    """Return the trace of a call that is about to be recorded.

    A child follows its parent, a top-level agent call starts a trace, other top-level calls share
    ``loose:0``, ``loose:1`` …; calls beyond the 200th go to ``…#2``, ``…#3`` …
    """
    base = _base(tx, intent, key, generation)
    part = (_bump(tx, intent.run_id, base) - 1) // TRACE_CALLS
    return base if part == 0 else f"{base}#{part + 1}"


def _base(tx: Transaction, intent: Intent, key: str, generation: int) -> str:
    if intent.parent is not None:
        parent = tx.first(_PARENT, run=intent.run_id, key=intent.parent)
        if parent is not None:
            return str(parent.trace_key).partition("#")[0]
    elif intent.kind is CallKind.AGENT:
        return f"{key}:{generation}"
    return f"loose:{(_bump(tx, intent.run_id, 'loose') - 1) // LOOSE_CALLS}"


def _bump(tx: Transaction, run_id: str, base: str) -> int:
    return int(tx.first(_BUMP[tx.dialect], run_id=run_id, base=base).calls)
