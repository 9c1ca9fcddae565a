"""Policies are promoted too: people say that this bundle, by its digest, is the one in force.

Before anybody says so, everything that was recorded under that environment's policy is decided again
under the bundle.  What differs is shown to who promotes and kept with the record in the audit log;
it refuses nothing, for a policy may be meant to deny.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit.app.admitting import unasked_roles
from toolkit.app.simulations import simulate_bundle
from toolkit.errors import ConfigurationError, InfrastructureError
from toolkit.policy import People, PolicyBundle, PromotionPolicy, Simulation
from toolkit.trust import PolicyAsks
from toolkit.values import Environment, iso_utc

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.registry import Registry

__all__ = [
    "PolicyStanding",
    "Tried",
    "check_in_force",
    "check_roles",
    "policy_standing",
    "promote_policy",
]

ROLE = "policy-approver"
_DAY_US = 86_400_000_000
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
        expires: Until when the signed change is good; ``None``: nothing is signed, or without end.
        tried: What it says of the recorded calls; ``None``: it was not asked.
    """

    environment: Environment
    digest: str
    promoted: str | None
    waiting: bool = False
    expires: str | None = None
    tried: Tried | None = field(default=None, compare=False)

    @property
    def in_force(self) -> bool:
        """Whether the files are what was promoted."""
        return self.digest == self.promoted


def policy_standing(
    registry: Registry, bundle: PolicyBundle, *, stale: bool = False
) -> PolicyStanding:
    """Return how a bundle stands: by signatures, or by the audit log of an unsigned registry.

    Args:
        registry: The registry.
        bundle: The bundle as its files are.
        stale: Let an expired signature pass: only to sign again.

    Raises:
        IntegrityError: What was signed is missing, older than what was seen, changed or expired.
    """
    environment = bundle.environment
    if registry.trust is not None and registry.signed:
        verifier = registry.trust.verifier
        change = verifier.policy(environment, stale=stale)
        pending = verifier.pending_policy(environment)
        waits = pending is not None and pending.policy_digest == bundle.digest
        promoted, until = (change.policy_digest, change.expires) if change else (None, None)
        return PolicyStanding(environment, bundle.digest, promoted, waits, until)
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
    approvers have as the root asks for.  The same bundle is signed again in the second half of its
    time, and where a change of format 1 has no end.  In an unsigned one the person needs the role
    ``policy-approver`` where ``people.yaml`` gives it to anybody.

    Args:
        bench: The workspace.
        environment: Whose bundle.
        dry_run: Only look at what it would change: nothing is signed or recorded.

    Raises:
        ConfigurationError: This person may not, or a rule asks roles that a signed registry ignores.
        InvalidFile: The bundle has faults.
    """
    registry, user = bench.registry, bench.workspace.user
    bundle = bench.governance.bundle(environment)
    before = policy_standing(registry, bundle, stale=True)
    signed = registry.trust is not None and registry.signed
    if before.in_force and not (signed and _to_renew(registry, before)):
        return before
    tried = _try(bench, environment)
    if dry_run:
        return replace(before, tried=tried)
    facts = {
        "environment": environment,
        "policy_digest": bundle.digest,
        "before": before.promoted,
        "simulation": tried.to_json(),
    }
    if signed:
        after = _sign(registry, bundle)
        done = after.in_force and after.expires != before.expires
        registry.record(_EVENT if done else "policy.signed", facts, by=user)
        return replace(after, tried=tried)
    _check_person(bench, user)
    registry.record(_EVENT, facts, by=user)
    return replace(policy_standing(registry, bundle), tried=tried)


def _try(bench: Workbench, environment: Environment) -> Tried:
    """Decide the whole history again; a ledger that is away does not keep a policy from its people."""
    try:
        return Tried(simulate_bundle(bench, environment=environment, examples=1))
    except InfrastructureError as error:
        return Tried(failed=error.message)


def _sign(registry: Registry, bundle: PolicyBundle) -> PolicyStanding:
    """Sign a bundle's digest and how many approvals it asks for, so that readers hold it to them."""
    if registry.trust is not None:
        rules = bundle.promotion
        check_roles(bundle.environment, rules)
        jobs = {job: rule.approvals for job, rule in rules.jobs.items()}
        asks = PolicyAsks(jobs=jobs, others=rules.default.approvals)
        registry.trust.notary().policy(bundle.environment, bundle.digest, asks)
    return policy_standing(registry, bundle, stale=True)


def check_roles(environment: str, policy: PromotionPolicy) -> None:
    """Refuse to sign a rule that would not hold: who has which role is signed in the root alone.

    Raises:
        ConfigurationError: A rule's ``from`` names roles that the root's approvers do not have.
    """
    rules = {"promotion": policy.default}
    rules.update({f"promotion.jobs.{job}": rule for job, rule in policy.jobs.items()})
    for where, rule in rules.items():
        if unasked := unasked_roles(rule):
            raise ConfigurationError(
                f"{where}.from names {', '.join(unasked)}: in a signed registry people with the "
                "root's role approver are asked, and no others",
                where=f"policies/{environment}/policy.yaml",
                next_step="write `from: [approver]`, or leave `from` out; who is an approver, "
                "the root says: `toolkit trust show`",
            )


def _to_renew(registry: Registry, standing: PolicyStanding) -> bool:
    """Whether a signed change has no end, or less than half of its time is left."""
    if standing.expires is None or registry.trust is None:
        return True
    verifier = registry.trust.verifier
    half_us = verifier.root().facts.fresh_days * _DAY_US // 2
    return standing.expires <= iso_utc(verifier.clock.now_us() + half_us)


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
