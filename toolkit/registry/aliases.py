"""``aliases.json``: where each alias of a job points, and every move it made.

Format ``aliases/1``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import Fault, InvalidFile, UsageError
from toolkit.registry.manifest import loads_strict
from toolkit.values import check_name

__all__ = ["ALIASES", "MAX_ALIASES_BYTES", "AliasBook", "AliasMove", "check_alias"]

ALIASES = "aliases.json"
MAX_ALIASES_BYTES = 16 << 20
_SCHEMA = "aliases/1"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of one alias.

    Attributes:
        alias: Which alias.
        before, after: Version numbers; ``None`` is *pointed nowhere*.
        at: When, ISO 8601 in UTC.
        by: Who.
        kind: ``set`` or ``rollback``.
    """

    alias: str
    before: int | None
    after: int
    at: str
    by: str
    kind: str = "set"


def check_alias(alias: str) -> str:
    """Return ``alias`` if it may be one; a number would hide a version.

    Raises:
        UsageError: It may not.
    """
    check_name(alias, "alias")
    if alias.isdigit():
        raise UsageError(
            f"{alias!r} is not a valid alias: it would be read as a version number",
            next_step="use a word such as 'production'",
        )
    return alias


@dataclass(frozen=True, slots=True)
class AliasBook:
    """All aliases of one job.

    Attributes:
        job: The job.
        moves: Every move, oldest first.
    """

    job: str
    moves: tuple[AliasMove, ...] = ()

    @property
    def current(self) -> dict[str, int]:
        """Alias to version number, by name."""
        found = {move.alias: move.after for move in self.moves}
        return dict(sorted(found.items()))

    def before_current(self, alias: str) -> int | None:
        """The version to roll back to: repeated rollbacks go further back, not to and fro."""
        stack: list[int] = []
        for move in self.moves:
            if move.alias != alias:
                continue
            if move.kind == "rollback":
                while stack and stack[-1] != move.after:
                    stack.pop()
            elif not stack or stack[-1] != move.after:
                stack.append(move.after)
        return stack[-2] if len(stack) > 1 else None

    def to_bytes(self) -> bytes:
        """Return the file's one byte form."""
        facts = {
            "schema": _SCHEMA,
            "job": self.job,
            "aliases": self.current,
            "history": [asdict(move) for move in self.moves],
        }
        return (json.dumps(facts, indent=1, ensure_ascii=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, job: str, where: str) -> AliasBook:
        """Read the file.

        Raises:
            InvalidFile: It is not ``aliases/1`` of this job in its one byte form.
        """
        try:
            return cls._of(loads_strict(data), job, data)
        except (ValueError, TypeError, KeyError, UsageError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidFile.of(where, [Fault("file", reason or type(error).__name__)]) from error

    @classmethod
    def _of(cls, facts: Any, job: str, data: bytes) -> AliasBook:
        if facts["schema"] != _SCHEMA:
            raise ValueError(f"schema is {facts['schema']!r}, this toolkit reads {_SCHEMA!r}")
        book = cls(job, tuple(AliasMove(**move) for move in facts["history"]))
        for move in book.moves:
            _check_move(move)
        if book.to_bytes() != data:
            raise ValueError("aliases and history do not agree, or the file was edited by hand")
        return book


def _check_move(move: AliasMove) -> None:
    check_alias(move.alias)
    for version in (move.before, move.after):
        if version is not None and (type(version) is not int or version < 1):
            raise ValueError(f"{version!r} is not a version number")
