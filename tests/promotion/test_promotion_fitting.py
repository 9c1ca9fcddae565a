"""A set that the notebook's agent cannot answer is refused by name, and nobody is asked."""

from __future__ import annotations

from typing import Any

import pytest
from gate_world import Hall

from toolkit.promotion import Promotion
from toolkit.promotion.counting import EVALUATING

JOB = "city"
SCORERS = "  - {name: correct, kind: exact}\n"


def cases(**inputs: Any) -> list[dict[str, Any]]:
    return [{"id": f"c{n}", "inputs": inputs, "expected": "1"} for n in range(8)]


@pytest.fixture(autouse=True)
def gated(hall: Hall) -> None:
    hall.write_gates("{city: [{scorer: correct, minimum: 0.5}]}")


def refused(hall: Hall, promotion: Promotion) -> list[str]:
    """Make sure that nothing was asked, sealed or counted; return what is said."""
    assert promotion.version is None
    assert hall.player.asked == []
    assert hall.audit(EVALUATING) == []
    return [f"{f.rule}: {f.message}" for f in promotion.findings if f.rule.startswith("evaluate")]


def test_cases_with_other_arguments_are_told_before_anything_is_asked(hall: Hall) -> None:
    """Each way in which cases do not fit is one finding, with the cases and the arguments."""
    unlike = [{"id": "more", "inputs": {"question": "1", "in": "Spain"}, "expected": "1"}]
    hall.write_set(JOB, [*cases(query="1"), *unlike], SCORERS)
    said = refused(hall, hall.promote(hall.notebook("one"), JOB, lambda _: "1"))
    assert said == [
        (
            "evaluate.arguments: cases of 'city' do not fit the agent 'answer' (it takes question): "
            "c0, c1, c2, c3, c4 and 3 more, without question and with query, which it does not take"
        ),
        (
            "evaluate.arguments: cases of 'city' do not fit the agent 'answer' (it takes question): "
            "more, with in, which it does not take"
        ),
    ]


def test_a_set_for_another_agent_is_told_before_anything_is_asked(hall: Hall) -> None:
    """With the agents that there are."""
    hall.write_set(JOB, cases(question="1"), SCORERS)
    path = hall.workspace.registry / "evaluations" / JOB / "set.yaml"
    path.write_text(path.read_text().replace("agent: answer", "agent: reply"))
    (said,) = refused(hall, hall.promote(hall.notebook("one"), JOB, lambda _: "1"))
    assert "the agent 'reply', which the notebook does not define (it defines answer)" in said


def test_what_fits_is_asked_beside_what_does_not(hall: Hall) -> None:
    """One set's fault does not hide how another set went; the notebook is refused all the same."""
    hall.write_set(JOB, cases(question="1"), SCORERS)
    hall.write_set("rivers", cases(river="1"), SCORERS)
    made = hall.promote(hall.notebook("one"), JOB, lambda _: "1", sets=("rivers",))
    assert made.version is None
    assert len(hall.player.asked) == 8
    assert [gate.passed for gate in made.gates] == [True]
    assert {f.rule for f in made.findings if f.severity == "error"} == {"evaluate.arguments"}


def test_an_agent_under_another_decorator_is_asked(hall: Hall) -> None:
    """What it takes cannot be read: the cases decide."""
    hall.write_set(JOB, cases(query="1"), SCORERS)
    path = hall.notebook("one", code="def loud(function):\n    return function")
    text = path.read_text().replace("@toolkit.agent\\n", "@loud\\n@toolkit.agent\\n")
    path.write_text(text)
    made = hall.promote(path, JOB, lambda _: "1")
    assert len(hall.player.asked) == 8
    assert made.version == 1
