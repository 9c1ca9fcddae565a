"""Where data came from and how carefully it has to be handled.

Labels travel with what a call answers, and are looked for again in the arguments of later calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["NO_LABELS", "DataClass", "Labels", "Source"]


class Source(StrEnum):
    """Who chose a value."""

    USER = "user"  # the person or schedule that started the run, or the notebook's own code
    INTERNAL = "internal"  # a system of ours
    UNTRUSTED = "untrusted"  # somebody outside could have written it
    DERIVED = "derived"  # nobody knows, after the run has read untrusted data


class DataClass(StrEnum):
    """Who may see a value."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PII = "pii"  # about a person


@dataclass(frozen=True, slots=True)
class Labels:
    """Sources and classes of one value; the labels of a whole are those of all its parts.

    Attributes:
        sources: Everybody who had a part in it.
        classes: Every class that a part of it has.
    """

    sources: frozenset[Source] = frozenset()
    classes: frozenset[DataClass] = frozenset()

    def __or__(self, other: Labels) -> Labels:
        return Labels(self.sources | other.sources, self.classes | other.classes)

    def __bool__(self) -> bool:
        return bool(self.sources or self.classes)

    @property
    def tainted(self) -> bool:
        """Whether somebody outside may have chosen it."""
        return bool(self.sources & {Source.UNTRUSTED, Source.DERIVED})

    def to_json(self) -> dict[str, list[str]]:
        """Return the labels as sorted JSON values."""
        return {"sources": sorted(self.sources), "classes": sorted(self.classes)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Labels:
        """Inverse of :meth:`to_json`."""
        return cls(
            frozenset(map(Source, value["sources"])), frozenset(map(DataClass, value["classes"]))
        )


NO_LABELS = Labels()
