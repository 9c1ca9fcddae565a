"""Gates with a confidence: three verdicts, corrections, paired tests, trials, early ends."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from evaluation_world import Answer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.evaluation import (
    Case,
    Evaluation,
    EvaluationSet,
    Ruling,
    Scorer,
    ScorerKind,
    compare,
    gate,
    pass_hat_k,
    running_evidence,
    score,
    settled,
    shuffled,
)
from toolkit.evaluation.levels import attempt_alpha, holm_levels
from toolkit.evaluation.paired import PairedShares, tango_score
from toolkit.evaluation.samples import Mean, Proportion, Quantile
from toolkit.evaluation.weighted import WeightedMean
from toolkit.policy import Gate

CORRECT = Scorer("correct", ScorerKind.EXACT)
LENGTH = Scorer("length", ScorerKind.VALUE, "n", better="less", worst=100.0)
SURE = {"confidence": 0.95}


def answered(*trials: list[bool], slices: str = "a", **facts) -> Evaluation:
    """Score cases, each given as the list of its trials."""
    cases = tuple(
        Case(f"c{i:04}", {"i": i}, True, slices[i % len(slices)]) for i in range(len(trials))
    )
    answers = {
        case.id: [Answer(output=good) for good in given_]
        for case, given_ in zip(cases, trials, strict=True)
    }
    return score(EvaluationSet("s", "f", (CORRECT,), cases), answers, **facts)


def hits(good: int, n: int, **facts) -> Evaluation:
    return answered(*[[i < good] for i in range(n)], **facts)


def one(evaluation: Evaluation, each: Gate, **facts):
    (verdict,) = gate(evaluation, [each], **facts)
    return verdict


# -- the methods against the published and scipy's numbers ------------------------------------


def test_tango_is_what_tango_published():
    """The example of Tango (1998), table II: 44 pairs, one discordant; Z 1.709, -0.096 to 0.037."""
    assert tango_score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    made = PairedShares(0, 1, 44)
    assert made.lower(0.05) == pytest.approx(-0.096, abs=5e-4)
    assert made.upper(0.05) == pytest.approx(0.037, abs=5e-4)


@settings(max_examples=60)
@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_the_bounds_of_scipy(counted):
    """Clopper-Pearson and Wilson, both sides, as scipy.stats.binomtest has them."""
    good, n = counted
    for method, name in (("clopper-pearson", "exact"), ("wilson", "wilson")):
        made, test = Proportion(good, n, method), stats.binomtest(good, n, 0.7, "greater")
        want = test.proportion_ci(0.95, name).low
        assert made.lower(0.05) == pytest.approx(want, abs=1e-9)
        upper = stats.binomtest(good, n, 0.7, "less").proportion_ci(0.95, name).high
        assert made.upper(0.05) == pytest.approx(upper, abs=1e-9)
    assert Proportion(good, n).p_above(0.7) == pytest.approx(test.pvalue)


def test_numbers_have_the_bounds_of_scipy():
    """Student's t and the quantile test."""
    x = np.random.default_rng(3).gamma(1.0, 1.0, 80)
    made, test = Mean(tuple(x)), stats.ttest_1samp(x, 0.8, alternative="greater")
    assert made.p_above(0.8) == pytest.approx(test.pvalue)
    assert made.lower(0.05) == pytest.approx(test.confidence_interval(0.95).low)
    order = Quantile(tuple(sorted(x)))
    test = stats.quantile_test(x, q=4.0, p=0.95, alternative="less")
    assert order.p_below(4.0) == pytest.approx(test.pvalue)
    assert order.upper(0.05) == test.confidence_interval(0.95).high


@settings(max_examples=120)
@given(
    st.sampled_from(["p", "w", "t", "b", "o", "d"]),
    st.integers(0, 10**6),
    st.sampled_from([0.001, 0.01, 0.025, 0.05, 0.2]),
    st.floats(0.3, 0.95),
)
def test_a_bound_and_its_p_value_are_one_test(kind, seed, alpha, limit):
    """The lower bound reaches a limit exactly when the p-value is at most alpha."""
    random = np.random.default_rng(seed)
    values = [float(v) for v in random.random(30) ** random.uniform(0.2, 2)]
    made = {
        "p": lambda: Proportion(sum(v > 0.3 for v in values), 30),
        "w": lambda: Proportion(sum(v > 0.3 for v in values), 30, "wilson"),
        "t": lambda: Mean(tuple(values)),
        "b": lambda: WeightedMean(tuple(values), 0.0, 1.0),
        "o": lambda: WeightedMean(tuple(values)),
        "d": lambda: PairedShares(sum(v > 0.5 for v in values), sum(v < 0.1 for v in values), 30),
    }[kind]()
    away = 1e-9
    if abs(made.lower(alpha) - limit) > away:
        assert (made.lower(alpha) >= limit) == (made.p_above(limit) <= alpha)
    if abs(made.upper(alpha) - limit) > away:
        assert (made.upper(alpha) <= limit) == (made.p_below(limit) <= alpha)


def test_holm_is_stepped_down():
    """statsmodels' multipletests(method="holm") rejects the same: 0.01, 0.015, not 0.03, 0.04."""
    held = holm_levels([0.04, 0.01, 0.03, 0.015], 0.05)
    assert [ok for ok, _ in held] == [False, True, False, True]
    assert [level for _, level in held] == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([0.0, 0.004, 0.01, 0.0125, 0.02, 0.025, 0.04, 0.05, 0.06])
        | st.floats(0, 1),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0.05, 0.1, 0.0125]),
)
def test_holm_is_the_closed_test_of_all_ways_to_be_wrong(p_values, alpha):
    """A claim holds exactly when Bonferroni's test rejects every set of claims that it is in."""
    places = range(len(p_values))
    sets = [s for size in places for s in itertools.combinations(places, size + 1)]
    closed = [
        all(min(p_values[i] for i in s) <= alpha / len(s) for s in sets if place in s)
        for place in places
    ]
    assert [held for held, _ in holm_levels(p_values, alpha)] == closed


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.data())
def test_pass_hat_k_is_the_share_of_all_choices_of_k_trials(counted, data):
    """C(c, k)/C(n, k); with k = 1 it is the mean."""
    good, n = counted
    k = data.draw(st.integers(1, n))
    assert pass_hat_k(good, n, 1) == pytest.approx(good / n)
    want = math.prod((good - i) / (n - i) for i in range(k)) if good >= k else 0
    assert pass_hat_k(good, n, k) == pytest.approx(want)


# -- three verdicts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "ruling", "words"),
    [
        (46, Ruling.FAIL, "at most 0.6272, which misses the minimum 0.8"),
        (77, Ruling.PASS, "at least 0.8245, which keeps the minimum 0.8"),
        (73, Ruling.NOT_ENOUGH, "does not decide on the minimum 0.8"),
    ],
)
def test_a_gate_with_confidence_has_three_verdicts(good, ruling, words):
    """Of 86 cases 46 fail, 77 pass and 73 decide nothing; the sentence has the bound."""
    verdict = one(hits(good, 86), Gate("correct", 0.8, **SURE))
    assert (verdict.ruling, verdict.passed) == (ruling, ruling is Ruling.PASS)
    assert words in verdict.sentence


def test_what_is_missing_is_what_would_decide():
    """As many more cases as the verdict names decide, at the observed rate; one fewer does not."""
    verdict = one(hits(73, 86), Gate("correct", 0.8, **SURE))
    n = 86 + verdict.more
    assert Proportion(math.floor(73 / 86 * n), n).p_above(0.8) <= 0.05
    assert f"about {verdict.more} further cases" in verdict.sentence
    assert one(hits(80, 100), Gate("correct", 0.8, **SURE)).more is None


def test_a_maximum_and_a_good_no_work_the_other_way_round():
    """A maximum passes when the upper bound keeps it."""
    assert one(hits(2, 86), Gate("correct", maximum=0.1, **SURE)).ruling is Ruling.PASS
    assert one(hits(5, 86), Gate("correct", maximum=0.1, **SURE)).ruling is Ruling.NOT_ENOUGH
    assert one(hits(40, 86), Gate("correct", maximum=0.1, **SURE)).ruling is Ruling.FAIL


def test_without_confidence_the_plain_mean_decides_as_before():
    """Old policies keep their meaning, and a plain gate never says "not enough evidence"."""
    assert one(hits(4, 5), Gate("correct", 0.8)).ruling is Ruling.PASS
    assert one(hits(3, 5), Gate("correct", 0.8)).ruling is Ruling.FAIL


def test_every_slice_has_to_reach_the_minimum():
    """A good mean does not hide a bad slice."""
    result = answered(*[[i % 2 == 0 or i < 20] for i in range(120)], slices="xy")
    verdicts = gate(result, [Gate("correct", 0.5, slice="*", **SURE)])
    assert [(v.label, v.ruling) for v in verdicts] == [
        ("correct in slice x", Ruling.PASS),
        ("correct in slice y", Ruling.FAIL),
    ]
    assert one(result, Gate("correct", 0.5, slice="z")).ruling is Ruling.FAIL


def test_several_gates_and_several_attempts_need_more_evidence():
    """77 of 86 pass alone; Holm lets the weakest claim of two take the whole alpha; try 4 fails."""
    weak, strong = Gate("correct", 0.8, **SURE), Gate("correct", 0.5, **SURE)
    result = hits(77, 86)
    assert all(gate(result, [weak, strong]))
    assert not any(gate(result, [Gate("correct", 0.82, **SURE)] * 2))
    assert one(result, weak, attempt=3).ruling is Ruling.PASS
    late = one(result, weak, attempt=4)
    assert late.ruling is Ruling.NOT_ENOUGH
    assert "attempt 4" in late.sentence
    assert attempt_alpha(0.05, 4) == 0.0125


# -- against production ------------------------------------------------------------------------


def test_worse_by_a_hair_is_stopped_and_the_same_is_let_through():
    """With 86 cases and a margin of 0.05: no loss passes, one lost case is not enough evidence."""
    asked = Gate("correct", non_inferior_to="production", margin=0.05, **SURE)
    before = hits(77, 86)
    assert one(before, asked, baseline=before).ruling is Ruling.PASS
    hair = one(hits(76, 86), asked, baseline=before)
    assert hair.ruling is Ruling.NOT_ENOUGH
    assert "1 worse of 86" in hair.sentence
    assert one(hits(60, 86), asked, baseline=before).ruling is Ruling.FAIL


def test_a_comparison_needs_somebody_to_compare_with():
    """The first version has none; a version without a record stops the comparison."""
    asked = Gate("correct", superior_to="production", **SURE)
    first = one(hits(5, 9), asked, first="no version is in production yet")
    assert first.ruling is Ruling.PASS
    assert first.sentence == (
        "correct against production: no version is in production yet, so there is none to compare"
    )
    assert one(hits(9, 9), asked).ruling is Ruling.NOT_ENOUGH
    assert one(hits(70, 86), asked, baseline=hits(46, 86)).ruling is Ruling.PASS
    assert one(hits(49, 86), asked, baseline=hits(46, 86)).ruling is Ruling.NOT_ENOUGH


# -- numbers, costs, trials --------------------------------------------------------------------


def test_numbers_are_scored_compared_and_survive_their_json():
    """A numeric scorer has a mean, a worst value for failures, and case-by-case regressions."""
    cases = tuple(Case(f"c{i}", {"i": i}, None) for i in range(30))
    chosen = EvaluationSet("s", "f", (LENGTH,), cases)
    old = score(chosen, {c.id: Answer({"n": 10 + i % 3}) for i, c in enumerate(cases)})
    new = score(chosen, {c.id: Answer({"n": 10 + i % 3}) for i, c in enumerate(cases[:-1])})
    assert old.scores["length"].mean == pytest.approx(11)
    assert new.rows[-1].values == {"length": 100.0}
    assert [c.case_id for c in compare(new, old).regressions] == ["c29"]
    assert Evaluation.from_json(old.to_json()) == old
    assert one(old, Gate("length", maximum=12, **SURE)).ruling is Ruling.PASS
    assert one(old, Gate("length", maximum=10.5, method="t", **SURE)).ruling is Ruling.FAIL


def test_a_result_of_the_first_format_is_still_read():
    """Members that came later may be missing."""
    made = hits(3, 4)
    body = made.to_json() | {"schema": "evaluation-result/1"}
    for row in body["rows"]:
        del row["trial"], row["measures"]
    assert Evaluation.from_json(body) == made


def test_cost_and_time_are_gated_from_what_was_measured():
    """Mean and 95th percentile; an unknown price is not zero."""
    measures = {f"c{i:04}": {"usd": 0.01 + i % 7 / 1000, "seconds": 1 + i / 100} for i in range(80)}
    result = hits(80, 80, measures=measures)
    assert one(result, Gate("usd", maximum=0.02, **SURE)).ruling is Ruling.PASS
    p95 = one(result, Gate("seconds", maximum=1.79, statistic="p95", **SURE))
    assert (p95.ruling, p95.observed) == (Ruling.PASS, 1.75)
    assert one(result, Gate("seconds", maximum=1.2, **SURE)).ruling is Ruling.FAIL
    del measures["c0007"]["usd"]
    unknown = one(hits(80, 80, measures=measures), Gate("usd", maximum=0.02, **SURE))
    assert unknown.ruling is Ruling.NOT_ENOUGH
    assert "1 answers have no known usd" in unknown.sentence


def test_trials_are_not_further_cases():
    """Ten trials of five cases are five cases; pass^k asks for all of k."""
    same = answered(*[[True] * 10] * 4, [False] * 10)
    assert one(same, Gate("correct", 0.3, **SURE)).n == 5
    assert one(same, Gate("correct", 0.5, **SURE)).ruling is Ruling.NOT_ENOUGH
    flaky = answered(*[[True, True, True, i % 2 == 0] for i in range(60)])
    assert one(flaky, Gate("correct", 0.8, **SURE)).ruling is Ruling.PASS
    hat = one(flaky, Gate("correct", 0.8, pass_hat_k=4, **SURE))
    assert (hat.observed, hat.ruling) == (0.5, Ruling.FAIL)
    short = one(flaky, Gate("correct", 0.8, pass_hat_k=5, **SURE))
    assert short.ruling is Ruling.NOT_ENOUGH
    assert "1 more than there are" in short.sentence


# -- early ends --------------------------------------------------------------------------------


def test_a_clear_result_ends_early_in_both_directions():
    """All right or all wrong is settled long before the end; a close one is not."""
    asked = [Gate("correct", 0.8, sequential=True, **SURE)]
    assert settled(gate(hits(40, 40), asked, stopped=True))
    bad = gate(hits(0, 10), asked, stopped=True)
    assert settled(bad)
    assert bad[0].ruling is Ruling.FAIL
    assert not settled(gate(answered(*[[i % 6 > 0] for i in range(40)]), asked, stopped=True))
    assert gate(hits(95, 100), asked)[0].ruling is Ruling.PASS


def test_gates_that_need_every_case_hold_an_early_end_back():
    """A plain or paired gate passes only on the whole set."""
    early = Gate("correct", 0.5, sequential=True, **SURE)
    for other in (Gate("correct", 0.5), Gate("correct", superior_to="production", **SURE)):
        verdicts = gate(hits(40, 40), [early, other], stopped=True, baseline=hits(20, 40))
        assert not settled(verdicts)


def test_evidence_is_the_mixture_likelihood_ratio():
    """Against the integral itself, and 1 where nothing was seen."""
    looks = [True] * 9 + [False]
    grid = np.linspace(0.6, 1, 400_001)
    ratio = (grid / 0.6) ** 9 * ((1 - grid) / 0.4)
    want = np.trapezoid(ratio, grid) / 0.4
    best = max(want, np.trapezoid((grid / 0.6) ** 9, grid) / 0.4)
    assert running_evidence(looks, 0.6).above == pytest.approx(best, rel=1e-6)
    assert running_evidence([], 0.6).p_above == 1


def test_the_order_of_an_early_end_is_nobodys_choice():
    """The same for a seed, another for another, complete."""
    ids = [f"c{i}" for i in range(50)]
    assert shuffled(ids, "a") == shuffled(list(reversed(ids)), "a")
    assert shuffled(ids, "a") != shuffled(ids, "b")
    assert sorted(shuffled(ids, "a")) == sorted(ids)
