"""Policies are promoted too: people say that this bundle, by its digest, is the one in force.

Before anybody says so, everything that was recorded under that environment's policy is decided again
under the bundle.  What differs is shown to who promotes and kept with the record in the audit log;
it refuses nothing, for a policy may be meant to deny.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit.app.simulations import simulate_bundle
from toolkit.errors import ConfigurationError, InfrastructureError
from toolkit.policy import People, PolicyBundle, Simulation
from toolkit.values import Environment

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.registry import Registry

__all__ = ["PolicyStanding", "Tried", "check_in_force", "policy_standing", "promote_policy"]

ROLE = "policy-approver"
_EVENT = "policy.promoted"
_GROUPS = 50


@dataclass(frozen=True, slots=True)
class Tried:
    """What a bundle says of everything that was recorded.

    Attributes:
        found: The calls decided again; ``None`` if that could not be done.
        failed: Why not.
    """

    found: Simulation | None = None
    failed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the audit log keeps: every count, and the largest differences."""
        if self.found is None:
            return {"failed": self.failed}
        told = self.found.to_json()
        groups = told.pop("changed")
        return {**told, "changed": groups[:_GROUPS], "groups": len(groups)}


@dataclass(frozen=True, slots=True)
class PolicyStanding:
    """How a bundle stands.

    Attributes:
        environment: Which.
        digest: Of the bundle as its files are.
        promoted: Digest that was promoted last; ``None``: none ever was.
        waiting: Whether more people have to sign it.
        tried: What it says of the recorded calls; ``None``: it was not asked.
    """

    environment: Environment
    digest: str
    promoted: str | None
    waiting: bool = False
    tried: Tried | None = field(default=None, compare=False)

    @property
    def in_force(self) -> bool:
        """Whether the files are what was promoted."""
        return self.digest == self.promoted


def policy_standing(registry: Registry, bundle: PolicyBundle) -> PolicyStanding:
    """Return how a bundle stands: by signatures, or by the audit log of an unsigned registry."""
    environment = bundle.environment
    if registry.trust is not None and registry.signed:
        verifier = registry.trust.verifier
        change, pending = verifier.policy(environment), verifier.pending_policy(environment)
        waits = pending is not None and pending.policy_digest == bundle.digest
        promoted = change.policy_digest if change else None
        return PolicyStanding(environment, bundle.digest, promoted, waits)
    promoted = None
    for record in registry.audit():
        if record.event == _EVENT and record.body.get("environment") == environment:
            promoted = str(record.body.get("policy_digest"))
    return PolicyStanding(environment, bundle.digest, promoted)


def promote_policy(
    bench: Workbench, environment: Environment, *, dry_run: bool = False
) -> PolicyStanding:
    """Say that an environment's bundle, as its files are now, is the one to go by.

    In a signed registry this person signs the digest, and it is in force when as many policy
    approvers have as the root asks for.  In an unsigned one the person needs the role
    ``policy-approver`` where ``people.yaml`` gives it to anybody.

    Args:
        bench: The workspace.
        environment: Whose bundle.
        dry_run: Only look at what it would change: nothing is signed or recorded.

    Raises:
        ConfigurationError: This person may not.
        InvalidFile: The bundle has faults.
    """
    registry, user = bench.registry, bench.workspace.user
    bundle = bench.governance.bundle(environment)
    before = policy_standing(registry, bundle)
    if before.in_force:
        return before
    tried = _try(bench, environment)
    if dry_run:
        return replace(before, tried=tried)
    if registry.trust is not None and registry.signed:
        registry.trust.notary().policy(environment, bundle.digest)
    else:
        _check_person(bench, user)
    facts = {
        "environment": environment,
        "policy_digest": bundle.digest,
        "before": before.promoted,
        "simulation": tried.to_json(),
    }
    if registry.signed:
        after = policy_standing(registry, bundle)
        registry.record(_EVENT if after.in_force else "policy.signed", facts, by=user)
        return replace(after, tried=tried)
    registry.record(_EVENT, facts, by=user)
    return replace(policy_standing(registry, bundle), tried=tried)


def _try(bench: Workbench, environment: Environment) -> Tried:
    """Decide the whole history again; a ledger that is away does not keep a policy from its people."""
    try:
        return Tried(simulate_bundle(bench, environment=environment, examples=1))
    except InfrastructureError as error:
        return Tried(failed=error.message)


def check_in_force(registry: Registry, bundle: PolicyBundle) -> None:
    """Refuse production under a changed policy, in a signed registry where one was promoted.

    Raises:
        ConfigurationError: The bundle is another than the promoted one.
    """
    if not registry.signed:
        return
    standing = policy_standing(registry, bundle)
    if standing.promoted is None or standing.in_force:
        return
    raise ConfigurationError(
        f"the policy of {bundle.environment} was changed and not promoted: its digest is "
        f"{standing.digest}, people signed {standing.promoted}",
        where=f"policies/{bundle.environment}",
        next_step=f"put the files back, or let policy approvers run: toolkit policy promote "
        f"{bundle.environment}",
    )


def _check_person(bench: Workbench, user: str) -> None:
    people = People.load(bench.workspace.registry / "people.yaml")
    holders = people.with_role(ROLE)
    if holders and user not in holders:
        raise ConfigurationError(
            f"{user} does not have the role {ROLE}",
            where="people.yaml",
            next_step=f"ask {' or '.join(holders)}",
        )
