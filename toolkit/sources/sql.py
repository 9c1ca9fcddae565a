"""A database as a source: analysed, bounded, read-only unless it says otherwise."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import pyarrow as pa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from toolkit.errors import (
    CallDenied,
    ConfigurationError,
    InfrastructureError,
    ToolkitError,
    UsageError,
)
from toolkit.sources.analysis import analyse
from toolkit.sources.caps import Gauge
from toolkit.sources.catalog import SqlSettings
from toolkit.sources.columnar import Table, column_of, table_of
from toolkit.sources.expectations import check_promises
from toolkit.sources.live import ColumnName, LiveSchema
from toolkit.sources.postgres import PostgresDatabase
from toolkit.sources.sqlite import SqliteDatabase
from toolkit.sources.statement import Analysed, Output
from toolkit.sources.types import About, Ask, Plan, Reading
from toolkit.values import Labels

__all__ = ["SqlSource"]

_KINDS: tuple[tuple[tuple[str, ...], pa.DataType], ...] = (
    (("bool",), pa.bool_()),
    (("int", "bigint", "smallint", "serial"), pa.int64()),
    (("real", "double", "float", "numeric", "decimal"), pa.float64()),
    (("timestamp with time zone",), pa.timestamp("us", "UTC")),
    (("timestamp", "datetime"), pa.timestamp("us")),
    (("date",), pa.date32()),
    (("text", "char", "varchar", "character", "uuid", "json"), pa.string()),
    (("bytea", "blob"), pa.binary()),
)
# PostgreSQL's classes of errors that a query may cause; the message itself may hold values.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES = {
    "22": "a value does not fit (for example a cast, a division by zero)",
    "23": "a constraint does not hold",
    "25": "the transaction is read-only",
    "42": "a name or a type is not what the database expects",
    "28": "the database does not accept the user or its password",
    "53": "the database has not enough resources",
    "57": "the database stopped the query",
}


class _Database(Protocol):
    dialect: Literal["sqlite", "postgres"]

    def schema(self) -> LiveSchema: ...

    def reading(
        self, analysed: Analysed, gauge: Gauge, parameters: Mapping[str, Any], /
    ) -> AbstractContextManager[Connection]: ...

    def writing(
        self, analysed: Analysed, gauge: Gauge, parameters: Mapping[str, Any], /
    ) -> AbstractContextManager[Connection]: ...

    def close(self) -> None: ...


class SqlSource:
    """A database of ``registry/data.yaml``.

    Args:
        name: Of the source.
        settings: Its entry.
        root: Folder that a relative path starts at.
        environ: Holds the password.
    """

    def __init__(
        self, name: str, settings: SqlSettings, root: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.settings = settings
        self._database = _open(name, settings, root, environ)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.close()

    def plan(self, ask: Ask) -> Plan:
        """Analyse a statement against the database's live schema; see :class:`Source`."""
        try:
            schema = self._database.schema()
        except SQLAlchemyError as error:
            raise self._failed(error) from None
        self._check_columns(schema)
        if ask.operation == "tables":
            return Plan((), (), write=False, fetch=lambda _: _listing(schema))
        if ask.operation not in ("query", "execute"):
            raise UsageError(
                f"{self.name!r} is a database; it has no files to read",
                next_step='ask .query("SELECT …")',
            )
        analysed = analyse(ask.sql, self._database.dialect, schema, source=self.name)
        self._check_write(ask, analysed)
        parameters = _parameters(ask.parameters, analysed.parameters)
        fetch = self._change if analysed.write else self._fetch
        return Plan(
            tuple(sorted(analysed.tables)),
            tuple(sorted(map(str, analysed.columns))),
            write=analysed.write,
            fetch=lambda _: fetch(analysed, parameters),
        )

    def _check_write(self, ask: Ask, analysed: Analysed) -> None:
        if analysed.write and not self.settings.writable:
            raise CallDenied(
                f"{self.name!r} is read-only (writable: false in registry/data.yaml)",
                next_step="ask whoever keeps registry/data.yaml, if it has to be changed",
                details={"policies": ["data.writable"], "source": self.name},
            )
        if analysed.write != (ask.operation == "execute"):
            verb = "execute" if analysed.write else "query"
            raise UsageError(f"this statement is for .{verb}(…)")

    def _check_columns(self, schema: LiveSchema) -> None:
        """Refuse a label on a column that is not there: it protects nothing."""
        known = {
            str(ColumnName(relation.label, column))
            for relation in schema.relations.values()
            for column in relation.columns
        }
        if missing := sorted(set(self.settings.columns) - known):
            raise ConfigurationError(
                f"{', '.join(missing)} is labelled, and {self.name!r} has no such column",
                where=f"registry/data.yaml: sources.{self.name}.columns",
                next_step="mend the name, or take the label away",
            )

    # -- doing it -----------------------------------------------------------------------------

    def _fetch(self, analysed: Analysed, parameters: Mapping[str, Any]) -> Reading:
        gauge = Gauge(self.settings.caps(self.name))
        try:
            with self._database.reading(analysed, gauge, parameters) as connection:
                table = _read(connection, analysed, parameters, gauge)
        except SQLAlchemyError as error:
            raise self._failed(error, gauge) from None
        except sqlite3.Error as error:
            raise self._refused_by_sqlite(error, gauge) from None
        unchanged = [None if o.unchanged is None else str(o.unchanged) for o in analysed.outputs]
        warnings = check_promises(self.name, self.settings.expect, table, unchanged)
        each = tuple(self._labels(output) for output in analysed.outputs)
        return Reading(table, _all(self.settings.source_labels(), each), each, warnings=warnings)

    def _change(self, analysed: Analysed, parameters: Mapping[str, Any]) -> Reading:
        gauge = Gauge(self.settings.caps(self.name))
        try:
            with self._database.writing(analysed, gauge, parameters) as connection:
                done = connection.exec_driver_sql(analysed.sql, dict(parameters))
                affected = max(0, done.rowcount)
                gauge.tick()
        except SQLAlchemyError as error:
            raise self._failed(error, gauge) from None
        except sqlite3.Error as error:
            raise self._refused_by_sqlite(error, gauge) from None
        return Reading(Table(pa.schema([]), []), self.settings.source_labels(), affected=affected)

    def _labels(self, output: Output) -> Labels:
        labels = self.settings.source_labels()
        for origin in output.origins:
            labels |= self.settings.column_labels(str(origin))
        return labels

    def _failed(self, error: SQLAlchemyError, gauge: Gauge | None = None) -> ToolkitError:
        """Translate a database's error; its own message may hold values, so it stays here."""
        original = error.orig if isinstance(error, DBAPIError) else None
        if isinstance(original, sqlite3.Error):
            return self._refused_by_sqlite(original, gauge)
        state = str(getattr(original, "sqlstate", None) or "")
        if gauge is not None and (state == "57014" or gauge.left_s <= 0):
            return gauge.late()
        meaning = _SQLSTATES.get(state[:2])
        if meaning is None:
            return InfrastructureError(
                f"the database of {self.name!r} cannot be reached ({type(error).__name__})",
                where=f"registry/data.yaml: sources.{self.name}",
                next_step="see whether it runs, and whether its url and password_env are right",
            )
        kind = InfrastructureError if state[:2] in ("28", "53", "57") else UsageError
        return kind(f"{self.name!r} refused the query: {meaning} (SQLSTATE {state})")

    def _refused_by_sqlite(self, error: sqlite3.Error, gauge: Gauge | None) -> ToolkitError:
        text = str(error)
        if text == "interrupted" and gauge is not None:
            return gauge.late()
        if "prohibited" in text or "not authorized" in text:
            return CallDenied(
                f"the query was refused: SQLite would read or change more than was analysed "
                f"({text})",
                details={"policies": ["data.sql"], "source": self.name},
            )
        if "readonly" in text:
            return CallDenied(f"{self.name!r} is open for reading only")
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG and gauge is not None:
            return gauge.caps.too_many("one of its values is too large", "max_bytes")
        if isinstance(error, sqlite3.OperationalError) and "locked" in text:
            return InfrastructureError(f"the database of {self.name!r} is locked by a writer")
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return UsageError(f"{self.name!r} refused the query ({name})")


def _all(own: Labels, each: tuple[Labels, ...]) -> Labels:
    for labels in each:
        own |= labels
    return own


def _open(name: str, settings: SqlSettings, root: Path, environ: Mapping[str, str]) -> _Database:
    url = make_url(settings.url.replace("postgres://", "postgresql://", 1))
    if settings.dialect == "sqlite":
        return cast("_Database", SqliteDatabase(root / str(url.database), name))
    if settings.password_env is not None:
        password = environ.get(settings.password_env)
        if not password:
            raise ConfigurationError(
                f"the environment variable {settings.password_env} is not set in the gateway",
                where=f"registry/data.yaml: sources.{name}.password_env",
                next_step="set it where the gateway is started, and start the gateway again",
            )
        url = url.set(password=password)
    return cast("_Database", PostgresDatabase(url, name, settings.schemas))


def _parameters(given: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, Any]:
    """Return the values to bind.

    Raises:
        UsageError: Names do not agree, or a value is no plain one.
    """
    missing, spare = sorted(wanted - set(given)), sorted(set(given) - wanted)
    if missing or spare:
        faults = [f"no value for :{name}" for name in missing]
        faults += [f"no :{name} in the query" for name in spare]
        raise UsageError(f"the parameters do not fit: {', '.join(faults)}")
    for name, value in given.items():
        if value is not None and not isinstance(value, str | int | float | bool):
            raise UsageError(
                f"the parameter {name} is a {type(value).__name__}; a number, text, true, false "
                "or null is taken"
            )
    return dict(given)


def _read(
    connection: Connection, analysed: Analysed, parameters: Mapping[str, Any], gauge: Gauge
) -> Table:
    streaming = connection.execution_options(stream_results=True, max_row_buffer=1)
    result = streaming.exec_driver_sql(analysed.sql, dict(parameters))
    try:
        names = list(result.keys())
        return table_of(names, _batches(result, gauge), _hints(analysed, len(names)))
    finally:
        result.close()


def _batches(result: Any, gauge: Gauge) -> Iterator[Sequence[Sequence[Any]]]:
    while rows := result.fetchmany(gauge.next_batch()):
        size = sum(_size(value) for row in rows for value in row)
        gauge.add(len(rows), size)
        yield rows


def _size(value: Any) -> int:
    """Return about as many bytes as Arrow needs for a value."""
    if isinstance(value, str | bytes | memoryview):
        return len(value) + 5
    return 9 if not isinstance(value, dict | list) else len(str(value))


def _hints(analysed: Analysed, count: int) -> list[pa.DataType | None]:
    """Return the declared types, for columns in which no value tells the type."""
    declared = {
        ColumnName(relation.label, column): kind
        for relation in analysed.relations
        for column, kind in relation.columns.items()
    }
    found: list[pa.DataType | None] = []
    for output in analysed.outputs[:count]:
        kind = declared.get(output.unchanged) if output.unchanged else None
        found.append(_hint(kind.lower()) if kind else None)
    return found + [None] * (count - len(found))


def _hint(declared: str) -> pa.DataType | None:
    for beginnings, kind in _KINDS:
        if declared.startswith(beginnings):
            if "with time zone" in declared:
                return pa.timestamp("us", "UTC")
            return kind
    return None


def _listing(schema: LiveSchema) -> Reading:
    rows, about = [], []
    for relation in sorted(schema.relations.values(), key=lambda each: each.label):
        tables = tuple(sorted({relation.label, *relation.under_tables}))
        for column, kind in relation.columns.items():
            rows.append((relation.label, "view" if relation.view else "table", column, kind))
            columns = tuple(sorted(map(str, relation.reads(column))))
            about.append(About(tables, columns, relation.label))
    names = ("table", "kind", "column", "type")
    arrays = [
        column_of([row[place] for row in rows]).cast(pa.string()) for place in range(len(names))
    ]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(names))
    return Reading(Table(batch.schema, [batch]), about=tuple(about))
