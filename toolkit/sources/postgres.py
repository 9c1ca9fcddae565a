"""PostgreSQL, in read-only transactions that end on time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection, Engine

from toolkit.sources.caps import Gauge
from toolkit.sources.live import ColumnName, LiveSchema, Relation
from toolkit.sources.statement import Analysed
from toolkit.sources.syntax import refused

__all__ = ["PostgresDatabase"]

# Operators and functions are PostgreSQL's own, whatever somebody put into a schema; strings
# mean what the parser read.
_SESSION = (
    "-c search_path=pg_catalog -c standard_conforming_strings=on -c TimeZone=UTC "
    "-c default_transaction_read_only={read_only} -c application_name=toolkit"
)
_RELATIONS = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, a.attname, a.attnum,
       pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY c.oid, a.attnum
"""
# What views are made of, as PostgreSQL keeps it for DROP: column 0 is the whole row.
_UNDER = """
SELECT DISTINCT r.ev_class, d.refobjid, d.refobjsubid
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
"""
# A whole row as a value leaves no trace per column in pg_depend, only in the rule itself.
_WHOLE_ROWS = """
SELECT ev_class FROM pg_catalog.pg_rewrite WHERE ev_action::text LIKE '%%:varattno 0 %%'
"""
_PARTS = "SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits"


class PostgresDatabase:
    """One PostgreSQL database.

    Args:
        url: With its password; it is never shown.
        source: The source's name, for messages.
        schemas: That may be read; the first one needs not be named.
    """

    dialect = "postgres"

    def __init__(self, url: URL, source: str, schemas: list[str]) -> None:
        self._source = source
        self._schemas = schemas
        self._reader = _engine(url, read_only=True)
        self._writer = _engine(url, read_only=False)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._reader.dispose()
        self._writer.dispose()

    def schema(self) -> LiveSchema:
        """Return tables and views; what lies under a view is what PostgreSQL keeps of it."""
        with self._reader.connect() as connection:
            rows = connection.exec_driver_sql(_RELATIONS).all()
            under = connection.exec_driver_sql(_UNDER).all()
            whole = {row[0] for row in connection.exec_driver_sql(_WHOLE_ROWS)}
            parts = connection.exec_driver_sql(_PARTS).all()
        below = [(view, oid, 0 if view in whole else number) for view, oid, number in under]
        return _schema(rows, below, parts, self._schemas)

    @contextmanager
    def reading(
        self, analysed: Analysed, gauge: Gauge, parameters: Mapping[str, Any]
    ) -> Iterator[Connection]:
        """Begin a read-only transaction; PostgreSQL's own plan is looked at first."""
        with self._reader.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            _limit(connection, gauge)
            self._check_plan(connection, analysed, parameters)
            yield connection
            connection.rollback()

    @contextmanager
    def writing(
        self, analysed: Analysed, gauge: Gauge, parameters: Mapping[str, Any]
    ) -> Iterator[Connection]:
        """Begin a transaction for one write; it is committed if nothing is raised."""
        with self._writer.connect() as connection:
            _limit(connection, gauge)
            self._check_plan(connection, analysed, parameters)
            yield connection
            connection.commit()

    def _check_plan(
        self, connection: Connection, analysed: Analysed, parameters: Mapping[str, Any]
    ) -> None:
        """Compare the relations of PostgreSQL's plan with those that were analysed.

        Raises:
            CallDenied: The plan has another one.
        """
        rows = connection.exec_driver_sql(
            f"EXPLAIN (VERBOSE, FORMAT JSON) {analysed.sql}", dict(parameters)
        ).all()
        plan = rows[0][0] if not isinstance(rows[0][0], str) else json.loads(rows[0][0])
        allowed = _allowed(analysed)
        for node in _nodes(plan):
            name = node.get("Relation Name")
            if name and (node.get("Schema"), name) not in allowed:
                raise refused(
                    f"its plan reads {name!a}, which it does not name", source=self._source
                )
            if node.get("Node Type") == "ModifyTable" and not analysed.write:
                raise refused("its plan changes a table", source=self._source)


def _engine(url: URL, *, read_only: bool) -> Engine:
    options = _SESSION.format(read_only="on" if read_only else "off")
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"options": options, "connect_timeout": 10},
        pool_size=2,
        max_overflow=2,
        pool_pre_ping=True,
        pool_recycle=300,
        hide_parameters=True,
    )


def _limit(connection: Connection, gauge: Gauge) -> None:
    left_ms = max(1, int(gauge.left_s * 1000))
    connection.execute(
        text("SELECT set_config('statement_timeout', :ms, true)"), {"ms": f"{left_ms}ms"}
    )


def _allowed(analysed: Analysed) -> set[tuple[str, str]]:
    allowed: set[tuple[str, str]] = set()
    for relation in analysed.relations:
        allowed |= {(relation.schema, relation.name)} | relation.parts
    return allowed


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    if isinstance(plan, list):
        for part in plan:
            yield from _nodes(part)
    elif isinstance(plan, dict):
        yield plan
        for value in plan.values():
            if isinstance(value, dict | list):
                yield from _nodes(value)


class _Found:
    """One relation while the catalog is read."""

    def __init__(self, schema: str, name: str, kind: str, label: str) -> None:
        self.schema, self.name, self.kind, self.label = schema, name, kind, label
        self.columns: dict[str, str] = {}
        self.numbers: dict[int, str] = {}
        self.derived: set[str] = set()


def _schema(rows: Any, under: Any, parts: Any, schemas: list[str]) -> LiveSchema:
    found: dict[int, _Found] = {}
    for oid, schema, name, kind, column, number, type_, generated in rows:
        label = name if schema == schemas[0] else f"{schema}.{name}"
        one = found.setdefault(oid, _Found(schema, name, kind, label))
        one.columns[column] = type_
        one.numbers[number] = column
        if generated:
            one.derived.add(column)
    below: dict[int, set[tuple[int, int]]] = {}
    for view, oid, number in under:
        below.setdefault(view, set()).add((oid, number))
    children: dict[int, set[int]] = {}
    for parent, child in parts:
        children.setdefault(parent, set()).add(child)
    relations = {}
    for oid, one in found.items():
        if one.schema not in schemas:
            continue
        reads = _reads(oid, below, found, set()) if one.kind in "vm" else set()
        bases = {table for table, _ in reads}
        physical = _physical({oid} | bases, children)
        relations[one.schema, one.name] = Relation(
            one.schema,
            one.name,
            one.label,
            one.columns,
            under=frozenset(
                ColumnName(_label(table, found), column) for table, column in reads if column
            ),
            under_tables=frozenset(_label(table, found) for table in bases),
            derived=frozenset(one.derived),
            parts=frozenset(
                (found[part].schema, found[part].name) for part in physical if part in found
            ),
            view=one.kind in "vm",
        )
    return LiveSchema(schemas[0], relations)


def _label(oid: int, found: dict[int, _Found]) -> str:
    # A view may read what is in no schema of ours, the catalog for one.
    return found[oid].label if oid in found else f"oid-{oid}"


def _reads(
    view: int, below: dict[int, set[tuple[int, int]]], found: dict[int, _Found], seen: set[int]
) -> set[tuple[int, str]]:
    """Return the columns that a view reads, of views under it too."""
    if view in seen:
        return set()
    seen.add(view)
    reads: set[tuple[int, str]] = set()
    for oid, number in below.get(view, ()):
        one = found.get(oid)
        name = one.numbers.get(number) if one else None
        if one is None:
            reads.add((oid, f"column-{number}"))
        elif name is None or name in one.derived:
            reads |= {(oid, column) for column in one.columns}
        else:
            reads.add((oid, name))
        reads |= _reads(oid, below, found, seen)
    return reads


def _physical(oids: set[int], children: dict[int, set[int]]) -> set[int]:
    open_, all_ = list(oids), set(oids)
    while open_:
        for child in children.get(open_.pop(), set()) - all_:
            all_.add(child)
            open_.append(child)
    return all_
