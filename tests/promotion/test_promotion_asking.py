"""Who is asked what: trials, earlier answers, evaluations that were killed, whole jobs."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field

import pytest
from shelf_world import Shelf

from toolkit.evaluation import Case, EvaluationSet, Scorer, ScorerKind
from toolkit.execution import RunPlan, RunReport
from toolkit.ledger import Ledger
from toolkit.promotion.asking import Answered, Asking, ask
from toolkit.registry import Registry
from toolkit.values import Cause, RunKind, RunState

CHOSEN = EvaluationSet(
    "numbers",
    "spell",
    (Scorer("correct", ScorerKind.EXACT),),
    tuple(Case(f"n{n}", {"number": n}, str(n)) for n in range(3)),
)


@dataclass
class Hand:
    """A runner without a kernel: answers cases by hand, and may die on the way.

    Attributes:
        dies_after: Answers until it is killed; ``None``: never.
        asked: Questions that it was handed.
        ran: Parameters of runs that it made of whole jobs.
    """

    ledger: Ledger
    dies_after: int | None = None
    asked: list[str] = field(default_factory=list)
    ran: list[dict[str, object]] = field(default_factory=list)

    def run(self, plan: RunPlan) -> RunReport:
        run = self.ledger.create_run(plan.run)
        if run.resumable:
            self.ledger.take(run, state=RunState.RUNNING, cause=None, ended_us=None)
        else:
            self.ledger.update_run(run.run_id, state=RunState.RUNNING)
        if plan.extra_cells:
            state = self._serve(run.run_id)
        else:
            self.ran.append(plan.parameters)
            state = RunState.FAILED if plan.parameters.get("limit") == 2 else RunState.SUCCEEDED
        results = {"said": plan.parameters.get("limit")}
        cause = Cause.KERNEL_DIED if state is RunState.KILLED else None
        made = self.ledger.update_run(run.run_id, state=state, cause=cause)
        return RunReport(made, self.ledger.totals(run.run_id), results, seconds=1.0)

    def _serve(self, run_id: str) -> RunState:
        reset = True
        while (item := self.ledger.next_case(run_id, reset=reset)) is not None:
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                return RunState.KILLED
            reset = False
            self.asked.append(item[0])
            self.ledger.answer_case(run_id, item[0], str(item[1]["number"]), None)
        return RunState.SUCCEEDED


def asked(
    shelf: Shelf, hand: Hand, chosen: EvaluationSet = CHOSEN, *, used: bool = True
) -> Answered:
    memory = shelf.memory()
    memory.used = used
    asking = Asking(shelf.candidate, chosen, memory)
    answered = ask(asking, hand, shelf.ledger)  # type: ignore[arg-type]  # of the same interface
    if answered.report is None or answered.report.run.state is RunState.SUCCEEDED:
        memory.note(asking.key, answered.run_ids)
        body = {"job": "steady", "measurements": memory.noted}
        Registry(shelf.workspace.registry).record("promotion.refused", body, by="ana")
    return answered


def outputs(answered: Answered) -> dict[str, list[object]]:
    return {
        case: [None if one is None else one.output for one in given]
        for case, given in answered.answers.items()
    }


def test_each_case_is_asked_as_often_as_the_set_says(shelf: Shelf) -> None:
    """Trials are questions of their own; more trials later ask only what is new."""
    hand = Hand(shelf.ledger)
    twice = dataclasses.replace(CHOSEN, trials=2)
    first = asked(shelf, hand, twice)
    assert hand.asked == ["n0", "n0#2", "n1", "n1#2", "n2", "n2#2"]
    assert outputs(first) == {"n0": ["0", "0"], "n1": ["1", "1"], "n2": ["2", "2"]}
    thrice = asked(shelf, hand, dataclasses.replace(CHOSEN, trials=3))
    assert hand.asked[6:] == ["n0#3", "n1#3", "n2#3"]
    assert (thrice.cached, outputs(thrice)["n1"]) == (6, ["1", "1", "1"])


def test_what_was_answered_is_not_asked_again_unless_wanted(shelf: Shelf) -> None:
    """The same content: no run at all.  ``--fresh``: everything."""
    hand = Hand(shelf.ledger)
    asked(shelf, hand)
    again = asked(shelf, hand)
    assert (len(hand.asked), again.report, again.cached) == (3, None, 3)
    assert outputs(again) == {"n0": ["0"], "n1": ["1"], "n2": ["2"]}
    other = Case("n1", {"number": 7}, "7")
    changed = dataclasses.replace(CHOSEN, cases=(*CHOSEN.cases[:1], other))
    assert outputs(asked(shelf, hand, changed)) == {"n0": ["0"], "n1": ["7"]}
    assert hand.asked[3:] == ["n1"]
    fresh = asked(shelf, hand, used=False)
    assert (len(hand.asked), fresh.cached) == (7, 0)


def test_an_evaluation_that_was_killed_goes_on(shelf: Shelf) -> None:
    """Under its own run; answered cases stay, and a finished one is not gone on with."""
    dying = Hand(shelf.ledger, dies_after=2)
    first = asked(shelf, dying)
    assert first.report is not None
    assert outputs(first) == {"n0": ["0"], "n1": ["1"], "n2": [None]}
    hand = Hand(shelf.ledger)
    second = asked(shelf, hand)
    assert second.report is not None
    assert second.report.run.run_id == first.report.run.run_id
    assert hand.asked == ["n2"]
    assert outputs(second) == {"n0": ["0"], "n1": ["1"], "n2": ["2"]}


def test_a_killed_evaluation_of_other_questions_is_left(shelf: Shelf) -> None:
    """What it asked is not what is asked now."""
    first = asked(shelf, Hand(shelf.ledger, dies_after=1))
    hand = Hand(shelf.ledger)
    second = asked(shelf, hand, dataclasses.replace(CHOSEN, cases=CHOSEN.cases[:2]))
    assert first.report is not None
    assert second.report is not None
    assert second.report.run.run_id != first.report.run.run_id
    assert hand.asked == ["n0", "n1"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_whole_job_answers_with_what_it_publishes(shelf: Shelf, concurrency: int) -> None:
    """One run for each case, by its parameters, under one run that keeps the questions."""
    cases = tuple(Case(f"n{n}", {"limit": n}, {"said": n}) for n in (1, 2, 3))
    odd = Case("odd", {"limit": "many"}, None)
    chosen = dataclasses.replace(
        CHOSEN, agent="", target="job", cases=(*cases, odd), concurrency=concurrency
    )
    hand = Hand(shelf.ledger)
    found = asked(shelf, hand, chosen)
    assert outputs(found) == {"n1": [{"said": 1}], "n2": [None], "n3": [{"said": 3}], "odd": [None]}
    assert sorted(str(values) for values in hand.ran) == [f"{{'limit': {n}}}" for n in (1, 2, 3)]
    (failed,) = found.answers["n2"]
    assert failed is not None
    assert "ended failed" in (failed.error or {})["message"]
    (unfit,) = found.answers["odd"]
    assert unfit is not None
    assert "limit" in (unfit.error or {})["message"]
    assert found.report is not None
    children = [r for r in shelf.ledger.runs(limit=50) if r.parent_run_id]
    assert {run.parent_run_id for run in children} == {found.report.run.run_id}
    assert {run.kind for run in children} == {RunKind.EVALUATION}
    assert set(found.measures["n1"]) == {"usd", "seconds"}
    assert found.measures["odd"] == {}
    assert asked(shelf, hand, chosen).cached == 4


def test_several_kernels_share_the_questions(shelf: Shelf) -> None:
    """Each question is asked once, in a run per kernel; no more kernels than questions or processors."""
    hand = Hand(shelf.ledger)
    many = dataclasses.replace(CHOSEN, kernels=16)
    answered = asked(shelf, hand, many)
    cores = len(os.sched_getaffinity(0))
    assert len(answered.own) == min(3, cores)
    assert sorted(hand.asked) == ["n0", "n1", "n2"]
    assert outputs(answered) == {"n0": ["0"], "n1": ["1"], "n2": ["2"]}
    again = asked(shelf, hand, many)
    assert (len(hand.asked), again.own, again.cached) == (3, (), 3)
    assert sorted(again.run_ids) == sorted(answered.run_ids)


def test_a_kernel_of_several_that_was_killed_goes_on(shelf: Shelf) -> None:
    """What it answered stays; the evaluation has failed, and its next attempt asks what is left."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine gives an evaluation one kernel")
    dying = Hand(shelf.ledger, dies_after=1)
    two = dataclasses.replace(CHOSEN, kernels=2)
    first = asked(shelf, dying, two)
    assert first.report is not None
    assert first.report.run.state is RunState.KILLED
    killed = [r for r in first.own if shelf.ledger.get_run(r).state is RunState.KILLED]
    kept = {case for run_id in killed for case in shelf.ledger.case_answers(run_id)}
    later = Hand(shelf.ledger)
    second = asked(shelf, later, two)
    assert second.report is not None
    assert second.report.run.state is RunState.SUCCEEDED
    assert set(killed) <= set(second.own)
    assert outputs(second) == {"n0": ["0"], "n1": ["1"], "n2": ["2"]}
    assert not kept & set(later.asked)
