"""Another attempt at a call in doubt: decided and paid for like a new one.

What the attempt before has used, nobody knows, so it is charged at the worst case that was held for
it, and the next attempt holds its own.  The entry says both (``lost``, ``reserved``), so that the
sums of budgets follow from the chain.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import Busy, CallDenied
from toolkit.ledger.abandoned import settle_call
from toolkit.ledger.budgets import held_of, reserve_budget
from toolkit.ledger.call_rows import (
    UPDATE_CALL,
    append_entry,
    check_running,
    exact_call,
    unfinished_row,
)
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import decision_json, json_text
from toolkit.ledger.rates import count_rates
from toolkit.ledger.records import Reservation
from toolkit.ledger.reservations import UNITS, reservation_json
from toolkit.ledger.switches import active_stop, stopped
from toolkit.ledger.transaction import Transaction
from toolkit.values import CallRecord, Decision

__all__ = ["Restart", "restart_call"]


@dataclass(frozen=True, slots=True)
class Restart:
    """What another attempt is made under.

    Attributes:
        switches: Scopes whose stop refuses it.
        attempt: How often it was restarted before, as the caller knows it; ``None``: not compared.
        decision: What policy says about it today.
        reserve: What it may use; ``None``: what is held stays held.
        spent: Whether the attempt before may have used what is held.  Where it may not (its body runs
            in a kernel), ``reserve`` counts only if the end of the run has settled the call.
    """

    switches: Sequence[str] = ()
    attempt: int | None = None
    decision: Decision | None = None
    reserve: Reservation | None = None
    spent: bool = True


def restart_call(tx: Transaction, call: CallRecord, again: Restart) -> CallRecord:
    """Record that a call in doubt is attempted again; see ``Ledger.restart``."""
    row = unfinished_row(tx, call, released=again.reserve is not None)
    _check_stops(tx, call, again)
    tags = json.loads(row.tags)
    before = int(tags.get("restarts", "0"))
    if again.attempt is not None and before != again.attempt:
        raise Busy(
            f"the call {call.call_id} was started again by somebody else",
            where=call.call_id,
            next_step="wait for its outcome",
        )
    tags["restarts"] = str(before + 1)
    body: dict[str, Any] = {"restarts": tags["restarts"]}
    columns: dict[str, Any] = {"tags": json_text(tags)}
    if again.decision is not None:
        body["decision"] = decision_json(again.decision)
    if again.reserve is not None and (again.spent or row.released_n is not None):
        body |= _paid(tx, call, row, again.reserve)
        held = body["reserved"]
        columns |= {"reserved": None if held is None else json_text(held), "released_n": None}
    append_entry(tx, call, EntryType.CALL_RESTARTED, body)
    tx.run(UPDATE_CALL, {"one": row.seq, **columns})
    return exact_call(tx, call)


def _check_stops(tx: Transaction, call: CallRecord, again: Restart) -> None:
    stop = active_stop(tx, again.switches)
    if stop is None:
        return
    decision = stopped(again.decision or call.decision, stop)
    raise CallDenied(
        f"the call is not repeated: {decision.reasons[0]}",
        where=call.call_id,
        next_step=f"wait until somebody starts {stop.scope} again",
        details={"policies": list(decision.policies), "reasons": list(decision.reasons)},
    )


def _paid(tx: Transaction, call: CallRecord, row: Any, reserve: Reservation) -> dict[str, Any]:
    """Charge the attempt before at its worst case, and hold what the next one may use."""
    found: dict[str, Any] = {"reserved": reservation_json(reserve)}
    check_running(tx, call.intent)
    held = held_of(row.reserved)
    if held is not None and row.released_n is None:  # else the end of the run has charged it
        found["lost"] = {unit: held[unit] for unit in UNITS}
        settle_call(tx, held, found["lost"], released=False)
    count_rates(tx, reserve)
    reserve_budget(tx, reserve)
    return found
