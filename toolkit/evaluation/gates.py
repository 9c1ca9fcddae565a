"""Gates: a number that a score must reach before a version may ship."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from toolkit.evaluation.scoring import Evaluation, Score

__all__ = ["GateLike", "GateVerdict", "gate", "passed"]


class GateLike(Protocol):
    """What a gate asks (``toolkit.policy.Gate``).

    Attributes:
        scorer: Whose mean is held against the limits.
        minimum, maximum: Limits, both inclusive; ``None`` where there is none.
    """

    @property
    def scorer(self) -> str: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one gate says.

    Attributes:
        gate: The gate; ``None`` in the verdict that there is no gate at all.
        observed: The scorer's mean, ``None`` if the set has no such scorer.
        passed: Whether the gate holds.
        sentence: The verdict for a person.
        n: Cases that the mean rests on.
        shortfall: How far the mean is from the limit (0 when the gate holds).
        cases_short: How many cases would have to change for the gate to hold.
        lower, upper: 95 % interval of the mean.
    """

    gate: GateLike | None
    observed: float | None
    passed: bool
    sentence: str
    n: int = 0
    shortfall: float = 0.0
    cases_short: int = 0
    lower: float | None = None
    upper: float | None = None

    def __bool__(self) -> bool:
        return self.passed


def gate(evaluation: Evaluation, gates: Iterable[GateLike]) -> list[GateVerdict]:
    """Hold an evaluation against its gates.

    Without any gate the only verdict is one that does not pass: nothing was promised, so nothing
    was kept.
    """
    verdicts = [_judge(evaluation, each) for each in gates]
    if verdicts:
        return verdicts
    sentence = f"no gate is set for the evaluation set {evaluation.set_name}"
    return [GateVerdict(None, None, passed=False, sentence=sentence, n=len(evaluation.rows))]


def passed(verdicts: Iterable[GateVerdict]) -> bool:
    """Say whether there is at least one verdict and every one passed."""
    counted = list(verdicts)
    return bool(counted) and all(verdict.passed for verdict in counted)


def _judge(evaluation: Evaluation, each: GateLike) -> GateVerdict:
    found = evaluation.scores.get(each.scorer)
    if found is None:
        known = ", ".join(sorted(evaluation.scores))
        sentence = f"the set {evaluation.set_name} has no scorer {each.scorer!r}, only {known}"
        return GateVerdict(each, None, passed=False, sentence=sentence)
    if each.minimum is None and each.maximum is None:
        sentence = f"the gate on {each.scorer} has neither a minimum nor a maximum"
        return _verdict(each, found, sentence, ok=False)
    if _limits_cross(each):
        sentence = f"no value of {each.scorer} lies between {each.minimum} and {each.maximum}"
        return _verdict(each, found, sentence, ok=False)
    return _held_against(each, found)


def _limits_cross(each: GateLike) -> bool:
    return each.minimum is not None and each.maximum is not None and each.minimum > each.maximum


def _held_against(each: GateLike, found: Score) -> GateVerdict:
    # Exact arithmetic on the limit as it is written: 17 of 20 is 0.85, whatever binary makes of it.
    share = Fraction(found.hits, found.n)
    low = None if each.minimum is None else Fraction(repr(float(each.minimum)))
    high = None if each.maximum is None else Fraction(repr(float(each.maximum)))
    if low is not None and share < low:
        short = math.ceil(low * found.n) - found.hits
        sentence = f"{each.scorer} is {found}, below the minimum {each.minimum:g}: {_count(short)}"
        return _verdict(each, found, sentence, ok=False, gap=low - share, short=short)
    if high is not None and share > high:
        short = found.hits - math.floor(high * found.n)
        sentence = f"{each.scorer} is {found}, above the maximum {each.maximum:g}: {_count(short)}"
        return _verdict(each, found, sentence, ok=False, gap=share - high, short=short)
    limits = [
        f"{word} {limit:g}"
        for word, limit in (("the minimum", each.minimum), ("the maximum", each.maximum))
        if limit is not None
    ]
    return _verdict(
        each, found, f"{each.scorer} is {found}, which keeps {' and '.join(limits)}", ok=True
    )


def _count(short: int) -> str:
    return "1 case too many is wrong" if short == 1 else f"{short} cases too many are wrong"


def _verdict(
    each: GateLike,
    found: Score,
    sentence: str,
    *,
    ok: bool,
    gap: Fraction = Fraction(0),
    short: int = 0,
) -> GateVerdict:
    return GateVerdict(
        gate=each,
        observed=found.mean,
        passed=ok,
        sentence=sentence,
        n=found.n,
        shortfall=float(gap),
        cases_short=short,
        lower=found.lower,
        upper=found.upper,
    )
