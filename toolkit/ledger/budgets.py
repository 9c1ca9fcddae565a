"""Budgets that cannot be overshot: reserve the worst case, settle what it was.

``reserved + spent <= limit`` holds for every scope at every commit, as long as no call costs more
than the worst case that was reserved for it.  If a provider does bill more, the true amount is
recorded and the scope refuses what follows.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import and_, bindparam, or_, select, update
from sqlalchemy.sql import ColumnElement

from toolkit.errors import BudgetExceeded
from toolkit.ledger.records import Budget, Limit, Reservation
from toolkit.ledger.schema import budgets
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import CallState, Money, Outcome

__all__ = ["budget_from", "charge", "held_of", "reserve_budget", "settle_budget"]

_UNITS = ("nanos", "tokens", "calls")
_ZERO = {f"{part}_{unit}": 0 for part in ("reserved", "spent") for unit in _UNITS}


def _put(insert: Any) -> Any:
    statement = insert(budgets)
    limits = {f"limit_{unit}": statement.excluded[f"limit_{unit}"] for unit in _UNITS}
    return statement.on_conflict_do_update(index_elements=["scope"], set_=limits)


_PUT = {name: _put(insert) for name, insert in INSERTS.items()}


def _fits(unit: str) -> ColumnElement[bool]:
    limit = budgets.c[f"limit_{unit}"]
    used = budgets.c[f"reserved_{unit}"] + budgets.c[f"spent_{unit}"]
    # Comparing with a difference: the sum could leave 64 bits.
    return or_(limit.is_(None), used <= limit - bindparam(unit))


_RESERVE = (
    update(budgets)
    .where(budgets.c.scope == bindparam("one"), and_(*map(_fits, _UNITS)))
    .values({f"reserved_{u}": budgets.c[f"reserved_{u}"] + bindparam(u) for u in _UNITS})
)
_SETTLE = (
    update(budgets)
    .where(budgets.c.scope == bindparam("one"))
    .values(
        {f"reserved_{u}": budgets.c[f"reserved_{u}"] - bindparam(f"held_{u}") for u in _UNITS}
        | {f"spent_{u}": budgets.c[f"spent_{u}"] + bindparam(u) for u in _UNITS}
    )
)
_SELECT = select(budgets).where(budgets.c.scope == bindparam("one"))


def reserve_budget(tx: Transaction, reserve: Reservation) -> None:
    """Hold the worst case in every scope, or in none.

    Raises:
        BudgetExceeded: A scope does not cover it; the caller rolls the transaction back.
    """
    wanted = {
        "nanos": reserve.cost.nanos if reserve.cost else 0,
        "tokens": reserve.tokens,
        "calls": reserve.calls,
    }
    # Always in the same order, so that two gateways on PostgreSQL do not wait for each other.
    for limit in sorted(reserve.limits, key=lambda each: each.scope):
        tx.run(
            _PUT[tx.dialect],
            {
                "scope": limit.scope,
                "limit_nanos": None if limit.usd is None else limit.usd.nanos,
                "limit_tokens": limit.tokens,
                "limit_calls": limit.calls,
                **_ZERO,
            },
        )
        if limit.usd is not None and reserve.cost is None:
            raise _unknown_price(limit)
        if tx.run(_RESERVE, {"one": limit.scope, **wanted}) == 0:
            raise _exceeded(budget_from(tx.first(_SELECT, one=limit.scope)), reserve)


def charge(held: dict[str, Any] | None, outcome: Outcome) -> dict[str, int] | None:
    """Return what a finished call is charged.

    What is unknown is charged at the worst case; a call that was denied, is charged nothing; one
    that failed and is known to have cost nothing, no tokens.
    """
    if held is None:
        return None
    if outcome.state is CallState.DENIED:
        return dict.fromkeys(_UNITS, 0)
    free_failure = outcome.state is CallState.ERROR and outcome.cost == Money(0)
    tokens = outcome.usage.total_tokens if outcome.usage else held["tokens"] * (not free_failure)
    nanos = held["nanos"] or 0 if outcome.cost is None else outcome.cost.nanos
    return {"nanos": nanos, "tokens": tokens, "calls": held["calls"]}


def settle_budget(tx: Transaction, held: dict[str, Any], charged: dict[str, int]) -> None:
    """Turn what a call held into what it is charged, in every scope."""
    for scope in held["scopes"]:
        tx.run(_SETTLE, {"one": scope, **{f"held_{u}": held[u] or 0 for u in _UNITS}, **charged})


def budget_from(row: Any) -> Budget:
    """Build a budget from its row."""
    return Budget(
        limit=Limit(
            row.scope,
            None if row.limit_nanos is None else Money(row.limit_nanos),
            row.limit_tokens,
            row.limit_calls,
        ),
        reserved=Money(row.reserved_nanos),
        reserved_tokens=row.reserved_tokens,
        reserved_calls=row.reserved_calls,
        spent=Money(row.spent_nanos),
        spent_tokens=row.spent_tokens,
        spent_calls=row.spent_calls,
    )


def _unknown_price(limit: Limit) -> BudgetExceeded:
    return BudgetExceeded(
        f"the price of the call is unknown and {limit.scope} has a budget of {limit.usd}",
        where=limit.scope,
        next_step="use a model with a known price, or remove the limit in dollars",
        details={"scope": limit.scope, "unit": "usd", "needed": None},
    )


def _exceeded(budget: Budget, reserve: Reservation) -> BudgetExceeded:
    unit, left, needed, limit = _tightest(budget, reserve)
    return BudgetExceeded(
        f"the budget of {budget.limit.scope} has {left} of {limit} {unit} left, "
        f"and the call may need {needed}",
        where=budget.limit.scope,
        next_step="raise the budget in policy.yaml, ask for less, or start another run",
        details={
            "scope": budget.limit.scope,
            "unit": unit,
            "left": str(left),
            "needed": str(needed),
            "limit": str(limit),
        },
    )


def _tightest(budget: Budget, reserve: Reservation) -> tuple[str, Any, Any, Any]:
    limit, cost = budget.limit, reserve.cost or Money(0)
    if limit.usd is not None:
        left = limit.usd - budget.reserved - budget.spent
        if left < cost:
            return "usd", left, cost, limit.usd
    if limit.tokens is not None:
        tokens = limit.tokens - budget.reserved_tokens - budget.spent_tokens
        if tokens < reserve.tokens:
            return "tokens", tokens, reserve.tokens, limit.tokens
    calls = (limit.calls or 0) - budget.reserved_calls - budget.spent_calls
    return "calls", calls, reserve.calls, limit.calls


def held_of(text: str | None) -> dict[str, Any] | None:
    """Return what a call holds, from its column ``reserved``."""
    return None if text is None else json.loads(text)
