"""Queued runs: once, retried, cancelled, woken, with the state that the exit code stands for."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scheduling_world import World, until

from toolkit.errors import Busy, ConfigurationError, Conflict, EngineError, NotFound, UsageError
from toolkit.ledger import is_alive
from toolkit.scheduling import Engine, EventKind, Work, Worker, WorkerEvent, state_of_exit
from toolkit.values import RunState


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (0, RunState.SUCCEEDED),
        (1, RunState.FAILED),
        (2, RunState.FAILED),
        (3, RunState.WAITING),
        (78, RunState.FAILED),
        (99, RunState.SKIPPED),
        (124, RunState.TIMED_OUT),
        (143, RunState.CANCELLED),
    ],
)
def test_exit_codes_are_states(busy: World, code: int, state: RunState) -> None:
    """The exit code of the one process decides, and nothing is tried again."""
    run_id = busy.engine.submit("review@3", {"do": str(code)}, run_id=f"run-exit-{code}")
    status = busy.ended(run_id)
    assert (status.state, status.exit_code, status.attempts) == (state, code, 1)
    assert status.job == "review@3"
    assert status.message == (f"it ends with {code}" if code else "")
    assert len(busy.pids(run_id, "started")) == 1


def test_submitting_again_changes_nothing(busy: World) -> None:
    """The run id is an idempotency key, before and after the run."""
    for _ in range(3):
        assert busy.engine.submit("a", {"do": "0"}, run_id="run-twice") == "run-twice"
    busy.ended("run-twice")
    busy.engine.submit("a", {"do": "0"}, run_id="run-twice")
    assert busy.engine.status("run-twice").state is RunState.SUCCEEDED
    assert len(busy.pids("run-twice", "ended")) == 1


def test_an_id_stands_for_one_job_and_its_parameters(busy: World) -> None:
    """Other work under the same id is a Conflict."""
    busy.engine.submit("a", {"do": "0", "x": 1}, run_id="run-taken")
    for job, parameters in (("b", {"do": "0", "x": 1}), ("a", {"do": "0", "x": 2})):
        with pytest.raises(Conflict):
            busy.engine.submit(job, parameters, run_id="run-taken")


def test_transient_failures_are_tried_again(busy: World) -> None:
    """75, 75, 0 is a success at the third attempt."""
    busy.engine.submit("a", {"do": "75,75,0"}, run_id="run-third")
    status = busy.ended("run-third")
    assert (status.state, status.attempts) == (RunState.SUCCEEDED, 3)
    assert len(busy.pids("run-third", "started")) == 3


def test_retries_end(busy: World) -> None:
    """A process that is killed each time is started six times; the last end is the run's."""
    busy.engine.submit("a", {"do": "kill"}, run_id="run-dies")
    status = busy.ended("run-dies")
    assert (status.state, status.exit_code, status.attempts) == (RunState.KILLED, -9, 6)
    assert len(busy.pids("run-dies", "started")) == 6


def test_a_running_run_is_cancelled(busy: World) -> None:
    """Its process is asked to end, and ends."""
    busy.engine.submit("a", {"do": "sleep:60:0"}, run_id="run-cancel")
    pid = busy.running("run-cancel")
    assert busy.engine.cancel("run-cancel").state is RunState.CANCELLED
    until(lambda: not is_alive(pid))
    assert busy.pids("run-cancel", "terminated") == [pid]
    assert busy.engine.status("run-cancel").state is RunState.CANCELLED


def test_a_queued_run_is_cancelled(world: World) -> None:
    """It never starts."""
    world.engine.submit("a", {"do": "0"}, run_id="run-never")
    world.engine.submit("a", {"do": "0"}, run_id="run-after")
    assert world.engine.cancel("run-never").state is RunState.CANCELLED
    assert [status.run_id for status in world.engine.pending()] == ["run-after"]
    world.start()
    world.ended("run-after")
    assert world.run_ids() == ["run-after"]


def test_cancelling_what_ended_changes_nothing(busy: World) -> None:
    """The first end counts."""
    busy.engine.submit("a", {"do": "1"}, run_id="run-over")
    busy.ended("run-over")
    assert busy.engine.cancel("run-over").state is RunState.FAILED


def test_a_waiting_run_is_woken_once(busy: World) -> None:
    """Waking runs it again under its own id; a second wake finds nothing that waits."""
    busy.engine.submit("a", {"do": "wait:decision:0"}, run_id="run-asks")
    assert busy.ended("run-asks").state is RunState.WAITING
    (busy.root / "decision").touch()
    assert busy.engine.wake("run-asks")
    busy.engine.wake("run-asks")
    assert until(lambda: busy.engine.status("run-asks").state is RunState.SUCCEEDED)
    assert not busy.engine.wake("run-asks")
    assert len(busy.pids("run-asks", "started")) == 2


def test_a_wake_is_not_lost_when_the_run_is_still_ending(busy: World) -> None:
    """A decision that comes while the process is about to exit as waiting is not forgotten."""
    busy.engine.submit("a", {"do": "sleep:1:3"}, run_id="run-ending")
    busy.running("run-ending")
    assert busy.engine.wake("run-ending")
    assert busy.running("run-ending", times=2)
    assert busy.ended("run-ending").state is RunState.WAITING


def test_a_cancelled_waiting_run_is_not_woken(busy: World) -> None:
    """Nobody's decision brings it back."""
    busy.engine.submit("a", {"do": "3"}, run_id="run-given-up")
    busy.ended("run-given-up")
    assert busy.engine.cancel("run-given-up").state is RunState.CANCELLED
    assert not busy.engine.wake("run-given-up")
    assert len(busy.pids("run-given-up", "started")) == 1


def test_output_goes_to_a_private_file_per_run(busy: World) -> None:
    """The worker writes nothing of it itself."""
    busy.engine.submit("a", {"do": "1"}, run_id="run-talks")
    busy.ended("run-talks")
    log = busy.root / ".toolkit/logs/run-talks.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert "it ends with 1" in log.read_text()


def test_old_runs_are_forgotten(world: World) -> None:
    """What ended before the limit goes, what waits in the queue stays."""
    for run_id in ("run-a", "run-b"):
        world.engine.submit("a", {"do": "0"}, run_id=run_id)
    world.engine.cancel("run-a")
    assert world.engine.prune(older_than_s=3600) == 0
    assert world.engine.prune(older_than_s=-3600) == 1
    with pytest.raises(NotFound):
        world.engine.status("run-a")
    assert world.engine.status("run-b").state is RunState.QUEUED


# -- wrong calls and a database that is away -------------------------------------------------


def test_wrong_submissions_are_usage_errors(world: World) -> None:
    """Nothing unsafe or unrepresentable enters the queue."""
    for job, parameters, run_id in (
        ("../x", {}, "run-1"),
        ("a", {"a b": 1}, "run-1"),
        ("a", {"x": float("inf")}, "run-1"),
        ("a", {"x": object()}, "run-1"),
        ("a", {}, "run 1"),
        ("a", {}, "run~1"),
    ):
        with pytest.raises(UsageError):
            world.engine.submit(job, parameters, run_id=run_id)
    assert world.engine.pending() == []


def test_unknown_runs_are_not_found(world: World) -> None:
    """With the command that lists them."""
    for ask in (world.engine.status, world.engine.cancel, world.engine.wake):
        with pytest.raises(NotFound) as caught:
            ask("run-nothing")
        assert caught.value.next_step


def test_a_database_that_is_away_is_an_engine_error_without_its_password(tmp_path: Path) -> None:
    """At once, for engine and worker alike."""
    url = "postgresql://ana:s3cret@127.0.0.1:1/engine"
    with pytest.raises(EngineError) as caught:
        Engine(url, root=tmp_path).status("run-1")
    assert "s3cret" not in str(caught.value.to_json())
    with pytest.raises(EngineError) as caught:
        Worker(url, tmp_path, 1, lambda _: []).run(threading.Event())
    assert "s3cret" not in str(caught.value.to_json())


def test_a_broken_database_file_is_an_engine_error(tmp_path: Path) -> None:
    """Bytes that are no database."""
    (tmp_path / "engine.db").write_bytes(b"nonsense " * 1000)
    with pytest.raises(EngineError, match="not a database"):
        Engine("sqlite:///engine.db", root=tmp_path).list_schedules()


def test_a_full_disk_is_an_engine_error(world: World) -> None:
    """A write that the database refuses has the vendor's words, not its statement."""
    world.engine.list_schedules()
    with sqlite3.connect(world.root / "engine.db") as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON workflow_status"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(EngineError, match="disk is full") as caught:
        world.engine.submit("a", {"note": "private text"}, run_id="run-1")
    assert "private text" not in str(caught.value.to_json())


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense", ""])
def test_other_databases_are_refused(tmp_path: Path, url: str) -> None:
    """A configuration error that says what to write."""
    with pytest.raises(ConfigurationError, match="engine_url"):
        Engine(url, root=tmp_path)


def test_relative_paths_are_below_the_workspace(tmp_path: Path) -> None:
    """Wherever the command is run."""
    with Engine("sqlite:///state/engine.db", root=tmp_path) as engine:
        assert engine.list_schedules() == []
    assert (tmp_path / "state/engine.db").exists()


# -- one worker in this process --------------------------------------------------------------


def test_events_tell_what_happens(world: World) -> None:
    """In order, with the work, its state, and nothing on standard output."""
    events: list[WorkerEvent] = []
    stop = threading.Event()
    script = "import sys; print('a line'); sys.exit(1)"

    def command(work: Work) -> list[str]:
        if work.job == "broken":
            raise NotFound("there is no job broken")
        if work.job == "missing":
            return [str(world.root / "no-such-program")]
        return [sys.executable, "-c", script]

    worker = Worker(world.url, world.root, 2, command, on_event=events.append, grace_s=1)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    work = {"run-0": "good", "run-1": "broken", "run-2": "missing"}
    for run_id, job in work.items():
        world.engine.submit(job, {}, run_id=run_id, created_by="ana")
    found = {run_id: world.ended(run_id) for run_id in work}
    stop.set()
    thread.join()
    assert {run_id: status.exit_code for run_id, status in found.items()} == {
        "run-0": 1,
        "run-1": 78,
        "run-2": 127,
    }
    assert found["run-1"].message == "there is no job broken"
    mine = [e for e in events if e.work and e.work.run_id == "run-0"]
    assert [(e.kind, e.state) for e in mine] == [
        (EventKind.RUN_STARTED, None),
        (EventKind.RUN_ENDED, RunState.FAILED),
    ]
    assert mine[0].work == Work("run-0", "good", created_by="ana")
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-2:]) == ("started", ["stopping", "stopped"])


def test_sqlite_has_one_worker(busy: World) -> None:
    """A second one is a Conflict: SQLite's limits do not hold across processes."""
    second = busy.start()
    assert second.wait() == Busy.exit_code
    assert "another worker" in busy.log(second)


def test_states_cover_every_code() -> None:
    """Signals are kills, unknown codes are failures."""
    assert state_of_exit(-signal.SIGKILL) is RunState.KILLED
    assert {state_of_exit(code) for code in (4, 75, 126, 127, 137, 255)} == {RunState.FAILED}


def _zombies() -> set[str]:
    """Our dead children that nobody waited for; other suites of this process may have left some."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,stat=,ppid="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listing.stdout.splitlines()]
    return {pid for pid, stat, ppid in rows if stat.startswith("Z") and int(ppid) == os.getpid()}


def test_children_leave_no_zombies(busy: World) -> None:
    """Every process was waited for."""
    before = _zombies()
    busy.engine.submit("a", {"do": "0"}, run_id="run-reaped")
    busy.ended("run-reaped")
    assert _zombies() <= before
