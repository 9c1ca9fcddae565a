"""Signed policies: what is in force cannot be taken away, put back, kept back or forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from second_verifier import decide
from trust_world import JOB, POLICY, STRICTER, World, make_key, person

from toolkit.app.policy_promotions import check_roles
from toolkit.errors import ConfigurationError, IntegrityError, InvalidFile
from toolkit.policy import PromotionPolicy, PromotionRule
from toolkit.trust import RootFacts


def second(world: World, alias: str = "production") -> str | None:
    """What the other verifier says on a machine that never saw the registry."""
    return decide(world.path, None, world.clock.us, JOB, alias)


def change(**facts: Any):
    """A change of the root."""

    def apply(before: RootFacts) -> RootFacts:
        return before.model_copy(update=facts)

    return apply


def test_an_alias_that_moves_names_the_policies_in_force(world: World) -> None:
    """Before the first policy it names none, in the older format; who looks at it remembers."""
    world.seal()
    world.release(1)
    before = world.verifier.index(JOB)
    assert before
    assert (before.policies, before.said_as) == (None, "urn:agent-toolkit:alias-move:1")
    world.promote_policy()
    world.promote_policy(STRICTER)
    world.seal()
    world.release(2)
    index = world.verifier.index(JOB)
    assert index
    assert index.policies
    assert index.policies["production"].number == 2
    assert index.said_as == "urn:agent-toolkit:alias-move:2"
    machine = world.reader()
    machine.alias(JOB, "production")
    seen = machine.state.load()
    assert seen
    assert seen.policies["production"].number == 2
    assert second(world) is None
    assert world.registry.verify() == []


def test_a_newer_policy_needs_no_new_index(released: World) -> None:
    """Who approves policies is no operator: the index names number 2, number 3 is in force."""
    released.promote_policy(POLICY)
    found = released.reader().policy("production")
    assert found
    assert (found.number, found.policy_digest) == (3, POLICY)
    assert released.production().version.promotion.version == 2
    assert second(released) is None


def test_a_policy_goes_stale_and_is_signed_again(released: World) -> None:
    """Until then nothing runs under it, though a newer index is signed."""
    released.clock.advance(seconds=60 * 86_400)
    trust = released.registry.trust
    assert trust
    trust.notary().refresh(JOB, log_bytes=released.registry.audit_end())
    released.clock.advance(seconds=31 * 86_400)
    for look in (released.production, lambda: released.verifier.policy("production")):
        with pytest.raises(IntegrityError, match="stale since") as refused:
            look()
        assert "toolkit policy promote production" in str(refused.value.next_step)
    assert second(released) == "ValueError: the policy is stale"
    released.promote_policy(STRICTER)
    assert released.production().version.promotion.version == 2
    assert second(released) is None


def test_a_root_can_demand_a_policy(world: World) -> None:
    """Without one nothing is let in, on any machine, whatever an index names."""
    world.seal()
    world.release(1)
    world.change_root(change(policies=["production"]))
    for machine in (world.verifier, world.reader()):
        with pytest.raises(IntegrityError, match="the root lets nothing run without it"):
            machine.policy("production")
        with pytest.raises(IntegrityError, match="the root lets nothing run without it"):
            machine.alias(JOB, "production")
    assert "policy-production.dsse.json is missing" in str(second(world))
    assert any("policy-production" in fault.where for fault in world.registry.verify())
    world.promote_policy()
    assert world.reader().alias(JOB, "production").version.promotion.version == 1
    assert second(world) is None
    assert world.registry.verify() == []


def test_an_operator_cannot_move_past_a_missing_policy(released: World) -> None:
    """Nor sign an index that forgets it."""
    (released.path / "trust/policy-production.dsse.json").unlink()
    released.approve(1)
    with pytest.raises(IntegrityError, match="is missing"):
        released.move(1)
    trust = released.registry.trust
    assert trust
    with pytest.raises(IntegrityError, match="is missing"):
        trust.notary().refresh(JOB, log_bytes=released.registry.audit_end())


def test_two_policy_approvers_sign_the_same_bytes(world: World) -> None:
    """What waits is in force for nobody; a signature of another bundle begins anew."""
    world.change_root(
        lambda facts: facts.model_copy(update={"roles": {**facts.roles, "policy-approver": 2}})
    )
    world.promote_policy(POLICY)
    assert world.verifier.policy("production") is None
    world.keys["dan"], dan = world.keys["ana"], world.keys["dan"]
    world.promote_policy(STRICTER)
    assert world.verifier.policy("production") is None
    world.keys["dan"] = dan
    world.promote_policy(STRICTER)
    found = world.verifier.policy("production")
    assert found
    assert (found.number, found.policy_digest) == (1, STRICTER)


# -- who approves what -------------------------------------------------------------------------


def test_a_root_keeps_approvers_of_versions_and_of_policies_apart(world: World) -> None:
    """Ben approves versions and roots: such a root is refused, by both verifiers, until he does not."""
    world.seal()
    world.release(1)
    with pytest.raises(InvalidFile, match=r"people\.ben\.roles: has approver and"):
        world.change_root(change(separate=True))
    people = world.verifier.root().facts.people
    ben = person("ben", world.keys["ben"], roles=["approver"])
    world.change_root(change(separate=True, people={**people, "ben": ben}))
    assert world.production().approvals
    assert second(world) is None
    assert world.registry.trust
    assert world.registry.trust.warnings() == []
    eve = person("eve", world.keys["eve"], roles=["approver", "policy-approver"])
    with pytest.raises(InvalidFile, match=r"people\.eve\.roles"):
        world.change_root(change(people={**people, "ben": ben, "eve": eve}))
    world.change_root(change(separate=None, people={**people, "ben": ben, "eve": eve}))
    assert "eve approves versions, and policies or roots too" in world.registry.trust.warnings()[0]


def test_a_policy_signed_by_who_became_an_approver_is_no_longer_in_force(world: World) -> None:
    """Dan signed the policy and approves versions now: somebody else has to sign it."""
    world.promote_policy()
    people = dict(world.verifier.root().facts.people)
    people["ben"] = person("ben", world.keys["ben"], roles=["approver"])
    people["dan"] = person("dan", world.keys["dan"], roles=["approver"])
    world.change_root(change(separate=True, people=people))
    with pytest.raises(IntegrityError, match="0 of 1 people with the role policy-approver"):
        world.verifier.policy("production")


def test_keys_of_a_stranger_sign_no_policy(world: World) -> None:
    """The root does not list the key."""
    world.keys["dan"] = make_key()
    with pytest.raises(ConfigurationError, match="does not list the key"):
        world.promote_policy()


def test_a_rule_that_would_not_hold_is_not_signed() -> None:
    """Who has which role is signed in the root alone: `from: [owner]` would ask nobody."""
    bare = PromotionRule(approvals=2)
    check_roles("production", PromotionPolicy(bare, {JOB: PromotionRule(roles=("approver",))}))
    for rules in (
        PromotionPolicy(PromotionRule(roles=("approver", "owner"))),
        PromotionPolicy(bare, {JOB: PromotionRule(roles=("owner",))}),
    ):
        with pytest.raises(ConfigurationError, match=r"promotion.*\.from names owner") as refused:
            check_roles("production", rules)
        assert refused.value.where == "policies/production/policy.yaml"
