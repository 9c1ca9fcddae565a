"""An evaluation that ends as soon as its gates decide: how many cases were asked, and why it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cli_world import toolkit
from hypothesis import given
from hypothesis import strategies as st
from promotion_world import SET, Desk

from toolkit.evaluation import Case, EvaluationSet, Scorer, ScorerKind
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.policy import Gate
from toolkit.promotion.before import Before
from toolkit.promotion.early import Early
from toolkit.values import JobRef

COUNT = 60
CHOSEN = EvaluationSet(
    "numbers",
    "answer",
    (Scorer("correct", ScorerKind.EXACT),),
    tuple(Case(f"c{n}", {"n": n}, True) for n in range(COUNT)),
)
GATE = Gate("correct", minimum=0.5, confidence=0.95, sequential=True)


def early(*gates: Gate, chosen: EvaluationSet = CHOSEN, attempt: int = 1) -> Early | None:
    return Early.of(chosen, gates or (GATE,), Before(attempt=attempt))


def answers(order: Sequence[str], right: Sequence[bool]) -> dict[str, CaseAnswer]:
    """Answers to the first cases of an order."""
    return {c: CaseAnswer(good, None, None) for c, good in zip(order, right, strict=False)}


def test_only_where_every_gate_may_end_early() -> None:
    """One gate that needs every case, several trials, or no gate at all: all cases are asked."""
    assert early() is not None
    plain = replace(GATE, sequential=False)
    assert early(GATE, plain) is None
    assert early(chosen=replace(CHOSEN, trials=2)) is None
    assert Early.of(CHOSEN, (), Before()) is None


def test_all_right_and_all_wrong_are_decided_long_before_the_end() -> None:
    """The first part of the order decides, and a further attempt needs more of it."""
    look = early()
    again = early(attempt=4)
    assert look is not None
    assert again is not None
    order = look.order("evaluation-1")
    assert sorted(order) == sorted(case.id for case in CHOSEN.cases)
    assert order != [case.id for case in CHOSEN.cases]
    for right in (True, False):
        first = next(n for n in range(1, COUNT) if look.decided(order, answers(order, [right] * n)))
        assert first < COUNT / 3
        evaluation, verdicts = look.judged(order[:first], answers(order, [right] * first))
        assert (verdicts[0].passed, verdicts[0].n) == (right, first)
        assert evaluation.set_digest == CHOSEN.digest
        if right:
            assert again.decided(order, answers(order, [True] * first)) is None


def test_a_gap_ends_what_counts() -> None:
    """Answers that came before those in front of them say nothing yet: slow cases are not left out."""
    look = early()
    assert look is not None
    order = look.order("evaluation-1")
    given_ = answers(order, [True] * 40)
    del given_[order[3]]
    assert look.decided(order, given_) is None
    given_[order[3]] = CaseAnswer(False, None, None)
    assert look.decided(order, given_) == order[:40]


@given(st.lists(st.booleans(), min_size=1, max_size=COUNT - 1))
def test_what_is_decided_stays_decided(right: list[bool]) -> None:
    """More answers never take a decision back: whoever looks later sees one, too."""
    look = early()
    assert look is not None
    order = look.order("evaluation-2")
    seen = False
    for n in range(1, len(right) + 1):
        now = look.decided(order, answers(order, right[:n])) is not None
        assert now or not seen
        seen = seen or now


AGENT = """@toolkit.agent
def answer(n: int) -> bool:
    \"\"\"Always right.\"\"\"
    return True"""
MANY = (
    SET.replace("capitals", "numbers")
    .replace("{questions: []}", "{}")
    .replace("Countries and what stands for their capitals.", "Numbers.")
)


@pytest.mark.slow
def test_a_promotion_asks_only_as_many_cases_as_decide(desk: Desk) -> None:
    """The kernel ends well, the ledger has the answers that were needed, the evidence says why."""
    folder = desk.workspace.registry / "evaluations" / "numbers"
    folder.mkdir()
    (folder / "set.yaml").write_text(MANY)
    count = 400
    (folder / "cases.jsonl").write_text(
        "".join(
            f'{{"id": "c{n}", "inputs": {{"n": {n}}}, "expected": true}}\n' for n in range(count)
        )
    )
    policy = desk.workspace.registry / "policies" / "production" / "policy.yaml"
    before = policy.read_text()
    line = "numbers: [{scorer: correct, minimum: 0.5, confidence: 0.95, sequential: true}], "
    policy.write_text(
        before.replace("gates: {", "gates: {" + line).replace("calls: 200", "calls: 2000")
    )
    try:
        path = desk.write("numbers", AGENT, "toolkit.result(right=answer(1))")
        desk.try_out(path)
        done = toolkit("promote", path, "--json")
        again = toolkit("promote", path, "--again", "--json")
    finally:
        policy.write_text(before)
    assert done.code == 0, done.told
    told = desk.stage(done, "evaluate")
    asked, run_id = told["facts"]["decided_after"], told["facts"]["run_id"]
    assert 8 <= asked < count
    assert f"ended early: {asked} of {count} cases decided" in told["summary"]
    assert done.json["gates"][0]["n"] == asked
    with Ledger.open(desk.workspace.database_url) as ledger:
        assert asked <= len(ledger.case_answers(run_id)) < count
        assert len(ledger.case_inputs(run_id)) == count
    evidence = json.loads(desk.registry.load(JobRef("numbers", "1"))["evidence.json"])
    assert len(evidence["evaluation"]["rows"]) == asked
    # What decided then decides again: nobody is asked.
    assert again.code == 0, again.told
    assert "run_id" not in desk.stage(again, "evaluate")["facts"]
    assert desk.stage(again, "evaluate")["facts"]["decided_after"] >= asked
