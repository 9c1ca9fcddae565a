"""Jobs that run jobs when things go wrong: one slot for all, a parent that is killed, a person."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_world import seal
from waiting_world import PAYING, ask_people, open_bank, paying_job, request_of, run_of
from workspace_world import end_gateway, write_workspace

from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import RunState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

PERMIT = '@id("jobs") permit(principal, action == Action::"call_job", resource);\n'
PAY = "  pay: {effect: write, description: Pays a bill.}\n"
LIMIT_S = 280.0
PARENT = (
    "import asyncio\ncheck = toolkit.job('kid')",
    "found = await asyncio.gather(*(check.run(limit=n) for n in range(2)))",
    "toolkit.result(found=[dict(one) for one in found])",
)


@pytest.fixture
def workspace(tmp_path: Path, mlflow_template: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    shutil.copy(mlflow_template, made.state / "mlflow.db")
    production = made.registry / "policies" / "production"
    (production / "jobs.cedar").write_text(PERMIT)
    yield made
    end_gateway(made)


@pytest.fixture
def bank():
    with open_bank() as made:
        yield made


def command(workspace: Workspace, *arguments: str, user: str = "ana") -> subprocess.Popen[str]:
    """Start a command; its words go to a file."""
    with (workspace.root / "told.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "toolkit", *arguments],
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TOOLKIT_USER": user, "PYTHONUNBUFFERED": "1"},
        )


def toolkit(workspace: Workspace, *arguments: str, user: str = "ana") -> None:
    """Run a command to its end, which is a good one."""
    code = command(workspace, *arguments, user=user).wait()
    assert code == 0, (workspace.root / "told.log").read_text()


@contextmanager
def working(workspace: Workspace, slots: int) -> Iterator[None]:
    """Have a worker for a while."""
    worker = command(workspace, "worker", "--slots", str(slots))
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


def until(workspace: Workspace, true: Callable[[Ledger], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + LIMIT_S
    with Ledger.open(workspace.database_url) as ledger:
        while not true(ledger):
            assert time.monotonic() < deadline, (workspace.root / "told.log").read_text()
            time.sleep(0.1)


def ended(run_id: str) -> Callable[[Ledger], bool]:
    """Whether a run has ended."""
    return lambda ledger: any(
        run.run_id == run_id and run.state.terminal for run in ledger.runs(limit=1000)
    )


def family(workspace: Workspace, run_id: str) -> list[RunState]:
    with Ledger.open(workspace.database_url) as ledger:
        assert not ledger.verify()
        return [child.state for child in ledger.children(run_id)]


def hold(workspace: Workspace) -> None:
    policy = workspace.registry / "policies" / "production" / "policy.yaml"
    policy.write_text(policy.read_text() + "approvals: {hold: 1s}\n")


def test_one_slot_is_enough_for_a_job_and_the_jobs_that_it_runs(workspace):
    """The parent gives its place away while the others have none; nobody waits for ever."""
    hold(workspace)
    seal(workspace, "kid", "toolkit.result(limit=limit)")
    seal(workspace, "parent", *PARENT)
    toolkit(workspace, "run", "parent", "--no-wait", "--run-id", "run-one-slot")
    with working(workspace, 1):
        until(workspace, ended("run-one-slot"))
    run = run_of(workspace, "run-one-slot")
    assert run.state is RunState.SUCCEEDED, run.message
    assert int(run.tags["waits"]) >= 1
    assert family(workspace, run.run_id) == [RunState.SUCCEEDED] * 2


def test_a_parent_that_is_killed_finds_the_jobs_that_it_started(workspace, bank):
    """kill -9 in the middle; the same run id goes on; every job has paid once."""
    tools = workspace.registry / "tools.yaml"
    tools.write_text(tools.read_text() + PAY)
    slow = "import time\ntime.sleep(3)\nsaid = pay(f'bill {limit}', 1.0)"
    seal(workspace, "kid", f"bank = {bank.url!r}", PAYING, slow, "toolkit.result(said=said)")
    seal(workspace, "parent", *PARENT)
    first = command(workspace, "run", "parent", "--run-id", "run-killed")
    until(workspace, lambda ledger: len(ledger.children("run-killed")) == 2)
    first.kill()
    first.wait()
    toolkit(workspace, "run", "parent", "--run-id", "run-killed")
    assert run_of(workspace, "run-killed").state is RunState.SUCCEEDED
    assert family(workspace, "run-killed") == [RunState.SUCCEEDED] * 2
    assert sorted(bank.paid) == ["bill 0 1.0", "bill 1 1.0"]


def test_a_job_that_waits_for_a_person_makes_its_parent_wait_too(workspace, bank):
    """Two runs wait without a kernel; one decision, and both go on by themselves; one payment."""
    ask_people(workspace)
    kid = paying_job(workspace, bank)
    one = f"one = await toolkit.job({kid!r}).run()"
    seal(workspace, "parent", one, "toolkit.result(said=one['said'])")
    toolkit(workspace, "run", "parent", "--no-wait", "--run-id", "run-waits")
    waits = (RunState.WAITING, [RunState.WAITING])

    def both(ledger: Ledger) -> bool:
        found = [r for r in ledger.runs(limit=100) if r.run_id == "run-waits"]
        children = [child.state for child in ledger.children("run-waits")]
        return bool(found) and (found[0].state, children) == waits

    with working(workspace, 2):
        until(workspace, both)
        with Ledger.open(workspace.database_url) as ledger:
            (child,) = ledger.children("run-waits")
        asked = request_of(workspace, child.run_id)
        toolkit(workspace, "decide", asked.id, "approve", "--yes", user="anna")
        until(workspace, ended("run-waits"))
    assert run_of(workspace, "run-waits").state is RunState.SUCCEEDED
    assert bank.paid == ["ben ltd 120.0"]


def test_cancelling_a_run_cancels_what_it_started(workspace):
    """Running children are told to end; nothing of the family is left."""
    seal(workspace, "kid", "import time\ntime.sleep(120)\ntoolkit.result(limit=limit)")
    seal(workspace, "parent", *PARENT)
    running = command(workspace, "run", "parent", "--run-id", "run-cancel")

    def both_run(ledger: Ledger) -> bool:
        states = [child.state for child in ledger.children("run-cancel")]
        return states == [RunState.RUNNING] * 2

    until(workspace, both_run)
    toolkit(workspace, "cancel", "run-cancel", "--reason", "wrong month")
    running.wait()
    until(
        workspace,
        lambda ledger: all(child.state.terminal for child in ledger.children("run-cancel")),
    )
    ended = run_of(workspace, "run-cancel")
    assert ended.state is RunState.CANCELLED
    assert "cancelled it: wrong month (the runner received SIGTERM" in ended.message
    assert family(workspace, "run-cancel") == [RunState.CANCELLED] * 2
