"""What every part of the ledger's door stands on: opening, closing, writing together."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from toolkit.ledger.explain import explain, is_local
from toolkit.ledger.heads import HeadFile
from toolkit.ledger.link import Link
from toolkit.ledger.reading import chain_head
from toolkit.ledger.session import Session
from toolkit.ledger.store import Occupied, Store
from toolkit.ledger.transaction import Refusal, Transaction
from toolkit.values import Clock, SystemClock

__all__ = ["LedgerBase"]

T = TypeVar("T")


class LedgerBase:
    """A database, a clock, and transactions; see ``Ledger``."""

    def __init__(self, store: Store, clock: Clock, heads: HeadFile | None = None) -> None:
        self._store = store
        self._clock = clock
        self._heads = heads

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        busy_timeout_s: float = 30.0,
        sync: Callable[[int], None] = os.fdatasync,
        heads: Path | None = None,
    ) -> Self:
        """Open a ledger, creating or migrating its tables.

        Args:
            url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
            clock: Where times come from; the machine's clock by default.
            busy_timeout_s: How long a write waits for another process's write.
            sync: Makes SQLite's log durable, by its file descriptor; another one is for tests.
            heads: The file that keeps the heads of chains; ``None``: they are not kept.

        Raises:
            ConfigurationError: The URL or the format of the ledger is not one that this toolkit
                knows, or the login is refused.
            LedgerError: The database cannot be reached or written.
        """
        store = Store(url, busy_timeout_s=busy_timeout_s, sync=sync)
        kept = None if heads is None else HeadFile(heads)
        return cls(store, clock or SystemClock(), kept)

    @property
    def shared(self) -> bool:
        """Whether several machines may use it at once: one in a file is one machine's."""
        return self._store.dialect != "sqlite"

    def _anchor(self, run_id: str) -> None:
        """Keep the head of a chain outside of the ledger; a disk that refuses stops nobody.

        What is not kept is told by ``toolkit ledger verify``.
        """
        if self._heads is None:
            return
        head = self._store.read(lambda c: chain_head(c, run_id))
        with suppress(OSError):
            self._heads.append(head, self._clock.now_us())

    @property
    def identity(self) -> str:
        """16 hex digits that name this ledger on this machine, whoever opened it from which folder.

        Made from its address without login and password, which it does not tell.
        """
        return self._store.identity

    def close(self) -> None:
        """Close every connection."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_all(
        self, works: Sequence[Callable[[Session], Any]], *, synced: bool = True
    ) -> list[Any]:
        """Run every function in its own savepoint of one transaction and commit once.

        Args:
            works: The functions.
            synced: Whether the bytes have to be on disk when this returns.  If not, SQLite leaves
                them with the operating system until the next write that is synced: they outlive
                this process, not a loss of power.

        Returns:
            For each function, in order, its value or the exception that it raised; a function
            that raised has recorded nothing, the others are durable.

        Raises:
            LedgerError: Nothing at all was recorded.
        """
        if len(works) == 1:  # needs no savepoint: the transaction is one
            try:
                return [self._write(works[0], synced=synced)]
            except Exception as error:
                return [error]
        return self._store.write(lambda c: self._each(c, works), many=True, synced=synced)

    def write_at_once(self, work: Callable[[Session], T]) -> T:
        """Run a function in one transaction that is not synced, unless that takes a wait.

        Raises:
            Occupied: It was not done: see :meth:`Store.write_at_once`; or it was refused with
                something to record, which has to be synced.
            LedgerError: Nothing was recorded.
        """
        try:
            return self._store.write_at_once(lambda c: work(Session(Transaction(c, self._clock))))
        except Refusal:
            raise Occupied from None

    def sync(self) -> None:
        """Return when all that :meth:`write_at_once` wrote before is on disk.

        Raises:
            LedgerError: Nobody knows how much of it is.
        """
        self._store.sync()

    @property
    def untidy(self) -> bool:
        """Whether :meth:`tidy` has something to do; asks no database."""
        return self._store.untidy

    def tidy(self) -> None:
        """Do what :meth:`write_at_once` leaves undone: move pages out of a log that has grown long."""
        self._store.tidy()

    def _each(self, link: Link, works: Sequence[Callable[[Session], Any]]) -> list[Any]:
        transaction = Transaction(link, self._clock)
        session = Session(transaction)
        return [self._attempt(link, transaction, partial(work, session)) for work in works]

    def _attempt(self, link: Link, transaction: Transaction, work: Callable[[], Any]) -> Any:
        link.command("SAVEPOINT one")
        repair: Callable[[Transaction], None] | None = None
        try:
            result = work()
        except (SQLAlchemyError, sqlite3.Error) as error:
            if not is_local(error):
                raise
            result = explain(error, self._store.place)
        except Refusal as refusal:
            result, repair = refusal.error, refusal.repair
        except Exception as error:
            result = error
        else:
            link.command("RELEASE SAVEPOINT one")
            return result
        link.command("ROLLBACK TO SAVEPOINT one")
        link.command("RELEASE SAVEPOINT one")
        transaction.forget()
        if repair is not None:
            self._attempt(link, transaction, partial(repair, transaction))
        return result

    def _write(self, work: Callable[[Session], T], *, synced: bool = True) -> T:
        try:
            return self._store.write(
                lambda c: work(Session(Transaction(c, self._clock))), synced=synced
            )
        except Refusal as refusal:
            repair = refusal.repair
            self._store.write(lambda c: repair(Transaction(c, self._clock)))
            raise refusal.error from None
