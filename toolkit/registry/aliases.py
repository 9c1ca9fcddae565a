"""``aliases.json``: where each alias of a job points, and every move it made.

Format ``aliases/1``.  A move has ``reason`` only where one was given, and ``after`` may be null: an
alias that points nowhere any more.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import Fault, InvalidFile, NotFound, UsageError
from toolkit.registry.manifest import loads_strict
from toolkit.values import check_name

__all__ = [
    "ALIASES",
    "MAX_ALIASES_BYTES",
    "AliasBook",
    "AliasMove",
    "check_alias",
    "shown_aliases",
]

ALIASES = "aliases.json"
MAX_ALIASES_BYTES = 16 << 20
_SCHEMA = "aliases/1"
_BACKWARDS = ("rollback", "revoke")


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of one alias.

    Attributes:
        alias: Which alias.
        before, after: Version numbers; ``None`` is *points nowhere*.
        at: When, ISO 8601 in UTC.
        by: Who.
        kind: ``set``, ``rollback``, ``shadow``, ``canary``, ``promote``, ``abort``, ``revoke`` or
            ``retire``.
        reason: Why, in a person's words, where one was asked for.
    """

    alias: str
    before: int | None
    after: int | None
    at: str
    by: str
    kind: str = "set"
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the move as it is written."""
        return {k: v for k, v in asdict(self).items() if k != "reason" or v is not None}


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


def shown_aliases(names: Iterable[str]) -> list[str]:
    """Return the aliases that people run by; revoked and retired ones are a note of ours."""
    return [name for name in names if name != "retired" and not name.startswith("revoked.")]


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
        return {alias: number for alias, number in sorted(found.items()) if number is not None}

    def before_current(self, alias: str, never: Container[int] = ()) -> int | None:
        """The version to roll back to: repeated rollbacks go further back, not to and fro.

        Args:
            alias: The alias.
            never: Versions that it must not be.
        """
        stack: list[int] = []
        for move in self.moves:
            if move.alias != alias or move.after is None:
                continue
            if move.kind in _BACKWARDS and move.after in stack:
                while stack[-1] != move.after:
                    stack.pop()
            elif not stack or stack[-1] != move.after:
                stack.append(move.after)
        if alias in self.current:
            stack = stack[:-1]
        return next((number for number in reversed(stack) if number not in never), None)

    def reason_of(self, alias: str) -> str:
        """Return ``by ana: the reason`` of the last move of an alias."""
        last = next((move for move in reversed(self.moves) if move.alias == alias), None)
        if last is None:
            return "by nobody on record"
        return f"by {last.by}" + (f": {last.reason}" if last.reason else "")

    def without(self, alias: str, known: Iterable[str], where: str) -> NotFound:
        """Return the error of an alias that points nowhere, with why it does.

        Args:
            alias: Which.
            known: The aliases that point somewhere.
            where: The reference that was asked for.
        """
        has = ", ".join(shown_aliases(known))
        last = next((move for move in reversed(self.moves) if move.alias == alias), None)
        if last is not None and last.kind == "revoke":
            why = self.reason_of(f"revoked.{last.before}")
            return NotFound(
                f"{self.job}@{alias} points nowhere: {self.job}@{last.before} is revoked {why}",
                where=where,
                next_step="promote a new version" + (f", or run another: {has}" if has else ""),
            )
        return NotFound(
            f"{self.job} has no alias {alias!r}" + (f"; it has {has}" if has else ""),
            where=where,
            next_step=f"name a version by its number, {self.job}@1; `toolkit registry list` has them",
        )

    def to_bytes(self) -> bytes:
        """Return the file's one byte form."""
        facts = {
            "schema": _SCHEMA,
            "job": self.job,
            "aliases": self.current,
            "history": [move.to_json() for move in self.moves],
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
    if not isinstance(move.reason, str | None):
        raise ValueError(f"{move.reason!r} is not a reason")  # noqa: TRY004 - told as a fault of the file
