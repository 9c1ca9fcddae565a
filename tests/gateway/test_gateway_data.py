"""Data through a real gateway: what policy, caps and the record say about a notebook's reads."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator

import nbformat
import pandas as pd
import pytest
from gateway_world import open_run
from nbclient import NotebookClient
from workspace_world import RULES, end_gateway, write_workspace

import toolkit
from toolkit.client import Connection, DataWarning, ensure_gateway, wire
from toolkit.client import connection as kernel
from toolkit.client.data import _taken
from toolkit.errors import CallDenied, InvalidAnswer, UsageError, error_from_json
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, RunKind

CANARY = "canary-password-51aa"

DATA = """
sources:
  orders:
    kind: sql
    url: sqlite:///orders.db
    labels: {classes: [confidential], sources: [internal]}
    columns:
      orders.email: {classes: [pii]}
    max_rows: 50
    timeout_s: 10
  stock:
    kind: sql
    url: sqlite:///orders.db
    labels: {classes: [internal], sources: [internal]}
    writable: true
    expect:
      columns:
        orders.amount: {type: number, min: 0, nullable: false}
  files:
    kind: files
    url: files
    labels: {classes: [internal], sources: [untrusted]}
    columns: {email: {classes: [pii]}}
  locked:
    kind: http
    url: http://127.0.0.1:9
    token_env: LOCKED_TOKEN
    allow_private: [127.0.0.0/8]
    labels: {classes: [internal], sources: [internal]}
"""

CEDAR = """
@id("data") permit(principal, action == Action::"call_data", resource)
when { !context.write };
@id("no-emails") @reason("emails are for the support team only")
forbid(principal, action == Action::"call_data", resource == Data::"orders")
when { context.columns.contains("orders.email") };
@id("no-emails-in-files") @reason("the email column of files is closed")
forbid(principal, action == Action::"call_data", resource == Data::"files")
when { context.columns.contains("email") };
@id("stock-keeping") permit(principal, action == Action::"call_data", resource == Data::"stock")
when { context.write && context has purpose && context.purpose == "stock-taking" };
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a shop's database and files, and the gateway that reads them."""
    root = tmp_path_factory.mktemp("shop") / "ws"
    root.mkdir()
    made = write_workspace(root)
    (root / "registry" / "data.yaml").write_text(DATA, "utf-8")
    rules = root / "registry" / "policies" / "production" / "rules.cedar"
    rules.write_text(RULES + CEDAR, "utf-8")
    fill(made)
    (root / "files").mkdir()
    (root / "files" / "10.csv").write_text("id,email\n1,a@x.example\n", "utf-8")
    (root / "files" / "plain.csv").write_text("id,word\n1,one\n2,two\n", "utf-8")
    (root / "files" / "note.txt").write_text("hello", "utf-8")
    (root / "secret.csv").write_text("id\n1\n", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKED_TOKEN", CANARY)
        patch.chdir(root)
        ensure_gateway(root)
    yield made
    end_gateway(made)


def fill(workspace: Workspace) -> None:
    """Write 60 orders."""
    path = workspace.root / "orders.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, email text, amount real)")
        rows = [(n, f"person{n}@x.example", n / 2) for n in range(1, 61)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    connection.close()


def change(workspace: Workspace, sql: str) -> None:
    """Change the database behind the gateway's back."""
    with sqlite3.connect(workspace.root / "orders.db") as connection:
        connection.execute(sql)
    connection.close()


@pytest.fixture
def in_run(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Make ``toolkit.data`` speak for a production run."""
    monkeypatch.chdir(shop.root)
    kernel.disconnect()

    def be(run_id: str, **facts) -> Connection:
        made = open_run(shop, run_id, **facts)
        monkeypatch.setenv(wire.ENV_SOCKET, str(shop.socket))
        monkeypatch.setenv(wire.ENV_TOKEN, str(made._token))
        kernel.disconnect()
        return toolkit.connect()

    yield be
    kernel.disconnect()


def calls(workspace: Workspace, run_id: str):
    """Return what the ledger has of a run."""
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.calls(run_id)


def test_allowed_columns_come_as_a_table(shop, in_run):
    """A query with parameters gives pandas; whole numbers, texts and floats keep their types."""
    in_run("run-data-1")
    frame = toolkit.data("orders").query(
        "SELECT id, amount FROM orders WHERE id <= :most ORDER BY id", {"most": 3}, purpose="report"
    )
    assert isinstance(frame, pd.DataFrame)
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["amount"].tolist() == [0.5, 1.0, 1.5]
    assert frame.attrs["toolkit"]["call_id"].startswith("run-data-1/")


def test_a_forbidden_column_is_refused_with_the_policys_reason(shop, in_run):
    """Wherever it stands, and under whatever name."""
    in_run("run-data-2")
    orders = toolkit.data("orders")
    for sql in (
        "SELECT email FROM orders",
        "SELECT * FROM orders",
        "SELECT e AS id FROM (SELECT email AS e FROM orders) AS x",
        "SELECT id FROM orders WHERE email LIKE 'a%'",
        "SELECT id FROM orders ORDER BY email",
    ):
        with pytest.raises(CallDenied, match="emails are for the support team only"):
            orders.query(sql)
    assert {call.state.value for call in calls(shop, "run-data-2")} == {"denied"}


def test_a_write_is_refused(shop, in_run):
    """By the source where it is not writable, by policy where it is."""
    in_run("run-data-3")
    with pytest.raises(CallDenied, match="'orders' is read-only"):
        toolkit.data("orders").execute("DELETE FROM orders")
    with pytest.raises(CallDenied, match="no policy of production permits call_data"):
        toolkit.data("stock").execute("DELETE FROM orders")
    assert toolkit.data("orders").query("SELECT count(*) AS n FROM orders")["n"][0] == 60


def test_an_oversized_read_is_refused(shop, in_run):
    """More rows than the source gives: nothing comes, and the limit is named."""
    in_run("run-data-4")
    with pytest.raises(CallDenied, match=r"more than 50 rows.*max_rows in registry/data.yaml"):
        toolkit.data("orders").query("SELECT id FROM orders")
    assert len(toolkit.data("orders").query("SELECT id FROM orders LIMIT 50")) == 50


def test_a_write_that_policy_permits_is_done_once(shop, in_run):
    """And a resumed run gets its record, not a second write."""
    in_run("run-data-5")
    stock = toolkit.data("stock")
    sql = "UPDATE orders SET amount = amount + 1 WHERE id = :id"
    assert stock.execute(sql, {"id": 60}, purpose="stock-taking") == 1
    in_run("run-data-5")  # the kernel died, and the notebook runs from the top
    assert stock.execute(sql, {"id": 60}, purpose="stock-taking") == 1
    frame = stock.query("SELECT amount FROM orders WHERE id = 60")
    assert frame["amount"].tolist() == [31.0]


def test_rows_are_never_recorded(shop, in_run):
    """The ledger has text, names, counts and digests; no value of a row or a parameter."""
    in_run("run-data-6")
    stock = toolkit.data("stock")
    stock.query("SELECT email FROM orders WHERE email = :who", {"who": "person7@x.example"})
    (call,) = calls(shop, "run-data-6")
    assert call.intent.arguments["parameters"] == ["who"]
    answer = call.outcome.answer
    assert (answer["rows"], answer["columns"]) == (1, ["email"])
    assert answer["digest"].startswith("sha256:")
    assert call.outcome.labels is not None
    for path in (shop.root / ".toolkit").rglob("*"):
        if path.is_file():
            assert b"person7@" not in path.read_bytes(), path


def test_a_resumed_run_reads_again_and_compares(shop, in_run):
    """The same rows come quietly; other rows come with a warning."""
    sql = "SELECT id, amount FROM orders WHERE id = 11"
    in_run("run-data-7")
    first = toolkit.data("orders").query(sql)
    in_run("run-data-7")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        pd.testing.assert_frame_equal(toolkit.data("orders").query(sql), first)
    change(shop, "UPDATE orders SET amount = 99 WHERE id = 11")
    in_run("run-data-7")
    with pytest.warns(DataWarning, match="gives other rows"):
        assert toolkit.data("orders").query(sql)["amount"].tolist() == [99.0]
    assert len(calls(shop, "run-data-7")) == 1


def test_a_reproduction_reads_again_under_the_same_rule(shop, in_run):
    """It answers for calls of its source run only, with a warning where the rows changed."""
    sql = "SELECT amount FROM orders WHERE id = 12"
    in_run("run-data-8")
    toolkit.data("orders").query(sql)
    change(shop, "UPDATE orders SET amount = 98 WHERE id = 12")
    in_run("run-data-9", kind=RunKind.REPRODUCTION, source_run_id="run-data-8")
    with pytest.warns(DataWarning, match="gives other rows"):
        assert toolkit.data("orders").query(sql)["amount"].tolist() == [98.0]


def test_a_query_that_cannot_be_analysed_is_recorded_as_refused(shop, in_run):
    """Policy is asked first; then the outcome says why nothing was read."""
    in_run("run-data-10")
    with pytest.raises(CallDenied, match="the function load_extension"):
        toolkit.data("orders").query("SELECT load_extension('x')")
    with pytest.raises(UsageError, match="cannot be resolved"):
        toolkit.data("orders").query("SELECT nothing FROM orders")
    assert [call.state.value for call in calls(shop, "run-data-10")] == ["error", "error"]


def test_files_are_read_with_their_columns_decided(shop, in_run):
    """Policy sees the columns of a file before the kernel does."""
    in_run("run-data-11")
    files = toolkit.data("files")
    assert files.read("plain.csv").to_dict("list") == {"id": [1, 2], "word": ["one", "two"]}
    with pytest.raises(CallDenied, match="the email column of files is closed"):
        files.read("10.csv")
    assert files.read("10.csv", columns=["id"]).to_dict("list") == {"id": [1]}
    assert files.read("note.txt") == "hello"
    assert sorted(files.tables()["table"]) == ["10.csv", "note.txt", "plain.csv"]
    for path in ("../secret.csv", "/etc/passwd", "..\\secret.csv", "file:///etc/passwd", ""):
        with pytest.raises(UsageError):
            files.read(path)


def test_broken_promises_are_told_without_values(shop, in_run):
    """Every failed expectation with its count."""
    change(shop, "INSERT INTO orders VALUES (71, 'x', -5), (72, 'y', NULL)")
    in_run("run-data-12")
    with pytest.raises(InvalidAnswer) as caught:
        toolkit.data("stock").query("SELECT id, amount FROM orders WHERE id > 60")
    assert "orders.amount is below 0 in 1 of 2 rows" in caught.value.message
    assert "orders.amount is missing in 1 of 2 rows" in caught.value.message
    assert "-5" not in caught.value.message
    change(shop, "DELETE FROM orders WHERE id > 70")


def test_arrow_comes_over_the_socket(shop, in_run):
    """Its own media type, with the facts of the call in the schema."""
    connection = in_run("run-data-13")
    arguments = {"operation": "query", "sql": "SELECT id FROM orders LIMIT 2"}
    request = connection.identify(CallKind.DATA, "orders", arguments)

    def take(reply):
        assert reply.kind == "application/vnd.apache.arrow.stream"
        return _taken(reply)

    told, frame = connection.exchange(wire.DATA, request, take)
    assert (told["outcome"]["state"], len(frame)) == ("ok", 2)


def test_the_kernel_holds_no_credential(shop, in_run):
    """A notebook in a real kernel: the four answers, and no password in its environment."""
    in_run("run-data-14")
    source = """
import json, os, toolkit
from toolkit.errors import CallDenied
orders = toolkit.data("orders")
told = {"rows": len(orders.query("SELECT id, amount FROM orders LIMIT 5"))}
for name, sql in {
    "column": "SELECT email FROM orders",
    "write": "DELETE FROM orders",
    "size": "SELECT id FROM orders",
}.items():
    try:
        orders.query(sql)
    except CallDenied as error:
        told[name] = str(error)
told["environment"] = sorted(os.environ.values())
print(json.dumps(told))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    told = json.loads(notebook.cells[0].outputs[0]["text"])
    assert told["rows"] == 5
    assert "support team" in told["column"]
    assert "read-only" in told["write"]
    assert "more than 50 rows" in told["size"]
    assert not [value for value in told["environment"] if CANARY in value]


def test_a_source_that_is_down_does_not_show_its_token(shop, in_run):
    """The error names the source and nothing that it holds."""
    in_run("run-data-15")
    with pytest.raises(Exception, match="'locked' cannot be reached") as caught:
        toolkit.data("locked").read("x.json")
    assert CANARY not in json.dumps(error_from_json(caught.value.to_json()).to_json())
