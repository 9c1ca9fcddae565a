"""Rollouts, rollbacks and revocations in a signed registry."""

from __future__ import annotations

from typing import Any

import pytest
from second_verifier import decide
from trust_world import DAY_S, JOB, World

from toolkit.errors import ApprovalPending, ConfigurationError, IntegrityError


@pytest.fixture
def world(tmp_path: Any) -> World:
    """Versions 1 and 2 approved and in production one after the other, 3 sealed."""
    made = World(tmp_path)
    for number in (1, 2):
        made.seal()
        made.release(number)
    made.seal()
    return made


def second(world: World, alias: str) -> str | None:
    return decide(world.path, None, world.clock.us, JOB, alias)


def test_a_canary_needs_the_approvals_of_what_it_stands_beside(world: World) -> None:
    """Without: refused.  With: both verifiers accept it, and promotion moves one index."""
    releases = world.registry.releases
    with pytest.raises(ApprovalPending):
        releases.put_beside(JOB, "production", 3, 10, by="ana")
    world.approve(3)
    releases.put_beside(JOB, "production", 3, 10, by="ana")
    found = world.verifier.alias(JOB, "production.canary-10")
    assert found.approvals
    assert found.approvals.people == {"ben"}
    assert second(world, "production.canary-10") is None
    world.clock.advance(seconds=30 * DAY_S)  # the approval has expired: it held when it began
    releases.promote(JOB, by="ana")
    assert world.registry.aliases(JOB) == {"production": 3}
    assert world.production().version.promotion.version == 3
    assert second(world, "production") is None
    assert world.registry.verify() == []


def test_rollback_needs_no_new_approval_and_a_new_version_does(world: World) -> None:
    """Long after its approval expired, what was in production may go back there."""
    world.clock.advance(seconds=30 * DAY_S)
    assert world.registry.rollback(JOB, by="ana").after == 1
    assert world.production().entry.version == 1
    assert second(world, "production") is None
    with pytest.raises(ApprovalPending):
        world.move(3)


def test_a_revocation_is_signed_and_cannot_be_taken_back_by_the_disk(world: World) -> None:
    """An older index put back is refused; ``aliases.json`` alone decides nothing."""
    before = world.snapshot("before")
    world.registry.releases.revoke(JOB, 2, by="ana", reason="leaks")
    assert world.registry.aliases(JOB) == {"production": 1, "revoked.2": 2}
    assert world.registry.verify() == []
    world.put_back(before, f"jobs/{JOB}/aliases.json")
    with pytest.raises(ConfigurationError, match="revoked"):
        world.registry.releases.check_runs(JOB, 2)
    world.put_back(before, f"jobs/{JOB}/index.dsse.json")
    with pytest.raises(IntegrityError):
        world.registry.releases.check_runs(JOB, 2)


def test_a_revoked_version_does_not_keep_the_index_from_being_refreshed(world: World) -> None:
    """Its promoter may have left: the entry lets nothing in."""
    world.registry.releases.revoke(JOB, 2, by="ana", reason="leaks")
    trust = world.registry.trust
    assert trust
    (world.path / "jobs" / JOB / "2" / "notebook.ipynb").unlink()
    trust.notary().refresh(JOB, log_bytes=world.registry.audit_end())
    assert world.registry.aliases(JOB) == {"production": 1, "revoked.2": 2}
