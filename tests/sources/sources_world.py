"""A small shop: its tables, its catalog, and how a source is asked."""

from __future__ import annotations

from pathlib import Path

from toolkit.sources import Ask, Plan, Reading, Source, Sources

TABLES = (
    "CREATE TABLE customers (id integer PRIMARY KEY, name text, city text)",
    (
        "CREATE TABLE orders (id integer PRIMARY KEY, email text, amount numeric(10, 2),"
        " customer_id integer, updated_at timestamp,"
        " mail_domain text GENERATED ALWAYS AS (substr(email, 3)) STORED)"
    ),
    "CREATE VIEW contacts AS SELECT id, email AS contact FROM orders",
    "CREATE VIEW sums AS SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id",
    "CREATE VIEW big AS SELECT id, amount FROM orders WHERE email LIKE '%@%'",
    "CREATE VIEW contacts_of_contacts AS SELECT contact FROM contacts",
    "CREATE TABLE secrets (id integer, word text)",
)
SQLITE_MORE = ('CREATE TABLE "Odd Names" ("select" integer, "E-Mail" text)',)
POSTGRES_MORE = (
    'CREATE TABLE "Odd Names" ("select" integer, "E-Mail" text)',
    "CREATE SCHEMA hidden",
    "CREATE TABLE hidden.orders (id integer, email text)",
    "CREATE TABLE events (id integer, at date, note text) PARTITION BY RANGE (at)",
    "CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "CREATE VIEW rows_as_values AS SELECT o.id, o::text AS everything FROM orders o",
    "CREATE MATERIALIZED VIEW kept AS SELECT id, email FROM orders",
    (
        "CREATE FUNCTION public.abs(text) RETURNS text LANGUAGE sql AS"
        " 'SELECT word FROM public.secrets LIMIT 1'"
    ),
    (
        "CREATE TABLE kinds (a bigint, b double precision, c boolean, d date, e timestamptz, f jsonb,"
        " g uuid, h bytea, i numeric, j text[], k interval, l time)"
    ),
    (
        "INSERT INTO kinds VALUES (1, 1.5, true, '2026-01-02', '2026-01-02 03:04:05+02',"
        " '{\"a\": [1]}', '00000000-0000-0000-0000-000000000001', '\\x00ff', 1.25, '{x,y}',"
        " '1 day', '10:11:12'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    ),
)
FILL = (
    "INSERT INTO customers VALUES (1, 'Ann', 'Oslo'), (2, 'Bo', 'Rome')",
    (
        "INSERT INTO orders (id, email, amount, customer_id, updated_at) VALUES"
        " (1, 'a@x.example', 2.50, 1, '2026-01-01 10:00:00'),"
        " (2, 'b@y.example', 5.00, 1, '2026-01-02 10:00:00'),"
        " (3, NULL, NULL, 2, '2026-01-03 10:00:00')"
    ),
    "INSERT INTO secrets VALUES (1, 'canary-7f3a')",
    "INSERT INTO \"Odd Names\" VALUES (7, 'o@z.example')",
)

CATALOG = """
sources:
  orders:
    kind: sql
    url: {url}
    labels: {{classes: [confidential], sources: [internal]}}
    columns:
      orders.email: {{classes: [pii]}}
    max_rows: 1000
    max_bytes: 1000000
    timeout_s: 5
{more}
"""


def write_catalog(root: Path, url: str, more: str = "", **environ: str) -> Sources:
    """Write ``registry/data.yaml`` with one database and open it."""
    folder = root / "registry"
    folder.mkdir(exist_ok=True)
    path = folder / "data.yaml"
    path.write_text(CATALOG.format(url=url, more=more), "utf-8")
    return Sources(root, path, environ)


def plan(source: Source, sql: str, **parameters) -> Plan:
    """Say what a query would read."""
    return source.plan(Ask("query", sql=sql, parameters=parameters))


def read(source: Source, sql: str, **parameters) -> Reading:
    """Ask a query, with a policy that allows everything."""
    return plan(source, sql, **parameters).fetch(lambda _: ())


def rows(reading: Reading) -> list[tuple]:
    """Return the rows of a reading as Python values."""
    found: list[tuple] = []
    for batch in reading.table.batches:
        found.extend(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    return found
