"""A signed workspace at the terminal: whose key signed decides about production, and no name does."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_world import Done, toolkit
from waiting_world import Bank, ask_people, open_bank, paying_job, request_of, run_of
from workspace_world import end_gateway, write_workspace

from toolkit.app.trusting import open_registry
from toolkit.client import Connection, ensure_gateway, wire
from toolkit.errors import ApprovalPending, CallDenied
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, Environment, RunKind, RunRecord, RunState, digest_json


@contextmanager
def acting(name: str, key: Path | None) -> Iterator[None]:
    """Be somebody by name, with somebody's key or with none."""
    given = {"TOOLKIT_USER": name} | ({"TOOLKIT_SIGNING_KEY": f"file:{key}"} if key else {})
    os.environ.update(given)
    try:
        yield
    finally:
        for variable in given:
            del os.environ[variable]


class House:
    """A workspace that ana signed: anna approves calls by people.yaml, carl has a key and no role."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.workspace: Workspace = write_workspace(root)
        self.keys = root.parent

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.pem"

    def act(self, name: str, *arguments: object, key: str | None = None) -> Done:
        """Run a command under a name that may be anybody's, with a key or without."""
        with acting(name, self.key(key) if key else None):
            return toolkit(*arguments)

    def begin(self) -> None:
        """Make the keys, the root without protected aliases, and the policy that asks."""
        public = {}
        for name in ("ana", "anna", "carl"):
            made = self.act(name, "key", "new", self.key(name), "--json")
            assert made.code == 0, made.told
            public[name] = ":".join(made.json[part] for part in ("type", "public"))
        who = ("--name", "Ana", "--email", "ana@example.com")
        begun = self.act("ana", "trust", "init", "ana", *who, "--unprotected", key="ana")
        assert begun.code == 0, begun.told
        for name in ("anna", "carl"):
            who = ("--name", name, "--email", f"{name}@example.com", "--key", public[name])
            added = self.act(
                "ana", "trust", "add-person", name, *who, "--role", "approver", key="ana"
            )
            assert added.code == 0, added.told
        ask_people(self.workspace)

    def decide(self, name: str, asked: str, *choice: str, key: str | None = None) -> Done:
        return self.act(name, "decide", asked, *choice, "--yes", "--json", key=key)

    def edit(self, statement: str, **values: Any) -> None:
        """Change the ledger's database behind its back."""
        path = self.workspace.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            assert connection.execute(statement, values).rowcount == 1
            connection.commit()


@pytest.fixture(scope="module")
def signed_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all tests of this module."""
    house = House(tmp_path_factory.mktemp("signed") / "ws")
    before = Path.cwd()
    os.chdir(house.workspace.root)
    house.begin()
    os.chdir(before)
    yield house
    end_gateway(house.workspace)


@pytest.fixture
def house(signed_workspace: House, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.chdir(signed_workspace.workspace.root)
    return signed_workspace


class Job:
    """A production run of emil's that pays, through the real gateway."""

    def __init__(self, house: House, name: str) -> None:
        workspace, token = house.workspace, new_token()
        ensure_gateway(workspace.root)
        with Ledger.open(workspace.database_url) as ledger:
            ledger.create_run(
                RunRecord(
                    run_id=name,
                    kind=RunKind.RUN,
                    environment=Environment.PRODUCTION,
                    user="emil",
                    state=RunState.RUNNING,
                    token_digest=token_digest(token),
                )
            )
        self.connection = Connection(str(workspace.socket), root=workspace.root, token=token).open()
        self.request = self.connection.identify(
            CallKind.TOOL, "pay", {"recipient": "ben ltd", "amount": 120}, effect="write"
        )

    def pay(self) -> dict[str, Any]:
        return self.connection.post(wire.BEGIN, self.request)

    def asks(self) -> str:
        """Make the call, which waits; return the request's id."""
        with pytest.raises(ApprovalPending) as told:
            self.pay()
        asked: str = told.value.details["approval"]["id"]
        return asked


@pytest.fixture
def job(house: House, request: pytest.FixtureRequest) -> Iterator[Job]:
    name = request.node.name.removeprefix("test_")
    made = Job(house, f"run-{digest_json(name)[7:23]}")
    yield made
    made.connection.close()


def test_a_name_decides_nothing_and_a_key_does(house: House, job: Job) -> None:
    """The error says how to name a key; who decided is whose key signed, wherever it is shown."""
    asked = job.asks()
    nameless = house.act("anna", "decide", asked, "approve", "--yes")
    assert nameless.code == 78
    assert "no key is named to sign with" in nameless.err
    assert "toolkit key use URI" in nameless.err
    other = house.act("anna", "decide", asked, "approve", "--yes", key="carl")
    assert (other.code, "carl does not have the role approver" in other.err) == (1, True)
    shown = house.act("anna", "decide", asked).out
    assert "no key is named to sign with" in shown
    (listed,) = house.act("nobody", "inbox", "--json", key="anna").json
    assert (listed["why_not"], listed["signed"]) == (None, None)

    done = house.decide("mallory", asked, "approve", "--reason", "known", key="anna").json
    assert (done["decided_by"], done["signed"]["person"], done["fault"]) == ("anna", "anna", None)
    reply = job.pay()
    assert (reply["outcome"], reply["decision"]["verdict"]) == (None, "allow")
    short = done["signed"]["key"].removeprefix("sha256:")[:8]
    assert f"by anna with the key {short}" in house.act("ana", "decide", asked).out
    assert f"signed {short}" in " ".join(house.act("ana", "inbox", "--all").out.split())
    record = next(
        record
        for record in open_registry(house.workspace).audit()
        if record.body.get("approval") == asked
    )
    assert (record.by, record.body["key"]) == ("anna", done["signed"]["key"])
    assert record.body["signed"] == done["signed"]["digest"]
    told = house.act("ana", "show", job.connection.run_id, "--json").json
    (call,) = told["calls"]
    assert call["approval"]["signed"] == done["signed"]
    listed = house.act("ana", "show", job.connection.run_id).out
    assert f"signed with the key {short}" in " ".join(listed.split())


def test_rejecting_takes_no_key(house: House, job: Job) -> None:
    """It lets nothing in."""
    done = house.decide("anna", job.asks(), "reject", "--reason", "no").json
    assert (done["state"], done["decided_by"], done["signed"]) == ("rejected", "anna", None)
    assert job.pay()["outcome"]["state"] == "denied"


def test_an_answer_that_was_written_into_the_database_lets_nothing_in(
    house: House, job: Job
) -> None:
    """The reason says what is missing, where the caller and the people look."""
    asked = job.asks()
    with Ledger.open(house.workspace.database_url) as ledger:
        digest = ledger.approval(asked).digest
        ledger.answer(asked, by="anna", verdict="approved", digest=digest)
    shown = house.act("ana", "decide", asked, "--json").json
    assert shown["fault"] == "the registry is signed, and anna did not sign that it is approved"
    outcome = job.pay()["outcome"]
    assert outcome["state"] == "denied"
    assert "anna did not sign that it is approved" in outcome["error"]["message"]


@pytest.mark.parametrize("approver", ["approver", None])
def test_a_decision_that_was_written_into_the_database_lets_nothing_in(
    house: House, job: Job, approver: str | None
) -> None:
    """As if policy had allowed the call outright, or somebody had been asked before."""
    job.asks()
    with Ledger.open(house.workspace.database_url) as ledger:
        (call,) = ledger.calls(job.connection.run_id)
    forged = {
        "verdict": "allow",
        "policies": ["tools"],
        "reasons": [],
        "policy_digest": call.decision.policy_digest,
        "production_verdict": None,
        "production_reasons": [],
    } | ({"approver": approver} if approver else {})
    house.edit(
        "UPDATE calls SET verdict = 'allow', decision = :decision WHERE run_id = :run",
        decision=json.dumps(forged),
        run=job.connection.run_id,
    )
    with pytest.raises(CallDenied, match=r"the request is pending|nobody was asked"):
        job.pay()


# -- a job, from its start to its end ------------------------------------------------------------


@pytest.fixture
def bank() -> Iterator[Bank]:
    with open_bank() as made:
        yield made


@pytest.mark.slow
def test_a_job_that_waits_goes_on_with_a_signature_only(house: House, bank: Bank) -> None:
    """A forged name is refused at the terminal, a forged row when the run goes on; then one payment."""
    with acting("ana", house.key("ana")):
        name = paying_job(house.workspace, bank, "pay-signed")
    for run_id in ("run-forged", "run-signed"):
        again = ("run", f"{name}@production", "--run-id", run_id, "--leave", "--json")
        assert house.act("emil", *again).code == 3
        asked = request_of(house.workspace, run_id)
        refused = house.act("anna", "decide", asked.id, "approve", "--yes")
        assert (refused.code, "no key is named" in refused.err) == (78, True)
        if run_id == "run-forged":
            with Ledger.open(house.workspace.database_url) as ledger:
                ledger.answer(asked.id, by="anna", verdict="approved", digest=asked.digest)
            ended = house.act("emil", *again)
            assert ended.code != 0
            assert "anna did not sign that it is approved" in ended.told
            assert run_of(house.workspace, run_id).state is not RunState.SUCCEEDED
            assert bank.paid == []
            continue
        assert house.decide("emil", asked.id, "approve", key="anna").code == 0
        done = house.act("emil", *again)
        assert (done.code, done.json["results"]["said"]) == (0, "paid"), done.told
        assert bank.paid == ["ben ltd 120.0"]
