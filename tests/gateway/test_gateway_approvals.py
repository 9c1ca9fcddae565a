"""A call that a person decides about: asked once, waited for, made once with what was approved."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from approvals_world import RULES, World, allowed, attempt, payment, write_registry
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import (
    ApprovalPending,
    CallDenied,
    Conflict,
    NotFound,
    UsageError,
    error_from_json,
)
from toolkit.gateway.asked import approved_change, as_approved
from toolkit.gateway.bell import Bell
from toolkit.gateway.desk import Answer, Choice
from toolkit.gateway.views import plain, visible
from toolkit.ledger import ApprovalState
from toolkit.values import (
    CallKind,
    CallState,
    DataClass,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    RunKind,
    Source,
    Verdict,
)


@pytest.fixture
def world(tmp_path):
    """A production bundle that asks the role approver about every payment."""
    write_registry(tmp_path / "registry")
    made = World(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")
    yield made
    assert made.ledger.verify() == []
    made.close()


def asked(world, run, intent, **options):
    """Make the call once; return what is told about its request."""
    with pytest.raises(ApprovalPending) as told:
        asyncio.run(attempt(world, world.gateway(), run, intent, **options))
    return told.value.details["approval"]


def again(world, run, intent, **options):
    """Send the call again, to another gateway."""
    return asyncio.run(attempt(world, world.gateway(), run, intent, **options))


def refusal(begun) -> CallDenied:
    """Return the error that a call ended with."""
    assert begun.call.state is CallState.DENIED
    error = error_from_json(begun.call.outcome.error)
    assert isinstance(error, CallDenied)
    return error


# -- asking ----------------------------------------------------------------------------------------


def test_a_call_is_asked_about_once_however_often_it_is_sent(world):
    """Sent again, after the death of kernel and gateway too, it finds the same request."""
    run = world.run()
    first = asked(world, run, payment(run))
    second = asked(world, run, payment(run, request_id="after the kernel died"))
    assert first["id"] == second["id"]
    assert first["state"] == "pending"
    assert first["waiting"] is True
    assert first["role"] == "approver"
    assert world.only().requested_by == "emil"


def test_an_approved_call_is_made_once(world):
    """The request that finds the approval makes the call; whoever comes later does not."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE, reason="known supplier")
    begun = again(world, run, payment(run, request_id="second"))
    assert begun.fresh
    assert allowed(begun.call)
    assert "anna (approver) approved it: known supplier" in begun.call.decision.reasons
    assert not again(world, run, payment(run, request_id="third")).fresh


def test_of_two_requests_at_the_same_time_one_makes_the_call(world):
    """An old kernel's request and a new one's meet at the same gateway."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)

    async def both():
        gateway = world.gateway()
        calls = [attempt(world, gateway, run, payment(run, request_id=name)) for name in "abcd"]
        return await asyncio.gather(*calls)

    assert sorted(begun.fresh for begun in asyncio.run(both())) == [False, False, False, True]


def test_of_two_gateways_one_makes_the_call(world):
    """Both have read that it is approved; the ledger takes the first one's word."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)
    found = world.ledger.lookup(run.run_id, payment(run).key)
    first = replace(found.decision, verdict=Verdict.ALLOW)
    world.ledger.decide(found, first)
    with pytest.raises(Conflict, match="another decision"):
        world.ledger.decide(found, first)

    async def together():
        gateways = [world.gateway() for _ in range(4)]
        calls = [attempt(world, g, run, payment(run, request_id=str(id(g)))) for g in gateways]
        return await asyncio.gather(*calls)

    assert not any(begun.fresh for begun in asyncio.run(together()))


def test_gateways_that_race_make_an_approved_call_once(world):
    """Four of them, each with its own memory."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)

    async def race():
        gateways = [world.gateway() for _ in range(4)]
        calls = [attempt(world, g, run, payment(run, request_id=str(id(g)))) for g in gateways]
        return await asyncio.gather(*calls)

    assert sum(begun.fresh for begun in asyncio.run(race())) == 1


def test_a_call_that_nobody_has_to_be_asked_about_passes(world):
    """No request, no read of the ledger, the very record comes back."""
    run = world.run()
    look = Intent(run.run_id, CallKind.TOOL, "look", {}, request_id="x")
    begun = again(world, run, look)
    assert begun.fresh
    assert world.ledger.approvals() == []


# -- answers ---------------------------------------------------------------------------------------


def test_a_rejection_gives_its_reason_to_whoever_called(world):
    """The error's message is what the model or agent reads."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.REJECT, reason="the invoice was paid in May")
    error = refusal(again(world, run, payment(run)))
    assert error.message == "anna rejected 'pay': the invoice was paid in May"
    assert error.details["approval"] == world.only().id
    assert "stop_run" not in error.details


def test_a_rejection_without_a_reason_is_not_taken(world):
    """The model has to be told something that it can follow."""
    run = world.run()
    asked(world, run, payment(run))
    with pytest.raises(UsageError, match="needs a reason"):
        world.say(Choice.REJECT, reason="  ")


def test_changed_arguments_are_what_the_call_is_made_with(world):
    """They are labelled as the person's own; the call keeps its key."""
    run = world.run()
    intent = payment(run)
    key = intent.key
    asked(world, run, intent)
    world.say(Choice.APPROVE, arguments={"recipient": "ben ltd", "amount": 20})
    begun = again(world, run, payment(run))
    assert begun.fresh
    assert begun.call.intent.arguments == {"recipient": "ben ltd", "amount": 20}
    assert begun.call.intent.labels == {"amount": Labels(frozenset({Source.USER}))}
    assert begun.call.key == key
    # What was recorded may lack a secret that the caller has: only the change is laid over it.
    own = {"recipient": "ben ltd, account 4711", "amount": 120}
    assert as_approved(own, begun.call) == {"recipient": "ben ltd, account 4711", "amount": 20}
    assert approved_change(begun.call) == {"set": {"amount": 20}, "drop": []}
    assert world.only().state is ApprovalState.CHANGED
    resent = again(world, run, payment(run))
    assert resent.call.intent.arguments["amount"] == 20


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"recipient": "ben ltd", "amount": "20"}, UsageError, "amount"),
        ({"recipient": "ben ltd", "amount": -1}, UsageError, "amount"),
        ({"recipient": "ben ltd", "amount": 1, "iban": "x"}, UsageError, "iban"),
        ({"amount": 20}, UsageError, "recipient"),
        (["ben ltd", 20], UsageError, "an object"),
        ({"recipient": "mallory", "amount": 1}, CallDenied, "mallory is not paid"),
    ],
)
def test_changed_arguments_are_held_to_types_and_policy(world, arguments, error, said):
    """A person can approve what policy lets a person approve, no more; nothing is recorded."""
    run = world.run()
    asked(world, run, payment(run))
    with pytest.raises(error, match=said):
        world.say(Choice.APPROVE, arguments=arguments)
    assert world.only().state is ApprovalState.PENDING


def test_escalation_takes_the_decision_to_another_role(world):
    """The first role decides no more; the second one does."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.ESCALATE, role="director", reason="above my limit")
    assert asked(world, run, payment(run))["role"] == "director"
    with pytest.raises(CallDenied, match="anna does not have the role director"):
        world.say(Choice.APPROVE)
    world.say(Choice.APPROVE, by="dora")
    assert again(world, run, payment(run)).fresh


def test_escalation_needs_somebody_who_can_decide(world):
    """A role that nobody has, the same role, or none at all is refused."""
    run = world.run()
    asked(world, run, payment(run))
    for role, said in (("pope", "nobody has"), ("approver", "already"), (None, "names nobody")):
        with pytest.raises(UsageError, match=said):
            world.say(Choice.ESCALATE, role=role)


def test_stopping_the_run_refuses_this_call_and_every_later_one(world):
    """The error says so; the run's own switch is in the ledger."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.STOP, reason="this agent has gone mad")
    error = refusal(again(world, run, payment(run)))
    assert error.details["stop_run"] is True
    assert "anna stopped the run at 'pay': this agent has gone mad" in error.message
    (stop,) = world.ledger.stops()
    assert (stop.scope, stop.by) == (f"run:{run.run_id}", "anna")
    look = Intent(run.run_id, CallKind.TOOL, "look", {}, request_id="x")
    begun = world.ledger.begin(look, world.judge(run, look), switches=[f"run:{run.run_id}"])
    assert begun.call.state is CallState.DENIED


# -- who may -----------------------------------------------------------------------------------------


def test_only_people_with_the_role_decide(world):
    """Neither a colleague without it nor somebody whom nobody knows; the error names who can."""
    run = world.run()
    asked(world, run, payment(run))
    for by in ("carl", "stranger"):
        with pytest.raises(CallDenied, match=r"role approver.*\(anna, ben has it\)"):
            world.say(Choice.APPROVE, by=by)
    assert world.only().state is ApprovalState.PENDING


def test_nobody_approves_an_own_request_in_production(world):
    """Not with changed arguments either; taking it back is fine."""
    run = world.run(user="anna")
    asked(world, run, payment(run))
    for options in ({}, {"arguments": {"recipient": "ben ltd", "amount": 1}}):
        with pytest.raises(CallDenied, match="own request"):
            world.say(Choice.APPROVE, **options)
    world.say(Choice.REJECT, reason="my mistake")
    assert world.only().state is ApprovalState.REJECTED


def test_in_the_sandbox_an_author_with_the_role_approves(world):
    """People prototype there; without the role even there nobody decides."""
    run = world.run("s-1", kind=RunKind.SESSION, environment=Environment.SANDBOX, user="anna")
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)
    assert again(world, run, payment(run)).fresh


def test_a_request_is_decided_once(world):
    """The second person learns who was first."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.REJECT, reason="no")
    with pytest.raises(Conflict, match="was rejected by anna"):
        world.say(Choice.APPROVE, by="ben")


def test_a_decision_is_about_what_was_shown(world):
    """Another digest is another request."""
    run = world.run()
    asked(world, run, payment(run))
    with pytest.raises(Conflict, match="is not what was shown"):
        world.say(Choice.APPROVE, digest="sha256:" + "0" * 64)


# -- time, switches, policy of today -------------------------------------------------------------------


def test_a_request_that_nobody_decides_is_denied(world):
    """Expiry is an answer, and a late approval is none."""
    run = world.run()
    asked(world, run, payment(run))
    world.clock.advance(seconds=3601)
    with pytest.raises(Conflict, match="expired"):
        world.say(Choice.APPROVE)
    error = refusal(again(world, run, payment(run)))
    assert error.message == "nobody with the role approver decided about 'pay' in time"
    assert world.only().state is ApprovalState.EXPIRED


def test_policy_may_escalate_a_request_that_nobody_decides(world):
    """The second role gets as long as the first one had; then it is denied."""
    write_registry(world.registry, approvals=", escalate_to: director, on_expiry: escalate")
    run = world.run()
    asked(world, run, payment(run))
    world.clock.advance(seconds=3601)
    told = asked(world, run, payment(run))
    assert (told["role"], told["state"], told["waiting"]) == ("director", "escalated", True)
    world.clock.advance(seconds=3000)
    assert asked(world, run, payment(run))["role"] == "director"
    world.clock.advance(seconds=601)
    assert "role director" in refusal(again(world, run, payment(run))).message


def test_what_was_stopped_meanwhile_stays_stopped(world):
    """An approval is no way around the kill switch."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)
    world.ledger.stop("tool:pay", "olga", "fraud alarm")
    begun = again(world, run, payment(run), switches=("all", "tool:pay"))
    assert "tool:pay was stopped by olga: fraud alarm" in refusal(begun).message


def test_policy_of_today_is_asked_again(world):
    """What was approved under yesterday's policy is denied when today's forbids it."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)
    closed = (
        RULES + '@id("closed") @reason("payments are closed") forbid(principal, action, resource);'
    )
    write_registry(world.registry, rules=closed)
    error = refusal(again(world, run, payment(run), judge=world.judge))
    assert "policy denies it after the approval" in error.message
    assert "payments are closed" in error.message


def test_an_approval_is_no_approval_of_another_role(world):
    """A policy that now asks somebody else is not answered by the first person."""
    run = world.run()
    asked(world, run, payment(run))
    world.say(Choice.APPROVE)
    elsewhere = Decision(Verdict.ASK, ("new",), ("ask the board",), approver="board")
    begun = again(world, run, payment(run), judge=lambda *_: elsewhere)
    assert "policy now asks the role board, which anna lacks" in refusal(begun).message


# -- waiting -----------------------------------------------------------------------------------------


async def until(true):
    """Let the event loop work until something holds."""
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


def test_a_decision_of_this_process_wakes_at_once(world):
    """Nobody has to look into the ledger for it."""
    run = world.run()

    async def story():
        gateway = world.gateway()
        gateway.bell = Bell(world.ledger, world.clock, every_s=3600)
        call = asyncio.ensure_future(
            gateway.patiently(60, lambda: attempt(world, gateway, run, payment(run)))
        )
        await until(lambda: gateway.bell.looks > 0)
        answer = Answer(Choice.APPROVE, world.only().digest)
        await gateway.decide(world.only().id, answer, by="anna")
        begun = await asyncio.wait_for(call, 10)
        await gateway.close(0)
        return begun

    assert asyncio.run(story()).fresh


def test_many_waiting_calls_cost_one_look(world):
    """Thirty calls wait; a decision by another process reaches its own call only."""
    runs = [world.run(f"run-{number}") for number in range(30)]

    async def story():
        gateway = world.gateway()
        gateway.bell = Bell(world.ledger, world.clock, every_s=0.05)
        calls = [
            asyncio.ensure_future(
                gateway.patiently(60, lambda run=run: attempt(world, gateway, run, payment(run)))
            )
            for run in runs
        ]
        await until(lambda: len(world.ledger.approvals(limit=1000)) == len(runs))
        before = gateway.bell.looks
        await until(lambda: gateway.bell.looks > before + 3)
        wanted = world.ledger.get_run("run-12")
        (mine,) = [a for a in world.ledger.approvals(limit=1000) if a.run_id == wanted.run_id]
        desk = world.desk()
        other = threading.Thread(
            target=desk.answer,
            args=(mine.id, Answer(Choice.APPROVE, mine.digest)),
            kwargs={"by": "anna"},
        )
        other.start()
        await asyncio.to_thread(other.join)
        begun = await asyncio.wait_for(calls[12], 10)
        still = sum(not call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await gateway.close(0)
        return begun, still

    begun, still = asyncio.run(story())
    assert begun.fresh
    assert still == 29


def test_a_door_that_cannot_wait_longer_says_that_it_may_be_sent_again(world):
    """The resent call finds the decision that came in between."""
    run = world.run()

    async def patiently(seconds):
        gateway = world.gateway()
        try:
            return await gateway.patiently(
                seconds, lambda: attempt(world, gateway, run, payment(run))
            )
        finally:
            await gateway.close(0)

    with pytest.raises(ApprovalPending) as told:
        asyncio.run(patiently(0.1))
    assert told.value.exit_code == 75
    world.say(Choice.APPROVE)
    assert asyncio.run(patiently(0.1)).fresh


# -- the wire ----------------------------------------------------------------------------------------


def wire(world, run, method, **body):
    async def ask():
        gateway = world.gateway()
        try:
            return await getattr(gateway, method)(run, body)
        finally:
            await gateway.close(0)

    return asyncio.run(ask())


def test_a_kernel_sees_requests_of_its_own_run_only(world):
    """Another run's request is as if it were not there."""
    run, other = world.run(), world.run("run-2")
    told = asked(world, run, payment(run))
    seen = wire(world, run, "look", id=told["id"], wait_s=0.01)["approval"]
    assert seen["waiting"] is True
    assert seen["arguments"] == {"recipient": "ben ltd", "amount": 120}
    for method in ("look", "answer"):
        with pytest.raises(NotFound):
            wire(world, other, method, id=told["id"], choice="reject", digest=told["digest"])


def test_a_job_cannot_decide_about_its_own_calls(world):
    """Not even when its user has the role; it may take its request back."""
    run = world.run(user="anna")
    told = asked(world, run, payment(run))
    said = {"id": told["id"], "digest": told["digest"], "reason": "taken back"}
    for choice in ("approve", "escalate", "stop"):
        with pytest.raises(CallDenied, match="cannot decide about its own calls"):
            wire(world, run, "answer", choice=choice, **said)
    with pytest.raises(UsageError, match="an answer is one of"):
        wire(world, run, "answer", choice="allow", **said)
    assert wire(world, run, "answer", choice="reject", **said)["approval"]["state"] == "rejected"


def test_the_buttons_of_a_sandbox_session_decide_as_its_user(world):
    """The session's user is who decides, and needs the role."""
    facts = {"kind": RunKind.SESSION, "environment": Environment.SANDBOX}
    for number, (user, fits) in enumerate((("anna", True), ("carl", False))):
        run = world.run(f"s-{number}", user=user, **facts)
        told = asked(world, run, payment(run))
        said = {"id": told["id"], "digest": told["digest"], "choice": "approve"}
        if fits:
            assert wire(world, run, "answer", **said)["approval"]["decided_by"] == user
        else:
            with pytest.raises(CallDenied, match="does not have the role"):
                wire(world, run, "answer", **said)


# -- the view ----------------------------------------------------------------------------------------


def test_the_view_says_what_happens_where_it_came_from_and_why_it_is_asked(world):
    """The tool's sentence, each argument with its origin, the policy's reason, who asks."""
    run = world.run(job="bills", version=3, team="finance")
    labels = {
        "recipient": Labels(frozenset({Source.UNTRUSTED}), frozenset({DataClass.PII})),
        "amount": Labels(frozenset({Source.USER})),
    }
    intent = Intent(
        run.run_id, CallKind.TOOL, "pay", {"recipient": "ben ltd", "amount": 120},
        request_id="x", effect=Effect.WRITE, purpose="monthly bills", agent="payer", labels=labels,
    )  # fmt: skip
    view = asked(world, run, intent, origins={"recipient": ("read_email",)})["view"]
    assert view["title"] == 'Pay 120 to "ben ltd"'
    by_name = {part["name"]: part for part in view["arguments"]}
    assert by_name["recipient"]["origin"] == (
        "came from untrusted data (read_email); holds personal data"
    )
    assert by_name["amount"]["origin"] == "written by the user or the notebook"
    assert view["reasons"] == ["payments need a second pair of eyes"]
    facts = dict(view["facts"])
    assert facts["asked by"] == "emil"
    assert facts["job"] == "bills@3"
    assert facts["purpose"] == "monthly bills"
    assert facts["policies"].startswith("large-payments (bundle ")


@given(st.text())
@settings(max_examples=200)
def test_no_text_can_move_the_cursor_or_turn_the_line_around(text):
    """Control, direction and other invisible characters are shown, never sent."""
    for shown in (plain(text), visible({"a": text})):
        assert shown.isprintable()


def test_both_ends_of_a_long_value_are_shown():
    """Nothing hides behind the cut unsaid."""
    shown = visible("a" * 5_000 + "END")
    assert shown.endswith('END"')
    assert "3,005 characters left out" in shown
