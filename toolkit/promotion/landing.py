"""How what passed gets in: sealed, recorded as accepted, and only then let in.

    seal          the version is whole or not there
    accept        ``promotion.accepted`` with the attempt and its measurements
    release       an alias moves, or people are asked

Who is killed in between says it again: the same promotion finds the version by its standing digest,
records what is missing from the version's own evidence, and goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolkit.errors import NotFound
from toolkit.promotion.evidence import summary_of
from toolkit.promotion.recall import DAYS
from toolkit.promotion.sealed import evidence_of
from toolkit.promotion.stages import Stage
from toolkit.registry import Registry, Version, beside
from toolkit.values import Clock, Digest, JobRef, SystemClock, iso_utc

__all__ = ["Goal", "Landed", "Landing", "aliases_of", "seal_stage"]

_ACCEPTED = "promotion.accepted"


class Goal(Protocol):
    """What a version is to be let in as; :class:`toolkit.promotion.Wanted` is one."""

    @property
    def alias(self) -> str:
        """What points at it, or what it runs beside."""
        ...

    @property
    def kind(self) -> str:
        """``stable``, ``canary`` or ``shadow``."""
        ...

    @property
    def share(self) -> int | None:
        """Percent of the runs, of a canary."""
        ...


def aliases_of(goal: Goal) -> tuple[str, ...]:
    """Return the aliases at which a version is where it was to get, or further."""
    if goal.kind == "stable":
        return (goal.alias,)
    return goal.alias, beside(goal.alias, goal.share)


@dataclass(frozen=True, slots=True)
class Landed:
    """A version that is sealed, and recorded as accepted.

    Attributes:
        number, bundle_digest: Which.
        waiting: What it waits for; ``None``: it is in.
    """

    number: int
    bundle_digest: Digest
    waiting: str | None


@dataclass
class Landing:
    """Gets versions in, one step after the other.

    Attributes:
        registry: Where they are sealed.
        user: Who promotes.
        release: Lets a sealed version in, or asks for the approvals that it needs; a repeat does
            what is missing.  Returns what it waits for, ``None`` if it is in.
        clock: For the age of what is found.
    """

    registry: Registry
    user: str
    release: Callable[[str, int], str | None]
    clock: Clock = field(default_factory=SystemClock)

    def land(self, job: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Landed:
        """Seal a version, record it and let it in.

        Args:
            job: The job.
            files: Bytes by name, ``evidence.json`` among them.
            manifest: See :meth:`toolkit.registry.Registry.seal`.
        """
        sealed = self.registry.seal(job, files, {**manifest, "by": self.user})
        self._accept(job, sealed.version, json.loads(files["evidence.json"]))
        waiting = self.release(job, sealed.version)
        return Landed(sealed.version, sealed.bundle_digest, waiting)

    def begun(self, job: str, standing: Digest, goal: Goal) -> Version | None:
        """Return the newest version, if the same promotion sealed it and did not end.

        It ended when the version is recorded as accepted, and was let in or asked about: what
        people decided then is not asked again.

        Raises:
            IntegrityError: The version is damaged.
        """
        try:
            number = max(self.registry.versions(job), default=0)
        except NotFound:
            return None
        if not number:
            return None
        version = self.registry.resolve(JobRef(job, str(number)))
        facts = evidence_of(self.registry, version)
        oldest = iso_utc(self.clock.now_us() - DAYS * 86_400_000_000)
        if facts.get("standing") != standing or str(facts.get("at", "")) < oldest:
            return None
        if f"revoked.{number}" in self.registry.aliases(job):
            return None
        return None if self._ended(job, number, goal) else version

    def finish(self, version: Version) -> Landed:
        """Do what is missing of a version that :meth:`begun` found."""
        if not self._accepted(version.name, version.number):
            self._accept(version.name, version.number, evidence_of(self.registry, version))
        waiting = self.release(version.name, version.number)
        return Landed(version.number, version.bundle_digest, waiting)

    # -- parts -----------------------------------------------------------------------------

    def _accept(self, job: str, number: int, facts: dict[str, Any]) -> None:
        body = {**summary_of(facts), "version": number}
        self.registry.record(_ACCEPTED, {**body, "job": job}, by=self.user)

    def _accepted(self, job: str, number: int) -> bool:
        told = {"job": job, "version": number}
        return any(
            record.event == _ACCEPTED and told.items() <= record.body.items()
            for record in self.registry.audit()
        )

    def _ended(self, job: str, number: int, goal: Goal) -> bool:
        try:
            request = self.registry.requests.get(job, number)
        except NotFound:
            names = (goal.alias, f"{goal.alias}.")
            moved = any(
                move.after == number and (move.alias == names[0] or move.alias.startswith(names[1]))
                for move in self.registry.alias_history(job)
            )
            return moved and self._accepted(job, number)
        asked = (request.alias, request.kind, request.share)
        other = asked != (goal.alias, goal.kind, goal.share)
        return other or (request.state != "waiting" and self._accepted(job, number))


def seal_stage(goal: Goal, landed: Landed, started: float) -> Stage:
    """Return the last stage of a promotion that began at a monotonic time, in seconds."""
    way = f"alias {goal.alias}"
    if goal.kind == "canary":
        way = f"{goal.share} % of the runs of {goal.alias}"
    elif goal.kind == "shadow":
        way = f"shadow of {goal.alias}"
    return Stage(
        "seal",
        passed=True,
        summary=landed.waiting or f"version {landed.number}, {way}",
        seconds=time.monotonic() - started,
        facts={"version": landed.number, "bundle_digest": landed.bundle_digest},
    )
