"""How a version is to run, and how a request for it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from toolkit.errors import UsageError
from toolkit.registry import Request, Version
from toolkit.values import JobRef

__all__ = ["Kind", "Standing", "Wish", "authors_of", "facts_of", "number_of"]

Kind = Literal["stable", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class Wish:
    """How a version is to run.

    Attributes:
        alias: What points at it, or what it runs beside.
        kind: ``stable``, ``canary`` or ``shadow``.
        share: Percent of the runs, of a canary.
    """

    alias: str = "production"
    kind: Kind = "stable"
    share: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request stands.

    Attributes:
        request: What was asked.
        people: Different people whose approvals count now.
        needed: How many it takes.
        asked: Who could still say something: ``reviewer or owner (ben, cho)``.
        notes: Approvals that do not count, and why; what else keeps it.
        moved: Whether the alias has moved.
    """

    request: Request
    people: tuple[str, ...]
    needed: int
    asked: str
    notes: tuple[str, ...] = ()
    moved: bool = False

    @property
    def enough(self) -> bool:
        """Whether people have said all that is needed."""
        return len(self.people) >= self.needed

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        one = self.request
        if one.state == "rejected":
            return f"{one.ref} was rejected by {one.closed_by}: {one.reason}"
        if self.moved or one.state == "released":
            return f"{one.ref} is let in: {one.goal}"
        have = f"{len(self.people)} of {self.needed} approvals"
        by = f" ({', '.join(self.people)})" if self.people else ""
        then = f"asked: {self.asked}"
        if self.enough:
            then = next(iter(self.notes), f"to be completed: toolkit registry release {one.ref}")
        return f"{one.ref} waits for approval, {one.goal}: {have}{by}; {then}"

    def to_json(self) -> dict[str, Any]:
        """Return the standing as JSON values."""
        one = self.request
        names = ("job", "version", "bundle_digest", "alias", "kind", "share", "environment", "policy_digest", "evaluation_digest", "by", "at", "state", "reason")  # fmt: skip
        return {
            **{name: getattr(one, name) for name in names},
            "approved_by": list(self.people),
            "needed": self.needed,
            "asked": self.asked,
            "notes": list(self.notes),
            "moved": self.moved,
            "sentence": self.sentence,
        }


def authors_of(request: Request, version: Version) -> set[str]:
    """Return who never approves a version: who asked, and who sealed it."""
    return {request.by, version.manifest.by}


def number_of(ref: JobRef) -> int:
    """Return the version's number.

    Raises:
        UsageError: The reference names none.
    """
    if ref.version is None:
        raise UsageError("name the version by its number", next_step=f"{ref.name}@3")
    return ref.version


def facts_of(request: Request) -> dict[str, Any]:
    """Return what the audit log keeps of a request."""
    names = ("job", "version", "bundle_digest", "alias", "kind", "share", "environment", "policy_digest", "evaluation_digest", "needed")  # fmt: skip
    return {name: getattr(request, name) for name in names}
