"""Promotions in a signed registry: people sign, an operator moves, a changed policy is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from approve_script import POLICY
from trust_world import DAY_S, FILES, JOB, World

from toolkit.app.policy_promotions import check_in_force, policy_standing
from toolkit.app.promotions import Promotions
from toolkit.app.standing import Wish
from toolkit.errors import ApprovalPending, ConfigurationError
from toolkit.policy import People, PolicyBundle, ToolCatalog
from toolkit.registry import Registry
from toolkit.values import JobRef


class House:
    """A signed registry with a policy that asks for two people."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.folder = self.world.path / "policies" / "production"
        self.folder.mkdir(parents=True)
        (self.folder / "policy.yaml").write_text(POLICY)

    @property
    def bundle(self) -> PolicyBundle:
        return PolicyBundle.load(self.folder, tools=ToolCatalog({}))

    def acting(self, who: str) -> Promotions:
        """The workspace of a person, with that person's key."""
        world = self.world
        world.clock.advance(seconds=60)
        registry = Registry(
            world.path,
            clock=world.clock,
            trust_state=world.state_path,
            signer=lambda: world.keys[who],
        )
        return Promotions(registry, lambda: self.bundle, lambda: People({}), who, clock=world.clock)

    def seal(self) -> int:
        facts = {"by": "ana", "policy_digest": self.bundle.digest}
        return self.acting("ana").registry.seal(JOB, FILES, facts).version


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def ref(number: int) -> JobRef:
    return JobRef(JOB, str(number))


def test_two_people_sign_and_an_operator_moves(house: House) -> None:
    """Ben and cho are no operators: theirs is the word, ana's the move; each step says what is left."""
    number = house.seal()
    asked = house.acting("ana").release(JOB, number, Wish())
    assert asked
    assert (asked.moved, asked.needed, asked.asked) == (False, 2, "approver (ben, cho)")
    with pytest.raises(ConfigurationError, match="approver"):
        house.acting("eve").approve(ref(number))
    first = house.acting("ben").approve(ref(number))
    assert (first.moved, first.people) == (False, ("ben",))
    assert house.acting("ben").approve(ref(number)).people == ("ben",)
    second = house.acting("cho").approve(ref(number))
    assert (second.moved, second.enough) == (False, True)
    assert "an operator completes it: toolkit registry release" in second.sentence
    ana = house.acting("ana")
    assert ana.registry.aliases(JOB) == {}
    assert ana.settle(ana.get(ref(number)).request).moved
    assert ana.registry.aliases(JOB) == {"production": number}
    assert ana.registry.verify() == []
    ana.check_number(ana.registry.resolve(ref(number)))


def test_a_number_runs_only_with_approvals_in_force(house: House) -> None:
    """Signed by its promoter alone it does not; approved it does, until that expires."""
    number = house.seal()
    ana = house.acting("ana")
    ana.release(JOB, number, Wish())
    version = ana.registry.resolve(ref(number))
    with pytest.raises(ApprovalPending):
        ana.check_number(version)
    house.acting("ben").approve(ref(number))
    with pytest.raises(ApprovalPending):  # the root asks for one, the policy for two
        ana.check_number(version)
    house.acting("cho").approve(ref(number))
    ana.check_number(version)
    house.world.clock.advance(seconds=8 * DAY_S)
    with pytest.raises(ApprovalPending):
        house.acting("ana").check_number(version)
    assert house.acting("ana").get(ref(number)).people == ()


def test_approvals_of_another_policy_do_not_let_in(house: House) -> None:
    """The policy was weakened after the promotion: promote again."""
    number = house.seal()
    house.acting("ana").release(JOB, number, Wish())
    policy = house.folder / "policy.yaml"
    policy.write_text(POLICY.replace("approvals: 2", "approvals: 1"))
    with pytest.raises(ConfigurationError, match="another policy"):
        house.acting("ben").approve(ref(number))


def test_a_policy_that_nobody_promoted_is_refused(house: House) -> None:
    """From the first promotion on; who promotes jobs cannot promote a policy."""
    check_in_force(house.acting("ana").registry, house.bundle)
    ben = house.acting("ben").registry
    assert ben.trust
    with pytest.raises(ConfigurationError, match="policy-approver"):
        ben.trust.notary().policy("production", house.bundle.digest)
    dan = house.acting("dan").registry
    assert dan.trust
    dan.trust.notary().policy("production", house.bundle.digest)
    assert policy_standing(dan, house.bundle).in_force
    check_in_force(dan, house.bundle)
    (house.folder / "policy.yaml").write_text(POLICY.replace("approvals: 2", "approvals: 0"))
    with pytest.raises(ConfigurationError, match="changed and not promoted"):
        check_in_force(dan, house.bundle)
    with pytest.raises(ConfigurationError, match="changed and not promoted"):
        house.acting("ana").release(JOB, house.seal(), Wish())


def test_roles_of_the_policy_that_nobody_signs_for_are_told(house: House) -> None:
    """`from: [reviewer]` is not asked here: a waiting version says so."""
    number = house.seal()
    asked = house.acting("ana").release(JOB, number, Wish())
    assert asked
    assert asked.notes == ("the root's approvers are asked, not the policy's reviewer",)
    (house.folder / "policy.yaml").write_text(POLICY.replace("[reviewer]", "[approver]"))
    again = house.seal()
    asked = house.acting("ana").release(JOB, again, Wish())
    assert asked
    assert asked.notes == ()
