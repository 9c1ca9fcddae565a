"""Runs of the queue through real workers: killed runners, a database that is away, a worker that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cli_world import AGENT, seal, toolkit
from postgres_world import postgres_server
from waiting_world import run_of
from workspace_world import end_gateway

from toolkit.ledger import Ledger
from toolkit.scheduling import Engine
from toolkit.settings import Workspace, open_workspace
from toolkit.values import Cause, RunRecord, RunState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

# The first process of the run stays in its cell, later ones do not.
STAYS = """import pathlib, time
mark = pathlib.Path(folder, "began")
if not mark.exists():
    mark.touch()
    time.sleep(600)"""
# Asks again and again, for longer than a short outage.
ASKS = """import time
for number in range(12):
    answer(f"question {number}")
    time.sleep(0.5)"""
HANGS = "import time\ntime.sleep(600)"
DONE = "toolkit.result(ok=1)"
SCRIPT = Path(__file__).parents[1] / "chaos" / "chaos_machines_worker.py"


@contextmanager
def process(workspace: Workspace, name: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a worker in a process of its own; what it says is in a file of that name."""
    with (workspace.root / name).open("ab") as log:
        made = subprocess.Popen(
            [sys.executable, *argv],
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            made.send_signal(signal.SIGCONT)
            made.send_signal(signal.SIGTERM)
        made.wait()


def worker(workspace: Workspace, name: str = "worker.log") -> Any:
    """Have the worker that people have."""
    return process(workspace, name, "-m", "toolkit", "worker", "--slots", "2")


def found(workspace: Workspace, run_id: str) -> RunRecord | None:
    with suppress(Exception):  # not there yet, or the ledger is away
        return run_of(workspace, run_id)
    return None


def is_ended(workspace: Workspace, run_id: str) -> bool:
    run = found(workspace, run_id)
    return run is not None and run.state.terminal


def seal_in(workspace: Workspace, job: str, *cells: str) -> None:
    seal(workspace, job, f"folder = {str(workspace.root)!r}", *cells, DONE)


def on(workspace: Workspace, url: str) -> Workspace:
    """Return the workspace with ledger and queue on PostgreSQL."""
    text = f'user = "ana"\ndatabase_url = "{url}"\nengine_url = "{url}"\n'
    (workspace.root / "toolkit.toml").write_text(text)
    return open_workspace(workspace.root)


@pytest.fixture
def server() -> Iterator[Any]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace of the test's own."""
    from workspace_world import write_workspace

    root = tmp_path / "own"
    root.mkdir()
    made = write_workspace(root)
    monkeypatch.chdir(root)
    yield made
    end_gateway(made)


def test_a_run_whose_process_is_killed_as_often_as_it_may_is_lost_and_goes_on(
    own: Workspace, wait_for
) -> None:
    """With default retries; the ledger says so at once, and the same id is queued again."""
    seal_in(own, "stays", STAYS)
    assert toolkit("run", "stays", "--no-wait", "--run-id", "run-1").code == 0
    killed: list[str] = []

    def kill() -> bool:
        run = found(own, "run-1")
        if run is None or run.state.terminal:
            return run is not None
        (own.root / "began").unlink(missing_ok=True)
        if run.state is RunState.RUNNING and run.runner and run.runner not in killed:
            with suppress(ProcessLookupError):
                os.kill(int(run.runner.split(":")[1]), signal.SIGKILL)
                killed.append(run.runner)
        return False

    with worker(own):
        wait_for(kill, "the end of the run")
        run = run_of(own, "run-1")
        assert (run.state, run.cause) == (RunState.LOST, Cause.RUNNER_DIED)
        assert len(killed) == 6
        assert "the last of its 6 processes was killed by signal 9" in (run.message or "")
        again = toolkit("cancel", "run-1", "--json")
        assert "already ended (lost)" in again.json["error"]["message"]
        (own.root / "began").touch()
        assert (
            toolkit("run", "stays", "--no-wait", "--run-id", "run-1", "--json").json["state"]
            == "queued"
        )
        wait_for(lambda: run_of(own, "run-1").state is RunState.SUCCEEDED, "the run to go on")
    told = toolkit("run", "stays", "--no-wait", "--run-id", "run-1", "--json")
    assert (told.code, told.json["state"]) == (0, "succeeded")


def test_a_database_that_is_away_for_long_costs_no_run(own: Workspace, server, wait_for) -> None:
    """Longer than three retries took; with default retries, and on the same worker."""
    shared = on(own, server.get_uri())
    seal_in(shared, "asks", AGENT, ASKS)
    assert toolkit("run", "asks", "--no-wait", "--run-id", "run-1").code == 0
    with worker(shared) as made:
        wait_for(
            lambda: (run := found(shared, "run-1")) is not None and run.runner is not None, "it"
        )
        runner = run_of(shared, "run-1").runner
        wait_for(lambda: bool(calls(shared, "run-1")), "a call")
        stop = [str(server.bin_path / "pg_ctl"), "-w", "-m", "immediate", "-D"]
        subprocess.run(
            [*stop, str(server.pgdata), "stop"],
            check=True,
            capture_output=True,
            user=server.system_user,
        )
        time.sleep(15)  # noqa: ASYNC251 - the outage
        server.ensure_postgres_running()
        wait_for(lambda: is_ended(shared, "run-1"), "the end of the run")
        run = run_of(shared, "run-1")
        said = (shared.root / "worker.log").read_text()
        assert (run.state, run.cause) == (RunState.SUCCEEDED, None), (run, said)
        assert made.poll() is None
        assert run.runner != runner
    assert "records cannot be reached" in said
    with Ledger.open(shared.database_url) as ledger:
        assert ledger.verify() == []


def calls(workspace: Workspace, run_id: str) -> int:
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.totals(run_id).calls


def test_a_worker_that_hangs_loses_its_run_to_another_one_of_the_same_machine(
    own: Workspace, server, wait_for
) -> None:
    """The other one waits until the run's old process is gone; that costs no retry."""
    shared = on(own, server.get_uri())
    seal_in(shared, "stays", STAYS)
    assert toolkit("run", "stays", "--no-wait", "--run-id", "run-1").code == 0
    with process(shared, "first.log", str(SCRIPT), str(shared.root), "3", "1") as first:
        wait_for((shared.root / "began").exists, "the run to begin")
        runner = run_of(shared, "run-1").runner
        with process(shared, "second.log", str(SCRIPT), str(shared.root), "3", "1"):
            wait_for(lambda: "started" in (shared.root / "second.log").read_text(), "it")
            first.send_signal(signal.SIGSTOP)
            said = "another process of this machine"
            wait_for(lambda: said in (shared.root / "second.log").read_text(), "the adoption")
            time.sleep(10)  # noqa: ASYNC251 - longer than three retries took
            assert run_of(shared, "run-1").state is RunState.RUNNING
            assert run_of(shared, "run-1").runner == runner
            first.send_signal(signal.SIGCONT)
            assert first.wait() == 75
            wait_for(lambda: is_ended(shared, "run-1"), "the end of the run")
            run = run_of(shared, "run-1")
            assert (run.state, run.runner != runner) == (RunState.SUCCEEDED, True)
    with Ledger.open(shared.database_url) as ledger:
        assert ledger.verify() == []


def test_a_refused_run_is_recorded_and_begins_once_it_may(own: Workspace, wait_for) -> None:
    """Listed while it is queued; refused with its cause; its user is who submitted it; its limit holds."""
    seal_in(own, "fine", "1")
    seal_in(own, "hangs", HANGS)
    os.environ["TOOLKIT_USER"] = "bea"
    try:
        for job, run_id, more in (("fine", "run-1", ()), ("hangs", "run-2", ("--timeout", "4s"))):
            assert toolkit("run", job, "--no-wait", "--run-id", run_id, *more).code == 0
    finally:
        del os.environ["TOOLKIT_USER"]
    shown = toolkit("show", "run-1", "--json").json
    assert (shown["state"], shown["user"], shown["job"]) == ("queued", "bea", "fine")
    assert {run["run_id"] for run in toolkit("runs", "--json").json} == {"run-1", "run-2"}
    assert "queued" in toolkit("show", "run-1").out
    policy = own.registry / "policies" / "production" / "policy.yaml"
    good = policy.read_text()
    policy.write_text(good + "nonsense: 1\n")
    with worker(own):
        wait_for(lambda: is_ended(own, "run-1"), "the refusal")
        refused = run_of(own, "run-1")
        assert (refused.state, refused.cause, refused.user) == (
            RunState.FAILED,
            Cause.REFUSED,
            "bea",
        )
        assert "policy.yaml" in (refused.message or "")
        shown = toolkit("show", "run-1", "--json").json
        assert (shown["state"], shown["cause"]) == ("failed", "refused")
        wait_for(lambda: is_ended(own, "run-2"), "the refusal")
        policy.write_text(good)
        for job, run_id in (("fine", "run-1"), ("hangs", "run-2")):
            assert toolkit("run", job, "--no-wait", "--run-id", run_id).code == 0
        wait_for(lambda: run_of(own, "run-1").state is RunState.SUCCEEDED, "the run")
        wait_for(lambda: run_of(own, "run-2").state is RunState.TIMED_OUT, "the limit")
    went = run_of(own, "run-1")
    assert (went.version, went.user, went.parameters) == (1, "bea", {"limit": 2})
    assert run_of(own, "run-2").cause is Cause.RUN_TIMEOUT


# Fails in a cell at the first try, and asks a model before that.
FAILS = """import pathlib
before = toolkit.model("what is due?").text
mark = pathlib.Path(folder, "failed")
if not mark.exists():
    mark.touch()
    1 / 0"""


def test_a_cells_error_is_tried_again_where_the_job_says_so(own: Workspace, wait_for) -> None:
    """Under the same id, from its journal; without such a setting it has failed."""
    (own.registry / "jobs.yaml").write_text(
        "jobs:\n  moody: {retries: {cell_error: {times: 1, backoff: 1s}}}\n"
    )
    for job in ("moody", "stern"):
        seal_in(own, job, FAILS)
    with worker(own):
        for job in ("stern", "moody"):
            (own.root / "failed").unlink(missing_ok=True)
            assert toolkit("run", job, "--no-wait", "--run-id", f"run-{job}").code == 0
            queue = f"{job} in the queue"
            wait_for(lambda job=job: ended_in_queue(own, f"run-{job}"), queue)
    stern, moody = run_of(own, "run-stern"), run_of(own, "run-moody")
    assert (stern.state, stern.cause) == (RunState.FAILED, Cause.CELL_ERROR)
    assert (moody.state, moody.cause, moody.message) == (RunState.SUCCEEDED, None, None)
    assert calls(own, "run-moody") == calls(own, "run-stern") + 1  # the result that it published
    with Ledger.open(own.database_url) as ledger:
        assert ledger.verify() == []


def ended_in_queue(workspace: Workspace, run_id: str) -> bool:
    with Engine(workspace.engine_url, root=workspace.root) as engine:
        return engine.status(run_id).state.terminal
