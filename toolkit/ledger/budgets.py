"""Budgets that cannot be overshot: reserve the worst case, settle what it was.

``reserved + spent <= limit`` holds for every scope at every commit, as long as no call costs more
than the worst case that was reserved for it.  If a provider does bill more, the true amount is
recorded and the scope refuses what follows.

All scopes of a call are written by one statement, in the order of their names: two gateways on
PostgreSQL lock the rows in the same order, and SQLite pays for one statement instead of two each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Insert, and_, bindparam, or_, select
from sqlalchemy.sql import ColumnElement

from toolkit.errors import BudgetExceeded
from toolkit.ledger.records import Budget, Limit, Reservation
from toolkit.ledger.reservations import UNITS, microseconds
from toolkit.ledger.schema import budgets
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import CallState, Money, Outcome

__all__ = ["Amounts", "budget_from", "charge", "held_of", "reserve_budget", "settle_budgets"]

Amounts = Mapping[str, int]
"""How much of each of :data:`~toolkit.ledger.reservations.UNITS`."""

_TOGETHER = 8  # scopes in one statement; more are written in several
_LIMITS = tuple(f"limit_{unit}" for unit in (*UNITS, "concurrent"))
_COUNTS = tuple(f"{part}_{unit}" for part in ("reserved", "spent") for unit in UNITS)
_COLUMNS = ("scope", *_LIMITS, *_COUNTS)
_NO_LIMITS = dict.fromkeys(_LIMITS)
_NOTHING = dict.fromkeys(UNITS, 0)
_SELECT = select(budgets).where(budgets.c.scope == bindparam("one"))


def _rows(dialect: str, count: int) -> Any:
    """Return an insert of so many rows; the values of row ``i`` are named ``<column>_<i>``."""
    rows: list[dict[str, Any]] = [
        {name: bindparam(f"{name}_{i}") for name in _COLUMNS} for i in range(count)
    ]
    return INSERTS[dialect](budgets).values(rows)


def _fits(given: Any) -> ColumnElement[bool]:
    # Comparing with a difference: the sum could leave 64 bits.
    parts = [
        or_(
            given[f"limit_{unit}"].is_(None),
            budgets.c[f"reserved_{unit}"] + budgets.c[f"spent_{unit}"]
            <= given[f"limit_{unit}"] - given[f"reserved_{unit}"],
        )
        for unit in UNITS
    ]
    at_once = or_(
        given.limit_concurrent.is_(None),
        budgets.c.reserved_calls <= given.limit_concurrent - given.reserved_calls,
    )
    return and_(*parts, at_once)


@cache
def _reserve(dialect: str, count: int) -> Insert:
    statement = _rows(dialect, count)
    given = statement.excluded
    changes = {name: given[name] for name in _LIMITS}
    changes |= {f"reserved_{u}": budgets.c[f"reserved_{u}"] + given[f"reserved_{u}"] for u in UNITS}
    made: Insert = statement.on_conflict_do_update(
        index_elements=["scope"], set_=changes, where=_fits(given)
    )
    return made.returning(budgets.c.scope)


@cache
def _settle(dialect: str, count: int) -> Insert:
    # The rows are there since the reservation.  An insert takes them in the given order, which
    # an update of several rows does not promise.
    statement = _rows(dialect, count)
    changes = {name: budgets.c[name] + statement.excluded[name] for name in _COUNTS}
    return statement.on_conflict_do_update(index_elements=["scope"], set_=changes)  # type: ignore[no-any-return]


def reserve_budget(tx: Transaction, reserve: Reservation) -> None:
    """Hold the worst case in every scope, or in none.

    Raises:
        BudgetExceeded: A scope does not cover it; the caller rolls the transaction back.
    """
    wanted = {
        "nanos": reserve.cost.nanos if reserve.cost else 0,
        "tokens": reserve.tokens,
        "calls": reserve.calls,
        "us": microseconds(reserve.seconds, "reserved seconds"),
    }
    held = {f"reserved_{unit}": amount for unit, amount in wanted.items()}
    unspent = {f"spent_{unit}": 0 for unit in UNITS}
    ordered = sorted(reserve.limits, key=lambda each: each.scope)
    for limit in ordered:
        if limit.usd is not None and reserve.cost is None:
            raise _unknown_price(limit)
    rows = [{"scope": each.scope, **_limits(each), **held, **unspent} for each in ordered]
    for start in range(0, len(rows), _TOGETHER):
        part, limits = rows[start : start + _TOGETHER], ordered[start : start + _TOGETHER]
        done = {row.scope for row in tx.all(_reserve(tx.dialect, len(part)), **_named(part))}
        for limit, row in zip(limits, part, strict=True):
            # A scope's first call meets no row that it could be too much for.
            if limit.scope not in done or _too_much(row, _NOTHING, wanted):
                used = tx.first(_SELECT, one=limit.scope) if limit.scope not in done else None
                raise _exceeded(limit, row, _used(used), wanted)


def settle_budgets(tx: Transaction, changes: Mapping[str, tuple[Amounts, Amounts]]) -> None:
    """Add to what scopes hold and to what they have spent; amounts may be negative."""
    rows = [
        {
            "scope": scope,
            **_NO_LIMITS,
            **{f"reserved_{unit}": held[unit] for unit in UNITS},
            **{f"spent_{unit}": spent[unit] for unit in UNITS},
        }
        for scope, (held, spent) in sorted(changes.items())
    ]
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER]
        tx.run(_settle(tx.dialect, len(part)), _named(part))


def charge(held: Mapping[str, Any] | None, outcome: Outcome, latency_us: int) -> Amounts | None:
    """Return what a finished call is charged.

    What is unknown is charged at the worst case; a call that was denied, is charged nothing; one
    that failed and is known to have cost nothing, no tokens.  Time is what the outcome says, else
    ``latency_us``.
    """
    if held is None:
        return None
    if outcome.state is CallState.DENIED:
        return dict(_NOTHING)
    free_failure = outcome.state is CallState.ERROR and outcome.cost == Money(0)
    tokens = outcome.usage.total_tokens if outcome.usage else held["tokens"] * (not free_failure)
    nanos = held["nanos"] or 0 if outcome.cost is None else outcome.cost.nanos
    seconds = outcome.seconds
    us = latency_us if seconds is None else microseconds(seconds, "seconds of the outcome")
    return {"nanos": nanos, "tokens": tokens, "calls": held["calls"], "us": us}


def held_of(text: str | None) -> dict[str, Any] | None:
    """Return what a call holds, from its column ``reserved``; every unit is there, as a number."""
    if text is None:
        return None
    held: dict[str, Any] = json.loads(text)
    return {"scopes": held["scopes"], **{unit: held.get(unit) or 0 for unit in UNITS}}


def budget_from(row: Any) -> Budget:
    """Build a budget from its row."""
    return Budget(
        limit=Limit(
            row.scope,
            None if row.limit_nanos is None else Money(row.limit_nanos),
            row.limit_tokens,
            row.limit_calls,
            None if row.limit_us is None else row.limit_us / 1e6,
            row.limit_concurrent,
        ),
        reserved=Money(row.reserved_nanos),
        reserved_tokens=row.reserved_tokens,
        reserved_calls=row.reserved_calls,
        spent=Money(row.spent_nanos),
        spent_tokens=row.spent_tokens,
        spent_calls=row.spent_calls,
        reserved_seconds=row.reserved_us / 1e6,
        spent_seconds=row.spent_us / 1e6,
    )


def _named(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [row[name] for row in rows for name in _COLUMNS]
    return dict(zip(_names(len(rows)), values, strict=True))


@cache
def _names(count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(count) for name in _COLUMNS)


def _limits(limit: Limit) -> dict[str, int | None]:
    return {
        "limit_nanos": None if limit.usd is None else limit.usd.nanos,
        "limit_tokens": limit.tokens,
        "limit_calls": limit.calls,
        "limit_us": None
        if limit.seconds is None
        else microseconds(limit.seconds, "limit of seconds"),
        "limit_concurrent": limit.concurrent,
    }


def _used(row: Any) -> dict[str, int]:
    if row is None:
        return {**_NOTHING, "concurrent": 0}
    used = {u: getattr(row, f"reserved_{u}") + getattr(row, f"spent_{u}") for u in UNITS}
    return {**used, "concurrent": row.reserved_calls}


def _too_much(limits: Mapping[str, Any], used: Amounts, wanted: Amounts) -> str | None:
    """Return the first unit in which a call does not fit."""
    for unit in (*UNITS, "concurrent"):
        limit = limits[f"limit_{unit}"]
        needed = wanted["calls" if unit == "concurrent" else unit]
        if limit is not None and used.get(unit, 0) > limit - needed:
            return unit
    return None


def _unknown_price(limit: Limit) -> BudgetExceeded:
    return BudgetExceeded(
        f"the price of the call is unknown and {limit.scope} has a budget of {limit.usd}",
        where=limit.scope,
        next_step="use a model with a known price, or remove the limit in dollars",
        details={"scope": limit.scope, "unit": "usd", "needed": None},
    )


_SHOWN: dict[str, tuple[str, Callable[[int], object]]] = {
    "nanos": ("usd", Money),
    "tokens": ("tokens", int),
    "calls": ("calls", int),
    "us": ("seconds", lambda us: f"{us / 1e6:g}"),
    "concurrent": ("concurrent", int),
}


def _exceeded(
    limit: Limit, limits: Mapping[str, Any], used: Amounts, wanted: Amounts
) -> BudgetExceeded:
    unit = _too_much(limits, used, wanted) or "calls"
    name, shown = _SHOWN[unit]
    most = limits[f"limit_{unit}"]
    left = str(shown(most - used[unit]))
    needed = str(shown(wanted["calls" if unit == "concurrent" else unit]))
    message = (
        f"the budget of {limit.scope} has {left} of {shown(most)} {name} left, "
        f"and the call may need {needed}"
    )
    step = "raise the budget in policy.yaml, ask for less, or start another run"
    if unit == "concurrent":
        message = f"{limit.scope} has {used[unit]} calls under way, and may have {most} at once"
        step = "wait until one of them has ended, or raise the limit in policy.yaml"
    return BudgetExceeded(
        message,
        where=limit.scope,
        next_step=step,
        details={
            "scope": limit.scope,
            "unit": name,
            "left": left,
            "needed": needed,
            "limit": str(shown(most)),
        },
    )
