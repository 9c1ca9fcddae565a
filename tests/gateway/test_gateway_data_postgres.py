"""A notebook reads PostgreSQL through a real gateway; the password stays with the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psycopg
import pytest
from gateway_world import open_run
from nbclient import NotebookClient
from postgres_world import postgres_server
from workspace_world import RULES, end_gateway, write_workspace

from toolkit.client import ensure_gateway, wire
from toolkit.ledger import Ledger
from toolkit.settings import Workspace

PASSWORD = "canary-password-77bd"
DATA = """
sources:
  orders:
    kind: sql
    url: "{url}"
    password_env: ORDERS_LOGIN
    labels: {{classes: [confidential], sources: [internal]}}
    max_rows: 50
"""
CEDAR = """
@id("data") permit(principal, action == Action::"call_data", resource)
when { !context.write };
@id("no-emails") @reason("emails are for the support team only")
forbid(principal, action == Action::"call_data", resource == Data::"orders")
when { context.columns.contains("orders.email") };
"""
NOTEBOOK = """
import json, os, toolkit
from toolkit.errors import CallDenied
orders = toolkit.data("orders")
frame = orders.query("SELECT id, amount FROM orders WHERE id <= :most ORDER BY id", {"most": 5})
told = {"rows": frame.to_dict("list")}
for name, sql in {
    "column": "SELECT o.email FROM orders o",
    "write": "DELETE FROM orders",
    "size": "SELECT id FROM orders",
}.items():
    try:
        orders.query(sql)
    except CallDenied as error:
        told[name] = str(error)
told["environment"] = sorted(os.environ.values())
print(json.dumps(told, default=str))
"""


@pytest.fixture
def server() -> Iterator[str]:
    """Sixty orders in a real PostgreSQL; the address of a role that may read and write them."""
    with postgres_server() as started:
        with psycopg.connect(started.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE DATABASE orders OWNER shop")
        with psycopg.connect(started.get_uri("orders"), autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE orders (id integer PRIMARY KEY, email text, amount numeric(9, 2))"
            )
            connection.execute("ALTER TABLE orders OWNER TO shop")
            connection.execute(
                "INSERT INTO orders SELECT n, 'person' || n || '@x.example', n / 2.0"
                " FROM generate_series(1, 60) AS n"
            )
        yield f"postgresql://shop@/orders?host={started.pgdata}"


@pytest.fixture
def shop(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace whose gateway alone has the password."""
    made = write_workspace(tmp_path)
    (tmp_path / "registry" / "data.yaml").write_text(DATA.format(url=server), "utf-8")
    rules = tmp_path / "registry" / "policies" / "production" / "rules.cedar"
    rules.write_text(RULES + CEDAR, "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORDERS_LOGIN", PASSWORD)
        ensure_gateway(tmp_path)
    yield made
    end_gateway(made)


def test_columns_writes_sizes_and_the_password(shop: Workspace, monkeypatch) -> None:
    """Allowed columns come; a column, a write and a size are refused; no byte has the password."""
    run = open_run(shop, "run-postgres")
    monkeypatch.setenv(wire.ENV_SOCKET, str(shop.socket))
    monkeypatch.setenv(wire.ENV_TOKEN, str(run._token))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    told = json.loads(notebook.cells[0].outputs[0]["text"])
    assert told["rows"]["id"] == [1, 2, 3, 4, 5]
    assert [float(amount) for amount in told["rows"]["amount"]] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert "emails are for the support team only" in told["column"]
    assert "read-only" in told["write"]
    assert "more than 50 rows" in told["size"]
    assert not [value for value in told["environment"] if PASSWORD in value]
    with Ledger.open(shop.database_url) as ledger:
        assert len(ledger.calls("run-postgres")) == 4
    written = [path for path in shop.state.rglob("*") if path.is_file()]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
    with psycopg.connect(_uri(shop)) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (60,)


def _uri(shop: Workspace) -> str:
    text = (shop.registry / "data.yaml").read_text("utf-8")
    return text.partition('url: "')[2].partition('"')[0]
