"""Scoring, intervals, gates and comparisons."""

from __future__ import annotations

import copy
import json
import math
import pickle
from fractions import Fraction

import pytest
from evaluation_world import Answer
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from toolkit.errors import ConfigurationError, InvalidFile, ToolFailed, UsageError
from toolkit.evaluation import (
    Case,
    Evaluation,
    EvaluationSet,
    Score,
    Scorer,
    ScorerKind,
    compare,
    gate,
    passed,
    regressions,
    score,
    wilson_interval,
)
from toolkit.evaluation.paired import exact_mcnemar
from toolkit.policy import Gate as Limit

CORRECT = Scorer("correct", ScorerKind.EXACT, "x", "x")
WRONG = Scorer("wrong", ScorerKind.WRONG_CLAIM, "x", "x", abstentions=("unsure",), better="no")
RIGHT, FALSE, UNSURE = Answer({"x": 1}), Answer({"x": 2}), Answer({"x": "unsure"})


def a_set(n: int, scorers: tuple[Scorer, ...] = (CORRECT, WRONG)) -> EvaluationSet:
    """Return a set of ``n`` cases that all expect 1, in two slices."""
    cases = tuple(Case(f"c{i}", {"i": i}, {"x": 1}, "ab"[i % 2], i + 1) for i in range(n))
    return EvaluationSet("numbers", "answer", scorers, cases)


def scored(*answers: Answer | None) -> Evaluation:
    """Score one case per answer; ``None`` is a case without an answer."""
    given_ = {f"c{i}": answer for i, answer in enumerate(answers) if answer is not None}
    return score(a_set(len(answers)), given_)


# -- scorers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scorer", "output", "expected", "value"),
    [
        (Scorer("s", ScorerKind.EXACT), {"a": [1, 2.0]}, {"a": [1, 2]}, True),
        (Scorer("s", ScorerKind.EXACT), 1, True, False),
        (Scorer("s", ScorerKind.EXACT, "a.b", "c"), {"a": {"b": "x"}}, {"c": "x"}, True),
        (Scorer("s", ScorerKind.EXACT), "mit", "MIT", False),
        (Scorer("s", ScorerKind.ONE_OF), "a", ["b", "a"], True),
        (Scorer("s", ScorerKind.ONE_OF), "c", ["b", "a"], False),
        (Scorer("s", ScorerKind.NUMERIC, tolerance=0.5), 1.5, 1, True),
        (Scorer("s", ScorerKind.NUMERIC, tolerance=0.5), 1.51, 1, False),
        (Scorer("s", ScorerKind.NUMERIC, relative_tolerance=0.1), -108, -100, True),
        (Scorer("s", ScorerKind.NUMERIC), 0.30000000000000004, 0.3, False),
        (Scorer("s", ScorerKind.REGEX, pattern="[a-z]+"), "abc", None, True),
        (Scorer("s", ScorerKind.REGEX, pattern="[a-z]+"), "abc1", None, False),
        (Scorer("s", ScorerKind.REGEX), "2026-01", r"\d{4}-\d\d", True),
        (Scorer("s", ScorerKind.ABSTAINED, abstentions=("unsure",)), "unsure", None, True),
        (Scorer("s", ScorerKind.ABSTAINED, abstentions=("unsure",)), "sure", None, False),
        (Scorer("s", ScorerKind.ABSTAINED, abstentions=("unsure",)), None, None, True),
        (Scorer("s", ScorerKind.WRONG_CLAIM, abstentions=("unsure",)), "unsure", "x", False),
        (Scorer("s", ScorerKind.WRONG_CLAIM, abstentions=("unsure",)), "x", "x", False),
        (Scorer("s", ScorerKind.WRONG_CLAIM, abstentions=("unsure",)), "y", ["x", "y"], False),
        (Scorer("s", ScorerKind.WRONG_CLAIM, abstentions=("unsure",)), "z", ["x", "y"], True),
    ],
)
def test_each_kind_of_scorer_answers_its_question(scorer, output, expected, value):
    """The table of kinds: what is asked and what is answered."""
    verdict = scorer.judge(output, expected)
    assert (verdict.value, verdict.unusable) == (value, False)


@pytest.mark.parametrize("better", ["yes", "no"])
@pytest.mark.parametrize(
    ("scorer", "output"),
    [
        (Scorer("s", ScorerKind.EXACT, "a"), {"b": 1}),
        (Scorer("s", ScorerKind.EXACT, "a"), "no object"),
        (Scorer("s", ScorerKind.NUMERIC), "12"),
        (Scorer("s", ScorerKind.NUMERIC), True),
        (Scorer("s", ScorerKind.NUMERIC), 10**400),
        (Scorer("s", ScorerKind.REGEX, pattern="."), 1),
    ],
)
def test_an_answer_that_cannot_be_judged_counts_with_the_worse_value(scorer, output, better):
    """Whichever answer is the good one, an unusable output counts as the other and says why."""
    directed = Scorer(scorer.name, scorer.kind, scorer.field, pattern=scorer.pattern, better=better)
    verdict = directed.judge(output, 1)
    assert verdict.unusable
    assert verdict.value is (better == "no")
    assert verdict.note


def test_a_long_answer_is_shortened_in_the_note():
    """Notes are for a table: a huge answer does not flood it."""
    note = CORRECT.judge({"x": "y" * 10_000}, {"x": 1}).note
    assert len(note) < 500


# -- scoring ------------------------------------------------------------------------------------


def test_scores_count_and_slices_add_up():
    """Means, counts and slices come from the same rows."""
    result = scored(RIGHT, FALSE, UNSURE, RIGHT)
    assert (result.scores["correct"].mean, result.scores["correct"].n) == (0.5, 4)
    assert (result.scores["wrong"].mean, result.scores["wrong"].hits) == (0.25, 1)
    for name, total in result.scores.items():
        assert sum(part[name].hits for part in result.slices.values()) == total.hits
        assert sum(part[name].n for part in result.slices.values()) == total.n


def test_a_failed_agent_counts_as_wrong_and_its_error_is_shown():
    """A case whose agent raised is wrong for every scorer, with the sentence of its error."""
    failed = Answer(None, ToolFailed("the agent raised KeyError: 'x'").to_json())
    result = scored(RIGHT, failed)
    assert result.failed == ("c1",)
    assert result.rows[1].values == {"correct": False, "wrong": True}
    assert result.rows[1].error == "the agent raised KeyError: 'x'"


def test_an_output_beside_an_error_is_not_believed():
    """An answer that carries both an output and an error counts as failed."""
    result = scored(Answer({"x": 1}, {"message": "late"}))
    assert result.rows[0].values["correct"] is False
    assert result.rows[0].output is None


def test_a_missing_answer_counts_as_wrong_and_is_named():
    """Leaving cases out cannot raise a score."""
    result = scored(RIGHT, None, RIGHT)
    assert result.missing == ("c1",)
    assert result.scores["correct"].hits == 2
    assert result.scores["correct"].n == 3
    assert result.rows[1].error == "no answer was recorded"


def test_answers_to_unknown_cases_count_for_nothing_and_are_named():
    """An invented case id changes no score."""
    result = score(a_set(1), {"c0": FALSE, "made-up": RIGHT})
    assert result.scores["correct"].mean == 0
    assert result.unexpected == ("made-up",)


def test_scoring_without_any_case_is_refused():
    """A set without cases has no score, rather than a perfect one."""
    with pytest.raises(UsageError, match="no case"):
        score(a_set(0), {})


@given(st.lists(st.sampled_from([RIGHT, FALSE, UNSURE, None]), min_size=1, max_size=12))
def test_correct_wrong_and_abstained_never_exceed_the_whole(answers):
    """No answer is both correct and a wrong claim."""
    result = scored(*answers)
    assert all(not (row.values["correct"] and row.values["wrong"]) for row in result.rows)
    assert result.scores["correct"].hits == sum(a is RIGHT for a in answers)


@given(st.lists(st.sampled_from([RIGHT, FALSE, UNSURE, None]), min_size=1, max_size=8))
def test_a_stored_evaluation_is_read_back_equal(answers):
    """JSON, and back, twice: the same evaluation, and the stored body is left as it was."""
    result = scored(*answers)
    body = json.loads(json.dumps(result.to_json()))
    before = copy.deepcopy(body)
    assert Evaluation.from_json(body) == result
    assert Evaluation.from_json(body) == result
    assert body == before


def test_stored_scores_are_not_believed():
    """A stored evaluation is counted again from its rows."""
    body = scored(FALSE).to_json()
    body["scores"]["correct"]["mean"] = 1.0
    assert Evaluation.from_json(body).scores["correct"].mean == 0.0


@pytest.mark.parametrize("body", [{}, {"schema": "evaluation-result/1"}, {"schema": "other"}])
def test_something_else_is_not_read_as_an_evaluation(body):
    """Reading another document is one clear error."""
    with pytest.raises(ConfigurationError, match="not a stored evaluation"):
        Evaluation.from_json(body)


def test_evaluations_survive_pickle():
    """Evaluations may cross processes."""
    result = scored(RIGHT, FALSE)
    assert pickle.loads(pickle.dumps(result)) == result


# -- intervals ----------------------------------------------------------------------------------


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counted):
    """The interval equals an independent implementation (scipy's, without correction)."""
    hits, n = counted
    other = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    lower, upper = wilson_interval(hits, n)
    assert lower == pytest.approx(other.low, abs=1e-12)
    assert upper == pytest.approx(other.high, abs=1e-12)
    assert 0 <= lower <= hits / n <= upper <= 1


def test_the_interval_of_nothing_is_everything():
    """Without cases nothing is known."""
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_an_impossible_count_is_refused(hits, n):
    """More hits than cases is a mistake of the caller."""
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(hits, n)


def test_the_exact_test_is_the_binomial_test():
    """The paired test equals scipy's exact binomial test of the changed cases."""
    for better in range(12):
        for worse in range(12):
            want = binomtest(better, better + worse).pvalue if better + worse else 1.0
            assert exact_mcnemar(better, worse) == pytest.approx(want)


# -- gates --------------------------------------------------------------------------------------


def test_gates_say_pass_or_how_many_cases_are_short():
    """A verdict has the numbers and one sentence with limit, interval and missing cases."""
    result = scored(*[RIGHT] * 6, *[FALSE] * 4)
    low, high = gate(result, [Limit("correct", minimum=0.8), Limit("wrong", maximum=0.1)])
    assert not low.passed
    assert (low.observed, low.n, low.cases_short) == (0.6, 10, 2)
    assert low.shortfall == pytest.approx(0.2)
    assert "below the minimum 0.8" in low.sentence
    assert "6 of 10" in low.sentence
    assert not high.passed
    assert high.cases_short == 3
    assert not passed([low, high])
    assert passed(gate(result, [Limit("correct", minimum=0.6), Limit("wrong", maximum=0.4)]))


def test_no_gate_does_not_pass():
    """Nothing promised is nothing kept."""
    verdicts = gate(scored(RIGHT), [])
    assert not any(verdicts)
    assert not passed(verdicts)
    assert not passed([])


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (Limit("speed", minimum=0.1), "no scorer 'speed'"),
        (Limit("correct"), "neither a minimum nor a maximum"),
        (Limit("correct", minimum=0.9, maximum=0.1), "no value of correct lies between"),
        (Limit("correct", minimum=0.0, maximum=0.5), "above the maximum"),
    ],
)
def test_a_gate_that_cannot_be_held_does_not_pass(limit, words):
    """Unknown scorers and senseless limits fail closed, even for a perfect result."""
    (verdict,) = gate(scored(RIGHT, RIGHT), [limit])
    assert not verdict.passed
    assert words in verdict.sentence


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(0, 100),
)
def test_limits_are_inclusive_and_exact(counted, percent):
    """A share equal to the limit passes, whatever binary fractions make of the two."""
    hits, n = counted
    result = scored(*[RIGHT] * hits, *[FALSE] * (n - hits))
    low, high = gate(
        result, [Limit("correct", minimum=percent / 100), Limit("correct", maximum=percent / 100)]
    )
    assert low.passed == (Fraction(hits, n) >= Fraction(percent, 100))
    assert high.passed == (Fraction(hits, n) <= Fraction(percent, 100))
    assert (low.cases_short == 0) == low.passed
    if not low.passed:  # as many cases as the verdict names are just enough
        assert Fraction(hits + low.cases_short, n) >= Fraction(percent, 100)
        assert Fraction(hits + low.cases_short - 1, n) < Fraction(percent, 100)


def test_a_score_tells_its_uncertainty():
    """The text of a score has the count and the interval."""
    assert str(Score.of([True] * 9 + [False])) == ("0.900 (9 of 10, 95 % interval 0.596 to 0.982)")


# -- comparison ---------------------------------------------------------------------------------


def test_regressions_are_found_case_by_case_even_when_the_mean_rises():
    """A better mean does not hide the cases that got worse."""
    before = scored(RIGHT, FALSE, FALSE, UNSURE)
    after = scored(FALSE, RIGHT, RIGHT, UNSURE)
    found = compare(after, before)
    assert {(c.case_id, c.scorer) for c in found.regressions} == {
        ("c0", "correct"),
        ("c0", "wrong"),
    }
    assert {c.case_id for c in found.improvements} == {"c1", "c2"}
    assert regressions(after, before) == found.regressions
    assert (found.tests["correct"].improved, found.tests["correct"].regressed) == (2, 1)
    assert found.regressions[0].before == {"x": 1}
    assert found.regressions[0].after == {"x": 2}
    assert found.compared == 4


def test_only_the_same_questions_are_compared():
    """New, removed and reworded cases are listed, not compared."""
    old, new = a_set(3), a_set(4)
    cases = (*new.cases[1:3], Case("c0", {"i": 0}, {"x": 7}, "a", 1), new.cases[3])
    changed = EvaluationSet("numbers", "answer", new.scorers, cases)
    every = {f"c{i}": RIGHT for i in range(4)}
    found = compare(score(changed, every), score(old, every))
    assert (found.changed, found.added, found.removed) == (("c0",), ("c3",), ())
    assert found.compared == 2
    assert found.regressions == ()


def test_a_crash_that_was_an_answer_is_a_regression_with_its_error():
    """A case that fails now is a regression, with the reason."""
    crash = Answer(None, {"message": "out of memory"})
    (first, *_) = regressions(scored(crash), scored(RIGHT))
    assert first.error == "out of memory"


@given(st.lists(st.sampled_from([RIGHT, FALSE, UNSURE, None]), min_size=1, max_size=10))
def test_nothing_regresses_against_itself(answers):
    """An evaluation compared with itself shows no change and no evidence of one."""
    result = scored(*answers)
    found = compare(result, result)
    assert (found.regressions, found.improvements) == ((), ())
    assert all(math.isclose(test.p_value, 1.0) for test in found.tests.values())


@pytest.mark.parametrize(
    ("output", "expected", "right"),
    [
        ({"a": 1, "b": {"c": [1], "d": 2}}, {"b": {"c": [1]}}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": 1.0}, {"a": 1}, True),
        ("text", {"a": 1}, False),
        ({"a": 1}, {}, True),
    ],
)
def test_a_subset_is_looked_for_in_objects_at_any_depth(output, expected, right):
    """Lists and plain values are equal or not; only objects may hold more."""
    verdict = Scorer("s", ScorerKind.JSON_SUBSET).judge(output, expected)
    assert verdict.value is right


def test_an_answer_fits_a_schema_or_says_where_it_does_not():
    """The place is told; a reference to elsewhere is not followed, and nobody is asked."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    scorer = Scorer("s", ScorerKind.JSON_SCHEMA, "data", json_schema=schema)
    assert scorer.judge({"data": {"n": 1}}, None).value is True
    wrong = scorer.judge({"data": {"n": "1"}}, None)
    assert (wrong.value, wrong.note.startswith("$.n: ")) == (False, True)
    away = Scorer("s", ScorerKind.JSON_SCHEMA, json_schema={"$ref": "http://127.0.0.1:9/x"})
    assert away.judge({}, None).unusable


def test_a_schema_with_faults_is_refused_with_the_set(write_set):
    """As is one that is missing, or stands where it means nothing."""
    for scorer in (
        {"name": "s", "kind": "json_schema", "json_schema": {"type": "nonsense"}},
        {"name": "s", "kind": "json_schema"},
        {"name": "s", "kind": "exact", "json_schema": {"type": "object"}},
    ):
        with pytest.raises(InvalidFile, match="json_schema"):
            EvaluationSet.load(write_set(scorers=[scorer]))
