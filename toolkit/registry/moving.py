"""Moves aliases: several at once, in one step that a crash leaves done or not begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from toolkit.errors import ApprovalPending, Busy, UsageError
from toolkit.registry.aliases import ALIASES, AliasBook, AliasMove
from toolkit.registry.audit import AuditLog
from toolkit.registry.reading import open_job, read_aliases
from toolkit.registry.rollout import Plan
from toolkit.registry.storage import Folder, Place, disk_errors
from toolkit.registry.trusted import Trust
from toolkit.trust import AliasEntry, Asked, Notary
from toolkit.values import Clock, iso_utc

__all__ = ["ANY", "Mover"]

ANY: Final = -1
"""Where an alias may point anywhere before it is moved."""

Planner = Callable[[AliasBook, Mapping[str, int]], Plan]
"""Returns where aliases are to point, given the history and where they point now."""


class Mover:
    """Moves the aliases of one registry.

    Args:
        place: The registry's folder and locks.
        audit: Where every move is recorded before and after.
        clock: Where times come from.
        signed: Returns the registry's trust if it is signed.
    """

    def __init__(
        self, place: Place, audit: AuditLog, clock: Clock, signed: Callable[[], Trust | None]
    ) -> None:
        self._place = place
        self._audit = audit
        self._clock = clock
        self._signed = signed

    def move(
        self,
        name: str,
        planner: Planner,
        *,
        by: str,
        kind: str,
        reason: str | None = None,
        expected: tuple[str, int | None] | None = None,
        again: bool = False,
        asked: Asked | None = None,
    ) -> list[AliasMove]:
        """Move aliases of a job; those that are where they should be are left alone.

        Steps: (1) ``alias.moving`` is recorded for each; (2) in a signed registry the index is
        signed and written; (3) ``aliases.json`` is; (4) ``alias.moved`` is recorded for each.
        A crash before 2 leaves the old state, after it the new one; a repeat does the rest.

        Args:
            name: The job.
            planner: Says what is to change; called under the job's lock.
            by: Who moves.
            kind: Of the moves.
            reason: In a person's words.
            expected: An alias, and where it must point now.
            again: Whether approvals count as of a time when the version was let in before.
            asked: How many people policy asks for: bound in what is signed.

        Raises:
            Conflict: The alias does not point where it was expected.
            ApprovalPending: The registry is signed, an alias protected, and too few approved.
        """
        if not by.strip():
            raise UsageError("moving an alias needs to know who does it")
        with (
            disk_errors(f"moving aliases of {name}"),
            self._place.lock(f"job-{name}"),
            open_job(self._place, name) as job,
        ):
            book = read_aliases(job, name)
            trust = self._signed()
            notary = trust.notary() if trust else None
            known = trust.aliases(name) if trust else book.current
            _check_expected(name, known, expected)
            plan = planner(book, known)
            changes = {
                alias: number
                for alias, number in sorted(plan.items())
                if not (known.get(alias) == number == book.current.get(alias))
            }
            if not changes:
                return []
            at = iso_utc(self._clock.now_us())
            moves = [
                AliasMove(alias, known.get(alias), number, at, by, kind, reason)
                for alias, number in changes.items()
            ]
            entries = self._entries(notary, name, moves, again, asked) if notary else {}
            self._write(job, book, moves, notary, entries)
            return moves

    def _write(
        self,
        job: Folder,
        book: AliasBook,
        moves: list[AliasMove],
        notary: Notary | None,
        entries: Mapping[str, AliasEntry | None],
    ) -> None:
        facts = [_facts(book.job, move) for move in moves]
        by = moves[0].by
        for one in facts:  # 1
            self._audit.append("alias.moving", one, by)
        if notary:  # 2: the truth first, a repeat mends the rest
            notary.moves(book.job, entries, log_bytes=self._audit.end())
        job.replace(ALIASES, AliasBook(book.job, (*book.moves, *moves)).to_bytes())  # 3
        for one in facts:  # 4
            self._audit.append("alias.moved", one, by)
        if notary:
            notary.checkpoint(self._audit.end())

    def _entries(  # noqa: PLR0917 - what the notary is told of each move
        self, notary: Notary, name: str, moves: list[AliasMove], again: bool, asked: Asked | None
    ) -> dict[str, AliasEntry | None]:
        return {
            move.alias: self._entry(notary, name, move, again, asked) if move.after else None
            for move in moves
        }

    def _entry(  # noqa: PLR0917 - what the notary is told of one move
        self, notary: Notary, name: str, move: AliasMove, again: bool, asked: Asked | None
    ) -> AliasEntry:
        number = move.after or 0
        pending: ApprovalPending | None = None
        for since in [*(self._let_in(name, move) if again else ()), None]:
            try:
                return notary.entry(name, move.alias, number, by=move.by, since=since, asked=asked)
            except ApprovalPending as error:
                pending = error
        assert pending is not None  # noqa: S101 - the last turn returned or raised
        raise pending

    def _let_in(self, name: str, move: AliasMove) -> list[str]:
        """When the version was put behind the alias or beside it before, the latest first."""
        times = [
            record.at
            for record in self._audit.records()
            if record.event == "alias.moved"
            and record.body.get("name") == name
            and record.body.get("after") == move.after
            and f"{record.body.get('alias')}.".startswith(f"{move.alias}.")
        ]
        return times[::-1]


def _facts(job: str, move: AliasMove) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": job,
        "alias": move.alias,
        "before": move.before,
        "after": move.after,
        "kind": move.kind,
    }
    return facts if move.reason is None else {**facts, "reason": move.reason}


def _check_expected(
    name: str, known: Mapping[str, int], expected: tuple[str, int | None] | None
) -> None:
    if expected is None:
        return
    alias, number = expected
    if number not in (ANY, known.get(alias)):
        raise Busy(
            f"{name}@{alias} points at {known.get(alias) or 'nothing'}, not at {number}",
            where=f"{name}@{alias}",
            next_step="look at what changed, then run the command again",
            details={"expected": number, "actual": known.get(alias)},
        )
