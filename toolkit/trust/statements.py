"""What is signed: in-toto statements, one predicate per kind of decision.

Format: https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md.  A statement's
subjects are files by digest (promotion) or one thing by the digest of what was said of it; its
predicate type says which decision it is, so no signature of one kind passes for another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from toolkit.errors import UsageError
from toolkit.trust.strict import parse_json
from toolkit.values import Digest, canonical_bytes, check_name, digest_json

__all__ = [
    "AliasEntry",
    "AliasIndex",
    "Approval",
    "Checkpoint",
    "DigestText",
    "Frozen",
    "LogMark",
    "Name",
    "PolicyChange",
    "Predicate",
    "Promotion",
    "Text",
    "Utc",
    "read_statement",
    "shape_faults",
    "statement_bytes",
    "time_us",
]

_STATEMENT = "https://in-toto.io/Statement/v1"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 2**53 - 1


def time_us(text: str) -> int:
    """Return microseconds since the epoch of ``2026-11-21T05:16:01.000000Z``.

    Raises:
        ValueError: It is not a time in that form.
    """
    if not _TIME.fullmatch(text):
        raise ValueError("is not a time such as 2026-11-21T05:16:01.000000Z")
    since = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _time(text: str) -> str:
    time_us(text)
    return text


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError("is not 'sha256:' and 64 hex digits")
    return text


def _name(text: str) -> str:
    try:
        return check_name(text)
    except UsageError as error:
        raise ValueError(f"is not a name: {error.next_step}") from error


def _text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("is empty or holds characters that cannot be seen")
    return text


Utc = Annotated[str, AfterValidator(_time)]
DigestText = Annotated[str, AfterValidator(_digest)]
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(max_length=256), AfterValidator(_text)]
_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
_Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Frozen(BaseModel):
    """A part of what is signed: its members exactly, of their types exactly."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Predicate(Frozen):
    """Something that people sign.

    Attributes:
        kind: The predicate type.
    """

    kind: ClassVar[str]

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
    version: _Count
    bundle_digest: DigestText
    authors: list[Text]
    policy_digest: DigestText | None
    evaluation_digest: DigestText | None
    root_version: _Count
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
    version: _Count
    bundle_digest: DigestText
    environment: Name
    policy_digest: DigestText | None
    evaluation_digest: DigestText | None
    person: Name
    issued: Utc
    expires: Utc
    nonce: _Nonce

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

    records: Annotated[int, Field(ge=0, le=_MAX_COUNT)]
    bytes: Annotated[int, Field(ge=0, le=_MAX_COUNT)]
    head: DigestText


class AliasEntry(Frozen):
    """Where one alias points, and why it may.

    Attributes:
        version, bundle_digest: The version.
        environment: What its approvals are for; ``None`` if the alias needs none.
        approvals: Digests of the approvals that it was moved with.
        at, by: When, and who moved it.
    """

    version: _Count
    bundle_digest: DigestText
    environment: Name | None
    approvals: list[DigestText]
    at: Utc
    by: Text


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
    """

    kind: ClassVar[str] = "urn:agent-toolkit:alias-move:1"

    job: Name
    epoch: _Count
    index: _Count
    aliases: dict[Name, AliasEntry]
    log: LogMark
    root_version: _Count
    issued: Utc
    expires: Utc

    @property
    def subject(self) -> str:
        return self.job


class PolicyChange(Predicate):
    """The bundle of policies that an environment is to have from now on.

    Attributes:
        environment: Which.
        number: Counts up; never down.
        policy_digest: The bundle's digest.
        root_version: The root that the first signer saw.
        issued: When.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:policy-change:1"

    environment: Name
    number: _Count
    policy_digest: DigestText
    root_version: _Count
    issued: Utc

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
            "predicateType": predicate.kind,
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
    if body["predicateType"] != kind.kind:
        raise ValueError(f"predicateType is {body['predicateType']!a}, expected {kind.kind!r}")
    subjects = _subjects(body["subject"])
    try:
        predicate = kind.model_validate(body["predicate"])
    except ValidationError as error:
        raise ValueError("; ".join(shape_faults(error))) from error
    if kind is not Promotion and subjects != {predicate.subject: predicate.subject_digest}:
        raise ValueError("subject is not what the predicate is about")
    return predicate, subjects


def shape_faults(error: ValidationError) -> list[str]:
    """Return ``member: what is wrong`` for each fault; values are never repeated."""
    return [
        ".".join(map(str, item["loc"])) + ": " + item["msg"].removeprefix("Value error, ")
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]


def _subjects(value: Any) -> dict[str, Digest]:
    found: dict[str, Digest] = {}
    try:
        for one in value:
            if set(one) != {"name", "digest"} or set(one["digest"]) != {"sha256"}:
                raise ValueError("subject is not a list of {name, digest: {sha256}}")
            if one["name"] in found:
                raise ValueError(f"the subject {one['name']!a} appears twice")
            found[str(one["name"])] = _digest(f"sha256:{one['digest']['sha256']}")
    except (TypeError, KeyError) as error:
        raise ValueError("subject is not a list of {name, digest: {sha256}}") from error
    return found
