"""An answer about a call in production of a signed registry counts by its signature, or not at all."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from typing import Any

import pytest
from answers_world import House, changed, signed_again
from approvals_world import allowed, attempt, payment
from second_answers import decide_answer
from trust_world import World, make_key, person

from toolkit.errors import (
    ApprovalPending,
    CallDenied,
    CallInDoubt,
    ConfigurationError,
    Conflict,
    InfrastructureError,
    IntegrityError,
)
from toolkit.gateway.desk import Choice
from toolkit.gateway.doubt import Doubts
from toolkit.ledger import Approval, ApprovalState, Begun
from toolkit.trust import CallAnswer, Store
from toolkit.values import (
    CallRecord,
    CallState,
    Decision,
    Environment,
    RunRecord,
    Verdict,
    canonical_bytes,
    digest_json,
    iso_utc,
)

OTHER: dict[str, Any] = {
    "environment": "sandbox",
    "approval": "ask-0000000000000000",
    "run": "run-2",
    "call": "sha256:" + "0" * 64,
    "generation": 7,
    "digest": "sha256:" + "1" * 64,
    "choice": "rejected",
    "arguments_digest": "sha256:" + "2" * 64,
    "role": "director",
    "reason_digest": "sha256:" + "3" * 64,
    "person": "cho",
    "issued": "2001-01-01T00:00:00.000000Z",
}
"""Another value for each member of what is signed."""


@pytest.fixture
def house(world: World) -> House:
    return House.over(world)


@pytest.fixture
def escalating(world: World) -> House:
    """Time escalates what nobody decides."""
    return House.over(world, approvals=", escalate_to: director, on_expiry: escalate")


def ask(house: House, run_id: str = "run-1", **facts: Any) -> RunRecord:
    """Let a run of ana's ask about a payment."""
    run = house.run(run_id, **{"user": "ana", **facts})
    with pytest.raises(ApprovalPending):
        send(house, run)
    return run


def send(house: House, run: RunRecord, request_id: str = "again") -> Begun:
    """Send the call to a gateway that knows nothing but what is recorded."""
    return asyncio.run(attempt(house, house.gateway(), run, payment(run, request_id)))


def refused(house: House, run: RunRecord) -> str:
    """Send the call again, see it end as denied, and return the reason."""
    begun = send(house, run)
    assert begun.call.state is CallState.DENIED, begun.call.decision
    assert begun.call.outcome is not None
    assert begun.call.outcome.error is not None
    message: str = begun.call.outcome.error["message"]
    return message


def edit_people(house: House, old: str, new: str) -> None:
    path = house.registry / "people.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def restated(house: House, members: dict[str, Any], *keys: str) -> None:
    """Replace members of what was signed and sign it anew, subject included."""
    statement = json.loads(house.envelope().payload)
    statement["predicate"] |= members
    told = statement["predicate"]
    subject = {"name": told["approval"], "digest": {"sha256": told["digest"][7:]}}
    statement["subject"] = [subject]
    house.put(signed_again(canonical_bytes(statement), *(house.trust.keys[key] for key in keys)))


# -- who decides ------------------------------------------------------------------------------------


def test_a_signed_approval_lets_the_call_go_on_once(house: House) -> None:
    """Who decides is whose key signed, whatever the name; the envelope is in the chain."""
    run = ask(house)
    decided = house.say(Choice.APPROVE, by="mallory", reason="known supplier")
    assert (decided.state, decided.decided_by) == (ApprovalState.APPROVED, "ben")
    begun = send(house, run)
    assert begun.fresh
    assert allowed(begun.call)
    assert "ben (approver) approved it: known supplier" in begun.call.decision.reasons
    assert not send(house, run, "third").fresh
    (said,) = house.ledger.answers(decided.id)
    assert said.signed
    assert decide_answer(house.trust.path, said.signed.encode(), decided.id) == "ben"
    assert house.ledger.verify() == []


def test_what_is_signed_is_what_is_recorded(house: House) -> None:
    """Request, call, choice, arguments and reason, by their digests; nothing else is signed."""
    ask(house)
    given = {"recipient": "ben ltd", "amount": 5}
    decided = house.say(Choice.APPROVE, arguments=given, reason="less")
    assert set(OTHER) == set(CallAnswer.model_fields)
    assert json.loads(house.envelope().payload)["predicate"] == {
        "environment": "production",
        "approval": decided.id,
        "run": "run-1",
        "call": decided.call_key,
        "generation": 0,
        "digest": decided.digest,
        "choice": "changed",
        "arguments_digest": digest_json(given),
        "role": None,
        "reason_digest": digest_json("less"),
        "person": "ben",
        "issued": iso_utc(house.trust.clock.us),
    }


def test_changed_arguments_that_were_signed_are_used(house: House) -> None:
    """The person's arguments, and no others."""
    run = ask(house)
    house.say(Choice.APPROVE, arguments={"recipient": "ben ltd", "amount": 5})
    assert send(house, run).call.intent.arguments["amount"] == 5


@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.ESCALATE])
def test_a_name_alone_lets_nothing_in(house: House, choice: Choice) -> None:
    """Without a key, with a stranger's, and with the key of somebody without the role."""
    ask(house)
    more = {"role": "director"} if choice is Choice.ESCALATE else {}
    house.trust.keys["nobody"] = make_key()
    with pytest.raises(ConfigurationError, match="nobody signs here"):
        house.say(choice, by="ben", key=None, **more)
    with pytest.raises(ConfigurationError, match="the root does not list the key sha256:"):
        house.say(choice, by="ben", key="nobody", **more)
    with pytest.raises(CallDenied, match="eve does not have the role approver"):
        house.say(choice, by="ben", key="eve", **more)
    with pytest.raises(CallDenied, match="is ana's own request"):
        house.say(choice, by="ben", key="ana", **more)
    assert house.only().state is ApprovalState.PENDING


def test_refusing_takes_no_key(house: House) -> None:
    """Who has none is believed, because a refusal lets nothing in; a key that is there signs."""
    run = ask(house)
    house.say(Choice.REJECT, by="ben", key=None, reason="no")
    assert "ben rejected 'pay': no" in refused(house, run)
    assert "signed" not in house.answers()[-1][1]
    ask(house, "run-2")
    asked = next(each for each in house.ledger.approvals() if each.state.waiting)
    house.say(Choice.STOP, by="mallory", key="cho", request=asked)
    assert json.loads(house.envelope().payload)["predicate"]["person"] == "cho"
    ask(house, "run-3")
    asked = next(each for each in house.ledger.approvals() if each.state.waiting)
    mine = house.say(Choice.REJECT, by="ana", key="eve", reason="mine", request=asked)
    assert (mine.decided_by, mine.state) == ("ana", ApprovalState.REJECTED)


def test_refusing_takes_no_registry(house: House) -> None:
    """What is wrong with the root keeps nobody from saying no."""
    ask(house)
    (house.trust.path / "trust" / "root.json").write_bytes(b"{}")
    house.trust.state_path.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError):
        house.say(Choice.APPROVE)
    assert house.say(Choice.STOP, by="ben").state is ApprovalState.STOPPED


def test_the_sandbox_believes_as_before(house: House) -> None:
    """No signature is asked for, or looked for."""
    run = ask(house, environment=Environment.SANDBOX)
    assert house.say(Choice.APPROVE, by="ben", key=None).decided_by == "ben"
    assert send(house, run).fresh


def test_a_call_that_nobody_is_asked_about_looks_at_no_signature(house: House) -> None:
    """The registry is not even opened."""
    run = house.run()
    gateway = house.gateway()

    def opened() -> Any:
        pytest.fail("the registry was opened")

    gateway.desk.proofs.source = opened  # type: ignore[attr-defined]
    look = payment(run).but(name="look", arguments={})
    assert asyncio.run(attempt(house, gateway, run, look)).fresh


# -- the owner of the database ---------------------------------------------------------------------


def _row(house: House, **columns: Any) -> None:
    given = ", ".join(f"{name} = :{name}" for name in columns)
    house.edit(f"UPDATE approvals SET {given}", **columns)


def test_a_row_that_says_approved_lets_nothing_in(house: House) -> None:
    """With no answer in the chain, and with one that nobody signed."""
    run = ask(house)
    now = house.trust.clock.us
    _row(house, state="approved", decided_by="ben", decided_us=now)
    assert "no answer to it is in the run's chain" in refused(house, run)
    run = ask(house, "run-2")
    asked = next(each for each in house.ledger.approvals() if each.state.waiting)
    house.ledger.answer(asked.id, by="ben", verdict="approved", digest=asked.digest)
    assert "ben did not sign that it is approved" in refused(house, run)


@pytest.mark.parametrize("member", OTHER)
def test_each_member_changed_alone_is_refused(house: House, member: str) -> None:
    """Its bytes are not what was signed."""
    run = ask(house)
    house.say(Choice.APPROVE)

    def other(payload: bytes) -> bytes:
        statement = json.loads(payload)
        assert statement["predicate"][member] != OTHER[member]
        statement["predicate"][member] = OTHER[member]
        return canonical_bytes(statement)

    house.put(changed(house.envelope(), other))
    assert "has a signature that is not ben's: its bytes were changed" in refused(house, run)
    assert decide_answer(house.trust.path, house.envelope().to_bytes(), house.only().id) is None


@pytest.mark.parametrize("member", [name for name in OTHER if name not in ("person", "issued")])
def test_each_member_that_was_signed_for_something_else_is_refused(
    house: House, member: str
) -> None:
    """A sound signature of the right person, about something else in one member."""
    run = ask(house)
    house.say(Choice.APPROVE)
    restated(house, {member: OTHER[member]}, "ben")
    assert f"what ben signed has another {member}" in refused(house, run)


RECORDED = {
    "decided_by": ("cho", "another person"),
    "reason": ("because", "another reason_digest"),
    "digest": ("sha256:" + "1" * 64, "the call is not the one that was approved"),
    "expires_us": (2**50, "the call is not the one that was approved"),
    "escalated_to": ("director", "nobody escalated it to director"),
    "role": ("director", "ben does not have the role director now"),
    "requested_by": ("ben", "ben made the request"),
}


@pytest.mark.parametrize("column", RECORDED)
def test_each_column_changed_alone_is_refused(house: House, column: str) -> None:
    """What the row of the request says is held against what was signed."""
    run = ask(house)
    house.say(Choice.APPROVE)
    value, reason = RECORDED[column]
    _row(house, **{column: value})
    assert reason in refused(house, run)


def test_an_own_request_under_another_name_is_refused(house: House) -> None:
    """Who asked is the run's user, whatever the request says."""
    run = ask(house)
    _row(house, requested_by="zoe")
    house.say(Choice.APPROVE, key="ana")
    assert "ana made the request" in refused(house, run)


def test_nobody_signs_what_they_were_not_shown(house: House) -> None:
    """A view that was made to look harmless, and a request of another digest."""
    ask(house)
    asked = house.only()
    view = {**asked.view, "arguments": [dict(each) for each in asked.view["arguments"]]}
    view["arguments"][1]["value"] = "1"
    _row(house, view=json.dumps(view))
    with pytest.raises(CallDenied, match=r"what ask-.* shows is not what the call says"):
        house.say(Choice.APPROVE)
    _row(house, view=json.dumps(asked.view), digest="sha256:" + "1" * 64)
    with pytest.raises(CallDenied, match="the call is not the one that was approved"):
        house.say(Choice.APPROVE)
    assert house.say(Choice.REJECT, reason="odd").decided_by == "ben"
    assert "signed" not in house.answers()[-1][1]


def test_a_request_that_was_put_right_is_signed(house: House) -> None:
    """What is shown is what counts, not that it was ever changed."""
    run = ask(house)
    asked = house.only()
    _row(house, view=json.dumps({**asked.view, "call": "tool look"}))
    with pytest.raises(CallDenied, match="is not what the call says"):
        house.say(Choice.APPROVE)
    _row(house, view=json.dumps(asked.view))
    house.say(Choice.APPROVE)
    assert send(house, run).fresh


def test_other_arguments_than_the_signed_ones_are_refused(house: House) -> None:
    """Put in place of the person's, or beside a plain approval."""
    run = ask(house)
    house.say(Choice.APPROVE, arguments={"recipient": "ben ltd", "amount": 5})
    _row(house, arguments=json.dumps({"recipient": "ben ltd", "amount": 5_000_000}))
    assert "another arguments_digest" in refused(house, run)
    run = ask(house, "run-2")
    asked = next(each for each in house.ledger.approvals() if each.state.waiting)
    house.say(Choice.APPROVE, request=asked)
    _row(house, state="changed", arguments=json.dumps({"recipient": "eve", "amount": 120}))
    assert "another choice" in refused(house, run)


def test_an_answer_copied_to_another_request_is_refused(house: House) -> None:
    """Even of the same call, made by another run."""
    ask(house)
    first = house.say(Choice.APPROVE)
    envelope = house.envelope()
    run = ask(house, "run-2")
    asked = next(each for each in house.ledger.approvals() if each.state.waiting)
    assert asked.digest != first.digest or asked.id != first.id
    house.ledger.answer(
        asked.id,
        by="ben",
        verdict="approved",
        digest=asked.digest,
        signed=envelope.to_bytes().decode(),
    )
    assert "what ben signed has another approval" in refused(house, run)


Forge = Callable[[House], None]


def _by_another(house: House) -> None:
    house.put(signed_again(house.envelope().payload, house.trust.keys["cho"]))


def _by_two(house: House) -> None:
    keys = house.trust.keys
    house.put(signed_again(house.envelope().payload, keys["ben"], keys["cho"]))


def _by_a_stranger(house: House) -> None:
    house.put(signed_again(house.envelope().payload, make_key()))


def _twin_signed(house: House) -> None:
    twin = house.envelope().payload.replace(
        b'"choice":"approved"', b'"choice":"approved","choice":"approved"'
    )
    house.put(signed_again(twin, house.trust.keys["ben"]))


def _twin_in_the_envelope(house: House) -> None:
    data = house.envelope().to_bytes()
    house.put(data.replace(b'{"payload"', b'{"payload":"e30=","payload"', 1))


def _more_members(house: House) -> None:
    restated(house, {"approved": True}, "ben")


def _another_statement(house: House) -> None:
    payload = house.envelope().payload.replace(b":call-answer:1", b":approval:1")
    house.put(signed_again(payload, house.trust.keys["ben"]))


def _another_form(house: House) -> None:
    house.put(house.envelope().to_bytes().rstrip() + b" \n")


def _too_late(house: House) -> None:
    restated(house, {"issued": iso_utc(house.only().expires_us)}, "ben")


def _no_envelope(house: House) -> None:
    house.rewrite(lambda body: body.update(signed="no envelope"))


FORGERIES = [
    (_by_another, "names ben, and is signed by cho"),
    (_by_two, "names ben, and is signed by ben and cho"),
    (_by_a_stranger, "which the root does not list"),
    (_twin_signed, "the member 'choice' appears twice"),
    (_twin_in_the_envelope, "the member 'payload' appears twice"),
    (_more_members, "approved: Extra inputs are not permitted"),
    (_another_statement, "expected 'urn:agent-toolkit:call-answer:1'"),
    (_another_form, "not the one form that a stored envelope has"),
    (_too_late, "ben signed it after it had expired"),
    (_no_envelope, "is not a signed file"),
]


@pytest.mark.parametrize(
    ("forge", "reason"), FORGERIES, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_forged_envelope_is_refused(house: House, forge: Forge, reason: str) -> None:
    """Whatever stands in its place; the reason says which check failed, and how to look."""
    run = ask(house)
    house.say(Choice.APPROVE)
    forge(house)
    message = refused(house, run)
    assert reason in message
    assert message.startswith("the answer of ben about 'pay' does not count: ")
    if forge is not _too_late:
        kept = house.answers()[-1][1]["signed"].encode()
        assert decide_answer(house.trust.path, kept, house.only().id) is None


def test_a_call_that_the_database_lets_go_on_is_not_believed(house: House) -> None:
    """Its decision rewritten as allowed, with a request that waits: refused, and nothing ended."""
    run = ask(house)
    call = house.ledger.lookup(run.run_id, payment(run).key)
    house.edit("UPDATE calls SET verdict = 'allow', decision = replace(decision, '\"ask\"', '\"allow\"')")  # fmt: skip
    with pytest.raises(CallDenied, match="does not count: the request is pending"):
        send(house, run)
    assert house.ledger.lookup(run.run_id, call.key).outcome is None


# -- writes in doubt --------------------------------------------------------------------------------


def lost(house: House) -> tuple[RunRecord, CallRecord]:
    """A payment of which nobody recorded how it ended."""
    run = house.run(user="ana")
    return run, house.ledger.begin(payment(run), Decision(Verdict.ALLOW)).call


def settled(house: House, run: RunRecord, call: CallRecord) -> tuple[int, Any]:
    """Ask what became of it: how often it is repeated, and the answer it is to end with."""
    repeated = []

    async def repeat(attempt: int) -> CallRecord:
        repeated.append(attempt)
        return call

    doubts = Doubts(house.ledger, house.gateway(), lambda run: house.bundle(run.environment))
    _, answer = asyncio.run(doubts.settle(run, call, payment(run, "again"), repeat))
    return len(repeated), answer


@pytest.mark.parametrize(
    ("word", "comes"),
    [({"happened": False}, (1, None)), ({"happened": True, "answer": 7}, (0, {"answer": 7}))],
)
def test_what_became_of_a_write_is_signed(
    house: House, word: dict[str, Any], comes: tuple[int, Any]
) -> None:
    """The person's word is in the signature, and is read again whenever it is needed."""
    run, call = lost(house)
    with pytest.raises(ApprovalPending):
        settled(house, run, call)
    with pytest.raises(ConfigurationError):
        house.say(Choice.APPROVE, by="ben", key=None, arguments=word)
    house.say(Choice.APPROVE, arguments=word)
    assert settled(house, run, call) == settled(house, run, call) == comes


def test_a_word_that_nobody_signed_repeats_no_write(house: House) -> None:
    """Written as an answer, as the outcome of the question, or in place of what was signed."""
    run, call = lost(house)
    with pytest.raises(ApprovalPending):
        settled(house, run, call)
    asked, word = house.only(), {"happened": False}
    house.ledger.answer(asked.id, by="ben", verdict="changed", digest=asked.digest, arguments=word)
    with pytest.raises(CallInDoubt, match="ben did not sign that it is changed"):
        settled(house, run, call)


def test_a_signed_word_that_was_turned_round_repeats_no_write(house: House) -> None:
    """It happened, ben said; the database says that it did not."""
    run, call = lost(house)
    with pytest.raises(ApprovalPending):
        settled(house, run, call)
    house.say(Choice.APPROVE, arguments={"happened": True, "answer": 7})
    assert settled(house, run, call) == (0, {"answer": 7})
    _row(house, arguments=json.dumps({"happened": False}))
    with pytest.raises(CallDenied, match="another arguments_digest"):
        settled(house, run, call)


# -- later ------------------------------------------------------------------------------------------


def _without_the_key(world: World) -> None:
    def change(facts: Any) -> Any:
        people = {**facts.people, "ben": person("ben", make_key(), roles=["approver", "root"])}
        return facts.model_copy(update={"people": people})

    world.change_root(change)


def test_a_key_that_was_taken_away_signs_for_nothing(house: House) -> None:
    """The root of the moment in which the call goes on counts."""
    run = ask(house)
    house.say(Choice.APPROVE)
    _without_the_key(house.trust)
    assert "which the root does not list" in refused(house, run)


def test_a_role_that_was_taken_away_decides_nothing(house: House) -> None:
    """Of people.yaml as it is when the call goes on."""
    run = ask(house)
    house.say(Choice.APPROVE)
    edit_people(house, "ben: {roles: [approver]}", "ben: {roles: []}")
    assert "ben does not have the role approver now" in refused(house, run)


def test_a_repetition_is_covered_by_what_was_signed(house: House) -> None:
    """A call in doubt is repeated on the strength of a signature that holds today."""
    run = ask(house)
    house.say(Choice.APPROVE)
    call = send(house, run).call
    asked = Decision(Verdict.ASK, approver="approver")
    gateway = house.gateway()
    assert gateway.uncovered(run, call, asked) is None
    _without_the_key(house.trust)
    assert "does not count" in str(gateway.uncovered(run, call, asked))
    with pytest.raises(CallDenied, match="which the root does not list"):
        send(house, run, "third")


def test_a_root_that_is_not_in_order_leaves_the_call_as_it_is(house: House) -> None:
    """Closed, and nothing is ended: when the root is mended, the same call goes on."""
    run = ask(house)
    house.say(Choice.APPROVE)
    root = house.trust.path / "trust" / "root.json"
    good = root.read_bytes()
    root.write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        send(house, run)
    root.unlink()
    with pytest.raises(IntegrityError, match=r"root.json is missing"):
        send(house, run)
    root.write_bytes(good)
    assert send(house, run).fresh


class Away:
    """A registry's files, of which none can be read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, path: str, limit: int) -> bytes:
        raise OSError(errno.EIO, f"the bucket cannot be reached for {path} of {limit} bytes")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_registry_that_cannot_be_reached_is_waited_for(house: House) -> None:
    """An error that may be sent again; nothing is wrong with the answer."""
    run = ask(house)
    house.say(Choice.APPROVE)
    gateway = house.gateway()
    registry = house.trust.registry
    gateway.desk.proofs.source = lambda: registry  # type: ignore[attr-defined]
    assert registry.trust
    reader, there = registry.trust.verifier.reader, registry.trust.verifier.reader.store
    reader.store = Away(there)
    with pytest.raises(InfrastructureError, match="the bucket cannot be reached"):
        asyncio.run(attempt(house, gateway, run, payment(run, "a")))
    reader.store = there
    assert asyncio.run(attempt(house, gateway, run, payment(run, "b"))).fresh


# -- escalations ------------------------------------------------------------------------------------


def escalate(house: House) -> Approval:
    return house.say(Choice.ESCALATE, role="director")


def test_an_escalation_and_an_approval_are_two_signatures(house: House) -> None:
    """Ben hands it on, dan decides; both are verified."""
    run = ask(house)
    escalate(house)
    house.say(Choice.APPROVE, key="dan")
    assert len(house.answers()) == 2
    assert send(house, run).fresh


def test_an_escalation_needs_its_own_signature(house: House) -> None:
    """Taken away, of somebody without the role, or of another role: the approval stands on nothing."""
    run = ask(house)
    asked = house.only()
    house.ledger.answer(
        asked.id, by="ben", verdict="escalated", digest=asked.digest, role="director"
    )
    house.say(Choice.APPROVE, key="dan")
    assert "ben did not sign that it is escalated" in refused(house, run)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"escalated_to": "approver"}, "another role"),
        ({"by": "cho"}, "another person"),
        ({"by": "(time)"}, "policy does not let time escalate it to director"),
        ({"state": "approved"}, "it was approved before that"),
    ],
)
def test_an_escalation_that_was_rewritten_is_refused(
    house: House, change: dict[str, Any], reason: str
) -> None:
    """In the chain, behind the ledger's back."""
    run = ask(house)
    escalate(house)
    house.say(Choice.APPROVE, key="dan")
    house.rewrite(lambda body: body.update(change), place=0)
    assert reason in refused(house, run)


def test_time_escalates_without_a_signature(escalating: House) -> None:
    """Where policy says so, to the role that it names."""
    run = ask(escalating)
    escalating.trust.clock.advance(seconds=3_601)
    with pytest.raises(ApprovalPending):
        send(escalating, run)
    escalating.say(Choice.APPROVE, key="dan")
    assert send(escalating, run).fresh


def test_time_escalates_to_the_role_of_the_policy_only(escalating: House) -> None:
    """A view that was rewritten does not choose who decides."""
    run = ask(escalating)
    edit_people(escalating, "eve: {roles: []}", "eve: {roles: [clerk]}")
    view = escalating.only().view
    view["escalates"]["to"] = "clerk"
    _row(escalating, view=json.dumps(view))
    escalating.trust.clock.advance(seconds=3_601)
    with pytest.raises(ApprovalPending):
        send(escalating, run)
    escalating.say(Choice.APPROVE, key="eve")
    assert "policy does not let time escalate it to clerk" in refused(escalating, run)


def test_the_first_answer_counts(house: House) -> None:
    """A second one is refused, signed or not."""
    ask(house)
    house.say(Choice.APPROVE)
    with pytest.raises(Conflict):
        house.say(Choice.REJECT, key="cho", reason="no")
