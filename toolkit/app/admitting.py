"""Whether a version that is named by its number was let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import ApprovalPending, IntegrityError
from toolkit.registry import Registry, Version
from toolkit.values import Environment

if TYPE_CHECKING:
    from toolkit.policy import PromotionRule
    from toolkit.trust import Verifier

__all__ = ["check_let_in", "unasked_note", "unasked_roles", "verifier_of"]


def verifier_of(registry: Registry) -> Verifier | None:
    """Return what verifies a signed registry; ``None``: it is unsigned."""
    trust = registry.trust
    return trust.verifier if trust is not None and registry.signed else None


def unasked_roles(rule: PromotionRule) -> list[str]:
    """Return roles of a rule's ``from`` that a signed registry does not ask: its root has approvers."""
    return sorted({*rule.roles} - {"approver"})


def unasked_note(rule: PromotionRule) -> list[str]:
    """Return that as a note for whoever looks at a request; none where there are no such roles."""
    roles = unasked_roles(rule)
    told = f"the root's approvers are asked, not the policy's {', '.join(roles)}"
    return [told] if roles else []


def check_let_in(registry: Registry, version: Version, rule: PromotionRule) -> None:
    """Refuse to run a version by its number that nobody let in.

    It runs where no approvals are asked for; where an alias points at it that in a signed registry
    was moved with all approvals that it takes; in an unsigned one, where an alias did before; and
    while enough approvals of it are in force.

    Args:
        registry: Where it is.
        version: The version.
        rule: What the policy in force asks for its job.

    Raises:
        ApprovalPending: Otherwise.
    """
    job, number = version.name, version.number
    verifier = verifier_of(registry)
    environment = None if verifier is None else verifier.root().facts.strictest
    if not rule.approvals and environment is None:
        return
    known = registry.aliases(job)
    known.pop("retired", None)
    known.pop(f"revoked.{number}", None)
    pointing = [alias for alias, points_at in known.items() if points_at == number]
    if verifier is None:
        moves = registry.alias_history(job)
        if pointing or any(move.after == number for move in moves):
            return
    elif any(_moved_rightly(verifier, job, alias) for alias in pointing):
        return
    else:
        place = environment or Environment.PRODUCTION.value
        found = verifier.approvals(job, number, place)
        needed = max(rule.approvals, found.needed if environment else 0)
        if len(found.people) >= needed:
            return
    raise ApprovalPending(
        f"{version.ref} is not let in: no alias points at it, and too few people approve it",
        where=version.ref,
        next_step=f"see who is asked: toolkit inbox; or run {job}@production",
    )


def _moved_rightly(verifier: Verifier, job: str, alias: str) -> bool:
    try:
        verifier.alias(job, alias)
    except IntegrityError:
        return False
    return True
