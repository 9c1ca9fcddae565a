"""No alias is a way around approvals, and the number of people that held is signed."""

from __future__ import annotations

from typing import Any

import pytest
from second_verifier import decide
from test_trust_promotions import House, ref
from trust_world import JOB, POLICY, World, resigned, write

from toolkit.app.standing import Wish
from toolkit.errors import ApprovalPending, IntegrityError
from toolkit.trust import AliasIndex, PolicyAsks
from toolkit.values import JobRef

INDEX = f"jobs/{JOB}/index.dsse.json"


def second(world: World, alias: str) -> str | None:
    return decide(world.path, None, world.clock.us, JOB, alias)


def forge(world: World, **aliases: dict[str, Any] | None) -> None:
    """Sign another index, as an operator with a program of their own can."""

    def change(statement: dict[str, Any]) -> None:
        facts = statement["predicate"]
        facts["index"] += 1
        for alias, entry in aliases.items():
            facts["aliases"][alias] = {**facts["aliases"].get("production", {}), **(entry or {})}
        facts["aliases"] = {
            alias: {name: value for name, value in one.items() if (name, value) != ("needed", None)}
            for alias, one in facts["aliases"].items()
        }
        made = AliasIndex.model_validate(facts)
        statement.update(predicateType=made.said_as)
        statement["subject"][0]["digest"]["sha256"] = made.subject_digest.removeprefix("sha256:")

    path = world.path / INDEX
    write(path, resigned(path, [world.keys["ana"]], change))


# -- another alias -----------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["live", "live.canary-10", "live.shadow", "production2"])
def test_an_alias_that_the_root_does_not_name_needs_what_production_needs(
    world: World, alias: str
) -> None:
    """Whatever it is called, what it points at runs in production."""
    world.seal()
    trust = world.registry.trust
    assert trust
    with pytest.raises(ApprovalPending, match="0 of 1 people for production"):
        trust.notary().entry(JOB, alias, 1, by="ana")
    world.approve(1)
    assert trust.notary().entry(JOB, alias, 1, by="ana").environment == "production"


def test_an_operator_cannot_sign_an_alias_past_the_approvals(world: World) -> None:
    """Nor does the version run by its number because that alias points at it."""
    world.seal()
    world.release(1)
    world.seal()
    version = world.registry.resolve(JobRef(JOB, "2"))
    entry = {"version": 2, "bundle_digest": version.bundle_digest, "approvals": []}
    forge(world, live={**entry, "environment": None}, next={**entry, "environment": "production"})
    for alias, reason in (("live", "moved live for None"), ("next", "approvals of 0 of 1 people")):
        with pytest.raises(IntegrityError, match=reason) as refused:
            world.verifier.alias(JOB, alias)
        assert refused.value.where == INDEX
        with pytest.raises(IntegrityError, match=reason):
            world.registry.resolve(f"{JOB}@{alias}")
        assert second(world, alias)
    assert world.registry.aliases(JOB) == {"live": 2, "next": 2, "production": 1}
    assert second(world, "production") is None


def test_a_number_does_not_run_because_an_unapproved_alias_points_at_it(tmp_path: Any) -> None:
    """The number of people is asked again."""
    house = House(tmp_path)
    number = house.seal()
    ana = house.acting("ana")
    ana.release(JOB, number, Wish())
    for who in ("ben", "cho"):
        house.acting(who).approve(ref(number))
    ana = house.acting("ana")
    assert ana.settle(ana.get(ref(number)).request).moved
    ana.check_number(ana.registry.resolve(ref(number)))
    other = house.seal()
    digest = house.acting("ana").registry.resolve(ref(other)).bundle_digest
    forge(house.world, live={"version": other, "bundle_digest": digest, "approvals": []})
    ana = house.acting("ana")
    assert ana.registry.aliases(JOB)["live"] == other
    with pytest.raises(ApprovalPending, match="is not let in"):
        ana.check_number(ana.registry.resolve(ref(other)))


def test_without_a_protected_alias_nobody_is_asked(world: World) -> None:
    """The root's people chose so; what ends a job or a version never needs approvals."""
    world.seal()
    world.release(1)
    world.registry.releases.retire(JOB, by="ana", reason="over")
    assert world.registry.aliases(JOB) == {"retired": 1}
    assert second(world, "retired") is None
    assert world.registry.verify() == []
    world.change_root(lambda facts: facts.model_copy(update={"protected": {}}))
    world.seal()
    world.move(2, "live")
    assert world.verifier.alias(JOB, "live").approvals is None
    assert second(world, "live") is None


# -- more people than the root asks for ----------------------------------------------------------


def let_in(house: House) -> int:
    """A version that two people approved: the policy asks for two, the root for one."""
    number = house.seal()
    house.acting("ana").release(JOB, number, Wish())
    for who in ("ben", "cho"):
        house.acting(who).approve(ref(number))
    ana = house.acting("ana")
    assert ana.settle(ana.get(ref(number)).request).moved
    return number


def test_the_number_that_policy_asked_for_is_signed_and_checked_when_it_runs(
    tmp_path: Any,
) -> None:
    """One of two approvals is taken away, and from the index too: refused, by both."""
    house = House(tmp_path)
    number = let_in(house)
    world = house.world
    entry = world.production().entry
    assert (entry.needed, len(entry.approvals)) == (2, 2)
    assert second(world, "production") is None
    forge(world, production={"approvals": entry.approvals[:1]})
    with pytest.raises(IntegrityError, match="approvals of 1 of 2 people"):
        world.production()
    assert "too few" in str(second(world, "production"))
    assert number == 1


@pytest.mark.parametrize("needed", [None, 1])
def test_a_signed_policy_binds_an_operator_who_says_less(tmp_path: Any, needed: int | None) -> None:
    """The policy approvers signed that it asks for two: the index cannot say otherwise."""
    house = House(tmp_path)
    house.world.promote_policy(house.bundle.digest, asks=2)
    let_in(house)
    world = house.world
    entry = world.production().entry
    forge(world, production={"approvals": entry.approvals[:1], "needed": needed})
    with pytest.raises(IntegrityError, match="approvals of 1 of 2 people"):
        world.production()
    assert "too few" in str(second(world, "production"))


def test_a_stricter_policy_does_not_end_what_was_let_in_before(world: World) -> None:
    """It holds for what moves from then on; also without a word of it from who moves."""
    world.seal()
    world.release(1)
    world.promote_policy(POLICY, asks=2)
    assert world.production().approvals
    assert second(world, "production") is None
    world.seal()
    world.approve(2)
    with pytest.raises(ApprovalPending, match="1 of 2 people"):
        world.move(2)
    world.approve(2, "cho")
    world.move(2)
    assert world.production().entry.needed == 2
    assert second(world, "production") is None
    assert world.registry.rollback(JOB, by="ana").after == 1
    assert second(world, "production") is None


def test_a_job_has_its_own_number(world: World) -> None:
    """The policy names it; others take the policy's rest."""
    world.acting = "dan"
    trust = world.registry.trust
    assert trust
    trust.notary().policy("production", POLICY, PolicyAsks(jobs={JOB: 1}, others=2))
    world.acting = "ana"
    world.seal()
    world.release(1)
    assert world.production().entry.needed is None
    assert second(world, "production") is None


def test_a_canary_keeps_its_number_when_it_becomes_stable(tmp_path: Any) -> None:
    """Whoever promotes it says nothing of the policy."""
    house = House(tmp_path)
    let_in(house)
    number = house.seal()
    house.acting("ana").release(JOB, number, Wish(kind="canary", share=10))
    for who in ("ben", "cho"):
        house.acting(who).approve(ref(number))
    ana = house.acting("ana")
    assert ana.settle(ana.get(ref(number)).request).moved
    ana.registry.releases.promote(JOB, by="ana")
    entry = house.world.production().entry
    assert (entry.version, entry.needed) == (number, 2)
    assert second(house.world, "production") is None
