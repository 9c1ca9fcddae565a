"""What was found in a text, without the text itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Category", "Finding", "Spotted"]


class Category(StrEnum):
    """Why a piece of text needs care."""

    SECRET = "secret"  # noqa: S105 - who has it can act as somebody else
    PII = "pii"  # it is about a person


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One piece of a text.

    Attributes:
        start, end: Offsets in code points; ``text[start:end]`` is what has to go.
        kind: ``GitHub token``, ``e-mail address`` …
        category: Secret, or about a person.
        score: How sure it is, above 0 and at most 1; 1 where a check digit agrees.
        value: Which known secret it is (an index); -1 where it was found by its form.
    """

    start: int
    end: int
    kind: str
    category: Category
    score: float = 0.8
    value: int = -1


@dataclass(frozen=True, slots=True)
class Spotted:
    """One finding in a JSON value, as it may be recorded: it never holds what was found.

    Attributes:
        kind, category, score: See :class:`Finding`.
        place: Member names and indexes from the top, joined by dots; ``""`` is the value itself.
            A secret in a member's name stands there as its placeholder.
        top: The first part of ``place``: the name of an argument.
    """

    kind: str
    category: Category
    place: str
    top: str
    score: float = 0.8
