"""`inbox`, `decide`, `stop`, `start`: what people at a terminal see and do."""

from __future__ import annotations

import pytest
from cli_world import toolkit

from toolkit.client import Connection, ensure_gateway, wire
from toolkit.errors import ApprovalPending, CallDenied, error_from_json
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.values import CallKind, Environment, RunKind, RunRecord, RunState

ASK = """
@id("pay") @reason("payments need a second pair of eyes") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay");
"""
PAY = """
  pay:
    effect: write
    description: Pays a bill.
    arguments: {recipient: {type: string}, amount: {type: number, minimum: 0}}
    view: "Pay {amount} to {recipient}"
"""
PEOPLE = """
people:
  ana: {roles: [approver]}
  eve: {roles: []}
  dora: {roles: [director]}
"""


@pytest.fixture
def bills(workspace):
    """The workspace asks ana about payments."""
    tools = workspace.registry / "tools.yaml"
    if "pay:" not in tools.read_text():
        tools.write_text(tools.read_text() + PAY)
        (workspace.registry / "policies" / "production" / "ask.cedar").write_text(ASK)
        (workspace.registry / "people.yaml").write_text(PEOPLE)
    ensure_gateway(workspace.root)
    return workspace


class Job:
    """A production run of emil's that pays, through the real gateway."""

    def __init__(self, workspace, name: str, user: str = "emil") -> None:
        token = new_token()
        with Ledger.open(workspace.database_url) as ledger:
            ledger.create_run(
                RunRecord(
                    run_id=name,
                    kind=RunKind.RUN,
                    environment=Environment.PRODUCTION,
                    user=user,
                    state=RunState.RUNNING,
                    token_digest=token_digest(token),
                )
            )
        self.connection = Connection(str(workspace.socket), root=workspace.root, token=token).open()
        self.request = self.connection.identify(
            CallKind.TOOL, "pay", {"recipient": "ben ltd", "amount": 120}, effect="write"
        )

    def pay(self) -> dict:
        return self.connection.post(wire.BEGIN, self.request)

    def asks(self) -> str:
        """Make the call, which waits; return the request's id."""
        with pytest.raises(ApprovalPending) as told:
            self.pay()
        return told.value.details["approval"]["id"]


@pytest.fixture
def job(bills, request):
    """One run per test."""
    made = Job(bills, f"run-{request.node.name}"[:60])
    yield made
    made.connection.close()


def refused(reply: dict) -> CallDenied:
    assert reply["outcome"]["state"] == "denied"
    error = error_from_json(reply["outcome"]["error"])
    assert isinstance(error, CallDenied)
    return error


def test_an_empty_inbox_says_so(bills):
    """For people in words, for programs as a list."""
    assert "nothing waits for a person" in toolkit("inbox").out
    assert toolkit("inbox", "--json").json == []
    assert toolkit("inbox", "--watch", "--json").code == 2


def test_a_request_is_listed_shown_and_approved(job, bills):
    """The table, the view with the reason of the policy, the approval; then the call goes on."""
    asked = job.asks()
    table = toolkit("inbox").out
    assert asked in table
    assert 'Pay 120 to "ben ltd"' in table
    assert "may decide" in table
    shown = toolkit("decide", asked).out
    assert "payments need a second pair of eyes" in shown
    assert "asked by" in shown
    assert "emil" in shown
    done = toolkit("decide", asked, "approve", "--reason", "known supplier", "--yes", "--json").json
    assert (done["state"], done["decided_by"]) == ("approved", "ana")
    reply = job.pay()
    assert reply["outcome"] is None
    assert reply["decision"]["verdict"] == "allow"
    record = next(r for r in Registry(bills.registry).audit() if r.body.get("approval") == asked)
    assert (record.event, record.by, record.body["state"]) == (
        "approval.answered",
        "ana",
        "approved",
    )
    assert asked not in toolkit("inbox").out
    assert asked in toolkit("inbox", "--all").out


def test_arguments_are_changed_name_by_name(job):
    """Numbers stay numbers, text stays text; the kernel is told what changed."""
    asked = job.asks()
    wrong = toolkit("decide", asked, "approve", "--change", "iban=1", "--yes")
    assert wrong.code == 2
    assert "recipient, amount" in wrong.err or "amount, recipient" in wrong.err
    below = toolkit("decide", asked, "approve", "--change", "amount=-1", "--yes")
    assert below.code == 2
    assert "amount is below 0" in below.err
    changes = ("--change", "amount=20", "--change", "recipient=4711")
    done = toolkit("decide", asked, "approve", *changes, "--yes", "--json").json
    assert done["state"] == "changed"
    assert job.pay()["change"] == {"set": {"amount": 20, "recipient": "4711"}, "drop": []}


def test_a_rejection_reaches_whoever_called(job):
    """With the reason in the error's own message."""
    asked = job.asks()
    assert "needs a reason" in toolkit("decide", asked, "reject", "--yes").err
    assert toolkit("decide", asked, "reject", "--reason", "paid in May", "--yes").code == 0
    assert refused(job.pay()).message == "ana rejected 'pay': paid in May"
    again = toolkit("decide", asked, "approve", "--yes")
    assert again.code == 2
    assert "was rejected by ana" in again.err


def test_who_may_not_decide_is_told_who_may(bills, job, monkeypatch):
    """Without the role, and about an own request."""
    asked = job.asks()
    monkeypatch.setenv("TOOLKIT_USER", "eve")
    other = toolkit("decide", asked, "approve", "--yes")
    assert other.code == 1
    assert "eve does not have the role approver" in other.err
    assert "ana" in other.err
    monkeypatch.setenv("TOOLKIT_USER", "ana")
    own = Job(bills, "run-own", user="ana")
    mine = toolkit("decide", own.asks(), "approve", "--yes", "--json")
    own.connection.close()
    assert mine.code == 1
    assert "own request" in mine.json["error"]["message"]


def test_escalation_hands_the_request_on(job, monkeypatch):
    """The new role finds it; the old one no longer decides."""
    asked = job.asks()
    assert toolkit("decide", asked, "escalate", "--to", "director", "--yes").code == 0
    assert [r["id"] for r in toolkit("inbox", "--role", "director", "--json").json] == [asked]
    assert toolkit("decide", asked, "approve", "--yes").code == 1
    monkeypatch.setenv("TOOLKIT_USER", "dora")
    assert toolkit("decide", asked, "approve", "--yes").code == 0
    assert job.pay()["decision"]["verdict"] == "allow"


def test_nothing_is_decided_without_a_word(job):
    """Where nobody can be asked, --yes has to be said; a wrong id is told."""
    asked = job.asks()
    refused_ = toolkit("decide", asked, "approve")
    assert refused_.code == 2
    assert "--yes" in refused_.err
    assert toolkit("decide", asked, "--json").json["state"] == "pending"
    assert toolkit("decide", "ask-0").code == 78
    for words in (("reject", "--change", "amount=1"), ("approve", "--to", "director")):
        assert toolkit("decide", asked, *words, "--yes").code == 2


def test_stopping_the_run_stops_every_later_call(job):
    """Also calls that policy allows."""
    asked = job.asks()
    assert toolkit("decide", asked, "stop", "--reason", "gone mad", "--yes").code == 0
    assert refused(job.pay()).details["stop_run"] is True
    add = job.connection.identify(CallKind.TOOL, "add", {"a": 1, "b": 2})
    assert "gone mad" in refused(job.connection.post(wire.BEGIN, add)).message
    toolkit("start", "--run", job.connection.run_id)


@pytest.mark.parametrize(
    ("option", "scope"),
    [
        (("--all",), "all"),
        (("--tool", "add"), "tool:add"),
        (("--user", "emil"), "user:emil"),
    ],
)
def test_a_stop_is_felt_by_the_next_call(job, bills, option, scope):
    """Refused with who and why; started again, it goes on; both are in the audit log."""
    calls = [job.connection.identify(CallKind.TOOL, "add", {"a": n, "b": scope}) for n in range(3)]
    assert job.connection.post(wire.BEGIN, calls[0])["outcome"] is None
    assert toolkit("stop", *option).code == 2
    stopped = toolkit("stop", *option, "--reason", "fraud alarm", "--json").json
    assert stopped["scope"] == scope
    error = refused(job.connection.post(wire.BEGIN, calls[1]))
    assert f"{scope} was stopped by ana" in error.message
    assert "fraud alarm" in error.message
    assert scope in toolkit("stop", "--list").out
    assert toolkit("start", *option).code == 0
    assert job.connection.post(wire.BEGIN, calls[2])["outcome"] is None
    assert toolkit("stop", "--list", "--json").json == []
    assert toolkit("start", *option).code == 78
    events = [r.event for r in Registry(bills.registry).audit() if r.body.get("scope") == scope]
    assert events == ["switch.stopped", "switch.started"]


def test_an_approval_is_no_way_around_a_stop(job):
    """What was approved while everything is stopped is refused."""
    asked = job.asks()
    toolkit("decide", asked, "approve", "--yes")
    toolkit("stop", "--tool", "pay", "--reason", "fraud alarm")
    error = refused(job.pay())
    toolkit("start", "--tool", "pay")
    assert "tool:pay was stopped by ana: fraud alarm" in error.message


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--job", "nosuchjob"), "no job 'nosuchjob' was ever heard of here"),
        (("--agent", "nosuchagent"), "no agent 'nosuchagent' was ever heard of here"),
        (("--tool", "pya"), "did you mean pay?"),
        (("--run", "run-nosuch"), "there is no run 'run-nosuch' here"),
    ],
)
def test_a_stop_of_an_unknown_name_is_said_loudly(bills, option, told):
    """It holds, for what may come; a misspelt one does not look like a success."""
    done = toolkit("stop", *option, "--reason", "fraud alarm")
    assert (done.code, "is stopped" in done.out) == (0, True)
    assert told in " ".join(done.err.split())
    assert "the stop holds all the same" in done.err
    assert toolkit("start", *option).code == 0
    assert "warning" not in toolkit("stop", "--tool", "pay", "--reason", "drill").err
    assert toolkit("start", "--tool", "pay").code == 0


def test_one_thing_is_stopped_at_a_time():
    """None or two are a mistake."""
    for words in ((), ("--all", "--tool", "add")):
        done = toolkit("stop", *words, "--reason", "x")
        assert done.code == 2
        assert "one at a time" in done.err


def test_control_characters_in_arguments_never_reach_the_terminal(bills, job):
    """Neither in the table nor in the view."""
    wild = {"recipient": "a\x1b[2J\u202eb", "amount": 1}
    request = job.connection.identify(CallKind.TOOL, "pay", wild, effect="write")
    with pytest.raises(ApprovalPending) as told:
        job.connection.post(wire.BEGIN, request)
    asked = told.value.details["approval"]["id"]
    for shown in (toolkit("inbox").out, toolkit("decide", asked).out):
        assert "\x1b[2J" not in shown
        assert "\u202e" not in shown
    toolkit("decide", asked, "reject", "--reason", "odd", "--yes")
