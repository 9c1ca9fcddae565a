"""SQLite, opened so that it can do no more than was analysed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from toolkit.errors import ConfigurationError, NotFound
from toolkit.sources.caps import Gauge
from toolkit.sources.live import ColumnName, LiveSchema, Relation
from toolkit.sources.statement import Analysed

__all__ = ["SqliteDatabase"]

_STEPS = 2_000
_NEVER = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zeroblob", "randomblob"}
)
_WRITES = frozenset(
    {
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_TRANSACTION,
    }
)
_HIDDEN_BY_MODULE = 1
"""``table_xinfo``: a hidden column of a virtual table; 2 and 3 are generated columns."""


class SqliteDatabase:
    """One SQLite file.

    Args:
        path: The file; it is never created.
        source: The source's name, for messages.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def schema(self) -> LiveSchema:
        """Return tables and views; what lies under a view is what SQLite itself says it reads."""
        with self._open(writing=False) as connection:
            raw = _raw(connection)
            found: dict[tuple[str, str], Relation] = {}
            listed = connection.execute(
                text("SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')")
            ).all()
            for name, kind, definition in listed:
                virtual = str(definition or "").lstrip().lower().startswith("create virtual")
                if name.lower().startswith("sqlite_") or virtual:
                    continue
                relation = _relation(raw, name, view=kind == "view")
                if relation is not None:
                    found["main", relation.name] = relation
        return LiveSchema("main", _with_generated(found))

    @contextmanager
    def reading(
        self, analysed: Analysed, gauge: Gauge, _: Mapping[str, Any]
    ) -> Iterator[Connection]:
        """Open the file read-only for one query; SQLite asks us about every column it reads."""
        with self._open(writing=False) as connection:
            raw = _raw(connection)
            raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(1_000_000, gauge.caps.max_bytes))
            raw.set_progress_handler(lambda: int(gauge.left_s <= 0), _STEPS)
            raw.set_authorizer(_guard(analysed))
            yield connection

    @contextmanager
    def writing(
        self, analysed: Analysed, gauge: Gauge, _: Mapping[str, Any]
    ) -> Iterator[Connection]:
        """Open the file for one write."""
        with self._open(writing=True) as connection:
            raw = _raw(connection)
            raw.set_progress_handler(lambda: int(gauge.left_s <= 0), _STEPS)
            raw.set_authorizer(_guard(analysed))
            yield connection
            connection.commit()

    @contextmanager
    def _open(self, *, writing: bool) -> Iterator[Connection]:
        if not self._path.is_file():
            raise NotFound(
                f"the database of {self._source!r} is not there",
                where=f"registry/data.yaml: sources.{self._source}.url",
                next_step="mend the path, or create the database",
            )
        mode = "rw" if writing else "ro"
        uri = f"file:{quote(str(self._path))}?mode={mode}"
        engine: Engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=5),
            poolclass=NullPool,
        )
        with closing(engine.connect()) as connection:
            raw = _raw(connection)
            raw.execute("PRAGMA trusted_schema = OFF")
            if not writing:
                raw.execute("PRAGMA query_only = ON")
            yield connection
        engine.dispose()


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise ConfigurationError("the database is not SQLite")
    return raw


def _relation(raw: sqlite3.Connection, name: str, *, view: bool) -> Relation | None:
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        listed = raw.execute(f"PRAGMA main.table_xinfo({quoted})").fetchall()
        under = _under(raw, quoted) if view else set()
    except sqlite3.DatabaseError:
        return None  # a view of something that is gone: it cannot be read anyway
    columns = {row[1].lower(): str(row[2]) for row in listed if row[6] != _HIDDEN_BY_MODULE}
    derived = frozenset(row[1].lower() for row in listed if row[6] in (2, 3))
    label = name.lower()
    under = {column for column in under if column.table != label}
    return Relation(
        "main",
        label,
        label,
        columns,
        under=frozenset(column for column in under if column.column),
        under_tables=frozenset(column.table for column in under),
        derived=derived,
        view=view,
    )


def _under(raw: sqlite3.Connection, quoted: str) -> set[ColumnName]:
    """Return every column that SQLite reads for a view; it compiles the query and runs nothing."""
    found: set[ColumnName] = set()

    def listen(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_READ:
            found.add(ColumnName(str(first).lower(), str(second or "").lower()))
        return sqlite3.SQLITE_OK

    raw.set_authorizer(listen)
    try:
        raw.execute(f"EXPLAIN SELECT * FROM main.{quoted}").fetchall()  # noqa: S608 - a name, quoted
    finally:
        raw.set_authorizer(None)
    return found


def _with_generated(found: dict[tuple[str, str], Relation]) -> dict[tuple[str, str], Relation]:
    """Let a view that reads a generated column count with what that is computed from."""
    by_label = {relation.label: relation for relation in found.values()}
    made = {}
    for place, relation in found.items():
        under = set(relation.under)
        for column in relation.under:
            table = by_label.get(column.table)
            if table is not None and column.column in table.derived:
                under |= {ColumnName(column.table, name) for name in table.columns}
        made[place] = replace(relation, under=frozenset(under))
    return made


def _guard(analysed: Analysed) -> Callable[..., int]:
    """Return SQLite's authorizer for one statement: what was analysed, and nothing else.

    https://www.sqlite.org/c3ref/set_authorizer.html
    """
    columns = {(c.table.lower(), c.column.lower()) for c in analysed.columns}
    tables = {table.lower() for table in analysed.tables}

    def ask(action: int, first: str | None, second: str | None, *_: Any) -> int:
        table, column = str(first or "").lower(), str(second or "").lower()
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            # No column: only the number of rows is looked at; of an inner query or of a table.
            fine = not column or (table, column) in columns
        elif action == sqlite3.SQLITE_FUNCTION:
            fine = column not in _NEVER
        elif action in _WRITES and analysed.write:
            fine = action == sqlite3.SQLITE_TRANSACTION or table in tables
        else:
            fine = False
        return sqlite3.SQLITE_OK if fine else sqlite3.SQLITE_DENY

    return ask
