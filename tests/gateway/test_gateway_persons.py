"""Model calls whose route ends at a person: asked once, answered once, checked like a model's."""

from __future__ import annotations

import json

import pytest
from cli_world import toolkit
from gateway_world import ask, close_runs, open_run

from toolkit.client import ensure_gateway
from toolkit.errors import ApprovalPending
from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallState

ROUTE = """
  careful:
    provider: script
    model: scripted-1
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    validate: {refusal: true, otherwise: person}
"""
SORRY = """  - when: {contains: delicate}
    text: "I'm sorry, but I can't help with that."
    input_tokens: 5
    output_tokens: 9
"""
SCHEMA = {
    "type": "object",
    "properties": {"spdx": {"enum": ["MIT", "GPL-3.0"]}},
    "required": ["spdx"],
    "additionalProperties": False,
}


@pytest.fixture
def careful(workspace):
    """A workspace with a route that ends at a person, and anna who answers."""
    registry = workspace.registry
    models, answers = registry / "models.yaml", registry / "answers.yaml"
    if "careful" not in models.read_text():  # the workspace is the module's
        models.write_text(models.read_text() + ROUTE)
        answers.write_text(answers.read_text().replace("answers:\n", "answers:\n" + SORRY))
    (registry / "people.yaml").write_text("people:\n  anna: {roles: [approver]}\n")
    ensure_gateway(workspace.root)
    yield workspace
    close_runs()


def pending(connection, text, **extra):
    with pytest.raises(ApprovalPending) as told:
        ask(connection, text, route="careful", **extra)
    return told.value.details["approval"]


def decide(monkeypatch, *arguments):
    monkeypatch.setenv("TOOLKIT_USER", "anna")
    done = toolkit("decide", *arguments, "--yes", "--json")
    monkeypatch.delenv("TOOLKIT_USER")
    return done


def calls(workspace, run_id):
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.calls(run_id)


def test_a_persons_answer_becomes_the_calls_answer(careful, monkeypatch):
    """Asked once, the models are not asked again, and what they cost is charged."""
    asked = pending(open_run(careful, "run-p1"), "something delicate")
    assert asked["view"]["title"] == "Answer for the models of the route careful"
    # A new kernel of the same run sends the same call: the same question waits.
    again = pending(open_run(careful, "run-p1"), "something delicate")
    assert again["id"] == asked["id"]
    bare = decide(monkeypatch, asked["id"], "approve")
    assert bare.code == 2
    assert "--answer TEXT" in bare.told
    assert decide(monkeypatch, asked["id"], "approve", "--answer", "it is fine").code == 0
    reply = ask(open_run(careful, "run-p1"), "something delicate", route="careful")
    assert reply["outcome"]["answer"]["text"] == "it is fine"
    model, question = calls(careful, "run-p1")
    assert (model.intent.kind, question.intent.kind) == (CallKind.MODEL, CallKind.HUMAN)
    assert question.intent.parent == model.key
    assert model.outcome.provider == "person"
    assert model.outcome.usage.total_tokens == 14
    assert len(model.outcome.attempts) == 1, "the model was asked once"
    assert toolkit("ledger", "verify").code == 0


def test_an_answer_to_a_schema_fits_it(careful, monkeypatch):
    """What does not fit is refused before it counts; what fits is the call's data."""
    connection = open_run(careful, "run-p2")
    asked = pending(connection, "a question", schema=SCHEMA)
    for wrong in ("MIT", json.dumps({"spdx": "BSD"}), json.dumps({})):
        assert decide(monkeypatch, asked["id"], "approve", "--answer", wrong).code == 2
    right = json.dumps({"spdx": "GPL-3.0"})
    assert decide(monkeypatch, asked["id"], "approve", "--answer", right).code == 0
    reply = ask(open_run(careful, "run-p2"), "a question", route="careful", schema=SCHEMA)
    assert reply["outcome"]["answer"]["data"] == {"spdx": "GPL-3.0"}


def test_a_rejected_question_ends_the_model_call(careful, monkeypatch):
    """With the person's reason; the models' cost stays charged."""
    asked = pending(open_run(careful, "run-p3"), "delicate again")
    assert decide(monkeypatch, asked["id"], "reject", "--reason", "not our business").code == 0
    reply = ask(open_run(careful, "run-p3"), "delicate again", route="careful")
    assert reply["outcome"]["state"] == CallState.DENIED
    assert "not our business" in reply["outcome"]["error"]["message"]


def test_without_anybody_to_ask_the_models_error_stays(careful):
    """A role that nobody has answers nothing, and no call waits for it."""
    (careful.registry / "people.yaml").write_text("people:\n  anna: {roles: []}\n")
    reply = ask(open_run(careful, "run-p4"), "delicate", route="careful")
    assert reply["outcome"]["state"] == CallState.ERROR
    assert reply["outcome"]["error"]["details"]["kind"] == "needs_person"
