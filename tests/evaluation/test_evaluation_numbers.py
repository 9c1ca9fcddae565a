"""Numbers at a gate: bounds that hold, what is too little to say anything, ranges, limits at the end."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_world import SURE, costed, pointed, tried
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InvalidFile
from toolkit.evaluation import Evaluation, EvaluationSet, Ruling, Scorer, ScorerKind, gate
from toolkit.evaluation.outside import judged_reply
from toolkit.evaluation.paired import PairedShares, sign_test
from toolkit.evaluation.processes import Reply
from toolkit.evaluation.samples import Mean, Proportion
from toolkit.evaluation.weighted import WeightedMean, unlike
from toolkit.policy import Gate

BETTER = Gate("points", superior_to="production", **SURE)
NOT_WORSE = Gate("points", non_inferior_to="production", margin=0.5, **SURE)


def one(evaluation: Evaluation, each: Gate, **facts):
    (verdict,) = gate(evaluation, [each], **facts)
    return verdict


# -- the bound ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.2, 0.05, 0.0125, 0.001]),
)
def test_of_yes_and_no_it_is_what_clopper_and_pearson_say(counted, alpha):
    """Numbers that are 0 or 1 have the bounds of scipy's exact binomial test."""
    good, n = counted
    made = WeightedMean((1.0,) * good + (0.0,) * (n - good), 0.0, 1.0)
    for side, name, got in (
        ("greater", "low", made.lower(alpha)),
        ("less", "high", made.upper(alpha)),
    ):
        test = stats.binomtest(good, n, 0.7, side)
        want = getattr(test.proportion_ci(1 - alpha, "exact"), name)
        assert got == pytest.approx(want, abs=1e-9)
    assert made.p_above(0.7) == pytest.approx(stats.binomtest(good, n, 0.7, "greater").pvalue)
    assert made.p_below(0.7) == pytest.approx(stats.binomtest(good, n, 0.7, "less").pvalue)


@pytest.mark.parametrize("n", [1, 5, 30, 200])
def test_the_integral_is_the_share_of_drawn_weights(n):
    """Against 100,000 draws of the weights themselves."""
    random = np.random.default_rng(n)
    values = random.beta(0.5, 1.5, n)
    weights = random.dirichlet(np.ones(n + 1), 100_000)
    drawn = weights @ np.append(values, 1.0)
    made = WeightedMean(tuple(values), 0.0, 1.0)
    for limit in np.quantile(drawn, (0.001, 0.05, 0.5, 0.9, 0.99)):
        assert made.p_below(limit) == pytest.approx((drawn > limit).mean(), abs=6e-3)
    assert made.upper(0.05) == pytest.approx(np.quantile(drawn, 0.95), rel=0.02)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_another_unit_is_another_bound_by_as_much(seed, unit, shift):
    """Cents or dollars, from whatever zero: the same verdict."""
    values = np.random.default_rng(seed).lognormal(0, 1, 40)
    made = WeightedMean(tuple(values))
    other = WeightedMean(tuple(unit * (values + shift)))
    for side in ("lower", "upper"):
        want = unit * (getattr(made, side)(0.05) + shift)
        assert getattr(other, side)(0.05) == pytest.approx(want, rel=1e-6, abs=unit * 1e-6)


def test_with_many_cases_it_comes_to_scipys_bounds():
    """Of 3,000 ordinary numbers it is beyond Student's t and scipy's BCa by less than a fifth."""
    values = np.random.default_rng(4).gamma(4, 1, 3_000)
    made, student = WeightedMean(tuple(values)), Mean(tuple(values))
    boot = stats.bootstrap((values,), np.mean, n_resamples=4_000, alternative="less", rng=1)
    for other in (student.upper(0.05), boot.confidence_interval.high):
        assert other < made.upper(0.05) < other + 0.2 * (other - values.mean())


def test_a_comparison_of_shares_is_scipys_exact_test_and_has_its_bound():
    """Better at all: the p-value is never below binomtest's, and the bound above 0 says the same."""
    for improved in range(15):
        for regressed in range(8):
            made = PairedShares(improved, regressed, 60, "mcnemar")
            exact = sign_test(improved, regressed)
            if improved + regressed:
                test = stats.binomtest(improved, improved + regressed, 0.5, "greater")
                assert exact == pytest.approx(test.pvalue)
            assert made.p_above(0) >= exact
            for alpha in (0.2, 0.05, 0.01):
                assert (made.lower(alpha) > 0) == (made.p_above(0) <= alpha)


# -- too little to say anything ----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 20, 30, 300])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("scorer", ["points", "rated"])
def test_the_same_answers_are_never_better(n, confidence, scorer):
    """A difference of 0 in every case is no superiority, at whatever confidence."""
    same = pointed([3.0] * n, scorer)
    asked = Gate("points", superior_to="production", confidence=confidence)
    verdict = one(same, asked, baseline=same)
    assert verdict.ruling is Ruling.NOT_ENOUGH
    assert verdict.observed == 0
    right = tried([[True]] * n)
    asked = Gate("right", superior_to="production", confidence=confidence)
    assert one(right, asked, baseline=right).ruling is Ruling.NOT_ENOUGH
    twice = tried([[True, False]] * n)
    assert one(twice, asked, baseline=twice).ruling is Ruling.NOT_ENOUGH
    costs = costed([0.01] * n)
    asked = Gate("usd", superior_to="production", confidence=confidence)
    assert one(costs, asked, baseline=costs).ruling is Ruling.NOT_ENOUGH


def test_as_often_better_as_worse_is_not_better_at_even_odds():
    """With a confidence of one half the estimate itself has to be above 0."""
    before = [2.0] * 40
    now = [3.0] * 20 + [1.0] * 20
    even = Gate("points", superior_to="production", confidence=0.5)
    verdict = one(pointed(now), even, baseline=pointed(before))
    assert not verdict.passed
    old, new = tried([[i < 20] for i in range(40)]), tried([[i >= 20] for i in range(40)])
    even = Gate("right", superior_to="production", confidence=0.5)
    assert not one(new, even, baseline=old).passed


def test_what_only_rounding_parts_is_the_same():
    """0.1 + 0.2 is not better than 0.3, in however many cases."""
    verdict = one(pointed([0.1 + 0.2] * 40), BETTER, baseline=pointed([0.3] * 40))
    assert (verdict.observed, verdict.ruling) == (0, Ruling.NOT_ENOUGH)
    assert unlike([0.1 + 0.2, 0.3, 0.3, 1.0]) == 1


def test_too_few_that_differ_are_named():
    """Nine changes of 86 decide nothing without a range; ten may."""
    before = [0.0] * 86

    def improved(count: int):
        now = [1.0 + i / 10 for i in range(count)] + before[count:]
        return one(pointed(now), BETTER, baseline=pointed(before))

    few = improved(9)
    assert few.ruling is Ruling.NOT_ENOUGH
    assert "9 of 86 cases differ" in few.sentence
    assert "unless the set declares the scorer's range" in few.sentence
    assert improved(10).ruling is Ruling.PASS


def test_too_few_cases_are_named():
    """19 numbers decide nothing without a range."""
    values = [i / 10 for i in range(20)]
    most = Gate("points", maximum=50, **SURE)
    assert one(pointed(values), most).ruling is Ruling.PASS
    verdict = one(pointed(values[:19]), most)
    assert verdict.ruling is Ruling.NOT_ENOUGH
    assert "needs 20 cases, there are 19" in verdict.sentence


@pytest.mark.parametrize("method", [None, "gaffke", "bca", "t"])
def test_rare_harm_that_was_not_seen_is_not_shown_to_be_rare(method):
    """86 times no harm says nothing of how large a harm is, by no method, until the range is known."""
    most = Gate("points", maximum=0.5, method=method, **SURE)
    assert one(pointed([0.0] * 86), most).ruling is Ruling.NOT_ENOUGH
    assert one(pointed([0.0] * 86, "rated"), most).ruling is Ruling.PASS


def test_costs_that_are_all_the_same_can_fail_but_not_pass():
    """Nothing costs less than nothing; how much a case may cost that was not seen, nobody knows."""
    costs = costed([0.05] * 80)
    assert one(costs, Gate("usd", maximum=0.1, **SURE)).ruling is Ruling.NOT_ENOUGH
    assert one(costs, Gate("usd", maximum=0.02, **SURE)).ruling is Ruling.FAIL
    assert one(costs, Gate("usd", maximum=0.1, statistic="p95", **SURE)).ruling is Ruling.PASS
    assert one(costs, Gate("usd", maximum=0.1)).ruling is Ruling.PASS


def test_numbers_without_a_bound_name_how_many_more_would_do():
    """The further cases that a verdict names would decide if they were like these."""
    values = tuple(np.random.default_rng(2).gamma(2, 1, 60))
    made = WeightedMean(values, 0.0, 20.0)
    limit = made.estimate + 0.3
    more = made.more(limit, 0.05)
    assert more is not None
    longer = WeightedMean(values * 40, 0.0, 20.0)
    assert made.p_below(limit) > 0.05 > longer.p_below(limit)
    assert 60 < 60 + more < 60 * 40
    assert WeightedMean((1.0,) * 30).more(2.0, 0.05) is None


# -- limits that are the end of what there can be ----------------------------------------------


@pytest.mark.parametrize("method", [None, "wilson"])
def test_nothing_contradicts_a_perfect_score(method):
    """100 of 100 neither show a minimum of 1 nor miss it; 99 miss it.  So it is with a maximum of 0."""
    all_right, none = tried([[True]] * 100), tried([[False]] * 100)
    perfect = Gate("right", 1.0, method=method, **SURE)
    verdict = one(all_right, perfect)
    assert verdict.ruling is Ruling.NOT_ENOUGH
    assert "no number of cases shows a minimum of 1 with a confidence" in verdict.sentence
    assert one(tried([[i > 0] for i in range(100)]), perfect).ruling is Ruling.FAIL
    never = Gate("right", maximum=0.0, method=method, **SURE)
    verdict = one(none, never)
    assert verdict.ruling is Ruling.NOT_ENOUGH
    assert "no number of cases shows a maximum of 0 with a confidence" in verdict.sentence
    assert one(tried([[i == 0] for i in range(100)]), never).ruling is Ruling.FAIL
    assert one(all_right, Gate("right", 1.0)).ruling is Ruling.PASS


def test_a_perfect_score_over_trials_and_of_numbers():
    """The same of trials, of pass^k, of free cases and of a declared range."""
    all_right = tried([[True, True]] * 40)
    assert one(all_right, Gate("right", 1.0, **SURE)).ruling is Ruling.NOT_ENOUGH
    assert one(all_right, Gate("right", 1.0, pass_hat_k=2, **SURE)).ruling is Ruling.NOT_ENOUGH
    flaky = tried([[True, i > 0] for i in range(40)])
    assert one(flaky, Gate("right", 1.0, **SURE)).ruling is Ruling.FAIL
    free = one(costed([0.0] * 40), Gate("usd", maximum=0.0, **SURE))
    assert free.ruling is Ruling.NOT_ENOUGH
    best = one(pointed([5.0] * 40, "rated"), Gate("points", 5.0, **SURE))
    assert best.ruling is Ruling.NOT_ENOUGH
    assert "a minimum of 5" in best.sentence
    # Limits that nothing can miss stay what they were.
    assert one(all_right, Gate("right", 0.0, **SURE)).ruling is Ruling.PASS
    assert one(tried([[True]] * 40), Gate("right", maximum=1.0, **SURE)).ruling is Ruling.PASS


# -- ranges ------------------------------------------------------------------------------------


def test_a_declared_range_lets_equal_numbers_be_not_worse():
    """86 equal ratings from 0 to 5: not worse by 0.5, since a loss in more than 3.4 % would be seen."""
    for scorer, ruling in (("points", Ruling.NOT_ENOUGH), ("rated", Ruling.PASS)):
        same = pointed([4.0] * 86, scorer)
        assert one(same, NOT_WORSE, baseline=same).ruling is ruling
    few = pointed([4.0] * 20, "rated")
    assert one(few, NOT_WORSE, baseline=few).ruling is Ruling.NOT_ENOUGH


def test_a_range_that_production_left_says_nothing_about_it():
    """The version in production was scored before the range was declared."""
    now, before = pointed([4.0] * 86, "rated"), pointed([9.0] + [4.0] * 85)
    assert one(now, NOT_WORSE, baseline=before).ruling is Ruling.NOT_ENOUGH


def test_a_number_outside_its_range_counts_as_the_worst():
    """An answer cannot win by a number that there is not."""
    result = pointed([7.0, 5.0, -1.0], "rated")
    assert [row.values["points"] for row in result.rows] == [0.0, 5.0, 0.0]
    assert result.rows[0].notes["points"] == "7 is not within 0 to 5"
    assert result.rows[0].unusable == ("points",)
    far = Scorer("far", ScorerKind.DISTANCE, better="less", worst=3.0, range=(0.0, 3.0))
    assert far.judge(9, 1).value == 3.0
    custom = Scorer("own", ScorerKind.CUSTOM, better="more", worst=0.0, range=(0.0, 1.0))
    assert judged_reply(custom, Reply(value=0.5)).value == 0.5
    said = judged_reply(custom, Reply(value=1.5))
    assert (said.failed, said.note) == (True, "it answered 1.5 is not within 0 to 1")


def test_a_range_is_kept_with_the_result_and_decides_the_digest(write_set):
    """Stored evaluations have it; a set without one has the digest that it had."""
    result = pointed([1.0, 2.0], "rated")
    assert Evaluation.from_json(result.to_json()) == result
    assert "ranges" not in pointed([1.0, 2.0]).to_json()
    scorer = {"name": "points", "kind": "value", "better": "more", "worst": 0}
    plain = EvaluationSet.load(write_set(scorers=[scorer]))
    ranged = EvaluationSet.load(write_set(scorers=[{**scorer, "range": [0, 5]}]))
    assert "range" not in plain.scorers[0].to_json()
    assert ranged.scorers[0].range == (0.0, 5.0)
    assert plain.digest != ranged.digest


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"range": [5, 0]}, "the least and the most"),
        ({"range": [0]}, "the least and the most"),
        ({"range": [1, 5]}, "worst is 0, which is not within the range"),
        ({"kind": "exact", "better": "yes", "worst": None, "range": [0, 1]}, "has no range"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(write_set, changed, fault):
    """The fault of the file names the scorer and what is wrong with its range."""
    scorer = {"name": "points", "kind": "value", "better": "more", "worst": 0}
    chosen = {k: v for k, v in {**scorer, **changed}.items() if v is not None}
    with pytest.raises(InvalidFile) as caught:
        EvaluationSet.load(write_set(scorers=[chosen]))
    assert fault in str(caught.value.to_json())


def test_trials_are_weighted_by_case_with_the_ends_of_a_share():
    """Shares of trials are no whole cases, and have bounds from a handful of cases on."""
    result = tried([[True, True, i % 3 > 0] for i in range(12)])
    verdict = one(result, Gate("right", 0.5, **SURE))
    assert (verdict.n, verdict.method, verdict.ruling) == (12, "gaffke", Ruling.PASS)
    whole = one(tried([[True, True]] * 11 + [[False, False]]), Gate("right", 0.5, **SURE))
    assert whole.lower == pytest.approx(Proportion(11, 12).lower(0.05))
