"""A run waits for a person; the machine that ran it is destroyed; another one finishes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chaos_world import shippers
from waiting_world import ask_people, audited, open_bank, paying_job, request_of, run_of
from workspace_world import end_gateway, write_workspace

from benchmarks.waiting import measure
from toolkit.gateway import read_record
from toolkit.ledger import Ledger, is_alive
from toolkit.settings import Workspace, open_workspace
from toolkit.values import RunState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SHARED = (
    'user = "ana"\ndatabase_url = "{ledger}"\nengine_url = "{engine}"\nmlflow_uri = "{mlflow}"\n'
)


@pytest.fixture
def bank():
    with open_bank() as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path, postgres: dict[str, str]) -> dict[str, str]:
    """What two machines share: a database server, and MLflow."""
    return {**postgres, "mlflow": f"sqlite:///{tmp_path / 'mlflow.db'}"}


class Machine:
    """A directory with a workspace, and the worker that runs in it."""

    def __init__(self, root: Path, shared: dict[str, str]) -> None:
        self.root = root
        (root / "toolkit.toml").write_text(SHARED.format(**shared))
        self.workspace: Workspace = open_workspace(root)
        self.worker: subprocess.Popen[bytes] | None = None

    def toolkit(self, *arguments: str, user: str = "ana") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TOOLKIT_USER": user},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def work(self) -> None:
        with (self.root / "worker.log").open("wb") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "toolkit", "worker"],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def log(self) -> str:
        return (self.root / "worker.log").read_text()

    def pids(self) -> list[int]:
        """Everything that runs for this machine."""
        found = []
        if self.worker is not None and self.worker.poll() is None:
            children = psutil.Process(self.worker.pid).children(recursive=True)
            found += [self.worker.pid, *(child.pid for child in children)]
        record = read_record(self.workspace.state)
        if record is not None and is_alive(record.pid):
            found.append(record.pid)
        return [*found, *shippers(self.workspace)]

    def destroy(self) -> None:
        """Cut the power, and throw the disk away."""
        for pid in self.pids():
            try:
                psutil.Process(pid).kill()
            except psutil.NoSuchProcess:
                continue
        if self.worker is not None:
            self.worker.wait()
        shutil.rmtree(self.root)

    def stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            try:
                self.worker.wait(40)
            except subprocess.TimeoutExpired:
                self.worker.kill()
                self.worker.wait()
        if self.root.exists():
            end_gateway(self.workspace)


def until_state(machine: Machine, run_id: str, *states: RunState) -> None:
    deadline = time.monotonic() + 240
    while True:
        with Ledger.open(machine.workspace.database_url) as ledger:
            found = [run for run in ledger.runs() if run.run_id == run_id]
        if found and found[0].state in states:
            return
        assert time.monotonic() < deadline, (found, machine.log())
        assert machine.worker is None or machine.worker.poll() is None, machine.log()
        time.sleep(0.2)


def test_another_machine_finishes_what_a_destroyed_one_was_waiting_for(
    tmp_path: Path, shared: dict[str, str], bank
) -> None:
    """One payment, one approval in the audit log; the chain of the run is whole."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    workspace = write_workspace(first)
    ask_people(workspace)
    job = paying_job(workspace, bank)
    a = Machine(first, shared)
    shutil.copytree(first, second, ignore=shutil.ignore_patterns(".toolkit"))
    b = Machine(second, shared)
    try:
        a.toolkit("run", f"{job}@production", "--no-wait", "--run-id", "run-far")
        a.work()
        until_state(a, "run-far", RunState.WAITING)
        asked = request_of(b.workspace, "run-far")
        assert run_of(b.workspace, "run-far").runner is None
        a.destroy()
        b.toolkit("decide", asked.id, "approve", "--yes", user="anna")
        b.work()
        until_state(b, "run-far", *(state for state in RunState if state.terminal))
        record = run_of(b.workspace, "run-far")
        assert (record.state, record.message) == (RunState.SUCCEEDED, None), b.log()
        assert bank.paid == ["ben ltd 120.0"]
        assert audited(b.workspace, asked.id) == 1
        b.toolkit("ledger", "verify")
        with Ledger.open(b.workspace.database_url) as ledger:
            assert ledger.totals("run-far").by_kind == {"model": 1, "tool": 1, "result": 2}
            assert ledger.results("run-far")["said"] == "paid"
    finally:
        if a.root.exists():
            a.destroy()
        b.stop()


def test_a_decision_whose_wake_was_lost_and_a_deadline_are_found_by_the_worker(
    workspace: Workspace, bank
) -> None:
    """The ledger's word is enough: whoever decided died before it could wake anybody."""
    ask_people(workspace, expires="25s")
    job = paying_job(workspace, bank)
    machine = Machine(workspace.root, {"ledger": "", "engine": "", "mlflow": ""})
    try:
        for name in ("run-lost", "run-late"):
            machine.toolkit("run", f"{job}@production", "--no-wait", "--run-id", name)
        machine.work()
        for name in ("run-lost", "run-late"):
            until_state(machine, name, RunState.WAITING)
        asked = request_of(workspace, "run-lost")
        with Ledger.open(workspace.database_url) as ledger:  # past every command: nobody is woken
            ledger.answer(asked.id, by="anna", verdict="approved", digest=asked.digest)
        for name in ("run-lost", "run-late"):
            until_state(machine, name, *(state for state in RunState if state.terminal))
        assert run_of(workspace, "run-lost").state is RunState.SUCCEEDED
        late = run_of(workspace, "run-late")
        assert (late.state, late.cause) == (RunState.DENIED, "policy")
        assert bank.paid == ["ben ltd 120.0"]
    finally:
        machine.stop()


def test_three_hundred_runs_are_woken_by_the_sweep_alone_and_finish_once() -> None:
    """The decisions are in the ledger, and nobody told the queue."""
    seen = measure(300, slots=16, idle_s=1.0)
    assert seen.runs == 300
