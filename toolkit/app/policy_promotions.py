"""Policies are promoted too: people say that this bundle, by its digest, is the one in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import ConfigurationError
from toolkit.policy import People, PolicyBundle
from toolkit.values import Environment

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.registry import Registry

__all__ = ["PolicyStanding", "check_in_force", "policy_standing", "promote_policy"]

ROLE = "policy-approver"
_EVENT = "policy.promoted"


@dataclass(frozen=True, slots=True)
class PolicyStanding:
    """How a bundle stands.

    Attributes:
        environment: Which.
        digest: Of the bundle as its files are.
        promoted: Digest that was promoted last; ``None``: none ever was.
        waiting: Whether more people have to sign it.
    """

    environment: Environment
    digest: str
    promoted: str | None
    waiting: bool = False

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


def promote_policy(bench: Workbench, environment: Environment) -> PolicyStanding:
    """Say that an environment's bundle, as its files are now, is the one to go by.

    In a signed registry this person signs the digest, and it is in force when as many policy
    approvers have as the root asks for.  In an unsigned one the person needs the role
    ``policy-approver`` where ``people.yaml`` gives it to anybody.

    Raises:
        ConfigurationError: This person may not.
        InvalidFile: The bundle has faults.
    """
    registry, user = bench.registry, bench.workspace.user
    bundle = bench.governance.bundle(environment)
    before = policy_standing(registry, bundle)
    if before.in_force:
        return before
    if registry.trust is not None and registry.signed:
        registry.trust.notary().policy(environment, bundle.digest)
    else:
        _check_person(bench, user)
    facts = {"environment": environment, "policy_digest": bundle.digest, "before": before.promoted}
    if registry.signed:
        after = policy_standing(registry, bundle)
        registry.record(_EVENT if after.in_force else "policy.signed", facts, by=user)
        return after
    registry.record(_EVENT, facts, by=user)
    return policy_standing(registry, bundle)


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
