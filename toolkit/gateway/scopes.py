"""Whose limits and switches a call falls under."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.errors import BudgetExceeded
from toolkit.gateway.work import Facts, Worst
from toolkit.ledger import Limit, Rate, Reservation
from toolkit.policy import BudgetRule, PolicyBundle, Scope
from toolkit.values import CallKind, Intent, Money, RunRecord

__all__ = ["check_call_budget", "reservation", "switches"]

_UNCOUNTED = (CallKind.RESULT, CallKind.VALUE)
"""Recorded, and no load on anybody."""
_SEVERAL = {"usd", "tokens", "calls", "seconds", "concurrent"}


def reservation(
    bundle: PolicyBundle, run: RunRecord, intent: Intent, worst: Worst, now_us: int
) -> Reservation:
    """Return what a call may use at most, against every limit that it falls under.

    Args:
        bundle: The policies of the run's environment.
        run: Who calls.
        intent: What.
        worst: The most that the call can use.
        now_us: Decides which period's budget it is.
    """
    limits = _merged([_of_run(bundle, run, worst), *_of_rules(bundle, run, intent, worst, now_us)])
    counts = intent.kind not in _UNCOUNTED
    rates = tuple(
        Rate(f"{_place(run, rule.scope, value)}/{rule.per}", rule.calls, rule.per.seconds)
        for rule in bundle.rates
        if rule.covers(value := _value(run, intent, rule.scope)) and counts
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
    ]
    return ("all", *(f"{kind}:{name}" for kind, name in named if name is not None))


def _of_run(bundle: PolicyBundle, run: RunRecord, worst: Worst) -> Limit:
    budget = bundle.budget
    return Limit(
        scope=f"run:{run.run_id}",
        usd=_dollars(bundle, worst, budget.usd),
        tokens=budget.tokens,
        calls=budget.calls,
    )


def _of_rules(
    bundle: PolicyBundle, run: RunRecord, intent: Intent, worst: Worst, now_us: int
) -> Iterator[Limit]:
    for rule in bundle.budgets:
        value = _value(run, intent, rule.scope)
        if rule.scope is not Scope.CALL and rule.covers(value):
            yield Limit(
                scope=_budget_scope(run, rule, value, now_us),
                usd=_dollars(bundle, worst, rule.usd),
                tokens=rule.tokens,
                calls=rule.calls,
                seconds=rule.seconds,
            )
    for at_once in bundle.concurrency:
        value = _value(run, intent, at_once.scope)
        # An agent's call holds its place as long as the calls inside of it: those could wait for
        # one another for ever, so only calls that do something themselves take places.
        if at_once.covers(value) and intent.kind not in (CallKind.AGENT, *_UNCOUNTED):
            yield Limit(
                scope=f"{_place(run, at_once.scope, value)}/at once", concurrent=at_once.calls
            )


def _budget_scope(run: RunRecord, rule: BudgetRule, value: str | None, now_us: int) -> str:
    if rule.scope is Scope.RUN:
        return f"run:{run.run_id}"
    return f"{_place(run, rule.scope, value)}/{rule.period.label(now_us)}"


def _place(run: RunRecord, scope: Scope, value: str | None) -> str:
    """Name a scope; each environment has limits and sums of its own."""
    return f"{run.environment}/{scope}:{value}"


def _value(run: RunRecord, intent: Intent, scope: Scope) -> str | None:
    """Return which agent, user … a call counts for; ``None`` where there is none."""
    agent = intent.name if intent.kind is CallKind.AGENT else intent.agent
    return {
        Scope.CALL: None,
        Scope.RUN: run.run_id,
        Scope.AGENT: agent,
        Scope.USER: run.user,
        Scope.TEAM: run.team,
        Scope.JOB: run.job,
        Scope.ENVIRONMENT: run.environment.value,
    }[scope]


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
