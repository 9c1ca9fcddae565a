"""Which signed policy change is in force: whole, of its environment, none missing, old or stale."""

from __future__ import annotations

from toolkit.trust.looking import Look, not_older
from toolkit.trust.reader import Reader, statement
from toolkit.trust.root import Root, refused
from toolkit.trust.shapes import time_us
from toolkit.trust.state import IndexMark
from toolkit.trust.statements import AliasIndex, PolicyAsks, PolicyChange, PolicyMark
from toolkit.trust.store import index_path, policy_environment, policy_path
from toolkit.values import Digest, check_name, iso_utc

__all__ = [
    "check_named_policies",
    "next_change",
    "policies_in_force",
    "policy_in_force",
    "same_change",
]

_DAY_US = 86_400_000_000


def policy_in_force(
    reader: Reader, seen: Look, environment: str, now_us: int, *, stale: bool = False
) -> PolicyChange | None:
    """Verify the policy change of an environment; what is newer goes into ``seen``.

    Steps: (1) there is one, if one was seen here or the root demands it; (2) enough policy
    approvers signed it; (3) it is of this environment; (4) it is not older than the last seen, nor
    another one of its number; (5) it has not expired: one of format 1 never does.

    Args:
        reader: The registry.
        seen: What there is to go by.
        environment: Which.
        now_us: For expiry, microseconds since the epoch.
        stale: Let an expired one pass, and none where the root demands one: only to sign one.

    Returns:
        The change; ``None`` if none was ever signed for.

    Raises:
        IntegrityError, InvalidFile: A step failed.
    """
    where = policy_path(check_name(environment, "environment"))
    mark = seen.policies.get(environment) or seen.seen.policies.get(environment)
    if not reader.exists(where):  # 1
        if mark is not None:
            raise refused(where, f"is missing: number {mark.number} was seen here")
        if environment in (seen.root.facts.policies or ()) and not stale:
            step = f"policy approvers sign one: `toolkit policy promote {environment}`"
            raise refused(where, "is missing: the root lets nothing run without it", step)
        return None
    envelope = reader.envelope(where)
    seen.root.require("policy-approver", seen.root.signers(envelope, where), where)  # 2
    change, _ = statement(envelope, PolicyChange, where)
    if change.environment != environment:  # 3
        raise refused(where, f"is of the environment {change.environment}")
    new = IndexMark(epoch=0, number=change.number, digest=envelope.digest)
    not_older(mark, new, where)  # 4
    if change.expires and now_us >= time_us(change.expires) and not stale:  # 5
        raise refused(
            where,
            f"is stale since {change.expires}: a newer one may have been withheld",
            f"policy approvers sign it again: `toolkit policy promote {environment}`",
        )
    seen.policies[environment] = new
    return change


def check_named_policies(reader: Reader, seen: Look, index: AliasIndex, now_us: int) -> None:
    """Check that no policy change that an alias index names is missing, or older than it says.

    A machine that never saw the newer one knows of it by this.

    Raises:
        IntegrityError, InvalidFile: One is.
    """
    by = index_path(index.job)
    for environment, named in (index.policies or {}).items():
        where = policy_path(environment)
        if not reader.exists(where):
            raise refused(where, f"is missing: {by} names number {named.number}")
        policy_in_force(reader, seen, environment, now_us, stale=True)
        found = seen.policies[environment]
        if found.number < named.number:
            raise refused(where, f"is number {found.number}, {by} names number {named.number}")
        if found.number == named.number and found.digest != named.digest:
            raise refused(where, f"was replaced: {by} names another number {named.number}")


def policies_in_force(
    reader: Reader, seen: Look, before: AliasIndex | None, now_us: int
) -> dict[str, PolicyMark] | None:
    """Return what the next alias index is to name: every policy change there is.

    Raises:
        IntegrityError, InvalidFile: One is missing or not in order.
    """
    found = {name for name in map(policy_environment, reader.names("trust")) if name}
    found |= {*seen.seen.policies, *((before and before.policies) or ())}
    marks = {}
    for environment in sorted(found):
        if policy_in_force(reader, seen, environment, now_us, stale=True):
            mark = seen.policies[environment]
            marks[environment] = PolicyMark(number=mark.number, digest=mark.digest)
    return marks or None


def next_change(  # noqa: PLR0917 - what is signed, in its order
    root: Root,
    before: PolicyChange | None,
    environment: str,
    digest: Digest,
    asks: PolicyAsks | None,
    now_us: int,
) -> PolicyChange:
    """Return the change that follows the one in force; it is good as long as an alias index."""
    return PolicyChange(
        environment=environment,
        number=before.number + 1 if before else 1,
        policy_digest=digest,
        root_version=root.version,
        issued=iso_utc(now_us),
        expires=iso_utc(now_us + root.facts.fresh_days * _DAY_US),
        approvals=asks or PolicyAsks(jobs={}, others=0),
    )


def same_change(pending: PolicyChange, wanted: PolicyChange) -> bool:
    """Whether a change that waits for signatures says what is wanted, and still may."""
    names = ("environment", "number", "policy_digest", "approvals")
    same = all(getattr(pending, name) == getattr(wanted, name) for name in names)
    return same and (pending.expires or "") > wanted.issued
