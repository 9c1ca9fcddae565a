"""The door: decided, executed, recorded; replayed, refused, in doubt."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from gateway_world import ask, begin, open_run

import toolkit
from toolkit.client import Connection, wire
from toolkit.errors import (
    BudgetExceeded,
    CallDenied,
    CallInDoubt,
    ProviderError,
    ToolFailed,
    UsageError,
)
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, CallState, Environment, RunKind


def test_a_model_call_is_in_the_ledger_with_its_cost_before_its_answer_returns(
    workspace: Workspace, connection: Connection
) -> None:
    """What the kernel sees is what the ledger holds."""
    reply = ask(connection, "hello")
    ledger = Ledger.open(workspace.database_url)
    (call,) = ledger.calls(connection.run_id)
    assert call.outcome is not None
    assert reply["outcome"]["answer"]["text"] == call.outcome.answer["text"] == "an answer"
    # 7 tokens at 1 dollar and 3 tokens at 2 dollars per million.
    assert str(call.outcome.cost) == "$0.000013"
    assert (call.outcome.provider, call.outcome.model) == ("script", "scripted-1")
    assert ledger.verify(connection.run_id) == []
    ledger.close()


def test_an_unknown_price_is_unknown_and_not_zero(connection: Connection) -> None:
    """No price, no number."""
    assert ask(connection, "hello", route="unpriced")["outcome"]["cost_usd"] is None


def test_a_repeated_request_is_one_call(workspace: Workspace, connection: Connection) -> None:
    """The same request id answers from the ledger."""
    arguments = {"messages": [{"role": "user", "content": "hello"}]}
    request = connection.identify(CallKind.MODEL, "default", arguments)
    first, second = connection.post(wire.MODEL, request), connection.post(wire.MODEL, request)
    assert first["call_id"] == second["call_id"]
    ledger = Ledger.open(workspace.database_url)
    assert ledger.totals(connection.run_id).calls == 1
    ledger.close()


def test_a_person_asking_again_in_the_sandbox_asks_again(connection: Connection) -> None:
    """Re-running a cell makes a new generation of the same call."""
    connection.start_cell("cell-1")
    first = ask(connection, "hello")
    connection.start_cell("cell-1")
    second = ask(connection, "hello")
    assert (first["key"], second["generation"]) == (second["key"], first["generation"] + 1)
    assert not second["replayed"]


def test_a_production_run_that_starts_again_answers_from_its_journal(
    workspace: Workspace, connection: Connection
) -> None:
    """A new kernel of the same run finds the recorded answer and makes no new call."""
    del connection  # only its gateway is needed
    first = ask(open_run(workspace, "run-1"), "hello")
    again = ask(open_run(workspace, "run-1"), "hello")
    assert again["replayed"]
    assert again["call_id"] == first["call_id"]


def test_a_denied_call_is_refused_with_the_policys_reason_and_recorded(
    workspace: Workspace, connection: Connection
) -> None:
    """Production enforces; the record says which policy spoke."""
    del connection
    kernel = open_run(workspace, "run-2")
    reply = ask(kernel, "hello", route="forbidden")
    assert reply["outcome"]["state"] == "denied"
    assert reply["decision"]["policies"] == ["no-forbidden-route"]
    assert "closed for maintenance" in reply["outcome"]["error"]["message"]
    ledger = Ledger.open(workspace.database_url)
    assert ledger.totals("run-2").denied == 1
    ledger.close()


def test_the_sandbox_warns_and_says_what_production_would_have_said(connection: Connection) -> None:
    """A person learns early, and goes on."""
    reply = ask(connection, "hello", route="forbidden")
    assert reply["outcome"]["state"] == "ok"
    assert reply["decision"]["production_verdict"] == "deny"
    assert "this route is closed for maintenance" in reply["decision"]["production_reasons"]


def test_an_unpriced_model_is_denied_where_dollars_are_budgeted(
    workspace: Workspace, connection: Connection
) -> None:
    """What cannot be counted cannot be kept within a budget."""
    del connection
    reply = ask(open_run(workspace, "run-3"), "hello", route="unpriced")
    assert reply["outcome"]["state"] == "denied"
    assert "price" in reply["outcome"]["error"]["message"]


def test_a_call_that_no_target_takes_is_recorded_as_refused(workspace: Workspace) -> None:
    """The caller reads why, and the ledger has a denied call that cost nothing."""
    catalog = workspace.registry / "models.yaml"
    before = catalog.read_text("utf-8")
    target = "{provider: script, model: scripted-1, when: {task: [tax]}}"
    route = f"  narrow:\n    max_tokens: 64\n    targets: [{target}]\n"
    catalog.write_text(f"{before.rstrip()}\n{route}", "utf-8")
    try:
        time.sleep(0.6)  # the gateway looks at its files twice a second
        kernel = open_run(workspace, "run-narrow")
        with pytest.raises(UsageError, match="no target of the route narrow takes this call"):
            ask(kernel, "hello", route="narrow")
        with Ledger.open(workspace.database_url) as ledger:
            (call,) = ledger.calls("run-narrow")
        assert call.state is CallState.DENIED
        assert call.decision.policies == ("no-target",)
        assert "is for tax only" in call.decision.reasons[0]
    finally:
        catalog.write_text(before, "utf-8")
        time.sleep(0.6)


def test_the_budget_stops_a_run_before_the_call_that_would_overshoot(
    workspace: Workspace, connection: Connection
) -> None:
    """One cent at most, in worst cases reserved beforehand."""
    del connection
    kernel = open_run(workspace, "run-4")
    with pytest.raises(BudgetExceeded, match="budget"):
        for number in range(300):
            ask(kernel, f"question {number} " + "x" * 400)
    ledger = Ledger.open(workspace.database_url)
    totals = ledger.totals("run-4")
    assert 0 < totals.cost.nanos <= 10_000_000
    ledger.close()


def test_a_providers_failure_is_an_outcome_with_its_kind(connection: Connection) -> None:
    """The ledger keeps failures like answers."""
    reply = ask(connection, "broken")
    assert reply["outcome"]["state"] == "error"
    assert reply["outcome"]["error"]["details"]["kind"] == "server"


def test_an_interrupted_write_is_not_repeated(workspace: Workspace, connection: Connection) -> None:
    """Intent without outcome, asked by a new kernel: a person decides."""
    del connection
    arguments = {"line": "pay"}
    begin(open_run(workspace, "run-5"), "write_file", arguments, "write")
    with pytest.raises(CallInDoubt, match="not repeated"):
        begin(open_run(workspace, "run-5"), "write_file", arguments, "write")


def test_an_interrupted_read_is_repeated(workspace: Workspace, connection: Connection) -> None:
    """Reading twice harms nobody."""
    del connection
    begin(open_run(workspace, "run-6"), "add", {"a": 1, "b": 2})
    again = begin(open_run(workspace, "run-6"), "add", {"a": 1, "b": 2})
    assert again["outcome"] is None


def test_a_reproduction_never_asks_outside_its_journal(
    workspace: Workspace, connection: Connection
) -> None:
    """Recorded calls answer; any other question is a difference, told as one."""
    known = ask(connection, "hello")
    kernel = open_run(
        workspace,
        "reproduction-1",
        kind=RunKind.REPRODUCTION,
        environment=Environment.SANDBOX,
        source_run_id=connection.run_id,
    )
    assert ask(kernel, "hello")["outcome"]["answer"] == known["outcome"]["answer"]
    with pytest.raises(CallInDoubt, match="did not record"):
        ask(kernel, "something new")


def test_a_reproduction_runs_agents_again_and_records_nothing(
    workspace: Workspace, connection: Connection
) -> None:
    """Their present code has to give what was saved; the journal stays as it is."""
    agent = connection.identify(CallKind.AGENT, "answer", {"question": "x"})
    begun = connection.post(wire.BEGIN, agent)
    call = {"key": begun["key"], "generation": begun["generation"]}
    connection.post(wire.FINISH, {**call, "state": "ok", "answer": "recorded"})
    kernel = open_run(
        workspace,
        "reproduction-2",
        kind=RunKind.REPRODUCTION,
        environment=Environment.SANDBOX,
        source_run_id=connection.run_id,
    )
    again = kernel.post(wire.BEGIN, kernel.identify(CallKind.AGENT, "answer", {"question": "x"}))
    assert again["outcome"] is None
    done = kernel.post(wire.FINISH, {**call, "state": "ok", "answer": "other"})
    assert done["outcome"]["answer"] == "recorded"
    with pytest.raises(CallInDoubt, match="did not record"):
        kernel.post(wire.BEGIN, kernel.identify(CallKind.AGENT, "answer", {"question": "y"}))
    ledger = Ledger.open(workspace.database_url)
    assert ledger.totals("reproduction-2").calls == 0
    ledger.close()


def test_no_token_and_an_unknown_token_are_refused(
    workspace: Workspace, connection: Connection
) -> None:
    """The kernel is never believed about who it is."""
    stranger = Connection(str(workspace.socket), token="guess")
    with pytest.raises(CallDenied, match="unknown"):
        stranger.post(wire.STATUS, {})
    stranger.close()
    nobody = Connection(str(workspace.socket))
    with pytest.raises(CallDenied, match="no run token"):
        nobody.post(wire.STATUS, {})
    nobody.close()
    del connection


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "tool", "name": "x", "request_id": "r"}, "not accepted here"),
        ({"kind": "model", "request_id": "r"}, "malformed"),
        ({"kind": "model", "name": "default", "request_id": "r", "arguments": {}}, "messages"),
        (
            {"kind": "model", "name": "default", "request_id": "r",
             "arguments": {"messages": [], "secret_option": 1}},
            "secret_option",
        ),
    ],
)  # fmt: skip
def test_a_malformed_call_is_refused_with_its_fault(
    connection: Connection, body: dict, message: str
) -> None:
    """The wire is checked like any input."""
    with pytest.raises(UsageError, match=message):
        connection.post(wire.MODEL, body)


def test_python_tools_and_agents_make_one_tree(
    workspace: Workspace, connection: Connection
) -> None:
    """Calls made inside an agent are its children, in one trace."""
    del connection

    @toolkit.tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @toolkit.agent
    def sum_up(numbers: list[int]) -> int:
        total = 0
        for number in numbers:
            total = add(total, number)
        toolkit.model("explain")
        return total

    assert sum_up([1, 2]) == 3
    run_id = toolkit.connect().run_id
    ledger = Ledger.open(workspace.database_url)
    calls = ledger.calls(run_id)
    ledger.close()
    root = next(call for call in calls if call.intent.kind is CallKind.AGENT)
    assert [c.intent.parent for c in calls if c is not root] == [root.key] * 3
    assert len({call.trace_key for call in calls}) == 1


def test_a_tools_exception_reaches_the_caller_and_the_ledger(workspace: Workspace) -> None:
    """The caller's own exception passes; the record says what was raised."""

    @toolkit.tool
    def fail(reason: str) -> str:
        raise LookupError(reason)

    with pytest.raises(LookupError, match="nothing there"):
        fail("nothing there")
    ledger = Ledger.open(workspace.database_url)
    (call,) = ledger.calls(toolkit.connect().run_id)
    ledger.close()
    assert call.outcome is not None
    assert call.outcome.error["code"] == ToolFailed.code
    assert "LookupError: nothing there" in call.outcome.error["message"]


def test_the_socket_and_the_state_are_private(workspace: Workspace, connection: Connection) -> None:
    """Nobody else on the machine can knock."""
    del connection
    assert workspace.state.stat().st_mode & 0o777 == 0o700
    assert workspace.socket.stat().st_mode & 0o777 == 0o600


def test_only_one_gateway_serves_a_workspace(workspace: Workspace, connection: Connection) -> None:
    """A second one sees the first one's lock and ends with success."""
    import subprocess
    import sys

    del connection
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.app.serve", str(workspace.root)], timeout=60, check=False
    )
    assert done.returncode == 0


def test_a_provider_error_is_raised_as_its_own_class_in_python(workspace: Workspace) -> None:
    """The wire carries classes, not only texts."""
    del workspace
    with pytest.raises(ProviderError):
        toolkit.model("broken")
    assert os.environ.get("TOOLKIT_RUN_TOKEN") is None
    assert Path.cwd().name == "ws"
