"""Writes that broke off, in a notebook session and in a run: a person says what became of them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_world import open_run
from workspace_world import end_gateway, write_workspace

import toolkit
from toolkit.client import Connection, Waiting, connect, disconnect, ensure_gateway, wire
from toolkit.errors import ApprovalPending, CallDenied, CallInDoubt, ToolkitError
from toolkit.gateway import Answer, Choice, Desk, Governance
from toolkit.ledger import Approval, Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, CallRecord, CallState, Decision, Verdict

# A payment dies with its server in the first attempt; the ledger cannot know whether it came through.
SERVER = '''
import os, pathlib, signal, time
from mcp.server import MCPServer

server = MCPServer("bank")

def attempt(bill: str) -> None:
    """Counts the attempts; the first one does not come back."""
    with pathlib.Path(bill).open("a") as file:
        file.write("x")
    if pathlib.Path(bill).stat().st_size == 1:
        if bill.startswith("slow"):
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)

@server.tool()
def pay(bill: str) -> str:
    """Pays."""
    attempt(bill)
    return "paid"

@server.tool()
def pay_large(bill: str) -> str:
    """Pays much."""
    attempt(bill)
    return "paid"

server.run()
'''
TOOLS = """
tools: {{}}
servers:
  bank:
    transport: stdio
    command: ["{python}", server.py]
    tools:
      pay: {{effect: write}}
      pay_large: {{effect: write}}
"""
SANDBOX_RULES = """
@id("sandbox") permit(principal, action, resource);
@id("large") @reason("much money") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"bank.pay_large");
"""
PAID = {"result": "paid"}
PEOPLE = "people:\n  anna: {roles: [approver]}\n"


def make_bank(root: Path, patch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose sandbox enforces its policy, with the bank's server."""
    root.mkdir()
    made = write_workspace(root)
    (root / "server.py").write_text(SERVER)
    (made.registry / "tools.yaml").write_text(TOOLS.format(python=sys.executable))
    sandbox = made.registry / "policies" / "sandbox"
    (sandbox / "rules.cedar").write_text(SANDBOX_RULES)
    policy = sandbox / "policy.yaml"
    policy.write_text(policy.read_text().replace("mode: warn", "mode: enforce"))
    patch.chdir(root)
    ensure_gateway(root)
    return made


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One gateway for all tests that leave it alive."""
    with pytest.MonkeyPatch.context() as patch:
        made = make_bank(tmp_path_factory.mktemp("bank") / "ws", patch)
        yield made
        end_gateway(made)


@pytest.fixture
def ledger(bank: Workspace) -> Iterator[Ledger]:
    with Ledger.open(bank.database_url) as opened:
        yield opened


@pytest.fixture
def session(bank: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A sandbox session of ana, who has no role at all."""
    monkeypatch.chdir(bank.root)
    yield connect()
    disconnect()


@pytest.fixture
def people(bank: Workspace) -> Iterator[None]:
    """Anna is the approver."""
    path = bank.registry / "people.yaml"
    path.write_text(PEOPLE)
    yield
    path.unlink()


def attempts(workspace: Workspace, bill: str) -> int:
    return (workspace.root / bill).stat().st_size


def payment(ledger: Ledger, run_id: str) -> CallRecord:
    (found,) = [call for call in ledger.calls(run_id) if call.intent.kind is CallKind.TOOL]
    return found


def pressing(*answers: Callable[[Waiting], Any]) -> tuple[Callable[[Waiting], None], list[Any]]:
    """Return a watcher that answers each request once, and what it has seen."""
    left, seen = list(answers), list[Any]()

    def watch(waiting: Waiting) -> None:
        if waiting.approval["waiting"]:
            seen.append(waiting.approval)
            try:
                left.pop(0)(waiting)
            except ToolkitError as error:
                seen.append(error)

    return watch, seen


def happened(waiting: Waiting) -> Any:
    return waiting.answer("approve", arguments={"happened": True, "answer": "by hand"})


def did_not(waiting: Waiting) -> Any:
    return waiting.answer("approve", arguments={"happened": False})


SAID = pytest.mark.parametrize("case", [(happened, "by hand", 1), (did_not, PAID, 2)])


def reject(waiting: Waiting) -> Any:
    return waiting.answer("reject", reason="the bank is closed")


def stop(waiting: Waiting) -> Any:
    return waiting.answer("stop", reason="this is odd")


@SAID
def test_a_session_asks_its_user_and_goes_on_with_the_cell(
    bank: Workspace, ledger: Ledger, session: Connection, case: tuple[Any, Any, int]
) -> None:
    """Nobody has the role: the one whose session it is says what became of it, with the buttons."""
    said, answer, count = case
    watch, seen = pressing(said)
    session.watchers.append(watch)
    bill = f"bill-{count}"
    assert toolkit.remote("bank.pay")(bill=bill) == answer
    assert attempts(bank, bill) == count
    (asked,) = seen
    assert "Did tool bank.pay happen?" in asked["view"]["title"]
    assert "ended during bank.pay" in " ".join(asked["view"]["reasons"])
    assert payment(ledger, session.run_id).state is CallState.OK
    assert ledger.verify(session.run_id) == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (reject, "the bank is closed"),
        pytest.param(stop, "this is odd", marks=pytest.mark.slow),
    ],
)
def test_a_session_whose_user_does_not_say_keeps_the_doubt(
    bank: Workspace, ledger: Ledger, session: Connection, said: Any, told: str
) -> None:
    """Nothing is repeated; a stop refuses what comes after it, too."""
    watch, _ = pressing(said)
    session.watchers.append(watch)
    bill = f"bill-{said.__name__}"
    with pytest.raises((CallInDoubt, CallDenied), match=told):
        toolkit.remote("bank.pay")(bill=bill)
    assert attempts(bank, bill) == 1
    assert payment(ledger, session.run_id).state is CallState.STARTED
    if said is stop:
        with pytest.raises(CallDenied, match="this is odd"):
            toolkit.remote("bank.pay")(bill="another")


def answer_as(ledger: Ledger, bank: Workspace, user: str, asked: Approval, happened: Any) -> None:
    """Answer a request as the command line does."""
    governance = Governance(bank.registry)
    desk = Desk(ledger, governance.people, governance.bundle, lambda *_: Decision(Verdict.ALLOW))
    desk.answer(asked.id, Answer(Choice.APPROVE, asked.digest, arguments=happened), by=user)


@pytest.mark.slow
def test_what_a_person_had_to_allow_is_not_for_the_sessions_user_to_repeat(
    bank: Workspace, ledger: Ledger, session: Connection, people: None
) -> None:
    """One approval is one payment: who has the role says whether there is to be another attempt."""

    def allow(waiting: Waiting) -> None:
        asked = ledger.approval(waiting.approval["id"])
        answer_as(ledger, bank, "anna", asked, None)

    def by_anna(waiting: Waiting) -> None:
        with pytest.raises(CallDenied, match="does not have the role approver"):
            did_not(waiting)
        asked = ledger.approval(waiting.approval["id"])
        answer_as(ledger, bank, "anna", asked, {"happened": True, "answer": "seen"})

    watch, seen = pressing(allow, by_anna)
    session.watchers.append(watch)
    assert toolkit.remote("bank.pay_large")(bill="large") == "seen"
    assert len(seen) == 2
    assert attempts(bank, "large") == 1


@pytest.mark.slow
def test_the_command_line_takes_the_answer_of_the_sessions_user(
    bank: Workspace, ledger: Ledger, session: Connection, people: None
) -> None:
    """Who has the role may answer, and so may the session's own user; nobody else."""

    def from_a_terminal(waiting: Waiting) -> None:
        asked = ledger.approval(waiting.approval["id"])
        with pytest.raises(CallDenied, match="carl does not have the role"):
            answer_as(ledger, bank, "carl", asked, {"happened": False})
        answer_as(ledger, bank, session.user, asked, {"happened": False})

    watch, _ = pressing(from_a_terminal)
    session.watchers.append(watch)
    assert toolkit.remote("bank.pay")(bill="terminal") == PAID
    assert attempts(bank, "terminal") == 2


def ask(kernel: Connection, bill: str) -> dict[str, Any]:
    return kernel.post(wire.TOOL, kernel.identify(CallKind.TOOL, "bank.pay", {"bill": bill}))


def test_a_run_asks_who_has_the_role_about_a_write_that_broke_off(
    bank: Workspace, ledger: Ledger, people: None
) -> None:
    """It may wait without a kernel; the same call goes on with the answer."""
    kernel = open_run(bank, "run-broke-off")
    request = kernel.identify(CallKind.TOOL, "bank.pay", {"bill": "of-a-run"})
    for _ in range(2):
        with pytest.raises(ApprovalPending) as told:
            kernel.post(wire.TOOL, request)
    assert ledger.standing("run-broke-off").idle
    asked = ledger.approval(told.value.details["approval"]["id"])
    with pytest.raises(CallDenied, match="does not have the role"):
        answer_as(ledger, bank, "ana", asked, {"happened": False})
    answer_as(ledger, bank, "anna", asked, {"happened": False})
    again = open_run(bank, "run-broke-off")
    assert ask(again, "of-a-run")["outcome"]["answer"] == PAID
    assert attempts(bank, "of-a-run") == 2
    assert ledger.verify("run-broke-off") == []


def test_a_run_that_can_ask_nobody_fails_at_once(bank: Workspace) -> None:
    """The doubt is the call's outcome, with where to look."""
    kernel = open_run(bank, "run-alone")
    outcome = ask(kernel, "alone")["outcome"]
    assert (outcome["state"], outcome["error"]["code"]) == ("error", "in_doubt")
    assert "whether it took effect is not known" in outcome["error"]["message"]


@pytest.mark.chaos
@SAID
def test_a_session_whose_gateway_is_killed_in_a_write_asks_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Any, case: tuple[Any, Any, int]
) -> None:
    """The cell goes on with the next gateway, which knows that the call was begun and no more."""
    said, answer, count = case
    made = make_bank(tmp_path / "ws", monkeypatch)
    try:
        session = connect()
        watch, seen = pressing(said)
        session.watchers.append(watch)
        answers: list[Any] = []

        def cell() -> None:
            answers.append(toolkit.remote("bank.pay")(bill="slow-bill"))

        thread = threading.Thread(target=cell)
        thread.start()
        wait_for((made.root / "slow-bill").exists, "the write")
        end_gateway(made, number=signal.SIGKILL)
        thread.join(60)
        assert answers == [answer]
        assert attempts(made, "slow-bill") == count
        (asked,) = seen
        assert "nobody recorded how it ended" in " ".join(asked["view"]["reasons"])
    finally:
        disconnect()
        end_gateway(made)
