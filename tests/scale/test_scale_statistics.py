"""2,000 simulated promotions each: how often a gate lets through what it must not, and what it should.

The truth of each simulated agent is known, its answers are drawn, and the product's own ``score``
and ``gate`` decide.  ``pytest -m scale -s tests/scale/test_scale_statistics.py`` prints the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from toolkit.evaluation import Case, Evaluation, EvaluationSet, Scorer, ScorerKind, gate, score
from toolkit.evaluation.samples import Proportion
from toolkit.ledger import CaseAnswer
from toolkit.policy import Gate
from toolkit.promotion.before import Before
from toolkit.promotion.early import Early

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1_700)]

TIMES, CASES, ALPHA = 2_000, 86, 0.05
"""As many cases as the licence-review set has."""
CHOSEN = EvaluationSet(
    "s",
    "f",
    (
        Scorer("correct", ScorerKind.EXACT, "right"),
        Scorer("harmful", ScorerKind.VALUE, "harm", better="less", worst=1.0),
    ),
    tuple(Case(f"c{n}", {"n": n}, True) for n in range(CASES)),
)
MINIMUM = Gate("correct", minimum=0.8, confidence=1 - ALPHA)
HARMFUL = Gate("harmful", maximum=0.1, confidence=1 - ALPHA)
EARLY = Gate("correct", minimum=0.8, confidence=1 - ALPHA, sequential=True)
NOT_WORSE = Gate("correct", non_inferior_to="production", margin=0.05, confidence=1 - ALPHA)


@dataclass(frozen=True)
class Answer:
    """A recorded answer."""

    output: Any
    error: None = None


def answered(right: np.ndarray, harm: np.ndarray | None = None) -> Evaluation:
    """Score drawn answers."""
    harms = np.zeros(CASES) if harm is None else harm
    return score(
        CHOSEN,
        {
            case.id: Answer({"right": bool(good), "harm": float(bad)})
            for case, good, bad in zip(CHOSEN.cases, right, harms, strict=True)
        },
    )


def passes(evaluation: Evaluation, *gates: Gate, **facts: Any) -> bool:
    verdicts = gate(evaluation, gates, **facts)
    return all(verdict.passed for verdict in verdicts)


@cache
def let_through(good: int, attempt: int = 1) -> bool:
    """Whether so many right answers pass: which cases they are says nothing to the gate."""
    return passes(answered(np.arange(CASES) < good), MINIMUM, attempt=attempt)


@cache
def compared(both: int, improved: int, regressed: int) -> bool:
    """Whether a candidate passes beside its baseline: right in both, in it alone, in that alone."""
    place = np.arange(CASES)
    base = place < both + regressed
    new = (place < both) | ((place >= both + regressed) & (place < both + regressed + improved))
    return passes(answered(new), NOT_WORSE, baseline=answered(base), first=False)


@cache
def harmless(good: int, harm: int) -> bool:
    """Whether so many right and harmful answers pass both gates."""
    place = np.arange(CASES)
    return passes(answered(place < good, (place < harm).astype(float)), MINIMUM, HARMFUL)


def count(once: Callable[[np.random.Generator], bool], seed: int) -> int:
    """Return how many of the simulated promotions pass."""
    random = np.random.default_rng(seed)
    return sum(once(random) for _ in range(TIMES))


def told(what: str, passed: int, stated: float) -> None:
    low, high = stats.binomtest(passed, TIMES).proportion_ci(0.95, method="wilson")
    print(f"{what}: {passed / TIMES:.4f} ({low:.4f} to {high:.4f}), stated {stated:.4f}")


def at_most(passed: int, stated: float) -> None:
    """Fail where so many could come of the stated rate by chance once in a thousand times."""
    assert passed <= stats.binom.ppf(0.999, TIMES, stated)


def near(passed: int, stated: float) -> None:
    low, high = stats.binom.ppf((0.0005, 0.9995), TIMES, stated)
    assert low <= passed <= high


def test_an_agent_at_the_limit_is_let_through_at_most_as_often_as_stated() -> None:
    """Truth 0.80, minimum 0.80 with 95 %: the exact test errs less than 5 %, as computed."""
    least = next(k for k in range(CASES + 1) if Proportion(k, CASES).p_above(0.8) <= ALPHA)
    for truth in (0.8, 0.9, 0.95):
        passed = count(lambda r, t=truth: let_through(int((r.random(CASES) < t).sum())), 1)
        stated = float(stats.binom.sf(least - 1, CASES, truth))
        told(f"minimum 0.80, truth {truth}", passed, stated)
        near(passed, stated)
        if truth == 0.8:
            assert stated <= ALPHA
            at_most(passed, ALPHA)


def drawn(
    random: np.random.Generator, before: float, worse: float
) -> tuple[Evaluation, Evaluation]:
    """Return candidate and baseline on the same cases, as correlated as two versions are.

    A tenth of the cases is answered anew by each; on the rest they differ only by what got worse.
    """
    base = random.random(CASES) < before
    anew = random.random(CASES) < 0.1
    new = np.where(anew, random.random(CASES) < before, base)
    lost = random.random(CASES) < worse / before
    now = new & ~lost
    return int((now & base).sum()), int((now & ~base).sum()), int((base & ~now).sum())


def test_a_version_worse_by_the_margin_is_let_through_at_most_as_often_as_stated() -> None:
    """Non-inferiority: 5 points worse with a margin of 5 points is a false promotion."""

    found = {
        worse: count(lambda r, w=worse: compared(*drawn(r, 0.9, w)), 2)
        for worse in (0.05, 0.02, 0.0)
    }
    for worse, passed in found.items():
        told(f"margin 0.05, worse by {worse}", passed, ALPHA if worse == 0.05 else float("nan"))
    at_most(found[0.05], ALPHA)
    # Tango's statistic is approximate; the power that follows from its own variance is asked for.
    assert found[0.0] > 2 * found[0.02] > 4 * found[0.05]


def test_two_gates_err_no_more_than_one() -> None:
    """One truth is at its limit, the other far from it: Holm keeps the error of both together."""

    def once(random: np.random.Generator) -> bool:
        harm = int((random.random(CASES) < 0.02).sum())
        return harmless(int((random.random(CASES) < 0.8).sum()), harm)

    passed = count(once, 3)
    told("two gates, one at its limit", passed, ALPHA)
    at_most(passed, ALPHA)


def test_trying_often_is_not_free() -> None:
    """20 tries of an agent at the limit: at most 18 % of them end with a version, not 64 %."""

    def once(random: np.random.Generator) -> bool:
        return any(
            let_through(int((random.random(CASES) < 0.8).sum()), attempt)
            for attempt in range(1, 21)
        )

    passed = count(once, 4)
    stated = ALPHA * sum(1 / attempt for attempt in range(1, 21))
    told("20 tries at the limit", passed, stated)
    at_most(passed, stated)


def ended(right: np.ndarray, attempt: int = 1) -> tuple[bool, int]:
    """Evaluate as a promotion does, with a look after every case: whether it passes, and where it ended."""
    early = Early.of(CHOSEN, (EARLY,), Before(attempt=attempt))
    assert early is not None
    order = early.order("a run")
    given = {
        case: CaseAnswer({"right": bool(good), "harm": 0.0}, None, None)
        for case, good in zip(order, right, strict=True)
    }
    # Looks never take a decision back (tests/promotion/test_promotion_early.py), so the first one
    # that decides is found by halving.
    if early.decided(order, _first(given, order, CASES - 1)) is None:
        return passes(score(CHOSEN, given), EARLY, attempt=attempt), CASES
    low, high = 0, CASES - 1
    while high - low > 1:
        middle = (low + high) // 2
        decides = early.decided(order, _first(given, order, middle)) is not None
        low, high = (low, middle) if decides else (middle, high)
    verdicts = early.judged(order[:high], given)[1]
    return all(verdict.passed for verdict in verdicts), high


def _first(given: dict[str, CaseAnswer], order: list[str], count: int) -> dict[str, CaseAnswer]:
    return {case: given[case] for case in order[:count]}


def test_an_early_end_lets_through_no_more_than_stated() -> None:
    """Looked at after every case: an agent at the limit passes at most in 5 %, others end sooner."""
    random = np.random.default_rng(5)
    asked = {}
    for truth in (0.8, 1.0, 0.5):
        times = TIMES if truth == 0.8 else TIMES // 10
        found = [ended(random.random(CASES) < truth) for _ in range(times)]
        passed = sum(good for good, _ in found)
        asked[truth] = float(np.mean([count for _, count in found]))
        print(
            f"early end, truth {truth}: {passed / times:.4f}, {asked[truth]:.0f} of {CASES} cases"
        )
        if truth == 0.8:
            at_most(passed, ALPHA)
        if truth == 0.5:
            assert passed == 0
    assert max(asked[1.0], asked[0.5]) < CASES / 2 < asked[0.8]
