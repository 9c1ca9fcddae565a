"""Our own tables beside the queue's: schedules and their ticks, triggers and what they have seen.

They lie in the engine's database.  Statements are short and never hold a lock while the queue is
written: the queue uses connections of its own, and SQLite has one writer.  What must be done by
one worker at a time is done in a *turn*.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from toolkit.scheduling.vendor import engine_errors, sql_engine, sqlite_path

__all__ = ["Tables", "Turn"]

_TURN_KEYS = {"turn": 7_201_943, "watch": 7_201_945, "clean": 7_201_946}
_MADE_KEY = 7_201_944
# A worker that hangs in its turn loses it after so long, on PostgreSQL.
_TURN_IDLE = "30s"

_META = sa.MetaData()
SCHEDULES = sa.Table(
    "toolkit_schedules",
    _META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("paused", sa.Integer, nullable=False),
    sa.Column("seen_s", sa.Double, nullable=False),
    sa.Column("fired_s", sa.Double),
)
TICKS = sa.Table(
    "toolkit_ticks",
    _META,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("schedule", sa.Text, nullable=False, index=True),
    sa.Column("tick", sa.Text, nullable=False),
    sa.Column("last", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("due_s", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
)
TRIGGERS = sa.Table(
    "toolkit_triggers",
    _META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("paused", sa.Integer, nullable=False),
    sa.Column("made_s", sa.Double, nullable=False),
    sa.Column("since_s", sa.Double, nullable=False),
    sa.Column("fired_s", sa.Double),
    sa.Column("fault", sa.Text, nullable=False),
)
SEEN = sa.Table(
    "toolkit_seen",
    _META,
    sa.Column("trigger_name", sa.Text, primary_key=True),
    sa.Column("item", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
)
HELD = sa.Table(
    "toolkit_held",
    _META,
    sa.Column("flow", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, nullable=False, index=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("released", sa.Integer, nullable=False),
)


class Turn:
    """The right to decide, until it is lost."""

    def __init__(self, connection: sa.Connection | None) -> None:
        self._connection = connection

    def check(self) -> None:
        """Make sure that the turn is still ours; ask before every act that others would repeat.

        Raises:
            EngineError: It was lost, or the database does not answer.
        """
        if self._connection is not None:
            with engine_errors("keeping the turn"):
                self._connection.execute(sa.text("SELECT 1"))


class Tables:
    """Rows of the five tables, as plain dictionaries.

    Args:
        url: The engine's database; its tables are made on first use.
    """

    def __init__(self, url: str) -> None:
        self._path = sqlite_path(url)
        self._engine = sql_engine(url)
        with engine_errors("opening the schedules' tables"), self._engine.begin() as connection:
            self._make(connection)

    def _make(self, connection: sa.Connection) -> None:
        """Make the tables that are missing, whoever else does so at the same time."""
        if set(_META.tables) <= set(sa.inspect(connection).get_table_names()):
            return
        if self._path is None:  # IF NOT EXISTS alone may clash there
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MADE_KEY})"))
        for table in _META.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def turn(self, name: str = "turn") -> Iterator[Turn | None]:
        """Be the only one to decide about one kind of things; ``None`` if somebody else is.

        Args:
            name: ``turn`` (ticks and limits), ``watch`` (triggers) or ``clean``.

        Raises:
            EngineError: The database does not answer.
        """
        if self._path is not None:
            try:
                with FileLock(f"{self._path}.{name}.lock", timeout=0):
                    yield Turn(None)
            except Timeout:
                yield None
            return
        with engine_errors("taking the turn"), self._engine.connect() as connection:
            connection.execute(
                sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{_TURN_IDLE}'")
            )
            mine = connection.execute(
                sa.text(f"SELECT pg_try_advisory_xact_lock({_TURN_KEYS[name]})")
            )
            yield Turn(connection) if mine.scalar() else None

    def rows(
        self, table: sa.Table, *where: Any, order: Any = None, limit: int | None = None
    ) -> Any:
        """Return the rows that fit, as dictionaries."""
        statement = sa.select(table).where(*where).order_by(*(order or table.primary_key.columns))
        with engine_errors("reading the schedules' tables"), self._engine.connect() as connection:
            found = connection.execute(statement.limit(limit)).mappings()
            return [dict(row) for row in found]

    def add(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows whose key is new; return how many were."""
        if not rows:
            return 0
        with self.writing() as connection:
            return sum(self.insert(connection, table, row) for row in rows)

    def insert(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> int:
        """Insert one row within :meth:`writing` if its key is new; return 1 if it was."""
        if self._path is None:
            from sqlalchemy.dialects.postgresql import insert as pg_insert

            statement: Any = pg_insert(table).values(**row).on_conflict_do_nothing()
        else:
            from sqlalchemy.dialects.sqlite import insert as lite_insert

            statement = lite_insert(table).values(**row).on_conflict_do_nothing()
        return int(connection.execute(statement).rowcount)

    def change(self, table: sa.Table, *where: Any, **values: Any) -> int:
        """Update the rows that fit; return how many."""
        with self.writing() as connection:
            return int(connection.execute(table.update().where(*where).values(**values)).rowcount)

    def delete(self, table: sa.Table, *where: Any) -> int:
        """Delete the rows that fit; return how many."""
        with self.writing() as connection:
            return int(connection.execute(table.delete().where(*where)).rowcount)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction.

        Raises:
            EngineError: The database does not answer or refuses.
        """
        with engine_errors("writing the schedules' tables"), self._engine.begin() as connection:
            yield connection


def body_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's ``body``."""
    read: dict[str, Any] = json.loads(row["body"])
    return read
