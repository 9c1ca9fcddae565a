"""Two machines, one ledger: a run whose runner died with its machine goes on, one that lives does not.

The machines are processes with names and folders of their own that share the ledger's database only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from cli_world import notebook_text
from postgres_world import postgres_server
from workspace_world import end_gateway, write_workspace

from toolkit.app.cancelling import cancel_run
from toolkit.app.following import Event, Follower
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli.following import show_output
from toolkit.errors import Conflict
from toolkit.execution import RunPlan, RunReport
from toolkit.ledger import MACHINE_VARIABLE, is_here
from toolkit.settings import Workspace, open_workspace
from toolkit.values import Cause, Environment, RunKind, RunRecord, RunState

pytestmark = pytest.mark.slow

LEASE_S = 6.0
RUN = "run-shared"
SCRIPT = Path(__file__).with_name("run_leased.py")

Wait = Callable[[Callable[[], bool], str], None]


@pytest.fixture(scope="module")
def server():
    with postgres_server() as made:
        yield made


@dataclass
class Pair:
    """Machine A, a process, and machine B, this one."""

    a: Workspace
    b: Workspace
    mark: Path
    notebook: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start_a(self) -> subprocess.Popen[str]:
        """Start the run on A; it hangs in its first attempt."""
        argv = [sys.executable, str(SCRIPT), str(self.a.root), RUN, str(LEASE_S)]
        process = subprocess.Popen(
            [*argv, str(self.notebook)],
            env={**os.environ, MACHINE_VARIABLE: "machine-a"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run_b(self, bench: Workbench) -> RunReport:
        """Run the same on B."""
        record = RunRecord(RUN, RunKind.TRIAL, Environment.SANDBOX, "ana")
        return bench.runner.run(RunPlan(record, self.notebook.read_bytes()))


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    url = f"sqlite:///{tmp_path}/shared.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        name = f"machines_{os.urandom(4).hex()}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = server.get_uri(name)
    made = []
    for name in ("a", "b"):
        root = tmp_path / name
        root.mkdir()
        write_workspace(root)
        (root / "toolkit.toml").write_text(f'user = "ana"\ndatabase_url = "{url}"\n')
        made.append(open_workspace(root))
    mark, notebook = tmp_path / "begun", tmp_path / "n.ipynb"
    hang = (
        "print('begun on', __import__('os').getpid(), flush=True)\n"
        f"import pathlib, time\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    time.sleep(600)"
    )
    notebook.write_text(notebook_text(hang, parameters=None))
    monkeypatch.setenv(MACHINE_VARIABLE, "machine-b")
    monkeypatch.chdir(made[1].root)
    world = Pair(made[0], made[1], mark, notebook)
    yield world
    for process in world.started:
        process.kill()
        process.wait()
    for workspace in made:
        end_gateway(workspace)


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_of_a_dead_machine_goes_on_elsewhere_and_one_of_a_living_machine_does_not(
    pair: Pair, wait_for: Wait
) -> None:
    """While A renews its lease, B is told to try again; after A was killed, B takes the run over."""
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    with open_workbench(pair.b.root) as bench:
        run = bench.ledger.get_run(RUN)
        assert run.runner is not None
        assert not is_here(run.runner)
        with pytest.raises(Conflict, match="is being executed by machine-a"):
            pair.run_b(bench)
        assert bench.runner.reconcile() == [], "a living run is left alone"
        with pytest.raises(Conflict, match="not executed by a process of this machine"):
            cancel_run(bench, RUN)
        killed(process)
        report = pair.run_b(bench)
        assert report.run.state is RunState.SUCCEEDED
        assert report.run.runner is not None
        assert report.run.runner.startswith("machine-b:")
        assert bench.ledger.lease(RUN) is None, "what has ended needs no lease"
        assert bench.ledger.verify() == []


def test_what_a_run_prints_is_read_on_another_machine(
    pair: Pair, wait_for: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    """B has not the folder: the shared ledger tells cells and output, while A runs and afterwards."""
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    with open_workbench(pair.b.root) as bench:
        follower, seen = Follower(bench, RUN), list[Event]()

        def told() -> bool:
            seen.extend(follower.look()[1])
            wanted = "output" if bench.ledger.shared else "note"
            return any(event.kind == wanted for event in seen)

        wait_for(told, "news of the run")
        note = next(event.text for event in seen if event.kind == "note")
        assert note.endswith("It is executed on machine-a.")
        if not bench.ledger.shared:
            assert "calls and states only" in note
            return
        assert "output comes every two seconds" in note
        printed = "".join(event.text for event in seen if event.kind == "output")
        assert printed.startswith("begun on ")
        assert "running" in [event.state for event in seen if event.kind == "cell"]
        process.terminate()
        process.wait()
        assert show_output(bench, RUN, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["notebook"]) == ("cancelled", None)
    assert shown["cells"][-1]["status"] == "failed"
    assert shown["cells"][-1]["text"].startswith(printed)


def test_a_run_of_a_dead_machine_that_nobody_takes_up_ends_as_lost(
    pair: Pair, wait_for: Wait
) -> None:
    """`reconcile` of another machine ends it once its lease is over, and it can be resumed."""
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    killed(process)
    with open_workbench(pair.b.root) as bench:
        lost: list[RunRecord] = []

        def found() -> bool:
            lost.extend(bench.runner.reconcile())
            return bool(lost)

        wait_for(found, "the end of the lease")
        assert [(run.run_id, run.state, run.cause) for run in lost] == [
            (RUN, RunState.LOST, Cause.RUNNER_DIED)
        ]
        assert pair.run_b(bench).run.state is RunState.SUCCEEDED


def test_a_run_of_a_dead_machine_can_be_cancelled_elsewhere(pair: Pair, wait_for: Wait) -> None:
    """Not only where its process was."""
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    killed(process)
    with open_workbench(pair.b.root) as bench:
        wait_for(lambda: not bench.ledger.lives(bench.ledger.get_run(RUN)), "the lease's end")
        assert cancel_run(bench, RUN, "wrong month") is RunState.CANCELLED


def test_a_runner_that_slept_too_long_writes_nothing_any_more(pair: Pair, wait_for: Wait) -> None:
    """A is stopped for longer than its lease, B finishes the run; A wakes up, and gives way."""
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    process.send_signal(signal.SIGSTOP)
    with open_workbench(pair.b.root) as bench:
        assert pair.run_b(bench).run.state is RunState.SUCCEEDED
        head = bench.ledger.head(RUN)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=120)
        told = json.loads(out.splitlines()[-1])
        assert told["code"] == 75
        assert "has already ended" in told["message"] or "was taken by" in told["message"]
        assert bench.ledger.head(RUN) == head
        assert bench.ledger.verify() == []


def test_a_runner_that_slept_and_was_not_missed_goes_on(pair: Pair, wait_for: Wait) -> None:
    """Its lease was over for a while, but nobody took the run."""
    pair.notebook.write_text(
        notebook_text(
            f"import pathlib, time\npathlib.Path({str(pair.mark)!r}).touch()\n"
            f"while not pathlib.Path({str(pair.mark) + '-2'!r}).exists():\n    time.sleep(0.05)",
            parameters=None,
        )
    )
    process = pair.start_a()
    wait_for(pair.mark.exists, "the first cell")
    process.send_signal(signal.SIGSTOP)
    with open_workbench(pair.b.root) as bench:
        wait_for(lambda: not bench.ledger.lives(bench.ledger.get_run(RUN)), "the lease's end")
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: bench.ledger.lives(bench.ledger.get_run(RUN)), "its renewal")
        pair.mark.with_name(f"{pair.mark.name}-2").touch()
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert bench.ledger.get_run(RUN).state is RunState.SUCCEEDED
