"""A promotion's answers before the set's own scorers, without a gateway or a kernel."""

from __future__ import annotations

from cli_world import notebook_text
from shelf_world import Shelf

from toolkit.errors import GatewayUnavailable
from toolkit.evaluation import Case, EvaluationSet, Program, Scorer, ScorerKind
from toolkit.ledger import CaseAnswer
from toolkit.promotion.asking import Answered, Asking
from toolkit.promotion.judging import Judges, judge
from toolkit.values import IsolationLevel

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
    answers = {f"c{n}": [CaseAnswer(output, None, None)] for n, output in enumerate(outputs)}
    return Answered({**{case.id: [None] for case in CASES}, **answers}, {})


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
