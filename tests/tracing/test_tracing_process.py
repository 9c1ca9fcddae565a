"""The shipper as a process, over the real ledger: killed, replaced, stopped, left alone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tracing_factory import Factory

from toolkit.ledger import Ledger
from toolkit.settings import Workspace, open_workspace
from toolkit.tracing import MlflowStore, Shipper, compare_counts
from toolkit.tracing.counts import main as counts
from toolkit.values import CallKind, Decision, Intent, Verdict

pytestmark = pytest.mark.chaos  # it ends processes: `make chaos`, in CI as well

ALLOW = Decision(Verdict.ALLOW)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path) -> Workspace:
    (tmp_path / "toolkit.toml").write_text('user = "ana"\n')
    found = open_workspace(tmp_path)
    (found.state / "mlflow.db").write_bytes(empty_database.read_bytes())
    return found


@pytest.fixture
def ledger(workspace: Workspace) -> Iterator[Ledger]:
    opened = Ledger.open(workspace.database_url)
    yield opened
    opened.close()


@pytest.fixture
def start(workspace: Workspace) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start shipper processes; whatever is left of them at the end is killed by pid."""
    started: list[subprocess.Popen] = []

    def build(*options: str, **environ: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit.tracing.shipper", str(workspace.root), *options],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
        )
        started.append(process)
        return process

    yield build
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def record(ledger: Ledger, make: Factory, count: int, run_id: str = "session-1") -> None:
    """Record an agent with calls in it, and loose calls: ``count`` in all."""
    ledger.create_run(make.run(run_id, mlflow_run_id=None))
    agent = ledger.begin(Intent(run_id, CallKind.AGENT, "review", {"x": 1}), ALLOW).call
    for n in range(count - 1):
        parent = agent.key if n < 20 else None
        intent = Intent(
            run_id, CallKind.MODEL, "default", {"n": n}, parent=parent, request_id=f"{run_id}-{n}"
        )
        ledger.finish(ledger.begin(intent, ALLOW).call, make.answer())
    ledger.finish(agent, make.answer(CallKind.AGENT))


def spans(workspace: Workspace) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(workspace.state / "mlflow.db")) as connection:
        sql = "select trace_id, span_id, type from spans"
        return connection.execute(sql).fetchall()


def test_the_real_ledger_is_shipped(ledger, workspace, make):
    """Calls of the ledger = spans in MLflow, with the ledger's own trace keys."""
    record(ledger, make, 150)
    store = MlflowStore(workspace.mlflow_uri, artifacts=workspace.artifacts)
    assert Shipper(ledger, store.uri, store=store).drain(60) == 0
    (count,) = compare_counts(ledger, store, experiment="toolkit-sandbox")
    assert (count.calls, count.spans) == (150, 150)
    types = [row[2] for row in spans(workspace)]
    assert (types.count("AGENT"), types.count("CHAT_MODEL"), types.count("CHAIN")) == (1, 149, 2)


def test_a_killed_shipper_loses_and_doubles_nothing(ledger, workspace, make, start, capsys):
    """SIGKILL half way: the one that waited for the lock takes over; spans = calls.

    When its parent is gone and nothing is left, it ends by itself.
    """
    total = 1500
    record(ledger, make, total)
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = start("--parent", str(os.getpid()), "--poll", "0.05")
    wait_for(lambda: ledger.unshipped_count() < total, "the first batch")
    second = start("--parent", str(parent.pid), "--poll", "0.05")
    first.kill()
    first.wait()
    left = ledger.unshipped_count()
    wait_for(lambda: ledger.unshipped_count() == 0, "the second shipper to catch up")
    parent.communicate(b"\n")
    assert second.wait(60) == 0
    found = spans(workspace)
    assert len(found) == len({row[:2] for row in found})
    assert sum(row[2] != "CHAIN" for row in found) == total
    assert 0 < left < total
    assert counts([str(workspace.root)]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body == {"calls": total, "spans": total, "unshipped": 0, "different": []}


def test_a_stopped_shipper_drains_first(ledger, workspace, make, start):
    """SIGTERM while calls wait: all of them are shipped, exit code 0."""
    shipper = start("--parent", str(os.getpid()), "--poll", "600")
    wait_for((workspace.state / "shipper.json").exists, "the first look at the empty outbox")
    record(ledger, make, 30)
    shipper.send_signal(signal.SIGTERM)
    assert shipper.wait(150) == 0
    assert ledger.unshipped_count() == 0


def test_without_mlflow_a_stopped_shipper_says_what_is_left(ledger, make, start):
    """One warning, no traceback, no password, exit code 75; the calls stay in the ledger."""
    record(ledger, make, 3)
    shipper = start(TOOLKIT_MLFLOW_URI="http://ana:geheim@127.0.0.1:9")
    lines: list[str] = []
    assert shipper.stderr is not None
    lines.append(shipper.stderr.readline())
    shipper.send_signal(signal.SIGTERM)
    lines += shipper.stderr.readlines()
    assert shipper.wait(150) == 75
    text = "".join(lines)
    assert text.count("shipped later") == 1
    assert "3 calls are not in MLflow yet" in text
    assert "Traceback" not in text
    assert "geheim" not in text
    assert ledger.unshipped_count() == 3


def test_a_shipper_whose_parent_never_lived_ends(start):
    """Nothing to ship and nobody to ship for."""
    ghost = subprocess.Popen([sys.executable, "-c", ""])
    ghost.wait()
    assert start("--parent", str(ghost.pid)).wait(60) == 0


def test_a_folder_that_is_no_workspace_is_a_sentence(start, tmp_path, workspace):
    """Exit code 78 and one line."""
    (tmp_path / "toolkit.toml").unlink()
    process = start()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 78
    assert "Traceback" not in text
    assert "no toolkit.toml" in text


def test_two_processes_may_create_the_database_at_once(tmp_path):
    """The migrations run once, under a lock; both processes end well with one experiment."""
    code = (
        "import sys, pathlib\n"
        "from toolkit.tracing import MlflowStore\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "store = MlflowStore(f'sqlite:///{folder}/mlflow.db', artifacts=folder / 'artifacts')\n"
        "print(store.experiment('x'))\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [text for text, _ in said] == ["1\n", "1\n"]
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"mlflow", "experiments"}


def test_a_process_killed_while_it_creates_the_database_leaves_nothing_behind(tmp_path):
    """Half of MLflow's tables could never be opened again; the next process begins anew."""
    code = (
        "import sys\n"
        "from toolkit.tracing import MlflowStore\n"
        "print(MlflowStore(f'sqlite:///{sys.argv[1]}/mlflow.db').experiment('x'))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    part = tmp_path / "mlflow.db.part"
    first = subprocess.Popen(command, cwd=tmp_path)
    wait_for(lambda: part.exists() and part.stat().st_size > 50_000, "some tables")
    first.kill()
    first.wait()
    assert not (tmp_path / "mlflow.db").exists()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.stdout == "1\n", second.stderr
    assert not part.exists()
