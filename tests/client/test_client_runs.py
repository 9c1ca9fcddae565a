"""What a job's notebook does: parameters in, results out, cases through."""

from __future__ import annotations

import dataclasses
from datetime import date

import pandas as pd
import pytest
from pydantic import BaseModel, Field

import toolkit
from toolkit.client import wire
from toolkit.errors import UsageError
from toolkit.values import RunKind


class Plain:
    limit: int = 20
    only: list[str] = []  # noqa: RUF012 - as people write it in a notebook
    since: date


@dataclasses.dataclass
class Data:
    since: date
    limit: int = 20
    only: list[str] = dataclasses.field(default_factory=list)


class Model(BaseModel):
    since: date
    limit: int = Field(default=20, ge=1)
    only: list[str] = []


@pytest.mark.parametrize("declared", [Plain, Data, Model])
def test_parameters_come_from_the_run_as_their_types(declared, monkeypatch) -> None:
    """Plain class, dataclass, pydantic model: one rule for the three."""
    monkeypatch.setenv(wire.ENV_PARAMETERS, '{"limit": 5, "since": "2026-01-02", "only": ["a"]}')
    made = toolkit.parameters(declared)
    assert isinstance(made, declared)
    assert (made.limit, made.since, made.only) == (5, date(2026, 1, 2), ["a"])


@pytest.mark.parametrize("declared", [Plain, Data, Model])
def test_defaults_fill_what_the_run_does_not_give(declared, monkeypatch) -> None:
    """Only what has neither value nor default is missing."""
    monkeypatch.setenv(wire.ENV_PARAMETERS, '{"since": "2026-01-02"}')
    made = toolkit.parameters(declared)
    assert (made.limit, made.only) == (20, [])
    monkeypatch.setenv(wire.ENV_PARAMETERS, "{}")
    with pytest.raises(UsageError, match="since"):
        toolkit.parameters(declared)


@pytest.mark.parametrize("declared", [Plain, Data, Model])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"limit": "many", "since": "2026-01-02"}', "limit"),
        ('{"limits": 5, "since": "2026-01-02"}', "unknown parameter limits"),
        ('{"since": "soon"}', "since"),
    ],
)
def test_wrong_parameters_are_refused(declared, given, message, monkeypatch) -> None:
    """An unknown name is a slip, not an extra; a wrong type is named."""
    monkeypatch.setenv(wire.ENV_PARAMETERS, given)
    with pytest.raises(UsageError, match=message):
        toolkit.parameters(declared)


def test_in_the_sandbox_the_defaults_hold(monkeypatch) -> None:
    """No run, no values: the class as it is written."""
    monkeypatch.delenv(wire.ENV_PARAMETERS, raising=False)

    class Defaults:
        limit: int = 3

    assert toolkit.parameters(Defaults).limit == 3


def test_results_are_recorded_by_name_and_the_last_one_counts(run) -> None:
    """Numbers, texts and tables; all through the gateway."""
    kernel = run()
    toolkit.result(count=3, name="x")
    toolkit.result(count=4, table=pd.DataFrame({"a": [1.0]}))
    results = kernel.ledger.results(kernel.run_id)
    assert (results["count"], results["name"]) == (4, "x")
    assert results["table"]["rows"] == [[1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least one"),
        ({"class": 1}, "'class' is not a valid parameter name"),
        ({"x": object()}, r"result\(x\) is a object"),
        ({"x": float("nan")}, r"result\(x\) is nan"),
    ],
)
def test_what_cannot_be_published_is_told(run, values, message) -> None:
    """With the name of the result, and nothing recorded."""
    kernel = run()
    with pytest.raises(UsageError, match=message):
        toolkit.result(**values)
    assert kernel.ledger.results(kernel.run_id) == {}


CASES = [("a", {"text": "add two and three"}), ("b", {"text": "x"}), ("c", {"text": "fail"})]


@toolkit.agent
def answer(text: str) -> str:
    if text == "fail":
        raise ValueError(text)
    return toolkit.model(text, tools=[]).text or "asked for a tool"


def test_every_case_is_answered_through_the_gateway(run) -> None:
    """Outputs, and the errors of cases that failed: one failed case ends nothing."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    assert toolkit.serve_cases(answer) == 3
    answers = kernel.ledger.case_answers(kernel.run_id)
    assert (answers["a"].output, answers["b"].output) == ("asked for a tool", "an answer")
    assert answers["c"].error["message"] == "the agent raised ValueError: fail"
    calls = kernel.ledger.calls(kernel.run_id)
    assert {call.intent.case_id for call in calls} == {"a", "b", "c"}


def test_a_kernel_gets_inputs_and_nothing_else(run) -> None:
    """What the wire hands out for a case: its id and its inputs."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    given = toolkit.connect().post(wire.NEXT_CASE, {"reset": True})
    assert given == {"case_id": "a", "inputs": {"text": "add two and three"}}


def test_a_new_kernel_answers_the_cases_that_are_left(run) -> None:
    """Cases that were handed out and not answered come again; answered ones do not."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    connection = toolkit.connect()
    first = connection.post(wire.NEXT_CASE, {"reset": True})
    connection.post(wire.ANSWER_CASE, {"case_id": first["case_id"], "output": "done"})
    connection.post(wire.NEXT_CASE, {})  # handed out; then the kernel dies
    kernel.restart()
    assert toolkit.serve_cases(answer) == 2
    assert kernel.ledger.case_answers(kernel.run_id)["a"].output == "done"


def test_an_answer_brings_the_next_case(run) -> None:
    """One request for each case; at the end, and where nobody asks, there is none."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    connection = toolkit.connect()
    given = connection.post(wire.NEXT_CASE, {"reset": True})
    order = []
    while given["case_id"] is not None:
        order.append(given["case_id"])
        answer = {"case_id": given["case_id"], "output": "done", "next": True}
        given = connection.post(wire.ANSWER_CASE, answer)["next"]
    assert order == ["a", "b", "c"]
    again = {"case_id": "a", "output": "done"}
    assert connection.post(wire.ANSWER_CASE, again) == {"case_id": "a"}


def test_a_case_whose_reply_was_lost_is_answered(run) -> None:
    """The answer was recorded and the next case handed out, and nobody heard of it."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    connection = toolkit.connect()
    first = connection.post(wire.NEXT_CASE, {"reset": True})
    lost = {"case_id": first["case_id"], "output": "done", "next": True}
    assert connection.post(wire.ANSWER_CASE, lost)["next"]["case_id"] == "b"
    assert connection.post(wire.ANSWER_CASE, lost)["next"]["case_id"] == "c"
    assert toolkit.serve_cases(answer) == 2
    assert set(kernel.ledger.case_answers(kernel.run_id)) == {"a", "b", "c"}


def test_an_agent_with_other_parameters_answers_with_errors(run) -> None:
    """A misfit between set and agent is seen case by case, not as a crash."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, [("a", {"text": "x", "nonsense": 1})])
    assert toolkit.serve_cases(answer) == 1
    assert "nonsense" in kernel.ledger.case_answers(kernel.run_id)["a"].error["message"]
