"""Settings of jobs: limits over all workers, priority, retries by cause; what is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scheduling_world import World, until

from toolkit.errors import InvalidFile, NotFound
from toolkit.scheduling import Engine, JobRules, Jobs, JobsFile, Rate, Retry, prune_folders
from toolkit.scheduling.admission import Admission
from toolkit.scheduling.tables import HELD
from toolkit.values import ManualClock, RunState

FILE = """
defaults:
  retries: {infrastructure: {times: 2, backoff: 2s}}
jobs:
  review:
    concurrency: 1
    priority: 20
    rate: {runs: 10, per: 1h}
    limits: {run: 30m, cell: 5m}
    retries: {timeout: {times: 1, backoff: 1m}, out_of_memory: {times: 2, backoff: 5s, up_to: 8s}}
retention: {keep: 90d}
alerts: {queued: 10m}
"""


def test_the_file_is_read_job_by_job(tmp_path: Path) -> None:
    """A job has its own settings over the defaults; no file limits nothing."""
    path = tmp_path / "jobs.yaml"
    assert Jobs.read(path).of("review") == JobRules()
    path.write_text(FILE)
    jobs = Jobs.read(path)
    infrastructure = Retry(2, 2.0)
    assert jobs.of("review@production") == JobRules(
        concurrency=1,
        priority=20,
        rate=Rate(10, 3600.0),
        retries={
            "infrastructure": infrastructure,
            "timeout": Retry(1, 60.0),
            "out_of_memory": Retry(2, 5.0, 8.0),
        },
        run_s=1800.0,
        cell_s=300.0,
    )
    assert [Retry(3, 5.0, 8.0).delay_s(number) for number in (1, 2, 3)] == [5.0, 8.0, 8.0]
    assert jobs.of("other") == JobRules(retries={"infrastructure": infrastructure})
    assert (jobs.keep_s, jobs.queued_s, jobs.running_s) == (90 * 86_400.0, 600.0, 86_400.0)


def test_every_fault_of_the_file_is_named(tmp_path: Path) -> None:
    """Unknown keys, numbers out of range, times that are none."""
    path = tmp_path / "jobs.yaml"
    path.write_text("jobs: {a: {concurrency: 0, rate: {runs: 1, per: often}, speed: 1}}\n")
    with pytest.raises(InvalidFile) as caught:
        Jobs.read(path)
    assert len(caught.value.details["faults"]) == 3
    path.write_text("jobs: {../x: {}}\n")
    with pytest.raises(InvalidFile, match="job name"):
        Jobs.read(path)


def test_a_broken_change_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    """It is told once; a repaired file counts at once."""
    path = tmp_path / "jobs.yaml"
    path.write_text(FILE)
    told: list[str] = []
    file = JobsFile(path, told.append)
    path.write_text("jobs: 7\n")
    assert [file.now().of("review").concurrency for _ in range(2)] == [1, 1]
    assert len(told) == 1
    path.write_text("jobs: {review: {concurrency: 22}}\n")
    assert file.now().of("review").concurrency == 22


# -- limits ----------------------------------------------------------------------------------


@pytest.fixture
def limited(tmp_path: Path) -> Callable[..., Any]:
    """A function that makes an engine with rules for the job `a`, and a look at them."""

    def make(rules: JobRules) -> tuple[Engine, ManualClock, Callable[[], list[str]]]:
        jobs = Jobs(named={"a": rules})
        clock = ManualClock()
        engine = Engine("sqlite:///engine.db", root=tmp_path, clock=clock, jobs=lambda: jobs)
        admission = Admission(engine.tables, engine.client, lambda: jobs, clock)

        def look() -> list[str]:
            with engine.tables.turn() as turn:
                assert turn is not None
                admission.look(turn)
            rows = engine.tables.rows(HELD)
            return [row["flow"] for row in rows if not row["released"]]

        return engine, clock, look

    return make


def test_runs_beyond_the_limit_are_held_and_cancelled_ones_make_room(limited: Any) -> None:
    """Two of five are let in, in order; another job is not held; a cancelled run leaves its place."""
    engine, _, look = limited(JobRules(concurrency=2))
    for number in range(5):
        engine.submit("a", {}, run_id=f"run-{number}")
    engine.submit("b", {}, run_id="run-b")
    engine.submit("a", {}, run_id="run-0")
    assert look() == look() == ["run-2", "run-3", "run-4"]
    engine.cancel("run-0")
    engine.cancel("run-3")
    assert look() == ["run-4"]
    states = [engine.status(f"run-{number}").state for number in range(5)]
    assert states.count(RunState.QUEUED) == 3
    engine.close()


def test_a_busy_worker_never_exceeds_the_limit(world: World) -> None:
    """Three runs of a job limited to one, with four slots: never two at a time, all done."""
    world.write_jobs("jobs: {one: {concurrency: 1}}\n")
    world.start()
    engine = Engine(
        world.url, root=world.root, jobs=JobsFile(world.root / "registry" / "jobs.yaml").now
    )
    for number in range(3):
        engine.submit("one", {"do": "sleep:0.1:0"}, run_id=f"run-{number}")
    for number in range(3):
        assert world.ended(f"run-{number}").state is RunState.SUCCEEDED
    engine.close()
    lines = (world.root / "trace").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["started", "ended"] * 3


def test_starts_are_spread_over_time(limited: Any) -> None:
    """Two an hour: two are let in, the others stay until two of them are an hour old or gone."""
    engine, _, look = limited(JobRules(rate=Rate(2, 3600.0)))
    for number in range(4):
        engine.submit("a", {}, run_id=f"run-{number}")
    assert look() == look() == ["run-2", "run-3"]
    engine.close()


def test_urgent_runs_start_first(world: World) -> None:
    """Priority orders what waits for a worker."""
    jobs = Jobs(named={"urgent": JobRules(priority=1)})
    with Engine(world.url, root=world.root, jobs=lambda: jobs) as engine:
        for number in range(4):
            engine.submit("slow", {"do": "sleep:0.2:0"}, run_id=f"run-slow-{number}")
        for number in range(4):
            engine.submit("urgent", {"do": "0"}, run_id=f"run-urgent-{number}")
    world.start()
    until(lambda: len(world.run_ids()) == 8)
    assert all(run.startswith("run-urgent-") for run in world.run_ids()[:4])


def test_retries_by_cause_and_a_limit_that_the_run_ignores(world: World) -> None:
    """A job may be tried again after a timeout and never after a kill; overtime ends a run."""
    world.write_jobs(
        "jobs:\n"
        "  again: {retries: {timeout: {times: 1, backoff: 1s}, killed: {times: 0}}}\n"
        "  long: {limits: {run: 1s}}\n"
    )
    world.start()
    for run_id, job, do in (
        ("run-timeout", "again", "124,0"),
        ("run-kill", "again", "kill"),
        ("run-long", "long", "sleep:60:0"),
    ):
        world.engine.submit(job, {"do": do}, run_id=run_id)
    assert world.ended("run-timeout").state is RunState.SUCCEEDED
    assert len(world.pids("run-timeout", "started")) == 2
    assert world.ended("run-kill").state is RunState.KILLED
    assert len(world.pids("run-kill", "started")) == 1
    assert world.ended("run-long").state is RunState.TIMED_OUT


# -- what is kept ----------------------------------------------------------------------------


def test_waiting_runs_are_never_pruned(world: World) -> None:
    """However old: a run that waits for a person has not ended."""
    world.start()
    world.engine.submit("a", {"do": "wait:decision:0"}, run_id="run-waits")
    world.engine.submit("a", {"do": "0"}, run_id="run-done")
    world.ended("run-waits")
    world.ended("run-done")
    assert world.engine.prune(older_than_s=-5.0)
    assert world.engine.status("run-waits").state is RunState.WAITING
    with pytest.raises(NotFound):
        world.engine.status("run-done")
    (world.root / "decision").touch()
    world.engine.wake("run-waits")
    until(lambda: world.engine.status("run-waits").state is RunState.SUCCEEDED)


def test_folders_of_old_runs_go_and_nothing_else(tmp_path: Path) -> None:
    """By the ledger where it knows the run, by age where it does not; never through a link."""
    runs, logs, outside = tmp_path / "runs", tmp_path / "logs", tmp_path / "outside"
    for folder in (runs / "run-old", runs / "run-live", runs / "run-lost", logs, outside):
        folder.mkdir(parents=True)
    (runs / "run-link").symlink_to(outside)
    for name in ("run-old.log", "run-live.log", "notes.txt"):
        (logs / name).touch()
    os.utime(runs / "run-lost", (1, 1))
    known = {"run-old": True, "run-live": False, "run-link": True}
    kept = prune_folders(runs, logs, known.get, before_s=1000.0, dry_run=True)
    gone = prune_folders(runs, logs, known.get, before_s=1000.0)
    assert kept == gone
    assert {path.name for path in gone} == {"run-old", "run-lost", "run-old.log"}
    assert sorted(path.name for path in runs.iterdir()) == ["run-link", "run-live"]
    assert sorted(path.name for path in logs.iterdir()) == ["notes.txt", "run-live.log"]
    assert outside.is_dir()


def test_runs_that_wait_for_too_long_are_told(tmp_path: Path) -> None:
    """By their age on the engine's clock."""
    clock = ManualClock()
    with Engine("sqlite:///engine.db", root=tmp_path, clock=clock) as engine:
        engine.submit("a", {}, run_id="run-1")
        created_us = engine.status("run-1").created_us
        clock.us = created_us + 7_200_000_000
        ((status, age_s),) = engine.overdue(queued_s=3600.0, running_s=1.0)
        assert (status.run_id, status.state, age_s) == ("run-1", RunState.QUEUED, 7200.0)
        assert engine.overdue(queued_s=7201.0, running_s=1.0) == []
