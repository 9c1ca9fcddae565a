"""Approvals: what one is bound to, and who counts."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from second_verifier import decide
from trust_world import EVALUATION, JOB, POLICY, World, later, make_key, person, signed, write

from toolkit.errors import ApprovalPending, ConfigurationError, IntegrityError, UsageError
from toolkit.trust import Approval, Envelope, Root, RootFacts, sign, statement_bytes
from toolkit.trust.approving import approval_name
from toolkit.values import digest_bytes

OTHER = "sha256:" + "c" * 64


def approval(world: World, who: str, **changed: Any) -> bytes:
    """Sign an approval of version 1 with some members changed."""
    version = world.verifier.version(JOB, 1)
    facts = {
        "name": JOB,
        "version": 1,
        "bundle_digest": version.bundle_digest,
        "environment": "production",
        "policy_digest": POLICY,
        "evaluation_digest": EVALUATION,
        "person": who,
        "issued": later(world.clock, 0),
        "expires": later(world.clock, 7),
        "nonce": "0123456789abcdef" * 2,
    }
    payload = statement_bytes(Approval.model_validate({**facts, **changed}))
    return signed(payload, [world.keys[who]])


def put(world: World, data: bytes) -> None:
    digest = Envelope.from_bytes(data).digest
    write(world.path / f"jobs/{JOB}/approvals" / approval_name(1, digest), data)


CHANGED = {
    "name": "other",
    "version": 2,
    "bundle_digest": OTHER,
    "environment": "sandbox",
    "policy_digest": OTHER,
    "evaluation_digest": None,
    "person": "cho",
}


@pytest.mark.parametrize("field", CHANGED)
def test_an_approval_with_one_field_changed_does_not_count(world: World, field: str):
    """It is signed by an approver, and says something else: the field is named."""
    world.seal()
    put(world, approval(world, "ben", **{field: CHANGED[field]}))
    found = world.verifier.approvals(JOB, 1, "production")
    assert not found
    assert not found.people
    assert f"has another {field}" in found.ignored[0].message
    with pytest.raises(ApprovalPending):
        world.move(1)
    assert "alias.moving" not in [record.event for record in world.registry.audit()]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"issued": 1}, "was issued"), ({"expires": 0}, "expires"), ({"expires": -1}, "expires")],
)
def test_an_approval_counts_from_its_issue_until_its_expiry(
    world: World, changed: dict[str, float], reason: str
):
    """Not before, and not at the moment it expires."""
    world.seal()
    put(world, approval(world, "ben", **{k: later(world.clock, v) for k, v in changed.items()}))
    found = world.verifier.approvals(JOB, 1, "production")
    assert not found
    assert reason in found.ignored[0].message


def test_a_changed_nonce_breaks_the_signature_and_the_name(world: World):
    """Nobody makes a second approval out of one."""
    world.seal()
    good = approval(world, "ben")
    body = json.loads(good)
    payload = Envelope.from_bytes(good).payload.replace(b'"nonce":"0', b'"nonce":"1')
    forged = Envelope(payload, Envelope.from_bytes(good).signatures).to_bytes()
    assert json.loads(forged)["signatures"] == body["signatures"]
    put(world, forged)
    found = world.verifier.approvals(JOB, 1, "production")
    assert not found
    assert "has a signature that is not ben's" in found.ignored[0].message


def test_an_approval_copied_under_another_name_is_ignored(world: World):
    """The file's name is the digest of what was signed."""
    world.seal()
    folder = world.path / f"jobs/{JOB}/approvals"
    path = world.approve(1)
    write(folder / f"1.{'0' * 32}.dsse.json", path.read_bytes())
    found = world.verifier.approvals(JOB, 1, "production")
    assert found.people == {"ben"}
    assert "copied or changed" in found.ignored[0].message


def test_two_approvals_of_one_person_are_one_person(worlds: Any):
    """Also when they were made with two keys."""
    world = worlds(approvers_needed=2)
    second = make_key()
    world.change_root(
        lambda facts: facts.model_copy(
            update={"people": {**facts.people, "ben": person(
                "ben", world.keys["ben"], second, roles=["approver", "root"])}}
        )
    )  # fmt: skip
    world.seal()
    world.approve(1)
    world.keys["ben-again"] = second
    world.approve(1, "ben-again")
    found = world.verifier.approvals(JOB, 1, "production")
    assert (len(found.digests), found.people, bool(found)) == (2, {"ben"}, False)
    with pytest.raises(ApprovalPending, match="1 of 2 people"):
        world.move(1)
    world.approve(1, "cho")
    world.move(1)
    assert world.production().approvals.people == {"ben", "cho"}


def test_an_author_never_counts(world: World):
    """Whether by the name that sealed, by full name, or by address; nor may he try."""
    for by in ("ben", "Ben", "BEN@example.com"):
        number = world.seal(by=by).version
        with pytest.raises(ConfigurationError, match="authors never approve"):
            world.approve(number)
    put(world, approval(world, "ben"))
    found = world.verifier.approvals(JOB, 1, "production")
    assert not found
    assert "authors never count" in found.ignored[0].message


def test_only_an_approver_approves(world: World):
    """Eve is known, and has no role; a stranger is not known."""
    world.seal()
    with pytest.raises(ConfigurationError, match="eve does not have the role approver"):
        world.approve(1, "eve")
    world.keys["stranger"] = make_key()
    with pytest.raises(ConfigurationError, match="does not list the key"):
        world.approve(1, "stranger")
    put(world, approval(world, "eve"))
    assert "who is no approver" in world.verifier.approvals(JOB, 1, "production").ignored[0].message
    with pytest.raises(UsageError):
        world.registry.trust.notary().approve(JOB, 1, "production", days=0)


def test_what_was_released_stays_released_when_the_approval_expires(released: World):
    """An approval must be in force when the alias moves, not for ever."""
    released.clock.advance(seconds=30 * 86_400)
    assert released.production().approvals.people == {"ben"}
    with pytest.raises(ApprovalPending):
        released.move(1)


NAMES = ("ana", "ben", "cho", "dan", "eve")
KEYS = {name: make_key() for name in NAMES}
CHOICES = st.lists(st.sampled_from([*NAMES, "stranger"]), max_size=7)


@settings(max_examples=60)
@given(
    holders=st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    needed=st.integers(-1, 6),
    signers=CHOICES,
)
def test_a_threshold_is_set_arithmetic_over_people(
    holders: list[str], needed: int, signers: list[str]
):
    """Refused at load unless 1 ≤ needed ≤ holders; then enough different holders, and no stranger."""
    keys = {**KEYS, "stranger": STRANGER}
    others = ["approver", "operator", "policy-approver", "root"]
    people = {
        name: person(name, KEYS[name], roles=[*others, *(["promoter"] if name in holders else [])])
        for name in NAMES
    }
    facts = RootFacts(
        version=1,
        epoch=1,
        expires="2030-01-01T00:00:00.000000Z",
        fresh_days=90,
        people=people,
        roles={**dict.fromkeys(others, 1), "promoter": needed},
        protected={},
    )
    if not 1 <= needed <= len(holders):
        with pytest.raises(ConfigurationError, match=r"roles\.promoter"):
            Root(facts, digest_bytes(b""))
        return
    root = Root(facts, digest_bytes(b""))
    envelope = Envelope(b"what is signed")
    random.Random(len(signers)).shuffle(signers)
    for name in signers:
        envelope = sign(envelope, keys[name])
    expected = set(signers) & set(holders)
    if "stranger" not in signers and len(expected) >= needed:
        assert root.require("promoter", root.signers(envelope, "it"), "it") == expected
    else:
        with pytest.raises(IntegrityError):
            root.require("promoter", root.signers(envelope, "it"), "it")


STRANGER = make_key()


def test_the_second_verifier_counts_as_the_first_does(worlds: Any):
    """One approval of two is not enough for either, even if an operator signs the move."""
    world = worlds(approvers_needed=2)
    world.seal()
    world.approve(1)
    world.approve(1, "cho")
    world.move(1)
    assert decide(world.path, None, world.clock.us, JOB, "production") is None
    next((world.path / f"jobs/{JOB}/approvals").glob("1.*")).unlink()
    with pytest.raises(IntegrityError, match="1 of 2 people"):
        world.production()
    assert decide(world.path, None, world.clock.us, JOB, "production")
