"""`replay`: an audit of a recorded run, and what a newer version would do with it."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cli_world import notebook_text, seal, toolkit

from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallState, Effect, Intent, Outcome, RunState

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="a replay needs bubblewrap: apt install bubblewrap"
)

WRITE = """from pathlib import Path
@toolkit.tool(effect="write")
def write_file(line: str) -> int:
    \"\"\"Appends.\"\"\"
    with Path("lines.txt").open("a") as file:
        file.write(line)
    return len(line)"""
CELLS = (
    WRITE,
    "text = toolkit.model('what is due?').text",
    "moment, number, name = toolkit.now(), toolkit.random().random(), toolkit.uuid()",
    "size = write_file(text)",
    "toolkit.result(size=size, made=[moment.isoformat(), number, str(name)])",
)


@pytest.fixture(scope="module")
def recorded(shared_workspace, tmp_path_factory):
    """A finished run of version 1; version 2 writes something else, version 3 only prints more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_workspace.root)
        seal(shared_workspace, "dunning", *CELLS)
        seal(
            shared_workspace,
            "dunning",
            *CELLS[:3],
            "size = write_file(text.upper())",
            CELLS[4],
            alias=None,
        )
        seal(shared_workspace, "dunning", *CELLS[:4], "print('more')", CELLS[4], alias=None)
        done = toolkit("run", "dunning@production", "--run-id", "run-replayed", "--json")
        assert done.code == 0, done.told
        return done.json  # fmt: skip


def test_a_replay_gives_the_same_from_the_journal_alone(workspace, recorded) -> None:
    """Time, numbers and ids come out again; no call is recorded anew and no body of a tool runs."""
    policy = workspace.registry / "policies" / "production" / "rules.cedar"
    kept = policy.read_text()
    try:
        # Today everything is denied.
        policy.write_text('@id("nothing") forbid(principal, action, resource);\n')
        done = toolkit("replay", recorded["run_id"], "--json")
    finally:
        policy.write_text(kept)
    told = done.json
    assert (done.code, told["same"], told["difference"]) == (0, True, None)
    assert (told["calls_asked"], told["calls_recorded"]) == (4, 4)
    assert (told["results"], told["results_equal"]) == (2, True)
    assert not (workspace.runs / told["replay"] / "work" / "lines.txt").exists()
    with Ledger.open(workspace.database_url) as ledger:
        assert ledger.calls(told["replay"]) == []
        assert ledger.get_run(told["replay"]).state is RunState.SUCCEEDED


def test_a_newer_version_is_told_by_the_first_call_that_differs(workspace, recorded) -> None:
    """For people: the verdict, and the argument before and after."""
    done = toolkit("replay", recorded["run_id"], "--with", "dunning@2")
    assert done.code == 1
    assert "finishes on the old version" in done.out
    assert 'line: "an answer" → "AN ANSWER"' in done.out


@pytest.mark.slow
def test_waiting_runs_are_tried_before_an_upgrade(workspace, recorded) -> None:
    """A journal reaches to the call that waits; what comes after it is nobody's concern yet."""
    with Ledger.open(workspace.database_url) as ledger:
        run = ledger.get_run(recorded["run_id"])
        ledger.create_run(replace(run, run_id="run-waits", state=RunState.RUNNING, ended_us=None))
        for call in ledger.calls(run.run_id)[:4]:
            begun = ledger.begin(replace(call.intent, run_id="run-waits"), call.decision)
            ledger.finish(begun.call, call.outcome)
        asked = replace(ledger.calls(run.run_id)[4].intent, run_id="run-waits")
        assert asked.effect is Effect.WRITE
        ledger.begin(asked, call.decision)
        ledger.update_run("run-waits", state=RunState.WAITING)
    done = toolkit("replay", "--waiting", "--with", "dunning@3", "--json")
    (found,) = done.json["runs"]
    assert (done.code, found["verdict"]) == (0, "safe"), found
    done = toolkit("replay", "--waiting", "--with", "dunning@2")
    assert done.code == 1
    assert "finishes on the old version" in done.out


def test_a_changed_record_is_not_replayed(workspace, recorded) -> None:
    """The chain is verified before anything is executed."""
    assert toolkit("replay", "run-unknown").code == 78
    assert "name one run" in toolkit("replay").told
    with Ledger.open(workspace.database_url) as ledger:
        run = ledger.get_run(recorded["run_id"])
        ledger.create_run(replace(run, run_id="run-edited", state=RunState.RUNNING, ended_us=None))
        intent = Intent("run-edited", CallKind.MODEL, "default", {}, request_id="r")
        begun = ledger.begin(intent, ledger.calls(run.run_id)[0].decision)
        ledger.finish(begun.call, Outcome(CallState.OK, answer={"text": "yes"}))
        ledger.update_run("run-edited", state=RunState.FAILED)
    import sqlite3

    path = workspace.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE entries SET body = replace(body, 'yes', 'no') WHERE run_id = 'run-edited'"
        )
    database.close()
    done = toolkit("replay", "run-edited")
    assert done.code == 78
    assert "faults" in done.told


class Canary:
    """A listener on loopback that counts who comes."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.visits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            self.visits += 1
            peer.sendall(b"x")
            peer.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.server.close()


CONNECT = """import socket
try:
    with socket.create_connection(("127.0.0.1", {port}), 5) as found:
        found.recv(1)
except OSError as error:
    print("no network", error)"""


def test_a_replay_has_no_network(workspace, canary) -> None:
    """Not even of a trial, whose kernel is a person's own: what it reached then, it does not now."""
    path = workspace.root / "notebooks" / "visits.ipynb"
    path.write_text(notebook_text(CONNECT.format(port=canary.port), parameters=None))
    done = toolkit("run", "notebooks/visits.ipynb", "--run-id", "run-visits", "--json")
    assert (done.code, canary.visits) == (0, 1), done.told
    done = toolkit("replay", "run-visits", "--json")
    assert (done.code, canary.visits) == (0, 1), done.told
    with Ledger.open(workspace.database_url) as ledger:
        assert ledger.get_run(done.json["replay"]).tags["isolation"] >= "L2"
    done = toolkit("replay", "run-visits", "--network-not-isolated", "--json")
    assert (done.code, canary.visits) == (0, 2), done.told


def test_a_machine_without_isolation_refuses_a_replay(
    workspace, recorded, monkeypatch, tmp_path
) -> None:
    """Exit code 78, why, and what may be done about it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = toolkit("replay", recorded["run_id"], "--json")
    assert done.code == 78
    assert "has no network" in done.json["error"]["message"]
    assert "--network-not-isolated" in done.json["error"]["next_step"]


def test_a_replay_that_hangs_ends(workspace) -> None:
    """After its limit, and says so."""
    path = workspace.root / "notebooks" / "hangs.ipynb"
    path.write_text(notebook_text("print('short')", parameters=None))
    assert toolkit("run", "notebooks/hangs.ipynb", "--run-id", "run-hangs").code == 0
    path.write_text(notebook_text("import time\ntime.sleep(600)", parameters=None))
    done = toolkit("replay", "run-hangs", "--timeout", "3", "--json")
    assert (done.code, done.json["state"]) == (1, "timed_out"), done.told
