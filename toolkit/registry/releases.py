"""What of a job runs: aliases set, rolled back, put beside, promoted, aborted, revoked, retired."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toolkit.errors import ConfigurationError, Conflict, NotFound, UsageError
from toolkit.registry.aliases import AliasBook, AliasMove
from toolkit.registry.moving import ANY, Mover
from toolkit.registry.rollout import (
    RETIRED,
    Plan,
    Rollout,
    blocked,
    check_free,
    plan_abort,
    plan_beside,
    plan_promote,
    plan_retire,
    plan_revoke,
    plan_stable,
    revoked,
)
from toolkit.trust import Asked
from toolkit.values import check_name

__all__ = ["Releases"]

Facts = Callable[[str], tuple[Mapping[str, int], AliasBook]]
Check = Callable[[str, int], object]


class Releases:
    """Decides for one registry what runs; every change is audited before and after.

    Args:
        mover: Moves aliases.
        facts: Returns where a job's aliases point, and their history.
        load: Reads and verifies a version; raises what is wrong with it.
        versions: Returns the numbers of a job's versions.
    """

    def __init__(
        self, mover: Mover, facts: Facts, load: Check, versions: Callable[[str], list[int]]
    ) -> None:
        self._mover = mover
        self._facts = facts
        self._load = load
        self._versions = versions

    def set(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        by: str,
        expected: int | None = ANY,
        asked: Asked | None = None,
    ) -> AliasMove | None:
        """See :meth:`toolkit.registry.Registry.set_alias`."""
        check_free(alias)
        self._check_good(name, version)
        moves = self._mover.move(
            name,
            lambda _, known: plan_stable(alias, version, known),
            by=by,
            kind="set",
            expected=(alias, expected),
            asked=asked,
        )
        return _move_of(alias, moves)

    def rollback(
        self, name: str, alias: str = "production", *, by: str, to: int | None = None
    ) -> AliasMove:
        """Point an alias where it pointed before; again, and it goes one further back.

        What runs beside it ends.  In a signed registry approvals count as of when it pointed there.

        Args:
            name: The job.
            alias: Which alias.
            by: Who moves it.
            to: A version that the alias pointed at before; left out, the one just before.

        Raises:
            NotFound: It never pointed there, or anywhere else.
            IntegrityError: The older version is damaged.
            ConfigurationError: The older version is revoked.
            Conflict: It is there already, or was moved at the same time.
        """
        check_free(alias)

        def older(book: AliasBook, known: Mapping[str, int]) -> Plan:
            number = self._older(book, known, alias, to)
            self._check_good(name, number)
            return plan_stable(alias, number, known)

        moves = self._mover.move(name, older, by=by, kind="rollback", again=True)
        move = _move_of(alias, moves)
        if move is None:
            raise Conflict(f"{name}@{alias} points there already", where=f"{name}@{alias}")
        return move

    def put_beside(
        self,
        name: str,
        alias: str,
        version: int,
        share: int | None,
        *,
        by: str,
        asked: Asked | None = None,
    ) -> list[AliasMove]:
        """Let a version run beside the one that an alias points at.

        Args:
            name: The job.
            alias: ``production``, say.
            version: The version.
            share: Percent of the runs that it gets; ``None``: a shadow, which runs as well.
            by: Who does it.
            asked: How many people policy asks for.

        Raises:
            UsageError: The alias points nowhere, or at this version.
            NotFound, IntegrityError, ConfigurationError, ApprovalPending: See
                :meth:`toolkit.registry.Registry.set_alias`.
        """
        check_free(alias)
        self._check_good(name, version)
        return self._mover.move(
            name,
            lambda _, known: plan_beside(Rollout.of(name, alias, known), version, share, known),
            by=by,
            kind="shadow" if share is None else "canary",
            asked=asked,
        )

    def promote(
        self, name: str, alias: str = "production", *, by: str, reason: str | None = None
    ) -> list[AliasMove]:
        """Let the version beside an alias take its place.

        Raises:
            NotFound: Nothing runs beside the alias.
            ApprovalPending: Too few approved it, neither now nor when it was put there.
        """
        check_free(alias)
        return self._mover.move(
            name,
            lambda _, known: plan_promote(Rollout.of(name, alias, known), known),
            by=by,
            kind="promote",
            reason=reason,
            again=True,
        )

    def abort(
        self, name: str, alias: str = "production", *, by: str, reason: str | None = None
    ) -> list[AliasMove]:
        """End what runs beside an alias.

        Raises:
            NotFound: Nothing does.
        """
        check_free(alias)
        return self._mover.move(
            name,
            lambda _, known: plan_abort(Rollout.of(name, alias, known), known),
            by=by,
            kind="abort",
            reason=reason,
        )

    def revoke(self, name: str, version: int, *, by: str, reason: str) -> list[AliasMove]:
        """End a version for good; aliases go back to what they pointed at before, or nowhere.

        Returns:
            The moves; none if it is revoked already.

        Raises:
            NotFound: There is no such version.
            UsageError: There is no reason.
        """
        _check_reason(reason, "revoking a version")
        if version not in self._versions(check_name(name, "job name")):
            raise NotFound(
                f"there is no version {name}@{version}",
                where=f"{name}@{version}",
                next_step="run `toolkit registry list`",
            )
        return self._mover.move(
            name,
            lambda book, known: plan_revoke(version, book, known),
            by=by,
            kind="revoke",
            reason=reason.strip(),
            again=True,
        )

    def retire(self, name: str, *, by: str, reason: str) -> list[AliasMove]:
        """End a job: no version of it is run until an alias is set again.

        Returns:
            The moves; none if it is retired already.

        Raises:
            NotFound: There is no such job, or no version of it.
            UsageError: There is no reason.
        """
        _check_reason(reason, "retiring a job")
        numbers = self._versions(check_name(name, "job name"))
        if not numbers:
            raise NotFound(f"{name} has no version", where=name)
        return self._mover.move(
            name,
            lambda _, known: plan_retire(numbers[-1], known),
            by=by,
            kind="retire",
            reason=reason.strip(),
        )

    def check_goal(self, name: str, alias: str, *, beside: bool) -> None:
        """Refuse before a version is sealed what no version could be let in as.

        Raises:
            UsageError: The alias is none or reserved, or is to have something beside it and points
                at nothing.
        """
        check_free(alias)
        try:
            known = self._facts(name)[0]
        except NotFound:
            known = {}
        if beside and alias not in known:
            raise UsageError(
                f"{name}@{alias} points at no version that another could run beside",
                where=f"{name}@{alias}",
                next_step="promote without --shadow and --canary first",
            )

    def rollout(self, name: str, alias: str = "production") -> Rollout:
        """Return where an alias points and what runs beside it.

        Raises:
            NotFound, InvalidFile, IntegrityError: See :meth:`toolkit.registry.Registry.aliases`.
        """
        return Rollout.of(name, alias, self._facts(name)[0])

    def check_runs(self, name: str, version: int | None = None) -> None:
        """Refuse what no longer runs.

        Args:
            name: The job.
            version: A version of it; left out, only whether the job is retired.

        Raises:
            ConfigurationError: The version is revoked or the job is retired; it says who and why.
        """
        known, book = self._facts(name)
        why = blocked(known, version)
        if why is None:
            return
        ended = f"the job {name} is retired" if why == RETIRED else f"{name}@{version} is revoked"
        raise ConfigurationError(
            f"{ended} {book.reason_of(why)}",
            where=name if why == RETIRED else f"{name}@{version}",
            next_step="promote a new version" if why == RETIRED else "run another version",
        )

    def _check_good(self, name: str, version: int) -> None:
        """Refuse a damaged or revoked version: no alias ever points at one."""
        self._load(check_name(name, "job name"), version)
        known, book = self._facts(name)
        if version in revoked(known):
            raise ConfigurationError(
                f"{name}@{version} is revoked {book.reason_of(f'revoked.{version}')}",
                where=f"{name}@{version}",
                next_step="promote a new version",
            )

    def _older(self, book: AliasBook, known: Mapping[str, int], alias: str, to: int | None) -> int:
        if to is None:
            number = book.before_current(alias, revoked(known))
            what = "no earlier version to go back to"
        else:
            been = {move.after for move in book.moves if move.alias == alias}
            number = to if to in been else None
            what = f"never pointed at version {to}"
        if number is None:
            raise NotFound(
                f"{book.job}@{alias} has {what}",
                where=f"{book.job}@{alias}",
                next_step=f"run `toolkit registry show {book.job}`",
            )
        return number


def _move_of(alias: str, moves: list[AliasMove]) -> AliasMove | None:
    return next((move for move in moves if move.alias == alias), None)


def _check_reason(reason: str, what: str) -> None:
    if not reason.strip():
        raise UsageError(f"{what} needs a reason", next_step="say why: --reason TEXT")
