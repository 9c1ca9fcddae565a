"""Runs that start again: journaled values, writes in doubt, and other questions than before."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any
from uuid import UUID

import pytest
from gateway_world import ask, begin, open_run
from hypothesis import given
from hypothesis import strategies as st

from toolkit.client import Connection, wire
from toolkit.errors import ApprovalPending, CallInDoubt, Diverged, UsageError
from toolkit.gateway import Answer, Choice, Governance, Roles
from toolkit.gateway.desk import Desk
from toolkit.gateway.differences import differences
from toolkit.gateway.identity import new_token, token_digest
from toolkit.gateway.journaled import make_value
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import (
    RESUMED,
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    ManualClock,
    RunKind,
    RunRecord,
    Verdict,
    iso_utc,
)

_numbers = itertools.count(1)


@pytest.fixture
def ledger(workspace: Workspace, connection: Connection) -> Any:
    """The ledger of the shared gateway."""
    del connection  # only its gateway is needed
    opened = Ledger.open(workspace.database_url)
    yield opened
    opened.close()


@pytest.fixture
def run_id() -> str:
    return f"run-resume-{next(_numbers)}"


def resume(workspace: Workspace, ledger: Ledger, run_id: str) -> Connection:
    """Open a new kernel of a run that was started again, as its runner does."""
    calls = ledger.calls(run_id)
    tags = {**ledger.get_run(run_id).tags, RESUMED: str(calls[-1].seq if calls else 0)}
    ledger.update_run(run_id, tags=tags)
    return open_run(workspace, run_id)


def write(kernel: Connection, line: str, name: str = "write_file", **extra: Any) -> dict[str, Any]:
    """Begin a write and finish it."""
    request = kernel.identify(CallKind.TOOL, name, {"line": line}, effect="write", **extra)
    reply = kernel.post(wire.BEGIN, request)
    if reply["outcome"] is not None:
        return reply
    call = {"key": reply["key"], "generation": reply["generation"]}
    return kernel.post(wire.FINISH, {**call, "state": "ok", "answer": line})


def value(kernel: Connection, name: str) -> str:
    reply = kernel.post(wire.VALUE, kernel.identify(CallKind.VALUE, name, {}))
    return str(reply["outcome"]["answer"])


def journal(kernel: Connection) -> dict[str, Any]:
    return kernel.post(wire.JOURNAL, {})


# -- journaled values ----------------------------------------------------------------------------


def test_values_are_the_same_when_a_run_starts_again(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """Time, seed and ids are made once; the second of a kind is another one."""
    names = ["now", "random", "uuid", "uuid"]
    kernel = open_run(workspace, run_id)
    first = [value(kernel, name) for name in names]
    kernel = resume(workspace, ledger, run_id)
    assert [value(kernel, name) for name in names] == first
    assert first[2] != first[3]
    assert ledger.verify(run_id) == []
    assert not [c for c in ledger.unshipped() if c.intent.kind is CallKind.VALUE]


def test_a_value_is_made_by_the_gateway_and_takes_only_a_name() -> None:
    """Nothing that a kernel says becomes the time."""
    clock = ManualClock()
    assert make_value("now", clock) == iso_utc(clock.now_us())
    assert UUID(make_value("uuid", clock)).version == 4
    assert len(make_value("random", clock)) == 32


# -- in doubt ------------------------------------------------------------------------------------


def test_an_idempotent_write_in_doubt_is_repeated_with_its_key(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """A tool that no catalog lists may declare itself; the key is the same at every attempt."""

    def attempt() -> dict[str, Any]:
        kernel = open_run(workspace, run_id, environment=Environment.SANDBOX, kind=RunKind.TRIAL)
        arguments = {"order": 7}
        asked = kernel.identify(
            CallKind.TOOL, "post_order", arguments, effect="write", idempotent=True
        )
        return kernel.post(wire.BEGIN, asked)

    first, second = attempt(), attempt()
    assert second["outcome"] is None
    assert second["call_id"] == first["call_id"]
    (call,) = ledger.calls(run_id)
    assert call.tags["restarts"] == "1"
    assert call.intent.idempotent


def _people(workspace: Workspace) -> None:
    text = "people:\n  anna: {roles: [approver]}\n"
    (workspace.registry / "people.yaml").write_text(textwrap.dedent(text))


def _say(workspace: Workspace, ledger: Ledger, approval: dict[str, Any], answer: Answer) -> None:
    governance = Governance(workspace.registry)
    roles: Roles = governance.people()

    def judge(_: RunRecord, __: Intent) -> Decision:
        return Decision(Verdict.ALLOW)

    desk = Desk(ledger, lambda: roles, governance.bundle, judge)
    desk.answer(approval["id"], answer, by="anna")


@pytest.mark.parametrize("said", ["happened", "not happened", "unknown"])
def test_a_person_says_what_became_of_a_write(
    said: str, workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """Asked once per attempt; the call ends with the answer, is made once, or stays in doubt."""
    _people(workspace)
    try:
        begin(open_run(workspace, run_id), "write_file", {"line": "pay"}, "write")
        kernel = resume(workspace, ledger, run_id)
        request = kernel.identify(CallKind.TOOL, "write_file", {"line": "pay"}, effect="write")
        for _ in range(2):  # asked again: the same question
            with pytest.raises(ApprovalPending) as told:
                kernel.post(wire.BEGIN, request)
        approval = told.value.details["approval"]
        assert "Did tool write_file happen?" in approval["view"]["title"]
        assert ledger.standing(run_id).idle, "a run that only waits for this may be parked"
        choice = Choice.REJECT if said == "unknown" else Choice.APPROVE
        arguments = {
            "happened": {"happened": True, "answer": {"receipt": 7}},
            "not happened": {"happened": False},
            "unknown": None,
        }[said]
        with pytest.raises(UsageError, match="does not say whether"):  # yes to which of the two?
            _say(workspace, ledger, approval, Answer(Choice.APPROVE, approval["digest"]))
        _say(
            workspace,
            ledger,
            approval,
            Answer(choice, approval["digest"], "looked it up", arguments),
        )
        if said == "unknown":
            with pytest.raises(CallInDoubt, match="looked it up"):
                kernel.post(wire.BEGIN, request)
            assert ledger.calls(run_id)[0].state is CallState.STARTED
        elif said == "happened":
            assert kernel.post(wire.BEGIN, request)["outcome"]["answer"] == {"receipt": 7}
        else:
            # The reply may be lost and the request sent again: it is still one permission …
            for _ in range(2):
                assert kernel.post(wire.BEGIN, request)["outcome"] is None
            # … and whoever comes after it is asked about that attempt anew.
            with pytest.raises(ApprovalPending) as anew:
                write(resume(workspace, ledger, run_id), "pay")
            assert anew.value.details["approval"]["id"] != approval["id"]
        assert ledger.verify(run_id) == []
    finally:
        (workspace.registry / "people.yaml").unlink()


# -- divergence ----------------------------------------------------------------------------------


def test_calls_in_another_order_are_no_divergence(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """Parts that run at once come as they come."""
    kernel = open_run(workspace, run_id)
    for line in ("a", "b"):
        write(kernel, line)
    kernel = resume(workspace, ledger, run_id)
    for line in ("b", "a", "c"):
        write(kernel, line)
    told = journal(kernel)
    assert (told["recorded"], told["asked"], told["first"]) == (2, 2, None)


def test_another_write_than_before_is_stopped_and_told_leaf_by_leaf(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """What was done may be what is asked for now in other words: nothing is done twice."""
    write(open_run(workspace, run_id), "pay 100")
    kernel = resume(workspace, ledger, run_id)
    with pytest.raises(Diverged, match="pay 100"):
        write(kernel, "pay 200")
    told = journal(kernel)
    assert told["stopped"]
    assert told["first"]["differences"] == [
        {"path": "line", "recorded": '"pay 100"', "asked": '"pay 200"'}
    ]
    refused = ledger.calls(run_id)[-1]
    assert (refused.state, refused.decision.policies) == (CallState.DENIED, ("divergence",))


def test_another_read_than_before_goes_on_and_is_told(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """A read does no harm."""
    ask(open_run(workspace, run_id), "hello")
    kernel = resume(workspace, ledger, run_id)
    assert ask(kernel, "goodbye")["outcome"]["state"] == "ok"
    told = journal(kernel)
    assert not told["stopped"]
    assert '"hello" → "goodbye"' in told["first"]["message"]


def test_a_gateway_that_missed_the_beginning_stops_nothing(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """It cannot know what was asked of the gateway before it."""
    write(open_run(workspace, run_id), "a")
    resume(workspace, ledger, run_id)
    # A kernel that has said hello to a gateway that is gone does not say it again.
    token = new_token()
    ledger.update_run(run_id, token_digest=token_digest(token))
    late = Connection(str(workspace.socket), root=workspace.root, token=token)
    write(late, "b")
    assert journal(late)["partial"]
    assert '"a" → "b"' in journal(late)["first"]["message"]
    late.close()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    """Only what differs is told."""
    assert list(differences(value, value)) == []
    assert list(differences({"x": value}, {})) != []


# -- replay --------------------------------------------------------------------------------------


def test_a_replay_is_answered_from_its_journal_and_from_nothing_else(
    workspace: Workspace, ledger: Ledger, run_id: str
) -> None:
    """Whatever policy and routes say today; what is not recorded is refused and told."""
    kernel = open_run(workspace, run_id)
    first, moment = ask(kernel, "hello"), value(kernel, "now")
    replay = open_run(workspace, f"{run_id}-replay", kind=RunKind.REPLAY, source_run_id=run_id)
    models = workspace.registry / "models.yaml"
    kept = models.read_text()
    try:
        models.write_text("routes: 7\n")
        assert ask(replay, "hello")["call_id"] == first["call_id"]
    finally:
        models.write_text(kept)
    assert value(replay, "now") == moment
    with pytest.raises(CallInDoubt, match="did not record"):
        ask(replay, "goodbye")
    told = journal(replay)
    assert told["first"]["message"].startswith("model default")
    assert told["beyond"], "everything that is recorded was asked for before"
    assert ledger.calls(f"{run_id}-replay") == []
