"""What holds even if the analysis were wrong: read-only, asked per column, capped, cancelled."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace

import pytest
from sources_world import read, rows, write_catalog

from toolkit.errors import CallDenied, ConfigurationError, InfrastructureError, UsageError
from toolkit.sources import Ask
from toolkit.sources.analysis import analyse
from toolkit.sources.live import ColumnName
from toolkit.sources.sql import SqlSource


def tricked(source: SqlSource, sql: str, **lies):
    """Fetch ``sql`` as if the analysis had let it pass."""
    schema = source._database.schema()
    analysed = analyse("SELECT id FROM orders", source._database.dialect, schema, source="orders")
    return source._fetch(replace(analysed, sql=sql, **lies), {})


def test_sqlite_refuses_a_column_that_was_not_analysed(sqlite_sources):
    """Its own authorizer says no, also for what lies under a view."""
    orders = sqlite_sources.source("orders")
    for sql in ("SELECT email FROM orders", "SELECT contact FROM contacts", "SELECT * FROM orders"):
        with pytest.raises(CallDenied, match="more than was analysed"):
            tricked(orders, sql)
    allowed = frozenset({ColumnName("orders", "id"), ColumnName("orders", "email")})
    assert len(rows(tricked(orders, "SELECT id, email FROM orders", columns=allowed))) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders",
        "PRAGMA query_only = OFF",
        "ATTACH DATABASE 'other.db' AS other",
        "SELECT load_extension('x')",
        "CREATE TABLE x (a)",
        "SELECT * FROM sqlite_master",
    ],
)
def test_sqlite_does_nothing_but_read_what_was_analysed(sqlite_sources, sql):
    """Whatever text reaches it."""
    with pytest.raises((CallDenied, UsageError)):
        tricked(sqlite_sources.source("orders"), sql)


def test_postgresql_refuses_a_relation_that_was_not_analysed(postgres_sources):
    """Its plan names every table that is read, under views and in other schemas too."""
    orders = postgres_sources.source("orders")
    for sql in (
        "SELECT word FROM public.secrets",
        "SELECT email FROM hidden.orders",
        "SELECT passwd FROM pg_catalog.pg_shadow",
    ):
        with pytest.raises(CallDenied, match="which it does not name"):
            tricked(orders, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM public.orders",
        "SELECT nextval('public.s')",
        "SELECT 1; DELETE FROM public.orders",
    ],
)
def test_postgresql_is_read_only(postgres_sources, sql):
    """The session and the transaction are, and one statement is taken at a time."""
    with pytest.raises((CallDenied, UsageError)):
        tricked(postgres_sources.source("orders"), sql)
    assert rows(read(postgres_sources.source("orders"), "SELECT count(*) FROM orders")) == [(3,)]


def test_a_function_in_a_schema_is_not_taken_for_a_known_one(postgres_sources):
    """``abs(text)`` of somebody does not win over PostgreSQL's own: ``search_path`` has no schema."""
    with pytest.raises(UsageError, match="42883"):
        read(postgres_sources.source("orders"), "SELECT abs(email) FROM orders")


def test_a_view_with_whole_rows_counts_with_every_column(postgres_sources):
    """PostgreSQL keeps no dependency per column for them."""
    planned = postgres_sources.source("orders").plan(
        Ask("query", sql="SELECT id FROM rows_as_values")
    )
    assert "orders.email" in planned.columns


def test_partitions_and_materialized_views_are_read(postgres_sources):
    """A plan names partitions instead of their table."""
    orders = postgres_sources.source("orders")
    assert rows(read(orders, "SELECT id FROM events")) == []
    reading = read(orders, "SELECT email FROM kept ORDER BY id")
    assert len(rows(reading)) == 3
    assert "pii" in reading.labels.classes


def test_every_type_of_postgresql_has_a_place_in_arrow(postgres_sources):
    """Numbers, times and bytes keep their types; what has none becomes text."""
    table = read(postgres_sources.source("orders"), "SELECT * FROM kinds").table
    types = {known.name: str(known.type) for known in table.schema}
    assert types == {
        "a": "int64",
        "b": "double",
        "c": "bool",
        "d": "date32[day]",
        "e": "timestamp[us, tz=UTC]",
        "f": "string",
        "g": "string",
        "h": "binary",
        "i": "decimal128(38, 2)",
        "j": "string",
        "k": "duration[us]",
        "l": "time64[us]",
    }


def test_an_empty_answer_keeps_declared_types(orders):
    """So code that follows does not stumble over a day without rows."""
    table = read(orders, "SELECT id, email FROM orders WHERE 1 = 0").table
    assert [str(known.type) for known in table.schema] == ["int64", "string"]


@pytest.mark.parametrize(
    ("cap", "sql", "told"),
    [
        ("max_rows: 1000", ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
         " WHERE i < 2000) SELECT i FROM n"), "more than 1,000 rows"),
        ("max_bytes: 1000000", ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
         " WHERE i < 900) SELECT replace('0123456789', '1', i || ' and more of it') ||"
         " replace('00000000000000000000', '0', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaa') AS x FROM n"), "more than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_a_read_over_a_cap_gives_nothing(orders, cap, sql, told):
    """The cap and where it is written are told."""
    with pytest.raises(CallDenied, match=told) as caught:
        read(orders, sql)
    assert f"{cap.partition(':')[0]} in registry/data.yaml" in caught.value.message


def test_a_query_that_takes_too_long_is_cancelled(sources, tmp_path):
    """By the database itself, so that nothing goes on in the background."""
    path = tmp_path / "registry" / "data.yaml"
    path.write_text(path.read_text().replace("timeout_s: 5", "timeout_s: 0.3"))
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    with pytest.raises(CallDenied, match=r"longer than 0.3 s"):
        read(sources.source("orders"), endless)


def test_an_error_of_a_database_holds_no_value(orders):
    """Neither of a row nor of a parameter."""
    sql = "SELECT 1 / (id - id) AS x, cast(email AS integer) AS y FROM orders WHERE email <> :word"
    told = ""
    with contextlib.suppress(UsageError):
        try:
            read(orders, sql, word="hunter2-canary")
        except UsageError as error:
            told = str(error.to_json())
            raise
    assert "canary" not in told
    assert "x.example" not in told


def test_a_label_on_a_column_that_is_not_there_is_a_fault(sources, tmp_path):
    """It would protect nothing."""
    path = tmp_path / "registry" / "data.yaml"
    path.write_text(path.read_text().replace("orders.email", "orders.emial"))
    with pytest.raises(ConfigurationError, match=r"orders.emial is labelled"):
        read(sources.source("orders"), "SELECT id FROM orders")


def test_writes_touch_one_table_and_nothing_else(sqlite_sources, tmp_path):
    """A writable source takes plain writes; triggers that reach further are stopped by SQLite."""
    path = tmp_path / "registry" / "data.yaml"
    path.write_text(path.read_text().replace("timeout_s: 5", "timeout_s: 5\n    writable: true"))
    orders = sqlite_sources.source("orders")

    def execute(sql, **parameters):
        return orders.plan(Ask("execute", sql=sql, parameters=parameters)).fetch(lambda _: ())

    assert execute("UPDATE orders SET amount = :a WHERE id = :i", a=9, i=1).affected == 1
    assert execute("INSERT INTO customers (id, name) VALUES (9, 'Cy')").affected == 1
    assert execute("INSERT INTO customers (id, name) SELECT id + 10, name FROM customers").affected
    assert execute("DELETE FROM customers WHERE id > 5").affected == 4
    planned = orders.plan(Ask("execute", sql="UPDATE orders SET amount = 1 WHERE email = 'x'"))
    assert planned.write
    assert set(planned.columns) == {"orders.amount", "orders.email"}
    for sql in (
        "UPDATE orders SET amount = (SELECT max(id) FROM secrets)",
        "DELETE FROM orders WHERE id IN (SELECT id FROM secrets)",
        "INSERT INTO orders (id) VALUES (1) ON CONFLICT DO NOTHING",
        "DELETE FROM orders RETURNING email",
        "UPDATE orders SET amount = 1 FROM secrets",
        "INSERT INTO contacts (id) VALUES (1)",
        "INSERT OR REPLACE INTO orders (id) VALUES (1)",
        "DELETE FROM orders; DELETE FROM secrets",
        "UPDATE sqlite_master SET sql = ''",
    ):
        with pytest.raises((CallDenied, UsageError)):
            execute(sql)
    with sqlite3.connect(tmp_path / "orders.db") as connection:
        connection.execute("CREATE TRIGGER t AFTER UPDATE ON orders BEGIN DELETE FROM secrets; END")
    connection.close()
    with pytest.raises(CallDenied, match="more than was analysed"):
        execute("UPDATE orders SET amount = 1")


def test_a_database_that_is_gone_is_told_without_its_password(tmp_path):
    """Credentials come from the environment, and stay there."""
    url = "postgresql://reader@127.0.0.1:9/orders"
    more = "    password_env: ORDERS_PASSWORD\n"
    sources = write_catalog(tmp_path, url, more, ORDERS_PASSWORD="hunter2-canary")
    with pytest.raises(InfrastructureError) as caught:
        read(sources.source("orders"), "SELECT id FROM orders")
    assert "canary" not in str(caught.value.to_json())
    without = write_catalog(tmp_path, url, more)
    with pytest.raises(ConfigurationError, match="ORDERS_PASSWORD is not set"):
        without.source("orders")
