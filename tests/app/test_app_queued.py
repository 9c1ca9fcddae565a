"""Ledger and queue agree about how the queue's runs ended, whoever was killed or away meanwhile."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_world import GOOD, seal
from postgres_world import postgres_server
from workspace_world import write_workspace

from toolkit.app.cancelling import cancel_run, superseded
from toolkit.app.queued import QueuedRuns
from toolkit.app.running import Request
from toolkit.app.submitting import submit_run
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.errors import Conflict, EngineError
from toolkit.execution import QUEUED_TAG, myself
from toolkit.scheduling import (
    AWAY,
    BUSY,
    CAUSES,
    DEFAULT_RETRIES,
    Engine,
    JobRules,
    Jobs,
    Retry,
    Schedule,
    Work,
    Worker,
)
from toolkit.scheduling.ticker import Ticker
from toolkit.values import (
    CallKind,
    Cause,
    Decision,
    Environment,
    Intent,
    ManualClock,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
    child_run_id,
)

Wait = Callable[[Callable[[], bool], str], None]
DEAD = f"{socket.gethostname()}:4194304:1.00"
ELSEWHERE = "another-machine:1:1.00"
ONCE = Jobs(defaults=JobRules(retries={cause: Retry(0) for cause in CAUSES}))
ERROR = {"error": {"code": "not_found", "message": "there is no alias production"}, "exit_code": 78}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with postgres_server() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workbench]:
    """An empty workspace on either database."""
    write_workspace(tmp_path)
    if request.param == "postgresql":
        name = f"w{abs(hash(str(tmp_path)))}"
        server.psql(f"CREATE DATABASE {name};")
        url = server.get_uri(name)
        text = f'user = "ana"\ndatabase_url = "{url}"\nengine_url = "{url}"\n'
        (tmp_path / "toolkit.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with open_workbench(tmp_path) as made:
        yield made


def record(
    bench: Workbench, run_id: str, state: RunState = RunState.RUNNING, **fields: Any
) -> RunRecord:
    """Record a run of the queue."""
    facts: dict[str, Any] = {"job": "a", "version": 1, "runner": DEAD, **fields}
    made = RunRecord(
        run_id, RunKind.RUN, Environment.PRODUCTION, "ana", state, tags={QUEUED_TAG: "yes"}, **facts
    )
    (bench.workspace.runs / run_id).mkdir(parents=True, exist_ok=True)
    return bench.ledger.create_run(made)


def command(work: Work) -> list[str]:
    """Do what the run's parameter says, as a process."""
    return ["/bin/sh", "-c", str(work.parameters.get("sh", "exit 0"))]


@contextmanager
def working(bench: Workbench, **options: Any) -> Iterator[None]:
    """Have a worker in this process; without ``on_ended`` it tells nobody, as one that died."""
    stop = threading.Event()
    settings = bench.workspace
    worker = Worker(
        settings.engine_url,
        settings.root,
        2,
        command,
        grace_s=1.0,
        **{"jobs": lambda: ONCE, **options},
    )
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def done(bench: Workbench, run_id: str, wait_for: Wait, *, state: RunState | None = None) -> None:
    """Wait until the queue has done with a run, or has it in a state."""

    def look() -> bool:
        now = bench.engine.status(run_id).state
        return now is state if state is not None else now.terminal

    wait_for(look, f"the end of {run_id} in the queue")


def state_of(bench: Workbench, run_id: str) -> tuple[RunState, Cause | None]:
    found = bench.ledger.get_run(run_id)
    return found.state, found.cause


def page() -> dict[str, tuple[str, str, str]]:
    """Return the table of docs/endings.md: state, cause and what the same id does, by event."""
    text = (Path(__file__).parents[2] / "docs" / "endings.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| (\w+) \| (\w+) \| (goes on|told again) \|$", text, re.MULTILINE
    )
    return {name: (state, cause, again) for name, state, cause, again in rows}


def row_of(bench: Workbench, run_id: str) -> tuple[str, str, str]:
    """Return a run's row as the page would have it."""
    found = bench.ledger.get_run(run_id)
    again = "goes on" if found.resumable else "told again"
    return str(found.state), str(found.cause), again


GIVEN_UP = {
    "its process is killed, and the retries are used up": ("kill -9 $$", "killed by signal 9"),
    "its process cannot record its end, and the retries are used up": (
        "echo the ledger is away; exit 75",
        "ledger is away",
    ),
    "its process ends with a code of its own, and records no end": ("exit 1", "exit code 1"),
    "the worker ends a run that stays beyond its limit": ("exit 124", "exit code 124"),
    "its process ends after SIGTERM, and records no end": ("exit 143", "without a word"),
}


def test_what_the_queue_has_done_with_does_not_run_for_ever(
    bench: Workbench, wait_for: Wait
) -> None:
    """Each ends as the queue saw it, once; what still runs, waits or is elsewhere is left alone."""
    for number, (script, _) in enumerate(GIVEN_UP.values()):
        record(bench, f"run-{number}")
        bench.engine.submit("a", {"sh": script}, run_id=f"run-{number}")
    record(bench, "run-lives", runner=myself())
    bench.engine.submit("a", {"sh": "exit 75"}, run_id="run-lives")
    record(bench, "run-far", runner=ELSEWHERE)
    bench.engine.submit("a", {"sh": "exit 75"}, run_id="run-far")
    with working(bench):
        for number in range(len(GIVEN_UP)):
            done(bench, f"run-{number}", wait_for)
        for name in ("run-lives", "run-far"):
            done(bench, name, wait_for)
    record(bench, "run-queued", RunState.QUEUED, runner=None)
    bench.engine.submit("a", {}, run_id="run-queued")
    queued = QueuedRuns(bench)
    assert queued.sweep() == len(GIVEN_UP)
    for number, (event, (_, said)) in enumerate(GIVEN_UP.items()):
        assert row_of(bench, f"run-{number}") == page()[event]
        assert said in (bench.ledger.get_run(f"run-{number}").message or "")
    assert queued.sweep() == 0
    assert state_of(bench, "run-lives") == state_of(bench, "run-far") == (RunState.RUNNING, None)
    assert state_of(bench, "run-queued") == (RunState.QUEUED, None)
    assert bench.ledger.verify() == []


def test_a_run_over_which_too_many_workers_died_is_lost(bench: Workbench) -> None:
    """The queue gives it up, and the ledger says so."""
    record(bench, "run-1")
    bench.engine.submit("a", {}, run_id="run-1")
    schema = "dbos." if bench.workspace.engine_url.startswith("postgresql") else ""
    with bench.engine.tables.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE {schema}workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'"
        )
    assert QueuedRuns(bench).settled(bench.ledger.get_run("run-1")).state is RunState.LOST
    assert row_of(bench, "run-1") == page()["ten workers die over it, and the queue gives it up"]
    assert "the queue has given it up" in (bench.ledger.get_run("run-1").message or "")


def test_a_run_that_the_queue_has_forgotten_is_lost_where_it_ran(bench: Workbench) -> None:
    """One whose folder is not here may be another queue's; a waiting one is queued again."""
    record(bench, "run-here")
    record(bench, "run-other")
    (bench.workspace.runs / "run-other").rmdir()
    record(bench, "run-waits", RunState.WAITING, runner=None)
    assert QueuedRuns(bench).sweep() == 2
    assert state_of(bench, "run-here") == (RunState.LOST, Cause.RUNNER_DIED)
    assert state_of(bench, "run-other") == (RunState.RUNNING, None)
    assert state_of(bench, "run-waits") == (RunState.WAITING, None)
    assert bench.engine.status("run-waits").state is RunState.QUEUED


def test_a_run_that_nobody_does_any_more_is_cancelled_at_once(
    bench: Workbench, wait_for: Wait
) -> None:
    """Not told to end: there is nobody to tell."""
    record(bench, "run-1")
    bench.engine.submit("a", {"sh": "exit 75"}, run_id="run-1")
    with working(bench):
        done(bench, "run-1", wait_for)
    assert cancel_run(bench, "run-1", "it hangs") is RunState.CANCELLED
    assert state_of(bench, "run-1") == (RunState.CANCELLED, Cause.REQUESTED)
    assert "ana cancelled it" in (bench.ledger.get_run("run-1").message or "")


BEFORE = {
    "its version, its policy or a value is refused before it begins": (
        f"echo '{json.dumps(ERROR)}'; exit 78",
        "there is no alias production",
    ),
    "a value does not fit when it is to begin": ("echo wrong value; exit 2", "wrong value"),
    "its version waits for people": ("echo a person must let it in; exit 3", "let it in"),
    "what it needs is away until the retries are used up, and it never began": (
        "echo no database; exit 75",
        "no database",
    ),
}


def test_a_run_that_ends_before_its_first_record_has_one(bench: Workbench, wait_for: Wait) -> None:
    """Whose it is, what it was to run, how it ended and why; a plain success leaves none."""
    for number, (script, _) in enumerate(BEFORE.values()):
        bench.engine.submit("a@7", {"sh": script}, run_id=f"run-{number}", created_by="bea")
    bench.engine.submit("a", {}, run_id="run-fine")
    with working(bench, on_ended=QueuedRuns(bench).ended):
        for number in range(len(BEFORE)):
            done(bench, f"run-{number}", wait_for)
        done(bench, "run-fine", wait_for)
    for number, (event, (_, said)) in enumerate(BEFORE.items()):
        found = bench.ledger.get_run(f"run-{number}")
        assert row_of(bench, f"run-{number}") == page()[event]
        assert said in (found.message or "")
        assert (found.user, found.job) == ("bea", "a")
        assert bench.engine.status(f"run-{number}").state is RunState.FAILED
    assert QueuedRuns(bench).statuses(["run-0", "run-fine", "run-none"]) == {
        "run-0": RunState.FAILED,
        "run-fine": RunState.SUCCEEDED,
    }


def test_a_run_that_waits_still_waits_when_its_process_is_killed(
    bench: Workbench, wait_for: Wait
) -> None:
    """What it waits for wakes it; one that is refused when it goes on has ended."""
    queued = QueuedRuns(bench)
    for name, script in (("run-killed", "kill -9 $$"), ("run-refused", "echo revoked; exit 78")):
        record(bench, name, RunState.WAITING, runner=None)
        bench.engine.submit("a", {"sh": script}, run_id=name)
    with working(bench, on_ended=queued.ended):
        done(bench, "run-refused", wait_for)
        done(bench, "run-killed", wait_for, state=RunState.WAITING)
    assert state_of(bench, "run-killed") == (RunState.WAITING, None)
    assert state_of(bench, "run-refused") == (RunState.FAILED, Cause.REFUSED)
    assert bench.engine.wake("run-killed")


def test_a_waiting_run_that_the_queue_gave_up_is_queued_again(
    bench: Workbench, wait_for: Wait
) -> None:
    """Else nobody's decision would wake it."""
    record(bench, "run-1", RunState.WAITING, runner=None)
    bench.engine.submit("a", {"sh": "kill -9 $$"}, run_id="run-1")
    with working(bench):
        done(bench, "run-1", wait_for)
    assert not bench.engine.wake("run-1")
    assert QueuedRuns(bench).sweep() == 1
    assert bench.engine.status("run-1").state is RunState.QUEUED


def test_records_that_are_away_are_waited_for(bench: Workbench, wait_for: Wait) -> None:
    """The queue says that a run has ended only when that is recorded, and no retry is used up."""
    asked: list[str] = []

    def why(work: Work, _code: int, _began_us: int) -> str | None:
        asked.append(work.run_id)
        return AWAY if len(asked) < 3 else "infrastructure"

    told: list[str] = []

    def ended(work: Work, outcome: Any) -> Any:
        told.append(work.run_id)
        if len(told) == 1:
            raise EngineError("the ledger is away")
        return outcome

    count = bench.workspace.root / "count"
    bench.engine.submit("a", {"sh": f"echo x >> {count}; exit 75"}, run_id="run-1")
    with working(bench, why=why, on_ended=ended):
        done(bench, "run-1", wait_for)
    # Without retries, the second process is the one that the outage did not cost.
    assert count.read_text() == "x\nx\n"
    assert told == ["run-1", "run-1"]
    assert bench.engine.status("run-1").attempts == 2


@pytest.mark.parametrize(
    ("code", "state", "cause", "why"),
    [
        (75, RunState.KILLED, Cause.OUT_OF_MEMORY, "out_of_memory"),
        (75, RunState.KILLED, Cause.KERNEL_DIED, "killed"),
        (75, RunState.FAILED, Cause.KERNEL_START, "kernel_start"),
        (75, RunState.FAILED, Cause.INFRASTRUCTURE, "infrastructure"),
        (1, RunState.FAILED, Cause.CELL_ERROR, "cell_error"),
        (1, RunState.FAILED, Cause.RESULTS_MISSING, None),
        (124, RunState.TIMED_OUT, Cause.CELL_TIMEOUT, "timeout"),
        (-9, RunState.RUNNING, None, "killed"),
        (75, RunState.RUNNING, None, "infrastructure"),
        (78, RunState.RUNNING, None, None),
    ],
)
def test_retries_tell_causes_apart(
    bench: Workbench, code: int, state: RunState, cause: Cause | None, why: str | None
) -> None:
    """By what the run's own process recorded; what an earlier one recorded does not count."""
    record(bench, "run-1")
    if state.terminal:
        bench.ledger.update_run("run-1", state=state, cause=cause, message="so it was")
    work = Work("run-1", "a")
    assert QueuedRuns(bench).why(work, code, 0) == why
    assert why is None or why in CAUSES
    later = (bench.ledger.get_run("run-1").ended_us or 0) + 1
    assert QueuedRuns(bench).why(work, 75, later) == "infrastructure"


def test_what_is_away_or_busy_is_no_cause_of_the_run(bench: Workbench) -> None:
    """A run that a living process of this machine executes; a ledger that does not answer."""
    record(bench, "run-busy", runner=myself())
    queued = QueuedRuns(bench)
    assert queued.why(Work("run-busy", "a"), 75, 0) == BUSY
    assert queued.why(Work("run-none", "a"), 75, 0) == "infrastructure"
    assert {"out_of_memory", "cell_error", "timeout"}.isdisjoint(DEFAULT_RETRIES)
    total_s = sum(
        DEFAULT_RETRIES["infrastructure"].delay_s(number)
        for number in range(1, DEFAULT_RETRIES["infrastructure"].times + 1)
    )
    assert total_s > 300


def waits(bench: Workbench, run_id: str) -> tuple[str, str]:
    """Record a run that waits for a person and for a run below it; return request and run."""
    ledger = bench.ledger
    run = record(bench, run_id, token_digest="sha256:token", runner=None)
    allow, ask = Decision(Verdict.ALLOW), Decision(Verdict.ASK, approver="approver")
    paying = ledger.begin(Intent(run_id, CallKind.TOOL, "pay", {}, request_id="1"), ask).call
    job = ledger.begin(Intent(run_id, CallKind.JOB, "kid", {}, request_id="2"), allow).call
    kid = child_run_id(f"{run_id}/{job.key}/{job.generation}")
    record(bench, kid, RunState.QUEUED, parent_run_id=run_id, runner=None)
    later_us = time.time_ns() // 1000 + 3_600_000_000
    request = ledger.ask(paying, role="approver", view={}, expires_us=later_us).id
    assert ledger.park(run, [request, kid], message="it waits") is not None
    return request, kid


# -- schedules -------------------------------------------------------------------------------


def test_a_later_tick_cancels_a_waiting_run_as_a_person_would(
    bench: Workbench, wait_for: Wait
) -> None:
    """In the ledger with its request and its children, and in the queue; so is one not yet begun."""
    clock = ManualClock()
    start = datetime(2026, 3, 2, tzinfo=UTC)
    clock.us = round(start.timestamp() * 1e6)
    settings = bench.workspace
    with Engine(
        settings.engine_url,
        root=settings.root,
        clock=clock,
        supersede=lambda run_id: superseded(bench, run_id),
    ) as engine:
        script = {"sh": "exit 3"}
        engine.add_schedule(
            Schedule("s", "a", script, "*/10 * * * *", "UTC", "bea", overlap="cancel-previous")
        )
        ticker = Ticker(engine.tables, engine, clock)

        def tick(number: int) -> str:
            clock.us = round((start + timedelta(minutes=10 * number)).timestamp() * 1e6)
            with engine.tables.turn() as turn:
                assert turn is not None
                ticker.look(turn)
            return engine.ticks()[-1].run_id

        first = tick(1)
        request, kid = waits(bench, first)
        engine.pause("s")  # the worker's own clock is another one
        with working(bench, on_ended=QueuedRuns(bench).ended):
            done(bench, first, wait_for, state=RunState.WAITING)
        engine.resume("s")
        second = tick(2)
        assert state_of(bench, first) == (RunState.CANCELLED, Cause.REQUESTED)
        said = bench.ledger.get_run(first).message or ""
        assert "the schedule cancelled it" in said
        assert "a later tick" in said
        assert state_of(bench, kid) == (RunState.CANCELLED, Cause.REQUESTED)
        assert not bench.ledger.approval(request).state.waiting
        assert bench.ledger.approvals(waiting=True) == []
        assert engine.status(first).state is RunState.CANCELLED
        tick(3)
        found = bench.ledger.get_run(second)
        assert row_of(bench, second) == page()["a later tick of its schedule takes its place"]
        assert found.user == "bea"
        assert found.tags["schedule"] == "s"


def test_each_line_of_the_page_is_played() -> None:
    """By a test of this file."""
    text = Path(__file__).read_text("utf-8")
    assert [event for event in page() if f'"{event}"' not in text] == []
    assert len(page()) >= 12


# -- the same id again -----------------------------------------------------------------------


def test_a_run_id_is_queued_again_where_it_would_go_on(bench: Workbench, wait_for: Wait) -> None:
    """A lost run is queued again, once; one that failed for good is told; nothing twice."""
    seal(bench.workspace, "job", *GOOD)
    run_id, state, _ = submit_run(bench, Request("job", {}, run_id="run-1"), [])
    assert (run_id, state) == ("run-1", RunState.QUEUED)
    record(bench, "run-1", job="job", parameters={"limit": 2})
    with working(bench):
        done(bench, "run-1", wait_for)
    bench.ledger.update_run("run-1", state=RunState.LOST, cause=Cause.RUNNER_DIED, message="gone")
    for _ in range(2):
        assert submit_run(bench, Request("job", {}, run_id="run-1"), [])[1] is RunState.QUEUED
    assert len(bench.engine.pending()) == 1
    with working(bench):
        done(bench, "run-1", wait_for)
    record(
        bench, "run-2", RunState.FAILED, cause=Cause.CELL_ERROR, job="job", parameters={"limit": 2}
    )
    told = submit_run(bench, Request("job", {}, run_id="run-2"), [])
    assert told == ("run-2", RunState.FAILED, Cause.CELL_ERROR)
    assert bench.engine.pending() == []


def test_a_queued_run_that_is_cancelled_is_in_the_ledger(bench: Workbench) -> None:
    """With who did it; it is not cancelled twice."""
    bench.engine.submit("a", {"x": 1}, run_id="run-1", created_by="bea", timeout_s=5.0)
    assert [run.run_id for run in QueuedRuns(bench).pending(None, 10)] == ["run-1"]
    assert QueuedRuns(bench).pending("b", 10) == []
    assert cancel_run(bench, "run-1", "not now") is RunState.CANCELLED
    found = bench.ledger.get_run("run-1")
    assert row_of(bench, "run-1") == page()["a person cancels it before it begins"]
    assert found.user == "bea"
    assert found.message == "ana cancelled it before it began: not now"
    assert found.parameters == {"x": 1}
    assert QueuedRuns(bench).pending(None, 10) == []
    with pytest.raises(Conflict, match="already ended"):
        cancel_run(bench, "run-1")


def test_the_users_limit_holds_in_the_worker_too(bench: Workbench, wait_for: Wait) -> None:
    """A run that does not end itself is ended, by what its submitter asked for."""
    bench.engine.submit("a", {"sh": "sleep 60"}, run_id="run-1", timeout_s=0.5)
    with working(bench, overtime_s=0.2):
        done(bench, "run-1", wait_for)
    assert bench.engine.status("run-1").state is RunState.TIMED_OUT
