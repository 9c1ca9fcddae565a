"""A person's decision: asked once, bound to what was asked, first one counts, in the chain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_world import ALLOW, OK, a_run, begin, nanos, tamper

from toolkit.errors import CallDenied, Conflict, NotFound, UsageError
from toolkit.ledger import ApprovalState, FaultKind, Ledger
from toolkit.values import (
    CallKind,
    Decision,
    Environment,
    Intent,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
    digest_json,
)

ASK = Decision(Verdict.ASK, ("ask-legal",), ("money leaves",), "sha256:bundle", approver="legal")
HOUR_US = 3_600_000_000


@pytest.fixture
def asked(ledger, clock):
    """A payment of ana's that waits for legal."""
    a_run(ledger)
    intent = Intent("run-1", CallKind.TOOL, "pay", {"to": "eve", "usd": 5}, request_id="r1")
    call = ledger.begin(intent, ASK, reserve=nanos("s", 100, 60)).call
    view = {"title": "Pay eve $5", "arguments": {"to": "eve", "usd": 5}}
    approval = ledger.ask(call, role="legal", view=view, expires_us=clock.us + HOUR_US)
    return call, approval


def _answer(ledger, approval, verdict="approved", by="bo", **more):
    return ledger.answer(approval.id, by=by, verdict=verdict, digest=approval.digest, **more)


def test_a_request_is_kept_as_it_was_made(ledger, clock, asked):
    """Who asks for what, of whom, until when; found by id, by call and in the list."""
    call, approval = asked
    assert approval.id.startswith("ask-")
    assert (approval.state, approval.role, approval.decider) == (
        ApprovalState.PENDING, "legal", "legal",
    )  # fmt: skip
    assert (approval.requested_by, approval.requested_us) == ("ana", clock.us)
    assert approval.view["title"] == "Pay eve $5"
    assert ledger.approval(approval.id) == ledger.approval_of(call) == approval
    assert ledger.approvals() == ledger.approvals(waiting=True, role="legal") == [approval]
    assert ledger.approvals(role="sales") == ledger.approvals(ApprovalState.APPROVED) == []
    assert ledger.budget("s").reserved.nanos == 60
    assert ledger.verify() == []


def test_every_decision_is_read_from_the_chain_with_its_envelope(ledger, clock, asked):
    """An escalation and an approval, as they were given; of another request nothing."""
    call, approval = asked
    assert ledger.answers(approval.id) == ledger.answers("ask-unknown") == []
    _answer(ledger, approval, "escalated", role="board", reason="large", signed="envelope 1")
    ledger.tag(call, {"between": "two"})
    _answer(ledger, approval, "changed", by="cy", arguments={"usd": 1}, signed="envelope 2")
    first, last = ledger.answers(approval.id)
    assert (first.state, first.by, first.role) == (ApprovalState.ESCALATED, "bo", "board")
    assert (first.reason, first.signed, first.at_us) == ("large", "envelope 1", clock.us)
    assert (last.state, last.by, last.role) == (ApprovalState.CHANGED, "cy", None)
    assert (last.arguments, last.signed) == ({"usd": 1}, "envelope 2")
    assert ledger.verify() == []


def test_an_answer_that_nobody_signed_is_kept_as_ever(ledger, asked):
    """Its entry has no member for it: what an older toolkit wrote is the same."""
    _, approval = asked
    _answer(ledger, approval)
    (said,) = ledger.answers(approval.id)
    assert (said.state, said.signed) == (ApprovalState.APPROVED, None)


def test_the_digest_is_the_documented_one(asked):
    """Principal, kind, name, arguments, policy and expiry; nothing else."""
    call, approval = asked
    arguments = digest_json({"to": "eve", "usd": 5})
    assert call.intent.arguments_digest == arguments
    facts = ["ana", "tool", "pay", arguments, "sha256:bundle", approval.expires_us]
    assert approval.digest == digest_json(facts)


def test_a_call_is_asked_about_once(ledger, clock, asked):
    """A second gateway, or the same one again, gets the request that there is."""
    call, approval = asked
    again = ledger.ask(call, role="sales", view=1, expires_us=clock.us + 1)
    assert again == approval
    decided = _answer(ledger, approval)
    assert ledger.ask(call, role="sales", view=1, expires_us=clock.us + 1) == decided
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("verdict", "more"),
    [
        ("approved", {}),
        ("changed", {"arguments": {"to": "eve", "usd": 4}}),
        ("rejected", {"reason": "not to eve"}),
        ("stopped", {"reason": "enough"}),
    ],
)
def test_a_decision_is_kept_and_the_first_one_counts(ledger, clock, asked, verdict, more):
    """Who, when, why and with which arguments; a second decision is a conflict."""
    _, approval = asked
    clock.advance(seconds=5)
    decided = _answer(ledger, approval, verdict, **more)
    assert (decided.state, decided.decided_by, decided.decided_us) == (verdict, "bo", clock.us)
    assert (decided.reason, decided.arguments) == (more.get("reason"), more.get("arguments"))
    assert ledger.approval(approval.id) == decided
    assert ledger.approvals(waiting=True) == []
    with pytest.raises(Conflict, match=f"decided before: {verdict} by bo"):
        _answer(ledger, approval, "rejected", by="cy")
    assert ledger.approval(approval.id) == decided
    assert ledger.verify() == []


def test_an_escalated_request_waits_for_another_role(ledger, asked):
    """It leaves one inbox for the other, and can be decided there."""
    _, approval = asked
    moved = _answer(ledger, approval, "escalated", role="board", reason="too much for me")
    assert (moved.state, moved.role, moved.decider) == ("escalated", "legal", "board")
    assert ledger.approvals(role="legal", waiting=True) == []
    assert ledger.approvals(role="board", waiting=True) == [moved]
    decided = _answer(ledger, moved, by="di")
    assert (decided.state, decided.decided_by, decided.decider) == ("approved", "di", "board")
    assert ledger.verify() == []


def test_a_decision_about_something_else_is_a_conflict(ledger, asked):
    """The digest is what the person has seen."""
    _, approval = asked
    with pytest.raises(Conflict, match="about another request"):
        ledger.answer(approval.id, by="bo", verdict="approved", digest="sha256:other")
    assert ledger.approval(approval.id).state is ApprovalState.PENDING


def test_a_decision_that_comes_too_late_is_a_conflict_and_closes_the_request(ledger, clock, asked):
    """At the very microsecond; the refused decision is not recorded, the expiry is."""
    _, approval = asked
    clock.us = approval.expires_us
    with pytest.raises(Conflict, match="has expired"):
        _answer(ledger, approval)
    closed = ledger.approval(approval.id)
    assert (closed.state, closed.decided_by) == (ApprovalState.EXPIRED, None)
    assert ledger.verify() == []


def test_requests_expire_by_themselves_when_asked_to(ledger, clock, asked):
    """Only those whose time is over."""
    _, approval = asked
    assert ledger.expire() == []
    clock.us = approval.expires_us
    assert [each.id for each in ledger.expire()] == [approval.id]
    assert ledger.expire() == []
    assert ledger.approval(approval.id).state is ApprovalState.EXPIRED
    assert ledger.verify() == []


def test_a_request_about_a_call_that_ended_cannot_be_decided(ledger, asked):
    """The client gave up; nothing would follow from a decision."""
    call, approval = asked
    ledger.finish(call, OK)
    with pytest.raises(Conflict, match="has ended"):
        _answer(ledger, approval)
    assert ledger.approval(approval.id).state is ApprovalState.EXPIRED
    assert ledger.verify() == []


def test_requests_of_a_run_that_ended_are_closed(ledger, asked):
    """In the transaction in which the run ends."""
    _, approval = asked
    ledger.update_run("run-1", state=RunState.CANCELLED)
    closed = ledger.approval(approval.id)
    assert (closed.state, closed.reason) == (ApprovalState.EXPIRED, "the run has ended")
    assert ledger.verify() == []


@pytest.mark.parametrize("environment", list(Environment))
def test_nobody_approves_an_own_request_in_production(ledger, clock, environment):
    """Rejecting it is allowed anywhere, approving it only in the sandbox."""
    ledger.create_run(RunRecord("run-2", RunKind.RUN, environment, "ana"))
    for number, verdict in enumerate(("approved", "changed")):
        arguments = {"n": 0} if verdict == "changed" else None
        call = begin(ledger, {"n": number}, run_id="run-2", decision=ASK).call
        approval = ledger.ask(call, role="legal", view=None, expires_us=clock.us + 9)
        if environment is Environment.SANDBOX:
            assert _answer(ledger, approval, verdict, by="ana", arguments=arguments)
            continue
        with pytest.raises(CallDenied, match="ana made the request"):
            _answer(ledger, approval, verdict, by="ana", arguments=arguments)
        assert _answer(ledger, approval, "rejected", by="ana").state == "rejected"
    assert ledger.verify() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "maybe"},
        {"verdict": "pending"},
        {"verdict": "expired"},
        {"verdict": "changed"},
        {"verdict": "approved", "arguments": {}},
        {"verdict": "escalated"},
        {"verdict": "rejected", "role": "board"},
        {"verdict": "approved", "by": ""},
        {"verdict": "changed", "arguments": {"x": float("nan")}},
        {"verdict": "rejected", "reason": "a\0b"},
    ],
)
def test_answers_that_do_not_fit_together_are_refused(ledger, asked, wrong):
    """And record nothing."""
    _, approval = asked
    with pytest.raises(UsageError):
        _answer(ledger, approval, **wrong)
    assert ledger.approval(approval.id) == approval


def test_requests_that_cannot_be_made_are_refused(ledger, clock, asked):
    """Past expiry, nobody to decide, a view that is no JSON, a call that ended or is unknown."""
    call = begin(ledger, {"n": 2}, decision=ASK).call
    later = clock.us + HOUR_US
    for role, view, expires in (("x", 1, clock.us), ("", 1, later), ("x", {1: 2}, later)):
        with pytest.raises(UsageError):
            ledger.ask(call, role=role, view=view, expires_us=expires)
    ledger.finish(call, OK)
    with pytest.raises(Conflict, match="already ended"):
        ledger.ask(call, role="x", view=1, expires_us=later)
    with pytest.raises(NotFound):
        ledger.approval("ask-0")
    with pytest.raises(NotFound):
        ledger.answer("ask-0", by="bo", verdict="approved", digest="")


def test_of_many_who_decide_at_once_one_is_heard(url, ledger, clock, asked):
    """Eight people, two ledgers."""
    _, approval = asked

    def decide(number: int) -> bool:
        try:
            _answer((ledger, other)[number % 2], approval, by=f"person-{number}")
        except Conflict:
            return False
        return True

    with Ledger.open(url, clock=clock) as other, ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(decide, range(8)))
    assert sum(heard) == 1
    assert ledger.approval(approval.id).decided_by == f"person-{heard.index(True)}"
    assert ledger.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        "state = 'approved'", "decided_by = 'eve'", "role = 'x'", "digest = 'x'", "view = '1'",
        "expires_us = expires_us + 1", "requested_by = 'x'", "reason = 'x'", "arguments = '1'",
        "escalated_to = 'x'", "call_key = 'x'", "answer_n = NULL", "approval_id = 'ask-1'",
        "decided_us = 1", "requested_us = 1", "ask_n = 1", "generation = 3",
    ],
)  # fmt: skip
def test_an_edited_decision_is_found(ledger, url, asked, change):
    """Every column of a request is a projection of the chain."""
    _, approval = asked
    _answer(ledger, approval, "rejected", reason="no")
    tamper(url, f"UPDATE approvals SET {change}")
    kinds = {fault.kind for fault in ledger.verify("run-1")}
    assert kinds & {FaultKind.PROJECTION, FaultKind.MISSING_ROW}
    tamper(url, "DELETE FROM approvals")
    assert {fault.kind for fault in ledger.verify("run-1")} == {FaultKind.MISSING_ROW}


def test_an_approved_call_goes_on(ledger, asked):
    """The decision is replaced, the call ends, what it held is settled."""
    call, approval = asked
    _answer(ledger, approval)
    ledger.decide(call, ALLOW)
    assert ledger.finish(call, OK).outcome == OK
    assert ledger.budget("s").reserved.nanos == 0
    assert ledger.verify() == []
