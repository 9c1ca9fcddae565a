"""2,000 simulated promotions each: how often a gate lets through what it must not, and what it should.

The truth of each simulated agent is known, its answers are drawn, and the product's own ``score``
and ``gate`` decide.  ``pytest -m scale -s tests/scale/test_scale_statistics.py`` prints the figures.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from drawn_world import Answer, at_most, costed, count, told, tried
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
        Scorer("harmful", ScorerKind.EXACT, "harm", better="no"),
    ),
    tuple(Case(f"c{n}", {"n": n}, True) for n in range(CASES)),
)
MINIMUM = Gate("correct", minimum=0.8, confidence=1 - ALPHA)
HARMFUL = Gate("harmful", maximum=0.1, confidence=1 - ALPHA)
EARLY = Gate("correct", minimum=0.8, confidence=1 - ALPHA, sequential=True)
BETTER = Gate("correct", superior_to="production", confidence=1 - ALPHA)
SLICED = Gate("right", 0.7, slice="*", confidence=1 - ALPHA)
NOT_WORSE = Gate("correct", non_inferior_to="production", margin=0.05, confidence=1 - ALPHA)


def answered(right: np.ndarray, harm: np.ndarray | None = None) -> Evaluation:
    """Score drawn answers."""
    harms = np.zeros(CASES, bool) if harm is None else harm
    return score(
        CHOSEN,
        {
            case.id: Answer({"right": bool(good), "harm": bool(bad)})
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
    return passes(answered(new), NOT_WORSE, baseline=answered(base))


@cache
def harmless(good: int, harm: int) -> bool:
    """Whether so many right and harmful answers pass both gates."""
    place = np.arange(CASES)
    return passes(answered(place < good, place < harm), MINIMUM, HARMFUL)


def near(passed: int, stated: float) -> None:
    low, high = stats.binom.ppf((0.0005, 0.9995), TIMES, stated)
    assert low <= passed <= high


def test_an_agent_at_the_limit_is_let_through_at_most_as_often_as_stated() -> None:
    """Truth 0.80, minimum 0.80 with 95 %: the exact test errs less than 5 %, as computed."""
    least = next(k for k in range(CASES + 1) if Proportion(k, CASES).p_above(0.8) <= ALPHA)
    for truth in (0.8, 0.9, 0.95):
        passed = count(lambda r, t=truth: let_through(int((r.random(CASES) < t).sum())), 1, TIMES)
        stated = float(stats.binom.sf(least - 1, CASES, truth))
        told(f"minimum 0.80, truth {truth}", passed, TIMES, stated)
        near(passed, stated)
        if truth == 0.8:
            assert stated <= ALPHA
            at_most(passed, TIMES)


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
        worse: count(lambda r, w=worse: compared(*drawn(r, 0.9, w)), 2, TIMES)
        for worse in (0.05, 0.02, 0.0)
    }
    for worse, passed in found.items():
        stated = ALPHA if worse == 0.05 else float("nan")
        told(f"margin 0.05, worse by {worse}", passed, TIMES, stated)
    at_most(found[0.05], TIMES)
    # Tango's statistic is approximate; the power that follows from its own variance is asked for.
    assert found[0.0] > 2 * found[0.02] > 4 * found[0.05]


@cache
def superior(improved: int, regressed: int) -> bool:
    """Whether a candidate is called better that is right where its baseline was not, and back."""
    place = np.arange(CASES)
    base, new = place < regressed, (place >= regressed) & (place < regressed + improved)
    return passes(answered(new), BETTER, baseline=answered(base))


def test_a_version_that_is_no_better_is_called_better_at_most_as_often_as_stated() -> None:
    """Superiority of yes and no: type I error at a true difference of 0, and power at 20 points."""

    def found(gain: float, changing: float, seed: int) -> tuple[int, int]:
        random, ours, exact = np.random.default_rng(seed), 0, 0
        for _ in range(TIMES):
            more, fewer = _moved(random, changing, gain)
            ours += superior(more, fewer)
            if more + fewer:
                test = stats.binomtest(more, more + fewer, 0.5, "greater")
                exact += test.pvalue <= ALPHA
        return ours, exact

    for changing in (0.03, 0.1, 0.4):
        ours, exact = found(0.0, changing, 6)
        told(f"superior, {changing:.0%} of cases change either way", ours, TIMES)
        at_most(ours, TIMES)
        assert ours <= exact
    power, exact = found(0.2, 0.3, 7)
    told("superior by 20 points, 30 % of cases change", power, TIMES, exact / TIMES)
    assert power > 0.85 * TIMES


def _moved(random: np.random.Generator, changing: float, gain: float) -> tuple[int, int]:
    """Return how many cases got better and worse."""
    shares = ((changing + gain) / 2, (changing - gain) / 2, 1 - changing)
    more, fewer, _ = random.multinomial(CASES, shares)
    return int(more), int(fewer)


@cache
def every_slice(*good: int) -> bool:
    """Whether slices of 40 cases with so many right answers each reach the minimum."""
    taken = [[i // len(good) < good[i % len(good)]] for i in range(40 * len(good))]
    return passes(tried(taken, slices="abc"), SLICED)


def test_a_slice_at_its_minimum_is_let_through_at_most_as_often_as_stated() -> None:
    """One bad slice of three, all three, and none: against scipy's exact tests, closed by hand."""
    for truths, name in (
        ((0.7, 0.95, 0.95), "one slice at the minimum"),
        ((0.7, 0.7, 0.7), "three slices at the minimum"),
        ((0.95, 0.95, 0.95), "no slice at the minimum"),
    ):
        random, passed = np.random.default_rng(9), 0
        for _ in range(TIMES):
            good = tuple(int(count) for count in random.binomial(40, truths))
            ours = every_slice(*good)
            p = sorted(stats.binomtest(k, 40, 0.7, "greater").pvalue for k in good)
            # All three hold if Bonferroni's test rejects each of the seven ways to be wrong.
            assert ours == all(p[i] <= ALPHA / (3 - i) for i in range(3))
            passed += ours
        stated = float("nan") if min(truths) > 0.7 else ALPHA
        told(f"slices, {name}", passed, TIMES, stated)
        if min(truths) == 0.7:
            at_most(passed, TIMES)
        else:
            assert passed > 0.9 * TIMES


def test_a_quantile_of_cost_at_its_maximum_is_let_through_at_most_as_often_as_stated() -> None:
    """The 95th percentile of a lognormal cost is the maximum: scipy's quantile test decides alike."""
    truth = float(np.exp(stats.norm.ppf(0.95)))
    most = Gate("usd", maximum=truth, statistic="p95", confidence=1 - ALPHA)
    random, passed = np.random.default_rng(10), 0
    for _ in range(TIMES):
        costs = random.lognormal(0, 1, CASES)
        ours = passes(costed(costs), most)
        assert ours == (
            stats.quantile_test(costs, q=truth, p=0.95, alternative="less").pvalue <= ALPHA
        )
        passed += ours
    told("95th percentile of cost at its maximum", passed, TIMES)
    at_most(passed, TIMES)


def test_two_gates_err_no_more_than_one() -> None:
    """One truth is at its limit, the other far from it: Holm keeps the error of both together."""

    def once(random: np.random.Generator, truth: float = 0.8) -> bool:
        harm = int((random.random(CASES) < 0.005).sum())
        return harmless(int((random.random(CASES) < truth).sum()), harm)

    passed = count(once, 3, TIMES)
    told("two gates, one at its limit", passed, TIMES)
    at_most(passed, TIMES)
    power = count(lambda random: once(random, 0.95), 3, TIMES)
    told("two gates, both kept", power, TIMES, float("nan"))
    assert power > 0.8 * TIMES


def test_trying_often_is_not_free() -> None:
    """20 tries of an agent at the limit: at most 18 % of them end with a version, not 64 %."""

    def once(random: np.random.Generator) -> bool:
        return any(
            let_through(int((random.random(CASES) < 0.8).sum()), attempt)
            for attempt in range(1, 21)
        )

    passed = count(once, 4, TIMES)
    stated = ALPHA * sum(1 / attempt for attempt in range(1, 21))
    told("20 tries at the limit", passed, TIMES, stated)
    at_most(passed, TIMES, stated)


def ended(right: np.ndarray, attempt: int = 1) -> tuple[bool, int]:
    """Evaluate as a promotion does, with a look after every case: whether it passes, and where it ended."""
    early = Early.of(CHOSEN, (EARLY,), Before(attempt=attempt))
    assert early is not None
    order = early.order("a run")
    given = {
        case: CaseAnswer({"right": bool(good), "harm": False}, None, None)
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
            at_most(passed, TIMES)
        if truth == 0.5:
            assert passed == 0
    assert max(asked[1.0], asked[0.5]) < CASES / 2 < asked[0.8]
