"""The real ``toolkit worker``: a process, its host, its teller, and nothing left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cli_world import seal, toolkit

from toolkit.kernels import stop_zygotes
from toolkit.ledger import Ledger, is_alive
from toolkit.settings import Workspace
from toolkit.tracing import MlflowStore
from toolkit.values import RunRecord, RunState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Wait = Callable[[Callable[[], bool], str], None]
# Ends when the file of its number is there; number 0 ends at once.
HELD = """import time
from pathlib import Path
while limit and not (Path({root!r}) / f"go-{{limit}}").exists():
    time.sleep(0.05)"""
# They serve whoever works in the workspace, and end when nobody does.
SHARED = {"toolkit.app.serve", "toolkit.tracing.shipper", "toolkit.kernels.zygote"}
TINY = "toolkit.result(total=1)"


class Plant:
    """A workspace with ``toolkit worker`` as people start it."""

    def __init__(self, workspace: Workspace, wait_for: Wait) -> None:
        self.workspace, self.wait_for = workspace, wait_for
        self.ledger = Ledger.open(workspace.database_url)
        self.log = workspace.root / "worker.log"
        with self.log.open("wb") as file:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "toolkit", "worker", "--slots", "3"],
                cwd=workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self.seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """Return what the worker has started, and remember it."""
        found = psutil.Process(self.worker.pid).children(recursive=True)
        self.seen |= {process.pid: process for process in found}
        return found

    def named(self, module: str) -> list[int]:
        """Return the worker's own children that run a module."""
        found = []
        for process in self.look():
            with suppress(psutil.Error):
                if process.ppid() == self.worker.pid and module in process.cmdline():
                    found.append(process.pid)
        return found

    def submit(self, run_id: str, number: int = 0) -> None:
        options = ("--no-wait", "--run-id", run_id, "-p", f"limit={number}")
        done = toolkit("run", "tiny@production", *options)
        assert done.code == 0, done.told

    def release(self, number: int) -> None:
        (self.workspace.root / f"go-{number}").touch()

    def record(self, run_id: str) -> RunRecord | None:
        return {run.run_id: run for run in self.ledger.runs(limit=500)}.get(run_id)

    def ended(self, run_id: str) -> RunRecord:
        def look() -> bool:
            assert self.worker.poll() is None, self.log.read_text()
            self.look()
            run = self.record(run_id)
            return run is not None and run.state.terminal

        self.wait_for(look, f"the end of {run_id}")
        found = self.record(run_id)
        assert found is not None
        return found

    def runner(self, run_id: str) -> psutil.Process:
        """Return the process of a run that is held."""

        def look() -> bool:
            run = self.record(run_id)
            return run is not None and run.state is RunState.RUNNING and run.runner is not None

        self.wait_for(look, f"{run_id} to run")
        run = self.record(run_id)
        assert run is not None
        return psutil.Process(int(str(run.runner).split(":")[1]))

    def hosted_run(self) -> int:
        """Hold a run that was forked: while the host imports, runs start as programs."""
        for number in range(1, 20):
            self.submit(f"run-{number}", number)
            process = self.runner(f"run-{number}")
            if [process.ppid()] == self.named("toolkit.scheduling.host"):
                return number
            self.release(number)
            self.ended(f"run-{number}")
        raise AssertionError(f"no run was forked: {self.log.read_text()}")

    def left(self) -> list[list[str]]:
        """Return the commands of what the worker started and left, but for what is shared."""
        found = []
        for process in self.seen.values():
            with suppress(psutil.Error):
                if is_alive(process) and not SHARED & set(process.cmdline()):
                    found.append(process.cmdline())
        return found

    def close(self) -> None:
        self.ledger.close()
        if self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        stop_zygotes(self.workspace.state / "zygotes")


@pytest.fixture
def plant(workspace: Workspace, wait_for: Wait) -> Iterator[Plant]:
    seal(workspace, "tiny", HELD.format(root=str(workspace.root)), TINY)
    made = Plant(workspace, wait_for)
    yield made
    made.close()


def told_by_mlflow(workspace: Workspace) -> list[str]:
    """Return the run ids that MLflow shows, in the job's experiment."""
    client = MlflowStore(workspace.mlflow_uri).client
    experiment = client.get_experiment_by_name("tiny")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    assert all(run.info.status == "FINISHED" for run in found)
    return sorted(run.data.tags["toolkit.run"] for run in found)


def opens_mlflow(process: psutil.Process) -> bool:
    return any(Path(file.path).name.startswith("mlflow.db") for file in process.open_files())


def test_a_worker_runs_tells_and_ends(plant: Plant, wait_for: Wait) -> None:
    """Queue and schedule, one host and one teller for all, drained at SIGTERM, nothing left."""
    held = plant.hosted_run()
    forked = f"run-{held}"
    (host,) = plant.named("toolkit.scheduling.host")
    assert not opens_mlflow(plant.runner(forked))
    assert not opens_mlflow(psutil.Process(host))
    names = ["run-a", "run-b", "run-c"]
    for name in names:
        plant.submit(name)
    for name in names:
        run = plant.ended(name)
        assert run.state is RunState.SUCCEEDED, run.message
        assert plant.ledger.results(name) == {"total": 1}

    added = toolkit("schedule", "add", "tiny@production", "--cron", "*/2 * * * * *", "--name", "s", "-p", "limit=0")  # fmt: skip
    assert added.code == 0, added.told

    def ticked() -> list[RunRecord]:
        plant.look()
        runs = plant.ledger.runs(limit=500)
        return [r for r in runs if r.tags.get("schedule") == "s" and r.state is RunState.SUCCEEDED]

    wait_for(lambda: bool(ticked()), "a run of the schedule")
    assert toolkit("schedule", "remove", "s").code == 0
    assert plant.named("toolkit.scheduling.host") == [host]
    (teller,) = plant.named("toolkit.app.telling")

    plant.worker.send_signal(signal.SIGTERM)  # with a run in hand
    wait_for(lambda: " runs have " in plant.log.read_text(), "the worker to be told")
    plant.release(held)
    assert plant.worker.wait(60) == 0, plant.log.read_text()
    assert plant.log.read_text().rstrip().endswith("worker ended")
    assert "warning" not in plant.log.read_text()
    drained = plant.record(forked)
    assert drained is not None
    assert drained.state is RunState.SUCCEEDED, "a run in hand is given the time to end"
    assert {host, teller} <= set(plant.seen)
    assert plant.left() == []
    states = {run.run_id: run.state for run in plant.ledger.runs(limit=500)}
    done = sorted(run_id for run_id, state in states.items() if state is RunState.SUCCEEDED)
    # On a busy machine a tick may come while the run of the one before goes on.
    assert set(states.values()) <= {RunState.SUCCEEDED, RunState.SKIPPED}
    assert told_by_mlflow(plant.workspace) == done
    assert plant.ledger.verify() == []
