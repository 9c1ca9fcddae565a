"""The version that a promotion is held against: the one in production, or the last that stood there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import ConfigurationError, IntegrityError, NotFound
from toolkit.evaluation import Evaluation
from toolkit.promotion.sealed import evidence_of
from toolkit.registry import AuditRecord, Registry
from toolkit.values import JobRef

__all__ = ["Predecessor", "predecessor"]

_ALIAS = "production"
_REVOKED = "revoked."


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What a job's next version is compared with.

    Attributes:
        version: Its number; ``None``: nothing of the job ever stood in production, or all that did
            is revoked.
        why: Why it is this one, where no alias says so; a sentence without its subject.
        evidence: What was sealed with it.
    """

    version: int | None = None
    why: str = ""
    evidence: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def sets(self) -> dict[str, str]:
        """Digests of the sets that it was evaluated on, by name."""
        found = self.evidence.get("evaluation_sets")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def standard(self, set_name: str) -> dict[str, Any] | None:
        """What a set asked when it was evaluated (:mod:`.standards`); ``None``: not on record."""
        found = self.evidence.get("standards")
        each = found.get(set_name) if isinstance(found, dict) else None
        return each if isinstance(each, dict) else None

    def evaluation(self, set_name: str) -> Evaluation | None:
        """What it scored on a set when it was promoted; ``None`` if there is no record of it.

        The answers are read from its sealed evidence.  They are not asked again: what has changed
        since (a model behind its route, a price) counts as a difference between the versions.
        """
        facts = self.evidence
        try:
            body = facts.get("evaluations", {}).get(set_name) or facts.get("evaluation") or {}
            return Evaluation.from_json(body) if body.get("set_name") == set_name else None
        except (ValueError, AttributeError, ConfigurationError):
            return None  # not readable is not evidence: a comparison then does not pass


def predecessor(registry: Registry, job: str, records: Iterable[AuditRecord]) -> Predecessor:
    """Find the version that a job's next one is held against.

    That is the one that ``production`` points at.  Where it points nowhere (the job was retired, or
    its last version revoked), it is the last that stood there and is not revoked, by the audit log:
    taking a version away does not lower the bar for the next.

    Raises:
        IntegrityError, InvalidFile: The registry is damaged; nothing is compared with it.
    """
    try:
        version = registry.resolve(JobRef(job, _ALIAS))
    except NotFound:
        return _last(registry, job, records)
    return Predecessor(version.number, evidence=evidence_of(registry, version))


def _last(registry: Registry, job: str, records: Iterable[AuditRecord]) -> Predecessor:
    stood, ended = list(_stood(job, records)), _revoked(registry, job)
    if not stood:
        return Predecessor()
    left = [number for number in stood if number not in ended]
    if not left:
        why = "every version that stood in production is revoked"
        return Predecessor(None, why)
    number = left[-1]
    why = "production points at no version, and it was the last that stood there"
    if stood[-1] != number:
        why = (
            f"production points at no version, the last that stood there ({stood[-1]}) is revoked, "
            "and it stood there before"
        )
    try:
        found = registry.resolve(JobRef(job, str(number)))
    except NotFound as error:
        raise IntegrityError(
            f"{job}@{number} stood in production last, and its files are gone: there is nothing to "
            "compare the next version with",
            where=f"{job}@{number}",
            next_step="restore the version's folder from a copy",
        ) from error
    return Predecessor(number, why, evidence_of(registry, found))


def _stood(job: str, records: Iterable[AuditRecord]) -> Iterator[int]:
    """Yield the versions that stood in production, in their order, repeated where they came back."""
    for record in records:
        body = record.body
        moved = record.event == "alias.moved" and body.get("name") == job
        if moved and body.get("alias") == _ALIAS:
            # Where a crash kept a move out of the log, the next one tells what was before it.
            yield from (n for n in (body.get("before"), body.get("after")) if isinstance(n, int))


def _revoked(registry: Registry, job: str) -> set[int]:
    try:
        known = registry.aliases(job)
    except NotFound:
        return set()
    return {number for alias, number in known.items() if alias.startswith(_REVOKED)}
