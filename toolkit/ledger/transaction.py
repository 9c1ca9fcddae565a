"""What every write works with: a link inside a transaction, the clock, chain heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Executable, bindparam, exists, select
from sqlalchemy.dialects import postgresql, sqlite

from toolkit.errors import NotFound, ToolkitError
from toolkit.ledger.chain import EntryType, entry_hash
from toolkit.ledger.codec import json_text
from toolkit.ledger.link import Link
from toolkit.ledger.records import ChainHead
from toolkit.ledger.schema import entries, runs, stops
from toolkit.values import Clock, RunKind, RunState

__all__ = ["INSERTS", "Refusal", "Transaction", "unknown_run"]

INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""``insert`` with ``ON CONFLICT``, by dialect."""

# FOR UPDATE is what keeps two gateways from writing the same link on PostgreSQL; SQLite has
# one writer at a time and its dialect leaves the words out.
_LOCK_RUN = (
    select(runs.c.kind, runs.c.state).where(runs.c.run_id == bindparam("run")).with_for_update()
)
_HEAD = (
    select(entries.c.n, entries.c.hash)
    .where(entries.c.run_id == bindparam("run"))
    .order_by(entries.c.n.desc())
    .limit(1)
)
# On SQLite, where nobody else writes meanwhile, one question instead of two.
_RUN_AND_HEAD = (
    select(
        runs.c.kind,
        runs.c.state,
        entries.c.n,
        entries.c.hash,
        exists(select(stops.c.scope)).label("stops"),
    )
    .select_from(runs.outerjoin(entries, entries.c.run_id == runs.c.run_id))
    .where(runs.c.run_id == bindparam("run"))
    .order_by(entries.c.n.desc())
    .limit(1)
)
_INSERT_ENTRY = entries.insert()
_LOCK_SWITCHES = "SELECT pg_advisory_xact_lock(1953460082)"  # any number that is only used here


def unknown_run(run_id: str) -> NotFound:
    """Return the error for a run that the ledger does not know."""
    return NotFound(
        f"there is no run {run_id!a}", where=run_id[:80], next_step="list runs with `toolkit runs`"
    )


class Refusal(Exception):
    """An operation is refused and undone, but something that it found out is recorded all the same.

    Attributes:
        error: What the caller is told.
        repair: What is recorded, in the place of the operation.
    """

    def __init__(self, error: ToolkitError, repair: Callable[[Transaction], None]) -> None:
        super().__init__(error.message)
        self.error = error
        self.repair = repair


class Transaction:
    """One open transaction.

    Attributes:
        dialect: ``sqlite`` or ``postgresql``.
        clock: Where times come from.
        may_be_stopped: Whether anything is stopped, as far as this transaction has seen.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self.dialect = link.dialect
        self.clock = clock
        self._link = link
        self._runs: dict[str, tuple[RunKind, RunState]] = {}
        self._heads: dict[str, ChainHead] = {}
        self.may_be_stopped = True

    def forget(self) -> None:
        """Drop what was remembered, because a savepoint was rolled back."""
        self._runs.clear()
        self._heads.clear()
        self.may_be_stopped = True

    def first(self, statement: Executable, **values: Any) -> Any:
        """Return the first row or ``None``."""
        rows = self._link.rows(statement, values)
        return rows[0] if rows else None

    def all(self, statement: Executable, **values: Any) -> list[Any]:
        """Return every row."""
        return list(self._link.rows(statement, values))

    def run(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> int:
        """Execute a statement (once per element of a list) and return the number of rows."""
        return self._link.run(statement, values)

    def lock_run(self, run_id: str) -> RunKind:
        """Make this the only transaction that extends the run's chain; return the run's kind.

        Raises:
            NotFound: There is no such run.
        """
        return self._locked(run_id)[0]

    def has_ended(self, run_id: str) -> bool:
        """Lock the run and say whether it is in a state that nothing follows."""
        return self._locked(run_id)[1].terminal

    def is_parked(self, run_id: str) -> bool:
        """Lock the run and say whether it waits for people, without a process."""
        return self._locked(run_id)[1] is RunState.WAITING

    def note_state(self, run_id: str, state: RunState) -> None:
        """Remember the new state of a run that is locked."""
        self._runs[run_id] = (self._locked(run_id)[0], state)

    def _locked(self, run_id: str) -> tuple[RunKind, RunState]:
        known = self._runs.get(run_id)
        if known is None:
            alone = self.dialect == "sqlite"
            row = self.first(_RUN_AND_HEAD if alone else _LOCK_RUN, run=run_id)
            if row is None:
                raise unknown_run(run_id)
            if alone:
                self.may_be_stopped = bool(row.stops)
            if alone and row.n is not None:
                self._heads.setdefault(run_id, ChainHead(run_id, row.n, row.hash))
            known = self._runs[run_id] = (RunKind(row.kind), RunState(row.state))
        return known

    def lock_switches(self) -> None:
        """Make this the only transaction that extends the chain of the switches."""
        if self.dialect == "postgresql":
            self._link.command(_LOCK_SWITCHES)

    def head(self, run_id: str) -> ChainHead:
        """Return the last link; number 0 before the first."""
        head = self._heads.get(run_id)
        if head is None:
            # A statement of its own, after the lock: on PostgreSQL one that waited for the lock
            # would still see the chain as it was before the wait.
            row = self.first(_HEAD, run=run_id)
            head = ChainHead(run_id, 0, "") if row is None else ChainHead(run_id, row.n, row.hash)
            self._heads[run_id] = head
        return head

    def append(
        self,
        run_id: str,
        kind: EntryType,
        body: dict[str, Any],
        *,
        at_us: int,
        key: str | None = None,
        generation: int | None = None,
    ) -> int:
        """Add one link to the run's chain and return its number; the chain must be locked."""
        prev = self.head(run_id)
        row: dict[str, Any] = {
            "run_id": run_id,
            "n": prev.n + 1,
            "type": kind.value,
            "call_key": key,
            "generation": generation,
            "at_us": at_us,
            "prev": prev.hash,
            "body": json_text(body),
        }
        digest = entry_hash(**row)
        self.run(_INSERT_ENTRY, {**row, "hash": digest})
        self._heads[run_id] = ChainHead(run_id, prev.n + 1, digest)
        return prev.n + 1
