"""Which approvals of a version count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from toolkit.errors import Fault, IntegrityError, InvalidFile
from toolkit.trust.reader import Reader, statement
from toolkit.trust.root import Root, refused
from toolkit.trust.shapes import time_us
from toolkit.trust.statements import AliasEntry, Approval, PolicyChange, Promotion
from toolkit.trust.store import approvals_folder
from toolkit.values import Digest, iso_utc

__all__ = [
    "Approvals",
    "Asked",
    "VerifiedVersion",
    "approval_name",
    "count_approvals",
    "people_needed",
]


@dataclass(frozen=True)
class VerifiedVersion:
    """A version whose every byte was signed for; run these bytes, not the files.

    Attributes:
        promotion: What was signed.
        files: Bytes by name, ``job.yaml`` included, the attestation not.
        promoters: People who signed.
        authors: Every name and address of people who wrote, sealed or promoted it.
        root_version: The root that says so.
    """

    promotion: Promotion
    files: Mapping[str, bytes] = field(repr=False)
    promoters: frozenset[str]
    authors: frozenset[str]
    root_version: int

    @property
    def ref(self) -> str:
        """``licence-review@3``."""
        return self.promotion.subject

    @property
    def bundle_digest(self) -> Digest:
        """What approvals are bound to."""
        return self.promotion.bundle_digest


@dataclass(frozen=True, slots=True)
class Asked:
    """How many people policy asks for to let a version into an environment."""

    needed: int
    environment: str


@dataclass(frozen=True, slots=True)
class Approvals:
    """Who let a version into an environment.

    Attributes:
        people: Different people who count.
        digests: Digest of each approval that counts; two of one person count once.
        needed: How many people it takes.
        ignored: Approvals that do not count: the file and why.
    """

    people: frozenset[str]
    digests: frozenset[Digest]
    needed: int
    ignored: tuple[Fault, ...] = ()

    def __bool__(self) -> bool:
        """Whether they are enough."""
        return self.needed >= 1 and len(self.people) >= self.needed


def people_needed(
    root: Root, alias: str, entry: AliasEntry, job: str, change: PolicyChange | None
) -> int:
    """Return how many people an alias takes: the most of what three signed files ask for.

    The root, for the alias; the index, where policy asked for more when the alias moved; the
    policy change in force, if it was when the alias moved.
    """
    protected = root.facts.environment_of(alias) is not None
    asked = change.asks(job, entry.at) if change else 0
    return max(root.facts.roles["approver"] if protected else 0, entry.needed or 0, asked)


def approval_name(version: int, digest: Digest) -> str:
    """The file name of an approval: the version, and the digest of what was signed."""
    return f"{version}.{digest.removeprefix('sha256:')[:32]}.dsse.json"


def count_approvals(
    reader: Reader,
    root: Root,
    version: VerifiedVersion,
    environment: str,
    *,
    at_us: int,
    only: Iterable[Digest] | None = None,
    needed: int | None = None,
) -> Approvals:
    """Do step 10 of :class:`toolkit.trust.Verifier`.

    Args:
        reader: The registry.
        root: The root in force.
        version: What is approved.
        environment: What for.
        at_us: When the approvals must be in force, microseconds since the epoch.
        only: Digests of the approvals that may count; left out, all.
        needed: How many people it takes; left out, as many as the root asks for.
    """
    folder = approvals_folder(version.promotion.name)
    wanted = None if only is None else set(only)
    people: set[str] = set()
    digests: set[Digest] = set()
    ignored: list[Fault] = []
    for name in reader.names(folder):
        if not name.startswith(f"{version.promotion.version}."):
            continue
        where = f"{folder}/{ascii(name)[1:-1]}"
        try:
            approval, digest = _read(reader, root, folder, name, version.promotion.version)
            _check_bound(approval, version.promotion, environment, where)
            _check_person(approval, root, version, at_us, where)
        except (IntegrityError, InvalidFile) as error:
            ignored.append(Fault(where, error.details["faults"][0]["message"]))
            continue
        if wanted is None or digest in wanted:
            people.add(approval.person)
            digests.add(digest)
    takes = root.facts.roles["approver"] if needed is None else needed
    return Approvals(frozenset(people), frozenset(digests), takes, tuple(ignored))


def _read(
    reader: Reader, root: Root, folder: str, name: str, number: int
) -> tuple[Approval, Digest]:
    where = f"{folder}/{ascii(name)[1:-1]}"
    envelope = reader.envelope(f"{folder}/{name}")
    if name != approval_name(number, envelope.digest):
        raise refused(where, "is not named after what was signed: it was copied or changed")
    people = root.signers(envelope, where)
    approval, _ = statement(envelope, Approval, where)
    if people != {approval.person}:
        by = ", ".join(sorted(people))
        raise refused(where, f"has another person: {approval.person}, signed by {by}")
    return approval, envelope.digest


def _check_bound(approval: Approval, promotion: Promotion, environment: str, where: str) -> None:
    expected = {
        "name": promotion.name,
        "version": promotion.version,
        "bundle_digest": promotion.bundle_digest,
        "environment": environment,
        "policy_digest": promotion.policy_digest,
        "evaluation_digest": promotion.evaluation_digest,
    }
    for what, value in expected.items():
        said = getattr(approval, what)
        if said != value:
            raise refused(where, f"has another {what}: {said!a}, expected {value!a}")


def _check_person(
    approval: Approval, root: Root, version: VerifiedVersion, at_us: int, where: str
) -> None:
    if approval.person not in root.holders("approver"):
        raise refused(where, f"is by {approval.person}, who is no approver")
    if approval.person in version.authors:
        raise refused(where, f"is by {approval.person}, an author: authors never count")
    if at_us < time_us(approval.issued):
        raise refused(where, f"was issued {approval.issued}, after {iso_utc(at_us)}")
    if at_us >= time_us(approval.expires):
        raise refused(where, f"expires {approval.expires}, not after {iso_utc(at_us)}")
