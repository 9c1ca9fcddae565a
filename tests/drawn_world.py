"""Simulated promotions: agents whose truth is known, drawn answers, and the product's own verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from toolkit.evaluation import Case, Evaluation, EvaluationSet, Scorer, ScorerKind, gate, score
from toolkit.policy import Gate

ALPHA = 0.05
SURE = {"confidence": 1 - ALPHA}
MARGIN = 0.5

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Answer:
    """A recorded answer."""

    output: Any
    error: None = None


@dataclass(frozen=True)
class Numbers:
    """What numbers an agent has: how they are drawn, and their true mean."""

    draw: Draw
    mean: float


def some(share: float, numbers: Numbers, rest: float = 0.0) -> Numbers:
    """Numbers that only a share of the cases has, drawn anew; all others have ``rest``."""

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        return np.where(random.random(n) < share, numbers.draw(random, n), rest)

    return Numbers(draw, share * numbers.mean + (1 - share) * rest)


def _choice(values: Sequence[float], shares: Sequence[float]) -> Numbers:
    mean = float(np.dot(values, shares))
    return Numbers(lambda r, n: r.choice(values, p=shares, size=n), mean)


def _lognormal(spread: float) -> Numbers:
    return Numbers(lambda r, n: r.lognormal(0, spread, n), float(np.exp(spread**2 / 2)))


def _retried(share: float, times: float) -> Numbers:
    """Most cost about 1, a share of them so many times as much."""
    usual = _lognormal(0.3)

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        return usual.draw(random, n) * np.where(random.random(n) < share, times, 1)

    return Numbers(draw, usual.mean * (1 + share * (times - 1)))


COSTS = {
    "ordinary": Numbers(lambda r, n: r.gamma(20, 0.05, n), 1.0),
    "lognormal": _lognormal(1.0),
    "retried": _retried(0.1, 4),
    "half free": some(0.5, _lognormal(0.5)),
    "mostly free": some(0.1, _lognormal(0.5)),
    "nearly all the same": some(0.03, Numbers(lambda _, n: np.full(n, 2.0), 2.0), rest=1.0),
}
"""What a case costs; all are tested against a maximum that is exactly the truth."""
HARD = {"lognormal, spread 1.5": _lognormal(1.5), "retried, rarely": _retried(0.05, 5)}
"""Costs of which a small set cannot show the truth; told in docs/evaluation.md."""
CHANGES = {
    "3 % change": _choice((-1, 0, 1), (0.015, 0.97, 0.015)),
    "20 % change": _choice((-1, 0, 1), (0.1, 0.8, 0.1)),
    "ordinary": Numbers(lambda r, n: r.normal(0, 1, n), 0.0),
    "costs": Numbers(lambda r, n: r.lognormal(0, 1, n) - r.lognormal(0, 1, n), 0.0),
    "large losses": Numbers(lambda r, n: np.exp(0.5) - r.lognormal(0, 1, n), 0.0),
    "large gains": Numbers(lambda r, n: r.exponential(1, n) - 1, 0.0),
    "30 % change by much": some(
        0.3, Numbers(lambda r, n: r.exponential(np.exp(0.5), n) - r.lognormal(0, 1, n), 0.0)
    ),
}
"""What changes from the version in production to the next; their true mean is 0."""


SCORERS = {
    "right": Scorer("right", ScorerKind.EXACT),
    "points": Scorer("points", ScorerKind.VALUE, "points", better="more", worst=-1e6),
    "rated": Scorer(
        "points", ScorerKind.VALUE, "points", better="more", worst=0.0, range=(0.0, 5.0)
    ),
}
"""Yes or no; a number of which nothing is known; a number from 0 to 5."""


@cache
def _set(n: int, scorer: str, slices: str = "a") -> EvaluationSet:
    cases = (Case(f"c{i}", {"i": i}, True, slices[i % len(slices)]) for i in range(n))
    return EvaluationSet("s", "f", (SCORERS[scorer],), tuple(cases))


def pointed(values: Sequence[float], scorer: str = "points") -> Evaluation:
    """Score an agent's numbers, one a case."""
    chosen = _set(len(values), scorer)
    answers = {
        c.id: Answer({"points": float(v)}) for c, v in zip(chosen.cases, values, strict=True)
    }
    return score(chosen, answers)


def tried(trials: Sequence[Sequence[bool]], slices: str = "a", **facts: Any) -> Evaluation:
    """Score yes and no, one list of trials a case; case by case the slices take turns."""
    chosen = _set(len(trials), "right", slices)
    return score(
        chosen,
        {
            c.id: [Answer(bool(good)) for good in given]
            for c, given in zip(chosen.cases, trials, strict=True)
        },
        **facts,
    )


def costed(values: Sequence[float]) -> Evaluation:
    """Score an agent that is always right, with what each case cost."""
    return tried(
        [[True]] * len(values), measures={f"c{i}": {"usd": float(v)} for i, v in enumerate(values)}
    )


def passes(evaluation: Evaluation, *gates: Gate, **facts: Any) -> bool:
    """Whether every gate passes."""
    return all(verdict.passed for verdict in gate(evaluation, gates, **facts))


@cache
def production(n: int) -> Evaluation:
    """The version in production, with numbers from 0 to 1."""
    return pointed(np.arange(n) % 5 / 4)


def compared(changes: np.ndarray, each: Gate) -> bool:
    """Whether a candidate passes that is so much better than production, case by case."""
    n = len(changes)
    return passes(pointed(np.arange(n) % 5 / 4 + changes), each, baseline=production(n))


BETTER = Gate("points", superior_to="production", **SURE)
NOT_WORSE = Gate("points", non_inferior_to="production", margin=MARGIN, **SURE)


def superior(changes: Numbers, n: int, gain: float = 0.0) -> Callable[..., bool]:
    """One promotion that claims to be better, by numbers that are ``gain`` better."""
    return lambda random: compared(changes.draw(random, n) + gain, BETTER)


def not_worse(changes: Numbers, n: int, loss: float = MARGIN) -> Callable[..., bool]:
    """One promotion that claims not to be worse by the margin, by numbers that are ``loss`` worse."""
    return lambda random: compared(changes.draw(random, n) - loss, NOT_WORSE)


def cheap(costs: Numbers, n: int, room: float = 1.0) -> Callable[..., bool]:
    """One promotion that claims to cost at most the truth times ``room``."""
    most = Gate("usd", maximum=costs.mean * room, **SURE)
    return lambda random: passes(costed(costs.draw(random, n)), most)


def count(once: Callable[[np.random.Generator], bool], seed: int, times: int) -> int:
    """Return how many of the simulated promotions pass."""
    random = np.random.default_rng(seed)
    return sum(once(random) for _ in range(times))


def told(what: str, passed: int, times: int, stated: float = ALPHA) -> None:
    """Print a rate with its own 95 % interval."""
    low, high = stats.binomtest(passed, times).proportion_ci(0.95, method="wilson")
    print(f"{what}: {passed / times:.4f} ({low:.4f} to {high:.4f}), stated {stated:.4f}")


def at_most(passed: int, times: int, stated: float = ALPHA) -> None:
    """Fail where so many could come of the stated rate by chance once in a thousand times."""
    assert passed <= stats.binom.ppf(0.999, times, stated)
