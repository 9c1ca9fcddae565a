"""Connections, transactions, migration, and the one place where database errors become ours."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    PoolProxiedConnection,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from toolkit.errors import ConfigurationError, LedgerError
from toolkit.ledger.address import identity_of, parse_address, safe_address
from toolkit.ledger.explain import explain, is_busy, is_retryable, unsynced
from toolkit.ledger.link import Link, ServerLink, SqliteLink
from toolkit.ledger.log_file import LOG_BYTES, PAGE_BYTES, LogFile, pages_in_log
from toolkit.ledger.schema import HEAD_VERSION

__all__ = ["Occupied", "Store"]

T = TypeVar("T")

_WRITE = "ledger_write"
_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"
_ATTEMPTS = 8
_LOCK_NUMBER = 0x746F6F6C  # advisory lock of the migration in PostgreSQL: "tool"
_PRIVATE = 0o600
# One write locks its run and then budgets in order of their names, so two of them cannot wait for
# each other.  A group locks several runs and budgets in the order of its operations, and could:
# it runs alone, or PostgreSQL would need a second to notice each deadlock.
_GROUP_NUMBER = _LOCK_NUMBER + 1
_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({_GROUP_NUMBER})")
_ALONE = text(f"SELECT pg_advisory_xact_lock({_GROUP_NUMBER})")


class Occupied(Exception):
    """A write would have to wait; it has not been done."""


class Store:
    """One database, SQLite or PostgreSQL.

    Attributes:
        dialect: ``sqlite`` or ``postgresql``.
        place: Where the database is, for people; never holds a password.
        identity: Names the database on this machine, whoever opened it from where; tells nothing of it.
    """

    def __init__(
        self, url: str, *, busy_timeout_s: float, sync: Callable[[int], None] = os.fdatasync
    ) -> None:
        parsed = parse_address(url)
        self.dialect = parsed.get_backend_name()
        self.place = parsed.database or "" if self.dialect == "sqlite" else safe_address(parsed)
        self.identity = identity_of(url)
        # Threads of one process take turns here: SQLite's own waiting sleeps and is unfair.
        self._lock = threading.Lock()
        self._turn: AbstractContextManager[Any] = (
            self._lock if self.dialect == "sqlite" else nullcontext()
        )
        self._busy_ms = int(busy_timeout_s * 1000)
        self._kept: PoolProxiedConnection | None = None
        self._kept_synced, self._kept_waits = True, True
        self._log: LogFile | None = None
        if self.dialect == "sqlite":
            _create_private(self.place)
            self._log = LogFile(self.place, sync)
        self._engine = _engine(parsed, busy_timeout_s)
        try:
            if self.dialect == "sqlite":
                self._enter_wal(busy_timeout_s)
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._let_go()
        self._engine.dispose()

    def write(self, work: Callable[[Link], T], *, many: bool = False, synced: bool = True) -> T:
        """Run ``work`` in one durable transaction; ``many`` says that it touches several runs.

        One that is not ``synced`` may on SQLite still be in the operating system's memory when
        this returns: it outlives this process, and a loss of power only once a later one that is
        synced has returned.  PostgreSQL syncs all of them.

        PostgreSQL may refuse a transaction that met another one head-on; it is run again, so
        ``work`` must have no effect outside of the database.

        Raises:
            LedgerError: Nothing was recorded (or, when the connection broke during the commit,
                it is unknown whether; asking again with the same ``request_id`` tells).
        """
        if self.dialect == "sqlite":
            return self._write_sqlite(work, synced)
        for attempt in range(_ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    connection.execute(_ALONE if many else _SHARED)
                    return work(ServerLink(connection))
            except SQLAlchemyError as error:
                if attempt + 1 < _ATTEMPTS and is_retryable(error):
                    time.sleep(0.005 * 2**attempt)
                    continue
                raise explain(error, self.place) from None
        raise AssertionError  # the last attempt returned or raised

    def write_at_once(self, work: Callable[[Link], T]) -> T:
        """Run ``work`` in one transaction that is not synced, unless that takes a wait.

        For an event loop: it waits for no lock, syncs nothing and moves no pages out of the log
        (:meth:`sync`, :meth:`tidy` and the next synced write do).  ``work`` may be run in vain.

        Raises:
            Occupied: Somebody else writes, or the database is a server; nothing was recorded.
            LedgerError: As :meth:`write`.
        """
        if self.dialect != "sqlite" or not self._lock.acquire(blocking=False):
            raise Occupied
        try:
            return _transact(self._writing(synced=False, waits=False), work)
        except (sqlite3.Error, SQLAlchemyError) as error:
            if is_busy(error):
                raise Occupied from None
            fault = explain(error, self.place)
        finally:
            self._lock.release()
        self._let_go()
        raise fault

    def read_at_once(self, work: Callable[[Link], T]) -> T:
        """Run ``work``, one statement that only reads, on the connection that writes.

        For an event loop: it waits for nothing, and costs a tenth of a connection of its own.

        Raises:
            Occupied: Somebody writes, the database is a server, or it cannot be read this way.
        """
        if self.dialect != "sqlite" or not self._lock.acquire(blocking=False):
            raise Occupied
        try:
            return work(SqliteLink(self._writing(synced=False, waits=False)))
        except (sqlite3.Error, SQLAlchemyError):
            raise Occupied from None  # whoever reads the other way is told what is wrong
        finally:
            self._lock.release()

    def sync(self) -> None:
        """Return when all that :meth:`write_at_once` wrote before is on disk.

        Raises:
            LedgerError: Nobody knows how much of it is.
        """
        if self._log is None:
            return
        try:
            self._log.sync()
        except OSError as error:
            raise unsynced(error, self.place) from None

    @property
    def untidy(self) -> bool:
        """Whether the log has grown long."""
        return self._log is not None and self._log.long

    def tidy(self) -> None:
        """Move pages out of a log that has grown long; without effect where that is not possible now.

        Most are moved beside whoever writes, by a connection of its own, which takes some milliseconds.
        Only the few that were written meanwhile are moved while nobody may write: a log of which every
        page was moved begins anew, any other grows.
        """
        if not self.untidy:
            return
        with suppress(sqlite3.Error, SQLAlchemyError):
            with closing(self._engine.raw_connection()) as own:
                own.cursor().execute(_MOVE)
            with self._turn:
                self._writing(synced=True, waits=True).execute(_MOVE)

    def _write_sqlite(self, work: Callable[[Link], T], synced: bool) -> T:
        try:
            with self._turn:
                return _transact(self._writing(synced=synced, waits=True), work)
        except (sqlite3.Error, SQLAlchemyError) as error:
            self._let_go()
            raise explain(error, self.place) from None

    def _writing(self, *, synced: bool, waits: bool) -> sqlite3.Connection:
        """Return the connection that writes: whoever has the turn.

        It is kept, because a pool's way out and back costs as much as the statements; and it is
        one, because a second one would forget the file's pages whenever the first one wrote.
        """
        if self._kept is None:
            self._kept = self._engine.raw_connection()
            self._kept_synced, self._kept_waits = True, True  # as `_prepare_sqlite` leaves it
        raw = self._kept.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            raise TypeError(raw)
        if synced is not self._kept_synced:
            raw.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._kept_synced = synced
        if waits is not self._kept_waits:
            raw.execute(f"PRAGMA busy_timeout={self._busy_ms if waits else 0}")
            raw.execute(f"PRAGMA wal_autocheckpoint={_pages_in_log(raw) if waits else 0}")
            self._kept_waits = waits
        return raw

    def _let_go(self) -> None:
        with self._turn:
            kept, self._kept = self._kept, None
            if kept is not None:
                kept.invalidate()  # closed, never lent to anybody else
        if self._log is not None:
            self._log.close()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads, on one snapshot.

        Raises:
            LedgerError: The database cannot be read.
        """
        try:
            with self._engine.connect() as connection:
                if self.dialect == "postgresql":
                    connection.execution_options(isolation_level="REPEATABLE READ")
                return work(connection)
        except SQLAlchemyError as error:
            raise explain(error, self.place) from None

    def _enter_wal(self, timeout_s: float) -> None:
        """Switch the file to WAL; SQLite does not wait for locks while it does that."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with self._engine.connect() as connection:
                    raw = connection.connection.driver_connection
                    mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]  # type: ignore[union-attr]
                break
            except (sqlite3.Error, DBAPIError) as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise explain(error, self.place) from None
                time.sleep(0.02)
        if mode != "wal":
            raise ConfigurationError(
                f"{self.place} cannot use write-ahead logging (SQLite answered {mode!r})",
                where=self.place,
                next_step="put the ledger on a local disk, or use PostgreSQL (database_url)",
            )

    def _migrate(self) -> None:
        if self.read(_version) == HEAD_VERSION:
            return
        try:
            with self._turn, self._engine.connect() as plain:
                connection = plain.execution_options(**{_WRITE: True})
                with connection.begin():
                    self._migrate_locked(connection)
        except SQLAlchemyError as error:
            raise explain(error, self.place) from None

    def _migrate_locked(self, connection: Connection) -> None:
        # Many processes may open a new ledger at once: the first migrates, the others wait here
        # (SQLite: BEGIN IMMEDIATE) and then find nothing left to do.
        if self.dialect == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
        found = _version(connection)
        if found == HEAD_VERSION:
            return
        if found is not None and found > HEAD_VERSION:
            raise ConfigurationError(
                f"the ledger has format {found}, this toolkit knows formats up to {HEAD_VERSION}",
                where=self.place,
                next_step="upgrade the toolkit to the version that wrote the ledger",
            )
        _upgrade(connection)


def _transact(raw: sqlite3.Connection, work: Callable[[Link], T]) -> T:
    try:
        raw.execute("BEGIN IMMEDIATE")
        result = work(SqliteLink(raw))
        raw.execute("COMMIT")
    finally:
        # After some errors (a full disk) SQLite has already rolled back by itself.
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    return result


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # Alembic takes a quarter of a second to import, and most opens have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _create_private(path: str) -> None:
    """Create the file readable by its owner only; SQLite gives -wal and -shm the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE))
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be opened: {error.strerror}",
            where=path,
            next_step="check that the folder exists and that this user may write there",
        ) from error


def _engine(url: URL, busy_timeout_s: float) -> Engine:
    if url.get_backend_name() == "postgresql":
        # A server may be set to acknowledge before the bytes are on disk; the ledger may not.
        options = "-c synchronous_commit=on -c default_transaction_isolation=read\\ committed"
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_size=8,
            max_overflow=24,
            connect_args={
                "options": f"{options} -c lock_timeout={int(busy_timeout_s * 1000)}",
                "connect_timeout": 10,
            },
        )
    else:
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_size=8,
            max_overflow=24,
            connect_args={"timeout": busy_timeout_s},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # the driver must not begin transactions on its own
    raw.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a file that is empty; no other changes
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute(f"PRAGMA wal_autocheckpoint={_pages_in_log(raw)}")
    raw.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")


def _pages_in_log(raw: Any) -> int:
    return pages_in_log(int(raw.execute("PRAGMA page_size").fetchone()[0]))


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
