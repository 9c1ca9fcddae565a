"""MLflow is told how a run ended, even if the run's process died before it could."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator

import nbformat
import pytest

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.execution import QUEUED_TAG, RunPlan, myself
from toolkit.settings import Workspace
from toolkit.values import Environment, RunKind, RunRecord, RunState, new_id


@pytest.fixture
def bench(workspace: Workspace) -> Iterator[Workbench]:
    with open_workbench() as made:
        yield made


def status(workspace: Workspace, run: RunRecord) -> str:
    """MLflow's status of a run, read past MLflow."""
    path = workspace.mlflow_uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        sql = "SELECT status FROM runs WHERE run_uuid = ?"
        return raw.execute(sql, (run.mlflow_run_id,)).fetchone()[0]


def cut_off(bench: Workbench, state: RunState) -> RunRecord:
    """A run of this machine whose process died right after the ledger was told the state."""
    import socket

    record = RunRecord(
        new_id("run"),
        RunKind.RUN,
        Environment.SANDBOX,
        "ana",
        state=RunState.RUNNING,
        job="tick",
        runner=f"{socket.gethostname()}:1:0.00",
    )
    run = bench.ledger.create_run(record)
    mlflow_run_id = bench.tracking.start_run(run)
    return bench.ledger.update_run(run.run_id, state=state, mlflow_run_id=mlflow_run_id)


@pytest.mark.chaos  # it ends a process: `make chaos`, in CI as well
def test_a_run_whose_process_died_before_mlflow_was_told_is_told_at_the_next_look(
    workspace: Workspace, bench: Workbench
) -> None:
    """The ledger's state reaches MLflow, whoever is there to tell it."""
    run = cut_off(bench, RunState.SUCCEEDED)
    assert status(workspace, run) == "RUNNING"
    assert bench.runner.reconcile() == []
    assert status(workspace, run) == "FINISHED"
    told = bench.ledger.get_run(run.run_id)
    assert bench.runner.reconcile() == []
    assert bench.ledger.get_run(run.run_id) == told, "once is enough"


def test_a_lost_run_is_failed_in_mlflow_too(workspace: Workspace, bench: Workbench) -> None:
    """A run whose runner is gone ends as lost, here and there."""
    run = cut_off(bench, RunState.RUNNING)
    assert [lost.run_id for lost in bench.runner.reconcile()] == [run.run_id]
    assert bench.ledger.get_run(run.run_id).state is RunState.LOST
    assert status(workspace, run) == "FAILED"


def test_what_a_run_left_for_later_is_done_once(workspace: Workspace, bench: Workbench) -> None:
    """Its page with the runner's notes, and its end in MLflow; the second look finds nothing."""
    run = cut_off(bench, RunState.SUCCEEDED)
    folder = workspace.runs / run.run_id
    folder.mkdir(parents=True)
    node = nbformat.v4.new_notebook()
    node.metadata["toolkit"] = {"notes": ["its zygote is not ready yet"]}
    nbformat.write(node, folder / "output.ipynb")
    assert bench.runner.catch_up() == 1
    assert status(workspace, run) == "FINISHED"
    assert "its zygote is not ready yet" in (folder / "report.html").read_text("utf-8")
    assert bench.runner.catch_up() == 0


@pytest.mark.parametrize(("seconds", "told"), [(0, 0), (10, 1)])
def test_a_run_that_goes_on_for_a_while_is_shown(
    workspace: Workspace, bench: Workbench, seconds: int, told: int
) -> None:
    """MLflow has it as running; a run of a moment is shown when it has ended."""
    record = RunRecord(
        new_id("run"),
        RunKind.RUN,
        Environment.SANDBOX,
        "ana",
        state=RunState.RUNNING,
        job="tick",
        tags={QUEUED_TAG: "yes"},
        started_us=time.time_ns() // 1000 - seconds * 1_000_000,
        runner=myself(),
    )
    run = bench.ledger.create_run(record)
    (workspace.runs / run.run_id).mkdir(parents=True)
    assert bench.runner.catch_up() == told
    if told:
        assert status(workspace, bench.ledger.get_run(run.run_id)) == "RUNNING"
    bench.ledger.update_run(run.run_id, state=RunState.CANCELLED)


def test_asking_again_for_a_run_that_has_ended_tells_mlflow_what_it_missed(
    workspace: Workspace, bench: Workbench
) -> None:
    """A worker that repeats a run under its id completes it and executes nothing."""
    run = cut_off(bench, RunState.SUCCEEDED)
    report = bench.runner.run(RunPlan(run, b""))
    assert report.repeated
    assert status(workspace, run) == "FINISHED"
