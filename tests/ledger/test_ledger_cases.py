"""Evaluation cases: inputs out, answers in, each once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_world import a_run, begin

from toolkit.errors import Conflict, NotFound
from toolkit.ledger import CaseAnswer
from toolkit.values import CallKind, RunKind

CASES = [("c1", {"z": 1.0, "a": "ü"}), ("c2", {"a": 2}), ("c3", {"a": 3})]


@pytest.fixture
def evaluation(ledger):
    a_run(ledger, kind=RunKind.EVALUATION)
    ledger.put_cases("run-1", CASES)
    return ledger


def test_cases_go_out_once_in_order(evaluation):
    """Each case is handed out once; then there is none."""
    assert [evaluation.next_case("run-1") for _ in range(4)] == [*CASES, None]


def test_a_new_kernel_gets_the_unanswered_ones_again(evaluation):
    """reset hands out again what was not answered, and only that."""
    for _ in range(2):
        evaluation.next_case("run-1")
    evaluation.answer_case("run-1", "c1", {"ok": True}, None)
    assert evaluation.next_case("run-1", reset=True) == CASES[1]
    assert evaluation.next_case("run-1") == CASES[2]
    assert evaluation.next_case("run-1") is None


def test_threads_never_get_the_same_case(ledger):
    """Eight askers share 40 cases without overlap."""
    a_run(ledger)
    ledger.put_cases("run-1", [(f"c{n}", {"n": n}) for n in range(40)])
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: ledger.next_case("run-1")[0], range(40)))
    assert sorted(got) == sorted(f"c{n}" for n in range(40))


def test_answers_come_back_with_the_call_that_made_them(evaluation):
    """Output or error, and the agent's call for the case."""
    begin(evaluation, {"loose": 1}, case_id="c1")
    agent = begin(evaluation, kind=CallKind.AGENT, name="review", case_id="c1").call
    begin(evaluation, {"inner": 1}, case_id="c1", parent=agent.key)
    begin(evaluation, {"loose": 2}, case_id="c1")
    failure = {"code": "tool_failed", "message": "no"}
    evaluation.answer_case("run-1", "c2", None, failure)
    evaluation.answer_case("run-1", "c1", {"z": 1.0, "a": 2}, None)
    answers = evaluation.case_answers("run-1")
    assert list(answers) == ["c1", "c2"]
    assert answers == {
        "c1": CaseAnswer({"z": 1.0, "a": 2}, None, agent.key),
        "c2": CaseAnswer(None, failure, None),
    }
    assert list(answers["c1"].output) == ["z", "a"]
    assert evaluation.verify() == []


def test_the_first_answer_counts(evaluation):
    """The same answer again is harmless, another one is a conflict."""
    evaluation.answer_case("run-1", "c1", 1, None)
    head = evaluation.head("run-1")
    evaluation.answer_case("run-1", "c1", 1, None)
    with pytest.raises(Conflict, match="answered before, and differently"):
        evaluation.answer_case("run-1", "c1", 2, None)
    with pytest.raises(NotFound, match="no case 'c9'"):
        evaluation.answer_case("run-1", "c9", 2, None)
    assert evaluation.head("run-1") == head


def test_cases_are_put_once(evaluation):
    """Known cases are skipped, new ones follow, changed inputs are a conflict."""
    evaluation.put_cases("run-1", [*CASES, ("c4", {})])
    with pytest.raises(Conflict, match="other inputs"):
        evaluation.put_cases("run-1", [("c5", {}), ("c1", {"z": 2})])
    given = [evaluation.next_case("run-1") for _ in range(5)]
    assert given == [*CASES, ("c4", {}), None]
    assert evaluation.verify() == []


def test_cases_need_a_run(ledger):
    """An unknown run has no cases."""
    with pytest.raises(NotFound):
        ledger.put_cases("run-x", CASES)
    with pytest.raises(NotFound):
        ledger.next_case("run-x")


def test_withdrawn_cases_go_out_no_more_until_they_are_given_again(evaluation):
    """Not to a new kernel either; what was handed out before may be answered."""
    assert evaluation.next_case("run-1") == CASES[0]
    evaluation.withdraw_cases("run-1")
    assert evaluation.next_case("run-1") is None
    assert evaluation.next_case("run-1", reset=True) == CASES[0], "it was handed out before"
    assert evaluation.next_case("run-1") is None
    evaluation.answer_case("run-1", "c1", 1, None)
    assert set(evaluation.case_answers("run-1")) == {"c1"}
    evaluation.put_cases("run-1", CASES)
    assert [evaluation.next_case("run-1") for _ in range(3)] == [*CASES[1:], None]
    assert evaluation.verify("run-1") == []
