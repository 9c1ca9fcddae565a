"""Real schedules by real workers: every tick is one run, whatever happens to the worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from scale_world import Plant, until

from toolkit.ledger import Ledger
from toolkit.values import RunState

pytestmark = [pytest.mark.scale, pytest.mark.timeout(420)]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "ws")
    yield made
    made.stop()


def tell(capsys: pytest.CaptureFixture, plant: Plant) -> None:
    """Print the runs past pytest's capture: `make scale` is read by people."""
    with capsys.disabled():
        print()
        for run in plant.runs():
            at = datetime.fromtimestamp(run.created_us / 1e6, UTC).strftime("%H:%M:%S")
            seconds = ((run.ended_us or 0) - (run.started_us or 0)) / 1e6
            print(f"  {run.run_id:<34}{at}  {run.state:<10}{seconds:6.1f} s  {run.mlflow_run_id}")


def check_books(plant: Plant) -> None:
    """Every run has one MLflow run of its own, one answered call, one result, a sound chain."""
    runs = plant.runs()
    assert sorted(plant.mlflow_runs()) == sorted((run.mlflow_run_id, "FINISHED") for run in runs)
    with Ledger.open(plant.workspace.database_url) as ledger:
        for run in runs:
            assert ledger.totals(run.run_id).by_kind == {"model": 1, "result": 1}
            assert ledger.results(run.run_id) == {"said": "an answer"}
        assert ledger.verify() == []


def test_a_schedule_of_every_minute_runs_three_ticks_three_times(
    plant: Plant, capsys: pytest.CaptureFixture
) -> None:
    """Three ticks: three runs in the ledger, three in MLflow, none twice, all succeeded."""
    since = datetime.now(UTC)
    plant.add_schedule("* * * * *")
    plant.start_worker()
    until(lambda: len(plant.runs(RunState.SUCCEEDED)) >= 3, "the third run", 300)
    plant.stop()
    tell(capsys, plant)
    runs = plant.runs()
    due = plant.due(since, 60)
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    minutes = [due[run.run_id] for run in runs]
    gaps = {(b - a).total_seconds() for a, b in pairwise(minutes)}
    assert gaps == {60.0}, "three minutes in a row"
    check_books(plant)


def test_workers_that_are_killed_lose_no_run_and_repeat_none(
    plant: Plant, capsys: pytest.CaptureFixture
) -> None:
    """One worker dies between two ticks, one in the middle of a run; the next one goes on."""
    since = datetime.now(UTC)
    plant.add_schedule("*/20 * * * * *")
    plant.start_worker()
    until(lambda: plant.runs(RunState.SUCCEEDED), "the first run", 90)
    until(lambda: not plant.runs(RunState.RUNNING, RunState.QUEUED), "a quiet moment", 60)
    plant.kill_worker()
    plant.start_worker()
    (interrupted,) = until(lambda: plant.runs(RunState.RUNNING)[:1], "a run under way", 90)
    time.sleep(1.0)
    plant.kill_worker()
    plant.start_worker()
    until(lambda: len(plant.runs(RunState.SUCCEEDED)) >= 4, "the fourth run", 180)
    plant.toolkit("schedule", "pause", plant.schedule.name)
    until(lambda: not plant.runs(RunState.RUNNING, RunState.QUEUED), "the end of all runs", 120)
    plant.stop()
    tell(capsys, plant)
    runs = plant.runs()
    assert {run.state for run in runs} == {RunState.SUCCEEDED}
    assert interrupted.run_id in {run.run_id for run in runs}
    assert {run.run_id for run in runs} <= set(plant.due(since, 20)), "a run that no tick asked for"
    check_books(plant)
