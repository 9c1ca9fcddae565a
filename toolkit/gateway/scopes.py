"""Whose limits and switches a call falls under: its run's, and those of the runs above it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toolkit.errors import BudgetExceeded
from toolkit.gateway.work import Facts, Worst
from toolkit.ledger import Limit, Rate, Reservation
from toolkit.policy import BudgetRule, PolicyBundle, Scope
from toolkit.values import CallKind, Environment, Intent, Money, RunRecord, lineage_of

__all__ = ["check_call_budget", "reservation", "switches"]

_UNCOUNTED = (CallKind.RESULT, CallKind.VALUE)
"""Recorded, and no load on anybody."""
_SEVERAL = {"usd", "tokens", "calls", "seconds", "concurrent"}


_WAITS = (CallKind.AGENT, CallKind.JOB)
"""Calls that last as long as others that are made because of them."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where a call counts: in its own run, or in one above it.

    Attributes:
        bundle: The policies there.
        run_id, environment, job, agent: Of that run, and of the call that it made.
        user, team: The same all the way up: who starts a run starts what it starts.
    """

    bundle: PolicyBundle
    run_id: str
    environment: Environment
    job: str | None
    agent: str | None
    user: str
    team: str | None

    def value(self, scope: Scope) -> str | None:
        """Return which agent, user … a call counts for; ``None`` where there is none."""
        return {
            Scope.CALL: None,
            Scope.RUN: self.run_id,
            Scope.AGENT: self.agent,
            Scope.USER: self.user,
            Scope.TEAM: self.team,
            Scope.JOB: self.job,
            Scope.ENVIRONMENT: self.environment.value,
        }[scope]

    def place(self, scope: Scope) -> str:
        """Name a scope; each environment has limits and sums of its own."""
        return f"{self.environment}/{scope}:{self.value(scope)}"


def _seats(
    bundles: Callable[[Environment], PolicyBundle], run: RunRecord, intent: Intent
) -> list[_Seat]:
    agent = intent.name if intent.kind is CallKind.AGENT else intent.agent
    own = (run.run_id, run.environment, run.job, agent)
    above = [(each.run_id, each.environment, each.job, each.agent) for each in lineage_of(run)]
    return [
        _Seat(bundles(environment), run_id, environment, job, by, run.user, run.team)
        for run_id, environment, job, by in (own, *above)
    ]


def reservation(
    bundles: Callable[[Environment], PolicyBundle],
    run: RunRecord,
    intent: Intent,
    worst: Worst,
    now_us: int,
) -> Reservation:
    """Return what a call may use at most, against every limit that it falls under.

    What a run uses counts in the runs above it too: theirs are the limits of the whole tree.

    Args:
        bundles: Returns the policies of an environment.
        run: Who calls.
        intent: What.
        worst: The most that the call can use.
        now_us: Decides which period's budget it is.
    """
    seats = _seats(bundles, run, intent)
    limits = _merged([one for seat in seats for one in _limits(seat, intent, worst, now_us)])
    counts = intent.kind not in _UNCOUNTED
    rates = tuple(
        Rate(f"{seat.place(rule.scope)}/{rule.per}", rule.calls, rule.per.seconds)
        for seat in seats
        for rule in seat.bundle.rates
        if rule.covers(seat.value(rule.scope)) and counts
    )
    return Reservation(
        limits=limits,
        cost=worst.cost,
        tokens=worst.tokens,
        calls=1 if counts else 0,
        seconds=worst.seconds,
        rates=_tightest(rates),
    )


def check_call_budget(bundle: PolicyBundle, intent: Intent, worst: Worst) -> None:
    """Hold the worst case of one call against the budgets of single calls.

    Raises:
        BudgetExceeded: It could use more than one call may.
    """
    for rule in bundle.budgets:
        if rule.scope is not Scope.CALL:
            continue
        used = (
            ("usd", rule.usd, worst.cost if worst.cost is not None else Money(2**62)),
            ("tokens", rule.tokens, worst.tokens),
            ("seconds", rule.seconds, worst.seconds),
        )
        for unit, limit, needed in used:
            if limit is not None and needed > limit:  # type: ignore[operator]  # same unit
                told = "an unknown amount" if unit == "usd" and worst.cost is None else needed
                raise BudgetExceeded(
                    f"one call may use {limit} {unit}, and this one may need {told}",
                    where=f"{intent.kind} {intent.name}",
                    next_step="ask for less (max_tokens, a shorter prompt), or raise the budget of "
                    "scope call in policy.yaml",
                    details={"scope": "call", "unit": unit, "limit": str(limit)},
                )


def switches(run: RunRecord, intent: Intent, facts: Facts) -> tuple[str, ...]:
    """Return the scopes whose stop refuses this call."""
    named: list[tuple[str, str | None]] = [
        ("agent", intent.name if intent.kind is CallKind.AGENT else intent.agent),
        ("team", run.team),
        ("route", facts.route.name if facts.route is not None else None),
        ("job", run.job),
        ("user", run.user),
        ("tool", intent.name if intent.kind is CallKind.TOOL else None),
        ("run", run.run_id),
        ("job", intent.name if intent.kind is CallKind.JOB else None),
    ]
    for above in lineage_of(run):
        named += [("run", above.run_id), ("job", above.job), ("agent", above.agent)]
    found = (f"{kind}:{name}" for kind, name in named if name is not None)
    return tuple(dict.fromkeys(["all", *found]))


def _limits(seat: _Seat, intent: Intent, worst: Worst, now_us: int) -> Iterator[Limit]:
    budget = seat.bundle.budget
    yield Limit(
        scope=f"run:{seat.run_id}",
        usd=_dollars(seat.bundle, worst, budget.usd),
        tokens=budget.tokens,
        calls=budget.calls,
    )
    for rule in seat.bundle.budgets:
        if rule.scope is not Scope.CALL and rule.covers(seat.value(rule.scope)):
            yield Limit(
                scope=_budget_scope(seat, rule, now_us),
                usd=_dollars(seat.bundle, worst, rule.usd),
                tokens=rule.tokens,
                calls=rule.calls,
                seconds=rule.seconds,
            )
    for at_once in seat.bundle.concurrency:
        # Such a call holds its place as long as the calls inside of it: those could wait for
        # one another for ever, so only calls that do something themselves take places.
        if at_once.covers(seat.value(at_once.scope)) and intent.kind not in (*_WAITS, *_UNCOUNTED):
            yield Limit(scope=f"{seat.place(at_once.scope)}/at once", concurrent=at_once.calls)


def _budget_scope(seat: _Seat, rule: BudgetRule, now_us: int) -> str:
    if rule.scope is Scope.RUN:
        return f"run:{seat.run_id}"
    return f"{seat.place(rule.scope)}/{rule.period.label(now_us)}"


def _dollars(bundle: PolicyBundle, worst: Worst, usd: Money | None) -> Money | None:
    # An unknown price cannot be held against dollars; where the policy allows it all the same,
    # tokens and calls still count.  (Where it does not, the call was denied before.)
    return None if worst.cost is None and bundle.unknown_price == "allow" else usd


def _merged(limits: list[Limit]) -> tuple[Limit, ...]:
    """Make one limit of those with the same scope: the tighter value of each unit."""
    by_scope: dict[str, Limit] = {}
    for limit in limits:
        known = by_scope.get(limit.scope)
        by_scope[limit.scope] = limit if known is None else _tighter(known, limit)
    return tuple(by_scope.values())


def _tighter(one: Limit, other: Limit) -> Limit:
    def least(unit: str) -> object:
        given = [v for v in (getattr(one, unit), getattr(other, unit)) if v is not None]
        return min(given) if given else None

    return Limit(one.scope, **{unit: least(unit) for unit in _SEVERAL})  # type: ignore[arg-type]  # units of Limit


def _tightest(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    by_scope: dict[str, Rate] = {}
    for rate in rates:
        known = by_scope.get(rate.scope)
        if known is None or rate.calls < known.calls:
            by_scope[rate.scope] = rate
    return tuple(by_scope.values())
