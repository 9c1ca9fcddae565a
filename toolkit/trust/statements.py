"""What is signed: in-toto statements, one predicate per kind of decision.

Format: https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md.  A statement's
subjects are files by digest (promotion) or one thing by the digest of what was said of it; its
predicate type says which decision it is, so no signature of one kind passes for another.

A statement that says nothing of what format 2 added (each class's ``added``) is written as format 1
(``urn:…:1``), and read as ever; one that does is of format 2 (``urn:…:2``).  Each has one form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from toolkit.trust.shapes import (
    Amount,
    Count,
    DigestText,
    Frozen,
    Name,
    Nonce,
    Text,
    Utc,
    digest_text,
    shape_faults,
)
from toolkit.trust.strict import parse_json
from toolkit.values import Digest, canonical_bytes, digest_json

__all__ = [
    "AliasEntry",
    "AliasIndex",
    "Approval",
    "Checkpoint",
    "LogMark",
    "PolicyAsks",
    "PolicyChange",
    "PolicyMark",
    "Predicate",
    "Promotion",
    "read_statement",
    "statement_bytes",
]

_STATEMENT = "https://in-toto.io/Statement/v1"


def _second(kind: str) -> str:
    return kind.removesuffix(":1") + ":2"


class Predicate(Frozen):
    """Something that people sign.

    Attributes:
        kind: The predicate type of format 1.
    """

    kind: ClassVar[str]

    @property
    def said_as(self) -> str:
        """The predicate type that it is written with."""
        return _second(self.kind) if self.newer else self.kind

    @property
    def subject(self) -> str:
        """What it is about, in words."""
        raise NotImplementedError

    @property
    def subject_digest(self) -> Digest:
        """Digest of what it is about; of the predicate itself where there is nothing else."""
        return digest_json(self.model_dump())


class Promotion(Predicate):
    """This version is what passed the gate.  Subjects: every file of it, ``job.yaml`` included.

    Attributes:
        name, version, bundle_digest: Which version.
        authors: Names or addresses of those who wrote it; they never approve it.
        policy_digest, evaluation_digest: What it was promoted with.
        root_version: The root that the promoter saw.
        issued: When.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:promotion:1"

    name: Name
    version: Count
    bundle_digest: DigestText
    authors: list[Text]
    policy_digest: DigestText | None
    evaluation_digest: DigestText | None
    root_version: Count
    issued: Utc

    @property
    def subject(self) -> str:
        return f"{self.name}@{self.version}"


class Approval(Predicate):
    """One person lets one version into one environment.

    Attributes:
        name, version, bundle_digest: Which version.
        environment: Where.
        policy_digest, evaluation_digest: What it was promoted with.
        person: Who, as the root names them.
        issued, expires: From when until when an alias may be moved on the strength of it.
        nonce: 32 hex digits; no two approvals are the same bytes.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:approval:1"

    name: Name
    version: Count
    bundle_digest: DigestText
    environment: Name
    policy_digest: DigestText | None
    evaluation_digest: DigestText | None
    person: Name
    issued: Utc
    expires: Utc
    nonce: Nonce

    @property
    def subject(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def subject_digest(self) -> Digest:
        return self.bundle_digest


class LogMark(Frozen):
    """A place in the audit log.

    Attributes:
        records: How many records there are up to it.
        bytes: How long the file is up to it.
        head: Hash of the last of those records.
    """

    records: Amount
    bytes: Amount
    head: DigestText


class AliasEntry(Frozen):
    """Where one alias points, and why it may.

    Attributes:
        version, bundle_digest: The version.
        environment: What its approvals are for; ``None`` if the alias needs none.
        approvals: Digests of the approvals that it was moved with.
        at, by: When, and who moved it.
        needed: How many people it took, where policy asked for more than the root.
    """

    added: ClassVar[frozenset[str]] = frozenset({"needed"})

    version: Count
    bundle_digest: DigestText
    environment: Name | None
    approvals: list[DigestText]
    at: Utc
    by: Text
    needed: Count | None = None


class PolicyMark(Frozen):
    """Which policy change was in force: its number, and the digest of what was signed."""

    number: Count
    digest: DigestText


class AliasIndex(Predicate):
    """All aliases of a job at one moment; every move makes the next one.

    Attributes:
        job: The job.
        epoch: The root's epoch: a new one ends every older index.
        index: Counts up; never down.
        aliases: By alias.
        log: The audit log just before.
        root_version: The root that the mover saw.
        issued, expires: After ``expires`` nobody can tell whether a newer one was withheld.
        policies: Policy change in force by environment: none is missing or older from then on.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:alias-move:1"
    added: ClassVar[frozenset[str]] = frozenset({"policies"})

    job: Name
    epoch: Count
    index: Count
    aliases: dict[Name, AliasEntry]
    log: LogMark
    root_version: Count
    issued: Utc
    expires: Utc
    policies: dict[Name, PolicyMark] | None = None

    @property
    def newer(self) -> bool:
        return super().newer or any(entry.newer for entry in self.aliases.values())

    @property
    def subject(self) -> str:
        return self.job


class PolicyAsks(Frozen):
    """How many people a policy asks to let a version in.

    Attributes:
        jobs: By job.
        others: For every other job.
    """

    jobs: dict[Text, Amount]
    others: Amount

    def of(self, job: str) -> int:
        """Return the number for a job."""
        return self.jobs.get(job, self.others)


class PolicyChange(Predicate):
    """The bundle of policies that an environment is to have from now on.

    Attributes:
        environment: Which.
        number: Counts up; never down.
        policy_digest: The bundle's digest.
        root_version: The root that the first signer saw.
        issued: When.
        expires: After that nobody can tell whether a newer one was withheld; ``None``: format 1.
        approvals: How many approvals the bundle asks for; ``None``: format 1.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:policy-change:1"
    added: ClassVar[frozenset[str]] = frozenset({"expires", "approvals"})

    environment: Name
    number: Count
    policy_digest: DigestText
    root_version: Count
    issued: Utc
    expires: Utc | None = None
    approvals: PolicyAsks | None = None

    def asks(self, job: str, at: str) -> int:
        """Return how many people it asks for to let a version in at a time; before it, nobody."""
        return self.approvals.of(job) if self.approvals and at >= self.issued else 0

    @property
    def subject(self) -> str:
        return f"policies/{self.environment}"


class Checkpoint(Predicate):
    """The audit log had this length and head at this moment.

    Attributes:
        log: The place.
        issued: When.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:checkpoint:1"

    log: LogMark
    issued: Utc

    @property
    def subject(self) -> str:
        return "log/audit.jsonl"


P = TypeVar("P", bound=Predicate)


def statement_bytes(predicate: Predicate, files: Mapping[str, Digest] | None = None) -> bytes:
    """Return the statement's bytes.

    Args:
        predicate: What is said.
        files: Subjects by name, for a promotion.
    """
    subjects = files or {predicate.subject: predicate.subject_digest}
    return canonical_bytes(
        {
            "_type": _STATEMENT,
            "subject": [
                {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
                for name, digest in sorted(subjects.items())
            ],
            "predicateType": predicate.said_as,
            "predicate": predicate.model_dump(),
        }
    )


def read_statement(payload: bytes, kind: type[P]) -> tuple[P, dict[str, Digest]]:
    """Parse a statement that must be of one kind; return what is said, and its subjects.

    Raises:
        ValueError: It is not; the text names the member.
    """
    body = parse_json(payload)
    if not isinstance(body, dict) or set(body) != {
        "_type",
        "subject",
        "predicateType",
        "predicate",
    }:
        raise ValueError("it is not an in-toto statement")
    if body["_type"] != _STATEMENT:
        raise ValueError(f"_type is {body['_type']!a}, expected {_STATEMENT!r}")
    kinds = (kind.kind, _second(kind.kind)) if kind.added else (kind.kind,)
    if body["predicateType"] not in kinds:
        raise ValueError(f"predicateType is {body['predicateType']!a}, expected {kind.kind!r}")
    subjects = _subjects(body["subject"])
    try:
        predicate = kind.model_validate(body["predicate"])
    except ValidationError as error:
        raise ValueError("; ".join(shape_faults(error))) from error
    if predicate.said_as != body["predicateType"]:
        raise ValueError(f"its members are of {predicate.said_as}")
    if kind is not Promotion and subjects != {predicate.subject: predicate.subject_digest}:
        raise ValueError("subject is not what the predicate is about")
    return predicate, subjects


def _subjects(value: Any) -> dict[str, Digest]:
    found: dict[str, Digest] = {}
    try:
        for one in value:
            if set(one) != {"name", "digest"} or set(one["digest"]) != {"sha256"}:
                raise ValueError("subject is not a list of {name, digest: {sha256}}")
            if one["name"] in found:
                raise ValueError(f"the subject {one['name']!a} appears twice")
            found[str(one["name"])] = digest_text(f"sha256:{one['digest']['sha256']}")
    except (TypeError, KeyError) as error:
        raise ValueError("subject is not a list of {name, digest: {sha256}}") from error
    return found
