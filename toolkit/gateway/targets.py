"""Which targets of a route a model call may go to.

Those that policy allows; only where none of them takes the call, those that a person may allow.  A
target that policy would ask about is never a fallback of one that it allows: nobody was asked.  A
person's yes holds for the targets that the request named (``Decision.targets``), whatever the model
catalog lists when the call goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from toolkit.errors import UsageError
from toolkit.providers import Route
from toolkit.values import CallRecord, Decision, Verdict, changed

__all__ = ["Permitted", "Ruling", "approved", "combined", "fitting", "permitted"]

T = TypeVar("T")
Ruling = tuple[Route, Decision]
"""What policy says about one target."""
_MILDER = (Verdict.ALLOW, Verdict.ASK, Verdict.DENY)


@dataclass(frozen=True, slots=True)
class Permitted:
    """The targets (``provider/model``) of a route with several.

    Attributes:
        allowed: Those that policy allows.
        asked: Those that one person, asked one question, may allow.
    """

    allowed: frozenset[str]
    asked: frozenset[str]


def permitted(rulings: Sequence[Ruling]) -> Permitted:
    """Return what may be asked, by what policy says about each target."""
    return Permitted(*(_names(_of(rulings, verdict)) for verdict in (Verdict.ALLOW, Verdict.ASK)))


def combined(rulings: Sequence[Ruling]) -> Decision:
    """Return the decision about a call from those about its targets, with the targets it is about."""
    alike = next(found for verdict in _MILDER if (found := _of(rulings, verdict)))
    decision = alike[0][1]
    production = decision.production_verdict
    if len(alike) > 1 and production is not None:
        mildest = min(
            (each for _, each in alike), key=lambda each: _MILDER.index(_production(each))
        )
        decision = changed(
            decision,
            production_verdict=mildest.production_verdict,
            production_reasons=mildest.production_reasons,
        )
    return changed(decision, targets=tuple(leg.target for leg, _ in alike))


def fitting(
    among: Permitted | None, fits: Callable[[frozenset[str] | None], T]
) -> tuple[frozenset[str] | None, T]:
    """Return the targets that a call may go to, and what ``fits`` returns for them.

    Args:
        among: What policy permits; ``None``: the route has one target.
        fits: Raises ``UsageError`` of the kind ``no_target`` where none of the targets takes it.

    Returns:
        ``None`` where there is one target; the empty set where policy permits none: then ``fits``
        was asked about all of them, and the decision says why.

    Raises:
        UsageError: None of the permitted ones takes the call.
    """
    if among is None:
        return None, fits(None)
    problem: UsageError | None = None
    for targets in (among.allowed, among.asked):
        if not targets:
            continue
        try:
            return targets, fits(targets)
        except UsageError as error:
            if error.details.get("kind") != "no_target":
                raise
            problem = problem or error
    if problem is not None:
        raise problem
    return frozenset(), fits(None)


def approved(
    call: CallRecord, targets: frozenset[str] | None, among: Permitted | None
) -> frozenset[str] | None:
    """Return the targets that a call goes to: of one that a person allowed, those they saw.

    Args:
        call: The call as it is made, with the decision that holds.
        targets: What holds for a call that nobody was asked about.
        among: What policy permits today.
    """
    if call.decision.approver is None or not call.decision.targets:
        return targets
    seen = frozenset(call.decision.targets)
    return seen if among is None else seen & (among.allowed | among.asked)


def _of(rulings: Sequence[Ruling], verdict: Verdict) -> list[Ruling]:
    """Return the rulings of one verdict; of questions only those that are the first one."""
    found = [each for each in rulings if each[1].verdict is verdict]
    if verdict is not Verdict.ASK or not found:
        return found
    first = _question(found[0][1])
    return [each for each in found if _question(each[1]) == first]


def _question(decision: Decision) -> tuple[object, ...]:
    return decision.approver, decision.policies, decision.reasons


def _production(decision: Decision) -> Verdict:
    return decision.production_verdict or Verdict.ALLOW


def _names(rulings: Sequence[Ruling]) -> frozenset[str]:
    return frozenset(leg.target for leg, _ in rulings)
