"""A shadow run: what it would change is recorded and answered, never done."""

from __future__ import annotations

from gateway_world import ask, begin, open_run

from toolkit.client import wire
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallState, Verdict


def finish(connection, key: str, generation: int, answer: object) -> None:
    body = {"key": key, "generation": generation, "state": "ok", "answer": answer}
    connection.post(wire.FINISH, body)


def ledger_calls(workspace: Workspace, run_id: str):
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.calls(run_id)


def test_a_write_of_a_shadow_is_answered_as_the_run_beside_it_was(workspace: Workspace) -> None:
    """The same call, the same answer, and its body never runs; a read is made as ever."""
    stable = open_run(workspace, "beside-1")
    made = begin(stable, "write_file", {"text": "a"}, effect="write")
    assert made["outcome"] is None
    finish(stable, made["key"], made["generation"], {"receipt": 17})
    shadow = open_run(workspace, "beside-1-shadow", tags={"shadow_of": "beside-1"})
    same = begin(shadow, "write_file", {"text": "a"}, effect="write")
    assert same["outcome"]["answer"] == {"receipt": 17}
    other = begin(shadow, "write_file", {"text": "b"}, effect="write")
    assert other["outcome"]["state"] == "ok"
    assert other["outcome"]["answer"] is None
    assert begin(shadow, "add", {"a": 1})["outcome"] is None
    assert ask(shadow, "hello")["outcome"]["answer"]["text"] == "an answer"
    first, second, *_ = ledger_calls(workspace, "beside-1-shadow")
    assert first.decision.policies[0] == "shadow"
    assert "shadow of beside-1: recorded, not done" in second.decision.reasons[0]
    assert second.outcome is not None
    assert second.outcome.state is CallState.OK


def test_policy_denies_a_shadow_what_it_denies_anybody(workspace: Workspace) -> None:
    """A denied write is denied: a shadow shows what production would say."""
    shadow = open_run(workspace, "beside-2-shadow", tags={"shadow_of": "beside-2"})
    told = begin(shadow, "unheard_of", {"x": 1}, effect="write")
    assert told["outcome"]["state"] == "denied"
    (call,) = ledger_calls(workspace, "beside-2-shadow")
    assert call.decision.verdict is Verdict.DENY
