"""A sandbox session lasts as long as its kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from toolkit.app.sessions import end_sessions
from toolkit.client import Connection, ensure_gateway
from toolkit.ledger import Ledger, process_name
from toolkit.values import Environment, RunKind, RunRecord, RunState

KERNEL = """
import sys
from toolkit.client import Connection
print(Connection(sys.argv[1], root=sys.argv[2]).open().run_id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(workspace):
    """Open a session in a process of its own; return its id and what ends the process."""
    ensure_gateway(workspace.root)
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(workspace.socket), str(workspace.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert kernel.stdout is not None
    run_id = kernel.stdout.readline().strip()
    yield run_id, kernel.communicate
    if kernel.poll() is None:
        kernel.communicate()


def test_a_session_ends_with_its_kernel(workspace, session) -> None:
    """The kernel's word is not needed: the gateway saw which process connected."""
    run_id, end = session
    mine = Connection(str(workspace.socket), root=workspace.root).open()
    with Ledger.open(workspace.database_url) as ledger:
        assert end_sessions(ledger) == []
        assert ledger.get_run(run_id).state is RunState.RUNNING
        end()
        assert [run.run_id for run in end_sessions(ledger)] == [run_id]
        ended = ledger.get_run(run_id)
        assert (ended.state, ended.message) == (RunState.SUCCEEDED, "its kernel has ended")
        assert ledger.get_run(mine.run_id).state is RunState.RUNNING
    mine.close()


def test_sessions_of_other_machines_and_runs_are_left_alone(workspace) -> None:
    """Who cannot be looked at is not declared dead; a run that lost its runner is lost, not over."""
    here = process_name()
    gone = f"{here.partition(':')[0]}:{here.split(':')[1]}:1.00"
    with Ledger.open(workspace.database_url) as ledger:
        for name, kind, runner in (
            ("s-elsewhere", RunKind.SESSION, "elsewhere:1:1.00"),
            ("s-remote", RunKind.SESSION, None),
            ("r-lost", RunKind.RUN, gone),
        ):
            ledger.create_run(
                RunRecord(name, kind, Environment.SANDBOX, "ana", RunState.RUNNING, runner=runner)
            )
        assert end_sessions(ledger) == []
        for name in ("s-elsewhere", "s-remote", "r-lost"):
            ledger.update_run(name, state=RunState.SUCCEEDED)
