"""Workers that die, hang or are told to stop: the work goes on elsewhere, exactly once at a time."""

from __future__ import annotations

import inspect
import json
import signal
import sqlite3

import dbos
import pytest
from dbos import DBOS
from scheduling_world import World, until

from toolkit.ledger import is_alive
from toolkit.scheduling import Schedule
from toolkit.values import RunState

pytestmark = pytest.mark.chaos  # it ends processes: `make chaos`, in CI as well

LONG = "sleep:60:0"


def test_a_killed_worker_takes_its_children_along_and_the_next_one_runs_them_again(
    world: World,
) -> None:
    """After kill -9 no child is left, and a new worker starts the run at once."""
    first = world.start()
    world.engine.submit("a", {"do": "sleep:3:0"}, run_id="run-1")
    child = world.running("run-1")
    first.kill()
    first.wait()
    until(lambda: not is_alive(child))
    assert world.engine.status("run-1").state is RunState.RUNNING
    second = world.start()
    status = world.ended("run-1")
    assert status.state is RunState.SUCCEEDED
    assert len(world.pids("run-1", "started")) == 2
    assert len(world.pids("run-1", "ended")) == 1
    assert "recovered" in world.log(second)


def test_a_stopped_worker_ends_what_is_short_and_hands_the_rest_back(world: World) -> None:
    """SIGTERM: what ends within the grace is recorded, nothing new starts, the rest is queued.

    A long run's process is killed, not asked to end: asked, it would record a cancelled run.
    """
    worker = world.start(grace_s=2.5, retry_delay_s=60)
    for run_id, behaviour in (("short", "sleep:1.5:0"), ("long", LONG), ("again", "75,0")):
        world.engine.submit("a", {"do": behaviour}, run_id=f"run-{run_id}")
    child = [world.running(f"run-{run_id}") for run_id in ("short", "again", "long")][-1]
    until(lambda: "run_retried run-again" in world.log(worker))
    worker.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in world.log(worker))
    world.engine.submit("a", {"do": "0"}, run_id="run-new")
    assert worker.wait() == 0
    assert not is_alive(child)
    assert world.pids("run-long", "terminated") == []
    states = {name: world.engine.status(f"run-{name}").state for name in ("short", "long", "new")}
    assert states == {
        "short": RunState.SUCCEEDED,
        "long": RunState.QUEUED,
        "new": RunState.QUEUED,
    }
    assert world.engine.status("run-again").state is RunState.QUEUED
    assert world.pids("run-new", "started") == []
    with sqlite3.connect(world.root / "engine.db") as connection:
        assert connection.execute("SELECT count(*) FROM toolkit_leases").fetchone() == (0,)
        # The queue gives up what was started too often; what was handed back counts as not started.
        starts = "SELECT max(recovery_attempts) FROM workflow_status WHERE status = 'ENQUEUED'"
        assert connection.execute(starts).fetchone() == (0,)
    world.start()
    world.running("run-long", times=2)
    world.ended("run-new")


# -- several workers on PostgreSQL -----------------------------------------------------------


def test_workers_on_postgres_share_work_and_take_over(postgres: World) -> None:
    """Ticks and runs start once; killed and hung workers lose their work; a hung one ends itself."""
    first, second = postgres.start(lease_s=2), postgres.start(lease_s=2)
    postgres.engine.add_schedule(
        Schedule("both", "a", {"do": "0"}, "* * * * * *", "Europe/Berlin", "ana")
    )
    for number in range(6):
        postgres.engine.submit("a", {"do": "sleep:0.2:0"}, run_id=f"run-{number}")
    for number in range(6):
        assert postgres.ended(f"run-{number}").state is RunState.SUCCEEDED
    until(lambda: sum(run.startswith("run-both-") for run in postgres.run_ids()) >= 3)
    postgres.engine.remove("both")
    assert len(postgres.run_ids()) == len(set(postgres.run_ids()))

    postgres.engine.submit("a", {"do": LONG}, run_id="run-long")
    child = postgres.running("run-long")
    owner, other = (first, second) if "run-long" in postgres.log(first) else (second, first)
    owner.send_signal(signal.SIGSTOP)
    again = postgres.running("run-long", times=2)
    assert "recovered" in postgres.log(other)
    assert is_alive(child)  # a hung worker cannot end it yet
    owner.send_signal(signal.SIGCONT)
    assert owner.wait() == 75
    until(lambda: not is_alive(child))
    assert is_alive(again)
    assert "fenced" in postgres.log(owner)

    third = postgres.start(lease_s=2)
    other.kill()
    other.wait()
    until(lambda: not is_alive(again))
    last = postgres.running("run-long", times=3)
    assert "recovered" in postgres.log(third)
    postgres.engine.cancel("run-long")
    until(lambda: not is_alive(last))
    assert postgres.engine.status("run-long").state is RunState.CANCELLED


# -- contract with the vendor ----------------------------------------------------------------


def test_the_underscore_call_is_there() -> None:
    """DBOS 3.4 has it with this signature; another version must be looked at first."""
    found = inspect.signature(DBOS._recover_pending_workflows)
    assert list(found.parameters) == ["executor_ids"]
    assert {"DBOSClient", "DBOSPortableJSONSerializer", "SetWorkflowID"} <= set(dbos.__all__)


def test_the_queue_holds_json_and_no_pickles(world: World) -> None:
    """Who writes the database cannot make a worker run code."""
    world.engine.submit("a", {"x": [1, "é", None]}, run_id="run-1")
    world.engine.add_schedule(Schedule("s", "a", {"x": 1}, "0 0 * * *", "UTC", "ana"))
    with sqlite3.connect(world.root / "engine.db") as connection:
        ((how,),) = connection.execute("SELECT serialization FROM workflow_status").fetchall()
        ((text,),) = connection.execute("SELECT inputs FROM workflow_input").fetchall()
        ((context,),) = connection.execute("SELECT body FROM toolkit_schedules").fetchall()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert how == "portable_json"
    assert json.loads(text)["positionalArgs"][0]["run_id"] == "run-1"
    assert json.loads(context)["name"] == "s"
    assert mode == "wal"
