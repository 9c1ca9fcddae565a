"""A promotion's answers before the set's own scorers, without a gateway or a kernel."""

from __future__ import annotations

import pytest
from cli_world import notebook_text
from shelf_world import Shelf

from toolkit.errors import GatewayUnavailable
from toolkit.evaluation import Case, EvaluationSet, MlflowScorer, Program, Scorer, ScorerKind
from toolkit.ledger import CaseAnswer
from toolkit.promotion.asking import Answered, Asking
from toolkit.promotion.judging import Judges, judge
from toolkit.values import IsolationLevel, RunKind, RunState

FILE = "def score(answer, label, inputs):\n    return answer == label\n"
OWN = Scorer("own", ScorerKind.CUSTOM, outside=Program("own.py", "score", FILE))
PLAIN = Scorer("plain", ScorerKind.EXACT)
CASES = tuple(Case(f"c{n}", {"n": n}, "yes") for n in range(3))


def no_gateway() -> str:
    """A gateway that cannot be had."""
    raise GatewayUnavailable("there is none here")


def asked(shelf: Shelf, *scorers: Scorer) -> Asking:
    memory = shelf.memory()
    return Asking(shelf.candidate, EvaluationSet("s", "answer", scorers, CASES), memory)


def answered(*outputs: str) -> Answered:
    answers: dict[str, list[CaseAnswer | None]] = {case.id: [None] for case in CASES}
    answers |= {f"c{n}": [CaseAnswer(output, None, None)] for n, output in enumerate(outputs)}
    return Answered(answers, {})


def test_a_sets_own_file_needs_no_gateway_and_no_run(shelf: Shelf) -> None:
    """It is asked about the answers that there are; the level and the counts are facts."""
    judges = Judges(shelf.ledger, no_gateway, lambda: IsolationLevel.L1)
    found = judge(asked(shelf, OWN, PLAIN), answered("yes", "no"), judges)
    assert {q: v["own"].value for q, v in found.verdicts.items()} == {"c0": True, "c1": False}
    assert found.facts == {"isolation": "L1", "asked": 2, "cached": 0, "failed": 0}
    assert found.summary == "2 answers before scorers in processes of their own (L1)"
    assert shelf.ledger.runs(limit=10) == []


def test_equal_answers_are_asked_once(shelf: Shelf) -> None:
    """Trials of one case with the same answer share one verdict."""
    memory = shelf.memory()
    one = EvaluationSet("s", "answer", (OWN,), CASES[:1], trials=3)
    asking = Asking(shelf.candidate, one, memory)
    given = Answered(
        {
            "c0": [
                CaseAnswer("yes", None, None),
                CaseAnswer("no", None, None),
                CaseAnswer("yes", None, None),
            ]
        },
        {},
    )
    found = judge(asking, given, Judges(shelf.ledger, no_gateway))
    assert found.facts["asked"] == 2
    assert [found.verdicts[q]["own"].value for q in ("c0", "c0#2", "c0#3")] == [True, False, True]


def test_a_set_without_such_scorers_starts_nothing(shelf: Shelf) -> None:
    """No process, no level, nothing in the evidence."""
    found = judge(asked(shelf, PLAIN), answered("yes"), Judges(shelf.ledger, no_gateway))
    assert (found.verdicts, found.facts, found.summary) == ({}, {}, "")


def test_what_judges_depend_on_is_not_the_notebook(shelf: Shelf) -> None:
    """Another notebook or person leaves their verdicts standing; other models or limits do not."""
    world = shelf.memory().world
    assert shelf.memory(user="ben", text=notebook_text("print(2)")).world == world
    models = shelf.workspace.registry / "models.yaml"
    models.write_text(models.read_text().replace("max_tokens: 64", "max_tokens: 65"))
    assert shelf.memory().world != world


def matching(name: str, pattern: str) -> Scorer:
    """One of MLflow's scorers that asks no model, so that no gateway is needed."""
    made = MlflowScorer("RegexMatch", "", {"pattern": pattern})
    return Scorer(name, ScorerKind.MLFLOW, outside=made)


@pytest.mark.slow
class TestMemory:
    """What MLflow's scorers said, by content, and only of the scorer that said it."""

    def judged(self, shelf: Shelf, *scorers: Scorer, killed: bool = False) -> dict[str, object]:
        """Judge and keep what was measured, as a promotion that was refused does."""
        asking = asked(shelf, *scorers)
        judges = Judges(shelf.ledger, lambda: "/nowhere/gateway.sock")
        found = judge(asking, answered("yes", "no"), judges)
        body = {"job": "steady", "measurements": asking.memory.noted}
        if not killed:
            asking.memory.registry.record("promotion.refused", body, by="ana")
        values = {s.name: [found.verdicts[q][s.name].value for q in ("c0", "c1")] for s in scorers}
        return {**values, "asked": found.facts["asked"], "cached": found.facts["cached"]}

    def test_a_changed_scorer_is_asked_again_and_the_others_are_not(self, shelf: Shelf) -> None:
        """Also the next time: no verdict of the scorer as it was counts for what it is now."""
        one, old, new = matching("one", "yes"), matching("two", "yes"), matching("two", "no")
        assert self.judged(shelf, one, old) == {"one": [True, False], "two": [True, False], "asked": 4, "cached": 0}  # fmt: skip
        for asked_now in (2, 0):
            found = self.judged(shelf, one, new)
            assert found["two"] == [False, True]
            assert (found["asked"], found["cached"]) == (asked_now, 4 - asked_now)

    def test_what_a_killed_promotion_had_heard_counts(self, shelf: Shelf) -> None:
        """Its run ended without a record of the attempt; its verdicts are taken over."""
        one = matching("one", "yes")
        self.judged(shelf, one, killed=True)
        (run,) = shelf.ledger.runs(kind=RunKind.EVALUATION)
        assert run.state is RunState.SUCCEEDED
        forged = shelf.ledger.create_run(shelf.candidate.run(RunKind.EVALUATION, {}, tags=run.tags))
        inputs = shelf.ledger.case_inputs(run.run_id)
        shelf.ledger.put_cases(forged.run_id, list(inputs.items()))
        first = next(iter(inputs))
        told = {"value": True, "note": "heard before it was killed"}
        shelf.ledger.answer_case(forged.run_id, first, told, None)
        shelf.ledger.update_run(forged.run_id, state=RunState.LOST)
        asking = asked(shelf, one)
        found = judge(
            asking, answered("yes", "no"), Judges(shelf.ledger, lambda: "/nowhere/x.sock")
        )
        assert found.verdicts["c0"]["one"].note == told["note"]
        assert found.verdicts["c1"]["one"].note != told["note"]
