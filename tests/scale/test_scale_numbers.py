"""2,000 simulated promotions each, of numbers: comparisons with production, means, costs, trials.

``pytest -m scale -s tests/scale/test_scale_numbers.py`` prints the figures of docs/evaluation.md.
"""

from __future__ import annotations

import numpy as np
import pytest
from drawn_world import (
    ALPHA,
    CHANGES,
    COSTS,
    HARD,
    SURE,
    Numbers,
    at_most,
    cheap,
    compared,
    count,
    not_worse,
    passes,
    pointed,
    some,
    superior,
    told,
    tried,
)
from scipy import special, stats

from toolkit.evaluation.weighted import WeightedMean
from toolkit.policy import Gate

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1_700)]
TIMES = 2_000


@pytest.mark.parametrize("name", CHANGES)
def test_numbers_that_are_no_better_are_rarely_called_better(name: str) -> None:
    """True difference 0: better than production at most in 5 %, and never of answers alike."""
    for n in (30, 86) if name in ("20 % change", "costs", "large losses") else (30,):
        passed = count(superior(CHANGES[name], n), n, TIMES)
        told(f"superior, {name}, {n} cases", passed, TIMES)
        at_most(passed, TIMES)


def test_numbers_that_are_better_are_called_better() -> None:
    """Power: half a standard deviation better."""
    found = {n: count(superior(CHANGES["ordinary"], n, 0.5), 7, TIMES // 4) for n in (30, 86)}
    for n, passed in found.items():
        told(f"superior by 0.5 deviations, {n} cases", passed, TIMES // 4, float("nan"))
    assert found[30] < found[86]
    assert found[86] > 0.9 * TIMES // 4


@pytest.mark.parametrize("name", ["3 % change", "costs", "large losses"])
def test_numbers_worse_by_the_margin_are_rarely_let_through(name: str) -> None:
    """True difference is the margin: not worse at most in 5 %."""
    passed = count(not_worse(CHANGES[name], 86), 86, TIMES)
    told(f"non-inferior, {name}, 86 cases", passed, TIMES)
    at_most(passed, TIMES)


def test_losses_in_a_tenth_of_the_cases_are_seen() -> None:
    """All the loss is in few cases: with the range declared, and without."""
    losses = Numbers(lambda _, n: np.full(n, -5.0), -5.0)
    few = some(0.1, losses)
    gate = Gate("points", non_inferior_to="production", margin=0.5, **SURE)

    def ranged(random: np.random.Generator, n: int, share: float) -> bool:
        before = np.full(n, 5.0)
        now = before + some(share, losses).draw(random, n)
        return passes(pointed(now, "rated"), gate, baseline=pointed(before, "rated"))

    for n in (30, 86):
        declared = count(lambda r, n=n: ranged(r, n, 0.1), n, TIMES)
        unknown = count(lambda r, n=n: compared(few.draw(r, n), gate), n, TIMES)
        told(f"non-inferior, losses in 10 %, {n} cases, range declared", declared, TIMES)
        told(f"non-inferior, losses in 10 %, {n} cases, no range", unknown, TIMES)
        at_most(declared, TIMES)
        at_most(unknown, TIMES)
    power = count(lambda r: ranged(r, 86, 0.02), 5, TIMES // 4)
    told("non-inferior, losses in 2 %, 86 cases, range declared", power, TIMES // 4, float("nan"))
    assert power > 0.8 * TIMES // 4


@pytest.mark.parametrize("name", COSTS)
def test_costs_at_the_maximum_are_rarely_called_below(name: str) -> None:
    """The truth is the maximum: it is called kept at most in 5 %."""
    more = {"ordinary": (20,), "lognormal": (20, 86, 300), "mostly free": (150,)}
    for n in (30, *more.get(name, ())):
        passed = count(cheap(COSTS[name], n), n, TIMES)
        told(f"cost, {name}, {n} cases", passed, TIMES)
        at_most(passed, TIMES)


def test_costs_that_a_small_set_cannot_show_are_a_limit_that_is_told() -> None:
    """Rare and large costs: above 5 % with 20 or 30 cases, not with 86."""
    for name, costs in HARD.items():
        for n in (20, 30, 86):
            passed = count(cheap(costs, n), n, TIMES)
            told(f"cost, {name}, {n} cases", passed, TIMES)
        at_most(passed, TIMES)


def test_costs_below_the_maximum_pass() -> None:
    """Power: a maximum of 1.3 and of 2 times the truth."""
    for name, room in (("ordinary", 1.3), ("retried", 2), ("lognormal", 2)):
        passed = count(cheap(COSTS[name], 86, room), 3, TIMES // 4)
        told(f"cost {name}, maximum {room} times the truth", passed, TIMES // 4, float("nan"))
        assert passed > 0.8 * TIMES // 4


def test_the_bootstrap_that_was_there_before_errs_more() -> None:
    """scipy's BCa and t on the same lognormal costs: why neither is the usual method."""
    costs, n = COSTS["lognormal"], 86
    drawn = costs.draw(np.random.default_rng(1), n * TIMES).reshape(TIMES, n)
    options = {"n_resamples": 999, "batch": 40, "alternative": "less", "axis": 1}
    boot = stats.bootstrap((drawn,), np.mean, method="BCa", rng=1, **options)
    student = stats.ttest_1samp(drawn, costs.mean, alternative="less", axis=1).pvalue
    ours = [WeightedMean(tuple(row)).p_below(costs.mean) <= ALPHA for row in drawn]
    bca = int((boot.confidence_interval.high <= costs.mean).sum())
    for name, passed in (("BCa", bca), ("t", int((student <= ALPHA).sum())), ("ours", sum(ours))):
        told(f"lognormal cost of 86 cases, {name}", passed, TIMES)
    at_most(sum(ours), TIMES)
    assert sum(ours) < bca < int((student <= ALPHA).sum())


def test_what_passes_the_sign_flip_test_passes_too() -> None:
    """Ordinary differences: what we call better, scipy's exact permutation test calls better."""
    random = np.random.default_rng(2)
    for n in (30, 86):
        rows = random.normal(0.4, 1, (100, n))
        for row in rows:
            options = {"permutation_type": "samples", "n_resamples": 999, "rng": 1}
            test = stats.permutation_test((row,), np.mean, alternative="greater", **options)
            if WeightedMean(tuple(row)).p_above(0.0) <= ALPHA:
                assert test.pvalue <= ALPHA


def test_trials_of_a_case_are_one_case() -> None:
    """Mean and pass^3 over 5 trials a case, their rates drawn by case: the error is kept."""
    n, trials, k, a, b = 60, 5, 3, 3.0, 1.0
    mean = a / (a + b)
    all_good = float(special.poch(a, k) / special.poch(a + b, k))
    flat = 0
    found = {"mean": 0, "pass^3": 0}
    random = np.random.default_rng(8)
    for _ in range(TIMES):
        good = random.random((n, trials)) < random.beta(a, b, (n, 1))
        result = tried(good)
        found["mean"] += passes(result, Gate("right", mean, **SURE))
        found["pass^3"] += passes(result, Gate("right", all_good, pass_hat_k=k, **SURE))
        test = stats.binomtest(int(good.sum()), good.size, mean, "greater")
        flat += test.pvalue <= ALPHA
    for name, passed in found.items():
        told(f"{name} of {trials} trials of {n} cases, at the limit", passed, TIMES)
        at_most(passed, TIMES)
    told("each trial counted as a case", flat, TIMES)
    assert flat > 1.5 * ALPHA * TIMES
