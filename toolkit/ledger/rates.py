"""Rate limits: at most N calls of a scope in any stretch of P seconds.

A sliding-window log, as described in Figma's "An alternative approach to rate limiting" (2017),
kept as a ring: call number ``k`` of a scope (from 0) writes its time to slot ``k mod N``, and is let
through if that slot is empty or holds a time ``t`` with ``t <= now - P``.  The slot holds the time
of call ``k - N``, so any N + 1 calls that follow each other take longer than P: there is no window
edge at which a limit could be used twice, as with fixed windows, and no burst on top of a steady
rate, as with token buckets (GCRA), which let through up to 2N - 1 calls in P.

The price is one small row per call of the limit, and two statements per rate.

**Clocks.**  Times are the clock's of whoever begins the call.  If it jumps back, recorded times lie
in the future.  A call that such a time refuses sets all of them to the present: the scope waits
P seconds at most, and lets nothing more through than its limit.  A clock that jumps forward
empties the window early, once per jump, which nobody can see from inside.

These tables are working memory, not evidence: ``verify`` does not read them, since the times of
all calls are in the chains.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from toolkit.errors import BudgetExceeded
from toolkit.ledger.records import Rate, Reservation
from toolkit.ledger.reservations import microseconds
from toolkit.ledger.schema import rate_calls, rates
from toolkit.ledger.transaction import INSERTS, Refusal, Transaction

__all__ = ["count_rates"]


def _count(insert: Any) -> Any:
    # Both columns appear in the answer as they are after the statement: `calls` is still the old.
    statement = insert(rates).values(
        scope=bindparam("scope"), calls=bindparam("calls"), made=bindparam("made")
    )
    return statement.on_conflict_do_update(
        index_elements=["scope"], set_={"made": rates.c.made + 1}
    ).returning(rates.c.calls, rates.c.made)


def _note(insert: Any) -> Any:
    statement = insert(rate_calls).values(
        scope=bindparam("scope"), slot=bindparam("slot"), at_us=bindparam("at_us")
    )
    return statement.on_conflict_do_update(
        index_elements=["scope", "slot"],
        set_={"at_us": statement.excluded.at_us},
        where=rate_calls.c.at_us <= bindparam("before"),
    ).returning(rate_calls.c.slot)


_COUNT = {name: _count(insert) for name, insert in INSERTS.items()}
_NOTE = {name: _note(insert) for name, insert in INSERTS.items()}
_AT = select(rate_calls.c.at_us).where(
    rate_calls.c.scope == bindparam("one"), rate_calls.c.slot == bindparam("place")
)
_ALL = select(rate_calls.c.slot, rate_calls.c.at_us).where(rate_calls.c.scope == bindparam("one"))
_CLEAR = delete(rate_calls).where(rate_calls.c.scope == bindparam("one"))
_FILL = rate_calls.insert()
_RESIZE = (
    update(rates)
    .where(rates.c.scope == bindparam("one"))
    .values(calls=bindparam("most"), made=bindparam("number"))
)
_TO_PRESENT = (
    update(rate_calls)
    .where(rate_calls.c.scope == bindparam("one"), rate_calls.c.at_us > bindparam("now"))
    .values(at_us=bindparam("now"))
)


def count_rates(tx: Transaction, reserve: Reservation) -> None:
    """Count a call against every rate, or against none.

    Raises:
        BudgetExceeded: A rate is used up; ``details["retry_after_s"]`` says for how long.  The
            caller rolls the transaction back.
        Refusal: The same, after the clock was found to have jumped back.
    """
    if not reserve.calls:
        return
    now = tx.clock.now_us()
    for rate in sorted(reserve.rates, key=lambda each: each.scope):
        _count_one(tx, rate, now)


def _count_one(tx: Transaction, rate: Rate, now: int) -> None:
    first = {"scope": rate.scope, "calls": rate.calls, "made": 1}
    row = tx.first(_COUNT[tx.dialect], **first)
    number = int(row.made)
    if row.calls != rate.calls:
        number = _resize(tx, rate, int(row.calls), number - 1) + 1
    period = microseconds(rate.per_s, "rate period")
    slot = (number - 1) % rate.calls
    note = {"scope": rate.scope, "slot": slot, "at_us": now, "before": now - period}
    if tx.first(_NOTE[tx.dialect], **note) is not None:
        return
    at = int(tx.first(_AT, one=rate.scope, place=slot).at_us)
    error = _exceeded(rate, (min(at, now) + period - now) / 1e6)
    if at > now:
        raise Refusal(error, partial(_to_present, rate.scope, now))
    raise error


def _to_present(scope: str, now: int, tx: Transaction) -> None:
    tx.run(_TO_PRESENT, {"one": scope, "now": now})


def _resize(tx: Transaction, rate: Rate, before: int, number: int) -> int:
    """Give the ring another size, with the newest times in it; return how many there are."""
    rows = tx.all(_ALL, one=rate.scope)
    # The next slot to be written is the oldest one.
    ordered = sorted(rows, key=lambda row: (row.slot - number) % before)
    kept = [int(row.at_us) for row in ordered][-rate.calls :]
    tx.run(_CLEAR, {"one": rate.scope})
    if kept:
        tx.run(_FILL, [{"scope": rate.scope, "slot": i, "at_us": at} for i, at in enumerate(kept)])
    tx.run(_RESIZE, {"one": rate.scope, "most": rate.calls, "number": len(kept) + 1})
    return len(kept)


def _exceeded(rate: Rate, wait_s: float) -> BudgetExceeded:
    return BudgetExceeded(
        f"{rate.scope} has made {rate.calls} calls in the last {rate.per_s:g} s, its most; "
        f"the next one fits in {wait_s:.3g} s",
        where=rate.scope,
        next_step="wait that long and repeat the call, or raise the rate in policy.yaml",
        details={
            "scope": rate.scope,
            "unit": "rate",
            "left": "0",
            "needed": "1",
            "limit": str(rate.calls),
            "per_s": rate.per_s,
            "retry_after_s": wait_s,
        },
    )
