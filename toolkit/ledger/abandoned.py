"""What a run leaves behind when it ends: calls without an outcome, and requests to people.

Such a call may have cost its worst case, so that is what it is charged; the budgets of users, teams
and periods, which outlive the run, get back no money but their places for calls at once.  The call
itself stays in doubt.  If its outcome is recorded later, the true cost takes the place of the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from toolkit.errors import Busy
from toolkit.ledger.approvals import expire_approval, waiting_in_run
from toolkit.ledger.budgets import Amounts, held_of, settle_budgets
from toolkit.ledger.chain import EntryType
from toolkit.ledger.reservations import UNITS
from toolkit.ledger.schema import calls, runs
from toolkit.ledger.transaction import Transaction
from toolkit.values import Cause, RunState, resumable

__all__ = ["abandoned_runs", "release_run", "settle_call"]

_ENDED = "the run has ended"
_LEFT = (calls.c.outcome_n.is_(None), calls.c.reserved.is_not(None), calls.c.released_n.is_(None))
_HELD = (
    select(calls.c.seq, calls.c.call_key, calls.c.generation, calls.c.reserved)
    .where(calls.c.run_id == bindparam("run"), *_LEFT)
    .order_by(calls.c.seq)
)
_ENDING = select(runs.c.state, runs.c.cause).where(runs.c.run_id == bindparam("run"))
_UPDATE = update(calls).where(calls.c.seq == bindparam("one"))


def release_run(tx: Transaction, run_id: str) -> int:
    """Settle what an ended run still holds; see ``Ledger.release_abandoned``."""
    if not tx.has_ended(run_id):
        raise Busy(
            f"the run {run_id} has not ended and may still finish its calls",
            where=run_id,
            next_step="end the run first",
        )
    if not _may_go_on(tx, run_id):  # else whoever is asked has time until the request's own end
        for approval_id in waiting_in_run(tx, run_id):
            expire_approval(tx, approval_id, _ENDED)
    changes: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    rows = tx.all(_HELD, run=run_id)
    now = tx.clock.now_us()
    for row in rows:
        held = held_of(row.reserved) or {}
        charged = {unit: held[unit] for unit in UNITS}
        entry = {"key": row.call_key, "generation": row.generation}
        body = {"charged": charged}
        n = tx.append(run_id, EntryType.CALL_RELEASED, body, at_us=now, **entry)
        tx.run(_UPDATE, {"one": row.seq, "released_n": n})
        for scope in held["scopes"]:
            freed, spent = changes.setdefault(
                scope, (dict.fromkeys(UNITS, 0), dict.fromkeys(UNITS, 0))
            )
            for unit in UNITS:
                freed[unit] -= charged[unit]
                spent[unit] += charged[unit]
    settle_budgets(tx, changes)
    return len(rows)


def _may_go_on(tx: Transaction, run_id: str) -> bool:
    row = tx.first(_ENDING, run=run_id)
    return resumable(RunState(row.state), None if row.cause is None else Cause(row.cause))


def settle_call(
    tx: Transaction, held: Mapping[str, Any], charged: Amounts, *, released: bool
) -> None:
    """Turn what a call held into what it is charged, in every scope.

    Args:
        tx: The transaction.
        held: What was reserved.
        charged: What it cost.
        released: Whether the worst case was charged before, when its run ended.
    """
    freed = {unit: 0 if released else -held[unit] for unit in UNITS}
    spent = {unit: charged[unit] - (held[unit] if released else 0) for unit in UNITS}
    settle_budgets(tx, dict.fromkeys(held["scopes"], (freed, spent)))


def abandoned_runs(connection: Connection) -> list[str]:
    """Return runs that have ended and still hold something; reads every call of the ledger."""
    ended = [state.value for state in RunState if state.terminal]
    statement = (
        select(runs.c.run_id)
        .join(calls, calls.c.run_id == runs.c.run_id)
        .where(runs.c.state.in_(ended), *_LEFT)
        .distinct()
        .order_by(runs.c.run_id)
    )
    return list(connection.execute(statement).scalars())
