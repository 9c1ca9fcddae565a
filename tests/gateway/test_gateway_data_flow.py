"""Data flow at the data door: what a notebook gives to a source is labelled, screened and decided."""

from __future__ import annotations

import http.server
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from gateway_world import open_run
from loopback_world import serving
from workspace_world import RULES, end_gateway, write_workspace

import toolkit
from toolkit.app.policies import mine_bundle
from toolkit.app.workbench import open_workbench
from toolkit.client import Connection, ensure_gateway, wire
from toolkit.client import connection as kernel
from toolkit.errors import CallDenied, ToolkitError, UsageError
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import DataClass, Environment, RunKind, Source

SECRET = "sk-proj-" + "Ab3dEf6hIj9kLmNoPqRsTuVwXyZ0123456789abcdefT3BlbkFJ"
DIAGNOSIS = "acute lymphoblastic leukaemia"

DATA = """
sources:
  patients:
    kind: sql
    url: sqlite:///clinic.db
    labels: {{classes: [confidential], sources: [internal]}}
    columns: {{patients.name: {{classes: [pii]}}, patients.diagnosis: {{classes: [pii]}}}}
    region: eu
  notes:
    kind: sql
    url: sqlite:///notes.db
    labels: {{classes: [internal], sources: [internal]}}
    writable: true
  house:
    kind: http
    url: http://127.0.0.1:{port}
    allow_private: [127.0.0.0/8]
    labels: {{classes: [public], sources: [internal]}}
  outside:
    kind: http
    url: http://127.0.0.1:{port}
    allow_private: [127.0.0.0/8]
    external: true
    region: us
    labels: {{classes: [public], sources: [untrusted]}}
  sneaky:
    kind: http
    url: http://127.0.0.1:{port}
    labels: {{classes: [public], sources: [untrusted]}}
  files:
    kind: files
    url: files
    labels: {{classes: [internal], sources: [internal]}}
"""

CEDAR = """
@id("data") permit(principal, action == Action::"call_data", resource);
@id("personal-data-stays") @reason("personal data does not leave the house")
forbid(principal, action in [Action::"call_tool", Action::"call_data"], resource)
when { context.external && context.classes.contains("pii") };
@id("no-writing-down") @reason("what is confidential is not written down elsewhere")
forbid(principal, action == Action::"call_data", resource == Data::"notes")
when { context.write && context.classes.contains("confidential") };
@id("eu-only") @reason("outsiders' words go to no other region")
forbid(principal, action == Action::"call_data", resource)
when { context has region && context.region == "us" && context.tainted.contains("parameters") };
@id("local-host") @reason("this host is closed")
forbid(principal, action == Action::"call_data", resource)
when { context has host && context.host != "127.0.0.1" };
@id("no-salaries") @reason("salaries are closed")
forbid(principal, action == Action::"call_data", resource)
when { context.tables.contains("salaries") || context.columns.contains("patients.insurance") };
@id("no-letters") @reason("letters are closed")
forbid(principal, action == Action::"call_data", resource == Data::"files")
when { context.tables.contains("letters/kim.txt") };
@id("classes") @reason("this model may not see data of that class")
forbid(principal, action == Action::"call_model", resource == Route::"open")
when { context.classes.contains("pii") };
"""
ROUTES = """
  open:
    provider: script
    model: scripted-4
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
  narrow:
    max_tokens: 64
    targets:
      - provider: script
        model: scripted-5
        when: {classes: [public]}
        price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
"""


class _Service(http.server.BaseHTTPRequestHandler):
    """Answers everything with a row; notes what it was asked."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'[{"word": "Visit informatik today"}]')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def fill(root: Path) -> None:
    with sqlite3.connect(root / "clinic.db") as connection:
        connection.execute(
            "CREATE TABLE patients (id integer, name text, diagnosis text, pin text, insurance text)"
        )
        connection.execute("CREATE TABLE salaries (id integer, amount real)")
        connection.execute("CREATE VIEW paid AS SELECT amount FROM salaries")
        row = (1, "Fischer", DIAGNOSIS, "4711", "none")
        connection.execute("INSERT INTO patients VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    with sqlite3.connect(root / "notes.db") as connection:
        connection.execute("CREATE TABLE notes (id integer, text text)")
    connection.close()
    (root / "files" / "letters").mkdir(parents=True)
    (root / "files" / "letters" / "kim.txt").write_text("hello", "utf-8")
    (root / "files" / "plan.csv").write_text("id\n1\n", "utf-8")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a clinic's database, a service on loopback, and the gateway."""
    root = tmp_path_factory.mktemp("clinic") / "ws"
    root.mkdir()
    made = write_workspace(root)
    models = root / "registry" / "models.yaml"
    models.write_text(models.read_text("utf-8") + ROUTES, "utf-8")
    rules = root / "registry" / "policies" / "production" / "rules.cedar"
    rules.write_text(RULES + CEDAR, "utf-8")
    fill(root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    (root / "registry" / "data.yaml").write_text(DATA.format(port=server.server_port), "utf-8")
    with pytest.MonkeyPatch.context() as patch, serving(server):
        patch.chdir(root)
        ensure_gateway(root)
        yield made
        end_gateway(made)


@pytest.fixture
def in_run(clinic: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Make ``toolkit.data`` speak for a production run."""
    monkeypatch.chdir(clinic.root)
    kernel.disconnect()

    def be(run_id: str, **facts) -> Connection:
        made = open_run(clinic, run_id, **facts)
        monkeypatch.setenv(wire.ENV_SOCKET, str(clinic.socket))
        monkeypatch.setenv(wire.ENV_TOKEN, str(made._token))
        kernel.disconnect()
        toolkit.connect()
        return made

    yield be
    kernel.disconnect()


def calls(workspace: Workspace, run_id: str):
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.calls(run_id)


def patient(column: str = "name, diagnosis, pin") -> dict:
    """Read the only patient."""
    return toolkit.data("patients").query(f"SELECT {column} FROM patients").iloc[0].to_dict()


def test_a_confidential_value_is_not_written_down_elsewhere(clinic, in_run):
    """As a parameter, and as a text or a number in the statement."""
    in_run("run-flow-1")
    row = patient()
    notes = toolkit.data("notes")
    for value in (row["diagnosis"], row["pin"], f"he has {row['diagnosis']}, since May"):
        with pytest.raises(CallDenied, match="not written down elsewhere"):
            notes.execute("INSERT INTO notes (text) VALUES (:v)", {"v": value})
        with pytest.raises(CallDenied, match="not written down elsewhere"):
            notes.execute(f"INSERT INTO notes (text) VALUES ('{value}')")
    with pytest.raises(CallDenied, match="not written down elsewhere"):
        notes.execute("INSERT INTO notes (id) VALUES (4711)")
    assert notes.execute("INSERT INTO notes (text) VALUES (:v)", {"v": "nothing new"}) == 1
    assert notes.query("SELECT text FROM notes")["text"].tolist() == ["nothing new"]


def test_personal_data_does_not_leave_in_a_query_string_or_a_path(clinic, in_run):
    """A service outside is told nothing; the same service inside of the house is."""
    in_run("run-flow-2")
    name = patient("name")["name"]
    _Service.seen.clear()
    for ask_it in (
        lambda: toolkit.data("outside").read("who", {"name": name}),
        lambda: toolkit.data("outside").read(f"who/{name}/x"),
        lambda: toolkit.data("outside").read("who", {"q": f"ill: {name}"}),
        lambda: toolkit.data("outside").read("who", {"q": "kim.lee@home.example"}),  # by its form
    ):
        with pytest.raises(CallDenied, match="personal data does not leave the house"):
            ask_it()
    assert _Service.seen == []
    assert len(toolkit.data("house").read("who", {"name": name})) == 1
    assert _Service.seen == [f"/who?name={name}"]


def test_what_outsiders_chose_goes_to_no_other_region(clinic, in_run):
    """`region` of the catalog, and where the values of parameters came from."""
    in_run("run-flow-3")
    outside = toolkit.data("outside")
    word = outside.read("word", {"q": "hello there"})["word"][0]
    with pytest.raises(CallDenied, match="no other region"):
        outside.read("word", {"q": f"so: {word}"})
    assert len(outside.read("word", {"q": "hello there"})) == 1  # the notebook's own words


def test_labels_of_values_are_recorded_and_values_are_not(clinic, in_run):
    """The record has who chose the parameters and what they tell, and their digest."""
    in_run("run-flow-4")
    name = patient("name")["name"]
    toolkit.data("notes").query("SELECT id FROM notes WHERE text = :v", {"v": name})
    toolkit.data("notes").query("SELECT id FROM notes WHERE text = :v", {"v": "new"})
    _, second, third = calls(clinic, "run-flow-4")
    assert second.intent.labels["parameters"].classes == {
        DataClass.CONFIDENTIAL,
        DataClass.PII,
    }
    assert third.intent.labels["parameters"].classes == frozenset()
    assert third.intent.labels["parameters"].sources == {Source.USER}
    assert name not in json.dumps(second.intent.arguments)
    assert second.outcome.answer["tables"] == ["notes"]
    assert second.outcome.answer["reads"] == ["notes.id", "notes.text"]


def test_a_secret_is_sent_to_no_source(clinic, in_run):
    """Neither as a parameter nor in a query string; the refusal is recorded without it."""
    in_run("run-flow-5")
    _Service.seen.clear()
    with pytest.raises(UsageError, match="the parameter v holds a secret"):
        toolkit.data("notes").execute("INSERT INTO notes (text) VALUES (:v)", {"v": SECRET})
    with pytest.raises(UsageError, match="the parameter q holds a secret"):
        toolkit.data("house").read("who", {"q": SECRET})
    assert _Service.seen == []
    for path in (clinic.root / ".toolkit").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_service_whose_address_is_inside_is_not_asked(clinic, in_run):
    """Unless its network is written down; the error names the file."""
    in_run("run-flow-6")
    _Service.seen.clear()
    with pytest.raises(CallDenied, match="the gateway's own machine") as caught:
        toolkit.data("sneaky").read("who")
    assert "allow_private of sneaky in registry/data.yaml" in str(caught.value.next_step)
    assert _Service.seen == []


def test_a_listing_shows_what_may_be_read(clinic, in_run):
    """Neither a forbidden table, nor a view of it, nor a forbidden column, nor a closed file."""
    in_run("run-flow-7")
    listed = toolkit.data("patients").tables()
    assert set(listed["table"]) == {"patients"}
    assert listed["column"].tolist() == ["id", "name", "diagnosis", "pin"]
    assert toolkit.data("files").tables()["table"].tolist() == ["plan.csv"]
    with pytest.raises(ToolkitError, match="has no table 'wages'") as caught:
        toolkit.data("patients").query("SELECT count(*) FROM wages")
    assert "salaries" not in str(caught.value)


def test_a_name_inside_of_a_question_keeps_its_class(clinic, in_run):
    """A column that is about persons does not go to a model that may not see it."""
    in_run("run-flow-8")
    row = patient()
    for text in (
        f"Summarise: {row['name']} is ill",
        f"What is {row['diagnosis'].upper()}, please?",
    ):
        with pytest.raises(CallDenied, match="may not see data of that class"):
            toolkit.model(text, route="open")
    assert toolkit.model("What is a leukaemia?", route="open").text


def test_embeddings_of_personal_data_go_to_no_target_that_may_not_see_it(clinic, in_run):
    """Like questions; the refusal is recorded with its reason."""
    connection = in_run("run-flow-9")
    name = patient("name")["name"]
    answered = [embed(clinic, connection, text) for text in ("hello", f"dear {name}")]
    assert [answer.status_code for answer in answered] == [200, 400]
    assert "takes no confidential or pii data" in answered[1].text
    assert calls(clinic, "run-flow-9")[-1].decision.policies == ("no-target",)


def embed(workspace: Workspace, connection: Connection, text: str) -> httpx.Response:
    """Ask for a vector as an SDK does."""
    transport = httpx.HTTPTransport(uds=str(workspace.socket))
    headers = {"authorization": f"Bearer {connection._token}"}
    with httpx.Client(transport=transport, base_url="http://gateway", headers=headers) as client:
        return client.post("/v1/embeddings", json={"model": "narrow", "input": [text]})


def test_a_mined_bundle_permits_the_columns_that_were_read(clinic, in_run):
    """Tables and columns are in the record, so the proposal names them."""
    in_run("run-flow-10", kind=RunKind.SESSION, environment=Environment.SANDBOX)
    patient("name, pin")
    toolkit.data("files").read("plan.csv")
    with open_workbench(clinic.root) as bench:
        mined = mine_bundle(bench, "run-flow-10")
    text = mined.files["policies/production/mined.cedar"]
    assert '["patients"].containsAll(context.tables)' in text
    assert '["patients.name", "patients.pin"].containsAll(context.columns)' in text
    assert '["plan.csv"].containsAll(context.tables)' in text
    assert '["id"].containsAll(context.columns)' in text
    assert not [note for note in mined.notes if note.startswith("data")]
