"""What a call may use at most, checked and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from toolkit.errors import UsageError
from toolkit.ledger.codec import check_amount, check_plain
from toolkit.ledger.records import Limit, Rate, Reservation

__all__ = ["MOST_RATE_CALLS", "UNITS", "microseconds", "reservation_json"]

UNITS = ("nanos", "tokens", "calls", "us")
"""What budgets count: nano-dollars, tokens, calls, microseconds."""

MOST_RATE_CALLS = 100_000
"""A rate keeps the time of each of its calls."""


def reservation_json(reserve: Reservation | None) -> dict[str, Any] | None:
    """Return what a call holds: scopes and worst case.

    Raises:
        UsageError: An amount is out of range, or a scope is named twice.
    """
    if reserve is None:
        return None
    _check_rates(reserve.rates)
    if not reserve.limits:
        return None
    scopes = sorted(limit.scope for limit in reserve.limits)
    _check_once(scopes)
    for limit in reserve.limits:
        _check_limit(limit)
    cost = reserve.cost
    return {
        "scopes": scopes,
        "nanos": check_amount(None if cost is None else cost.nanos, "reserved cost"),
        "tokens": check_amount(reserve.tokens, "reserved tokens"),
        "calls": check_amount(reserve.calls, "reserved calls"),
        "us": microseconds(reserve.seconds, "reserved seconds"),
    }


def microseconds(seconds: float, what: str) -> int:
    """Return whole microseconds of a duration.

    Raises:
        UsageError: It is not finite, negative, or beyond 64 bits.
    """
    if not math.isfinite(seconds):
        raise UsageError(f"{what} is {seconds}", where=what, next_step="give a finite duration")
    value = round(seconds * 1_000_000)
    check_amount(value, what)
    return value


def _check_limit(limit: Limit) -> None:
    check_plain(limit.scope, "scope")
    check_amount(limit.usd.nanos if limit.usd else None, "limit of money")
    check_amount(limit.tokens, "limit of tokens")
    check_amount(limit.calls, "limit of calls")
    check_amount(limit.concurrent, "limit of calls at once")
    if limit.seconds is not None:
        microseconds(limit.seconds, "limit of seconds")


def _check_rates(rates: tuple[Rate, ...]) -> None:
    _check_once([rate.scope for rate in rates])
    for rate in rates:
        check_plain(rate.scope, "scope")
        if not 1 <= rate.calls <= MOST_RATE_CALLS or microseconds(rate.per_s, "rate period") < 1:
            raise UsageError(
                f"the rate of {rate.scope} is {rate.calls} calls per {rate.per_s} s",
                where=rate.scope,
                next_step=f"give 1 to {MOST_RATE_CALLS:,} calls and a period above 0; for more "
                "calls, limit the calls of a period",
            )


def _check_once(scopes: Sequence[str]) -> None:
    if len(set(scopes)) != len(scopes):
        raise UsageError("a reservation names one scope twice", where="reservation")
