"""How a transaction talks to its database.

A call is two transactions of half a dozen statements each, and SQLAlchemy's execution costs several
times what SQLite needs for one of them.  So on SQLite the statements (still SQLAlchemy's) are
compiled once and handed to the driver; on PostgreSQL, where the network costs more than both,
SQLAlchemy executes them.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Link", "ServerLink", "SqliteLink"]

Values = Mapping[str, Any]


class Link(Protocol):
    """One connection inside a transaction.

    Attributes:
        dialect: ``sqlite`` or ``postgresql``.
    """

    dialect: str

    def rows(self, statement: Executable, values: Values) -> Sequence[Any]:
        """Return every row; columns are attributes."""
        ...

    def run(self, statement: Executable, values: Values | Sequence[Values]) -> int:
        """Execute (once per element of a sequence) and return the number of rows touched."""
        ...

    def command(self, sql: str) -> None:
        """Execute SQL that takes no values: savepoints."""
        ...


class ServerLink:
    """A link through SQLAlchemy."""

    def __init__(self, connection: Connection) -> None:
        self.dialect = connection.dialect.name
        self._connection = connection

    def rows(self, statement: Executable, values: Values) -> Sequence[Any]:
        """See :class:`Link`."""
        return self._connection.execute(statement, dict(values)).all()

    def run(self, statement: Executable, values: Values | Sequence[Values]) -> int:
        """See :class:`Link`."""
        given = dict(values) if isinstance(values, Mapping) else [dict(each) for each in values]
        return self._connection.execute(statement, given).rowcount

    def command(self, sql: str) -> None:
        """See :class:`Link`."""
        self._connection.exec_driver_sql(sql)


class SqliteLink:
    """A link straight to the driver."""

    dialect = "sqlite"

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def rows(self, statement: Executable, values: Values) -> Sequence[Any]:
        """See :class:`Link`."""
        prepared = _prepare(statement, values)
        cursor = self._raw.execute(prepared.sql, prepared.arguments(values))
        kind = prepared.row(cursor)
        return [_tuple(kind, row) for row in cursor.fetchall()]

    def run(self, statement: Executable, values: Values | Sequence[Values]) -> int:
        """See :class:`Link`."""
        if isinstance(values, Mapping):
            prepared = _prepare(statement, values)
            return self._raw.execute(prepared.sql, prepared.arguments(values)).rowcount
        prepared = _prepare(statement, values[0])
        many = [prepared.arguments(each) for each in values]
        return self._raw.executemany(prepared.sql, many).rowcount

    def command(self, sql: str) -> None:
        """See :class:`Link`."""
        self._raw.execute(sql)


class _Prepared:
    """A statement as SQLite's text, with the order of its values."""

    def __init__(self, statement: ClauseElement, names: Sequence[str]) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=list(names))
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(statement)
        self.sql = str(compiled)
        self._pick = _picker(list(compiled.positiontup or ()))
        # Constants of the statement (LIMIT 1, handed = 0) are values, too.
        constants = compiled.construct_params(dict.fromkeys(names))
        self._constants = {n: v for n, v in constants.items() if n not in names}
        self._row: type[tuple[Any, ...]] | None = None
        self._statement = statement  # kept alive: its id is the key under which this is kept

    def arguments(self, values: Values) -> tuple[Any, ...]:
        return self._pick({**self._constants, **values} if self._constants else values)

    def row(self, cursor: sqlite3.Cursor) -> type[tuple[Any, ...]]:
        if self._row is None:
            self._row = _row_type([column[0] for column in cursor.description])
        return self._row


def _picker(names: Sequence[str]) -> Callable[[Values], tuple[Any, ...]]:
    """Return what takes the values of some names, in their order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _row_type(names: list[str]) -> type[tuple[Any, ...]]:
    return namedtuple("Row", names)  # noqa: PYI024 -- the names come from the statement


_tuple = tuple.__new__
_DIALECT = sqlite.dialect()
# Bounded by the program: transactions run only statements that modules define once.
# Two threads that prepare the same statement store equal entries; that is all that can happen.
_PREPARED: dict[tuple[int, tuple[str, ...]], _Prepared] = {}


def _prepare(statement: Executable, values: Values) -> _Prepared:
    key = (id(statement), tuple(values))
    found = _PREPARED.get(key)
    if found is None:
        if not isinstance(statement, ClauseElement):
            raise TypeError(statement)
        found = _PREPARED[key] = _Prepared(statement, key[1])
    return found
