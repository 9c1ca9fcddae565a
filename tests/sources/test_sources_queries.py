"""What a query reads, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import pytest
from sources_world import plan, read, rows

from toolkit.errors import CallDenied, UsageError
from toolkit.sources import Ask
from toolkit.values import DataClass

EMAIL = "orders.email"


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT id FROM orders", {"orders.id"}),
        ("SELECT count(*) FROM orders", set()),
        ("SELECT o.ID AS x FROM Orders AS o", {"orders.id"}),
        ("SELECT id FROM orders WHERE email LIKE '%x%'", {"orders.id", EMAIL}),
        ("SELECT id FROM orders ORDER BY email", {"orders.id", EMAIL}),
        ("SELECT id FROM orders GROUP BY id, email", {"orders.id", EMAIL}),
        ("SELECT count(*) FROM orders HAVING max(email) > 'a'", {EMAIL}),
        ("SELECT row_number() OVER (ORDER BY email) AS n FROM orders", {EMAIL}),
        ("SELECT name FROM customers c JOIN orders o ON o.customer_id = c.id AND o.email <> ''",
         {"customers.name", "customers.id", "orders.customer_id", EMAIL}),
        ("SELECT a.amount FROM orders a JOIN orders b USING (email)", {"orders.amount", EMAIL}),
        ("WITH x(y) AS (SELECT email FROM orders) SELECT y FROM x", {EMAIL}),
        ("SELECT y FROM (SELECT email AS y FROM orders) AS z", {EMAIL}),
        ("SELECT id FROM customers UNION ALL SELECT length(email) FROM orders",
         {"customers.id", EMAIL}),
        (("SELECT (SELECT max(o.email) FROM orders o WHERE o.customer_id = c.id) AS m"
         " FROM customers c"), {EMAIL, "orders.customer_id", "customers.id"}),
        (("SELECT name FROM customers c WHERE EXISTS"
         " (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.email IS NOT NULL)"),
         {"customers.name", "customers.id", "orders.customer_id", EMAIL}),
        ('SELECT "email" FROM "orders"', {EMAIL}),
        ("SELECT e/**/\n.--x\nemail FROM orders e", {EMAIL}),
        ("SELECT CASE WHEN email IS NULL THEN 0 ELSE 1 END AS known FROM orders", {EMAIL}),
        (("WITH RECURSIVE n(i, m) AS (SELECT 1, 'x' UNION ALL SELECT i + 1,"
         " (SELECT max(email) FROM orders) FROM n WHERE i < 3) SELECT m FROM n"), {EMAIL}),
    ],
)  # fmt: skip
def test_every_column_that_a_query_names_counts_as_read(orders, sql, columns):
    """Through aliases, inner queries, CTEs, unions, and wherever in the query it stands."""
    planned = plan(orders, sql)
    assert set(planned.columns) == columns
    planned.fetch(lambda _: ())


def test_a_star_is_written_out_against_the_live_schema(orders):
    """`*` reads every column, in an inner query too, whatever is taken from it."""
    every = {"orders.id", EMAIL, "orders.amount", "orders.customer_id"}
    every |= {"orders.updated_at", "orders.mail_domain"}
    assert set(plan(orders, "SELECT * FROM orders").columns) == every
    assert set(plan(orders, "SELECT x.id FROM (SELECT * FROM orders) AS x").columns) == every
    assert set(plan(orders, "SELECT o.* FROM orders o, customers c").columns) == every


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT contact FROM contacts", {"contacts", "orders"}),
        ("SELECT id FROM contacts", {"contacts", "orders"}),
        ("SELECT id FROM big", {"big", "orders"}),
        ("SELECT contact FROM contacts_of_contacts",
         {"contacts", "contacts_of_contacts", "orders"}),
    ],
)  # fmt: skip
def test_a_view_counts_with_what_it_reads(orders, sql, tables):
    """A view that hides a column under another name, or in its WHERE, does not hide it from policy."""
    planned = plan(orders, sql)
    assert set(planned.tables) == tables
    assert EMAIL in planned.columns
    planned.fetch(lambda _: ())


def test_a_view_without_the_column_does_not_read_it(orders):
    """Views are how a column is kept away on purpose."""
    planned = plan(orders, "SELECT total FROM sums ORDER BY customer_id")
    assert EMAIL not in planned.columns
    assert [float(total) for (total,) in rows(planned.fetch(lambda _: ())) if total] == [7.5]


def test_a_generated_column_counts_with_its_table(orders):
    """What is computed from a column shows it."""
    assert EMAIL in plan(orders, "SELECT mail_domain FROM orders").columns


def test_only_what_comes_out_is_labelled(orders):
    """The answer has the classes of the columns that its values come from."""
    plain = read(orders, "SELECT id FROM orders WHERE email IS NOT NULL").labels
    assert plain.classes == {DataClass.CONFIDENTIAL}
    for sql in (
        "SELECT upper(email) AS u FROM orders",
        "SELECT contact FROM contacts",
        "SELECT u FROM (SELECT max(email) AS u FROM orders) AS x",
        "SELECT id, mail_domain FROM orders",
        "SELECT city FROM customers UNION SELECT email FROM orders",
    ):
        reading = read(orders, sql)
        assert DataClass.PII in reading.labels.classes, sql
    each = read(orders, "SELECT id, email FROM orders").column_labels
    assert [DataClass.PII in labels.classes for labels in each] == [False, True]


def test_parameters_are_bound(orders):
    """A value never becomes SQL, and a colon or a percent sign in a text stays what it is."""
    evil = "x' OR '1'='1"
    assert rows(read(orders, "SELECT id FROM orders WHERE email = :e", e=evil)) == []
    assert rows(read(orders, "SELECT id FROM orders WHERE id = :n", n=2)) == [(2,)]
    sql = "SELECT id FROM orders WHERE email LIKE '%x%' AND 'a:n b%(n)s' <> :n AND id = :i ORDER BY id"
    assert rows(read(orders, sql, n="y", i=1)) == [(1,)]
    assert rows(read(orders, "SELECT ':id %s %%' AS t FROM orders WHERE id = :id", id=1)) == [
        (":id %s %%",)
    ]


def test_parameters_that_do_not_fit_are_named(orders):
    """Each missing and each spare one."""
    with pytest.raises(UsageError, match=r"no value for :n.*no :m in the query"):
        plan(orders, "SELECT id FROM orders WHERE id = :n", m=1)
    with pytest.raises(UsageError, match="the parameter n is a list"):
        plan(orders, "SELECT id FROM orders WHERE id = :n", n=[1])


REFUSED = [
    "DELETE FROM orders",
    "UPDATE orders SET amount = 0",
    "INSERT INTO orders (id) VALUES (9)",
    "DROP TABLE orders",
    "CREATE TABLE x AS SELECT * FROM orders",
    "ALTER TABLE orders ADD COLUMN x text",
    "TRUNCATE orders",
    "SELECT 1; DELETE FROM orders",
    "SELECT 1;;DROP TABLE orders --",
    "/* SELECT */ DELETE FROM orders",
    "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
    "WITH new AS (INSERT INTO orders (id) VALUES (9) RETURNING id) SELECT id FROM new",
    "SELECT * INTO copied FROM orders",
    "SELECT id FROM orders FOR UPDATE",
    "ATTACH DATABASE 'x.db' AS x",
    "PRAGMA writable_schema = 1",
    "COPY orders TO '/tmp/x'",
    "COPY orders TO PROGRAM 'id'",
    "VACUUM INTO 'x.db'",
    "EXPLAIN SELECT * FROM orders",
    "BEGIN",
    "COMMIT",
    "SET search_path = hidden",
    "DO $$ BEGIN DELETE FROM orders; END $$",
    "CALL x()",
    "GRANT ALL ON orders TO public",
    "LISTEN x",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT pg_sleep(100)",
    "SELECT lo_import('/etc/passwd')",
    "SELECT * FROM dblink('x', 'select 1') AS t(a int)",
    "SELECT query_to_xml('select * from secrets', true, true, '')",
    "SELECT set_config('default_transaction_read_only', 'off', false)",
    "SELECT current_setting('data_directory')",
    "SELECT nextval('s')",
    "SELECT pg_terminate_backend(1)",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('x', 'y')",
    "SELECT fts3_tokenizer('x')",
    "SELECT * FROM pragma_table_info('orders')",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT * FROM json_each('[1]')",
    "SELECT evil.f(id) FROM orders",
    "SELECT ｐg_read_file('x')",
    'SELECT "pg_read_file"(\'x\')',
    "SELECT id FROM orders NATURAL JOIN customers",
    "SELECT a FROM orders AS o(a, b, c, d, e, f)",
    "SELECT id FROM orders WHERE id = ?",
    "SELECT id FROM orders WHERE id = $1",
    "SELECT row_to_json(o) FROM orders o",
    "SELECT to_json(o) FROM orders o",
    "SELECT count(o.*) FROM orders o",
    "SELECT (o).email FROM orders o",
    "SELECT (o.*)::text FROM orders o",
    "SELECT email(o) FROM orders o",
    "SELECT id FROM orders TABLESAMPLE SYSTEM (10)",
    "SELECT 1 OPERATOR(public.+) 2",
    "SELECT 'secrets'::regclass",
    "SELECT current_user",
    "VALUES (1)",
    "",
    "   -- nothing",
    "SELEC id FROM orders",
    "SELECT id FROM orders WHERE",
    "SELECT\0 1",
]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_not_a_plain_read_is_refused(orders, sql):
    """Writes, several statements, functions that reach outside, and what cannot be analysed."""
    with pytest.raises((CallDenied, UsageError)) as caught:
        orders.plan(Ask("query", sql=sql))
    assert "/etc/passwd" not in str(caught.value)
    assert rows(read(orders, "SELECT count(*) FROM orders")) == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT o FROM orders o",
        "SELECT orders FROM orders",
        "SELECT o::text FROM orders o",
        "SELECT o IS NULL FROM orders o",
        "SELECT ctid FROM orders",
        "SELECT xmin FROM orders",
        "SELECT tableoid FROM orders",
        "SELECT rowid FROM orders",
        "SELECT _rowid_ FROM orders",
        'SELECT "email " FROM orders',
        'SELECT "nothing" FROM orders',
        "SELECT ｅmail FROM orders",
        "SELECT em/**/ail FROM orders",
        "SELECT o.email.x FROM orders o",
        "SELECT id FROM hidden.orders",
        "SELECT id FROM other.public.orders",
        "SELECT * FROM pg_catalog.pg_shadow",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM temp.orders",
        "SELECT * FROM nothing",
    ],
)
def test_names_that_are_not_plain_columns_of_known_tables_are_refused(orders, sql):
    """Whole rows, system columns, other schemas, look-alikes."""
    with pytest.raises((CallDenied, UsageError)):
        plan(orders, sql)


def test_odd_names_keep_their_place(orders):
    """Quoted names of any kind are read as what they are."""
    planned = plan(orders, 'SELECT "select", "E-Mail" FROM "Odd Names"')
    assert {name.lower() for name in planned.columns} == {"odd names.select", "odd names.e-mail"}
    assert rows(planned.fetch(lambda _: ())) == [(7, "o@z.example")]


def test_computed_columns_have_names(orders):
    """The function's, else their place; never two the same."""
    reading = read(
        orders, "SELECT sum(amount), sum(id), 1 + 1, upper('x'), id FROM orders GROUP BY id"
    )
    assert reading.table.schema.names == ["sum", "sum_2", "column_3", "upper", "id"]


def test_an_expression_means_the_same_after_it_is_written_out(orders):
    """Integer division, precedence, string escapes, nulls and ranges survive the rewriting."""
    sql = (
        "SELECT 7 / 2 AS a, 2 + 3 * 4 AS b, 'it''s' || ' \\n' AS c, NULL IS NULL AS d, -2 - -3 AS e,"
        " CASE WHEN 1 < 2 AND NOT 2 < 1 THEN 'y' END AS f, 10 % 4 AS g, coalesce(NULL, 5) AS h"
        " FROM customers WHERE id = 1"
    )
    assert [tuple(map(_plain, row)) for row in rows(read(orders, sql))] == [
        (3, 14, "it's \\n", 1, 1, "y", 2, 5)
    ]


def _plain(value):
    return int(value) if isinstance(value, bool) else value


def test_a_query_is_not_printed_or_repeated_in_errors(orders, capfd):
    """A text in a query may be a secret."""
    for sql in (
        "EXPLAIN SELECT 'hunter2-canary'",
        "SELECT 'hunter2-canary' FROM",
        "GRANT 'hunter2-canary'",
    ):
        with pytest.raises((CallDenied, UsageError)) as caught:
            plan(orders, sql)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in "".join(capfd.readouterr())
