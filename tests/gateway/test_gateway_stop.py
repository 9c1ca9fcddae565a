"""A gateway that is told to end: in time, in order, and nothing that was asked is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from gateway_world import ask

from toolkit.client import Connection, ensure_gateway
from toolkit.gateway import read_record, stop_gateway
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallState

pytestmark = pytest.mark.chaos  # it ends processes: `make chaos`, in CI as well

# Longer than a gateway waits for calls under way when it is told to end.
NEVER = 'answers: [{when: {contains: never}, text: late, delay_s: 60}, {text: "an answer"}]\n'
AT_ONCE = 'answers: [{text: "an answer"}]\n'


@pytest.fixture
def workspace(own_workspace: Workspace) -> Workspace:
    """Here every test has a gateway of its own."""
    return own_workspace


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list]:
    """Run something in a thread; its answer or its error is put into the list."""
    found: list = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def state_of(workspace: Workspace, run_id: str) -> list[CallState]:
    """Return the states of a run's calls."""
    with Ledger.open(workspace.database_url) as ledger:
        return [call.state for call in ledger.calls(run_id)]


def begun(workspace: Workspace, run_id: str) -> Callable[[], bool]:
    """Say whether the run has a call in the ledger."""
    return lambda: bool(state_of(workspace, run_id))


def test_an_idle_gateway_ends_cleanly_although_kernels_stay_connected(
    workspace: Workspace, connection: Connection
) -> None:
    """SIGTERM is an order, not an accident: exit code 0, socket and record removed."""
    ask(connection, "hello")
    record = read_record(workspace.state)
    assert record is not None
    assert stop_gateway(workspace.state)
    assert os.waitpid(record.pid, 0)[1] == 0
    assert read_record(workspace.state) is None
    assert not workspace.socket.exists()
    assert not stop_gateway(workspace.state)


def test_a_call_under_way_gets_its_answer_before_the_gateway_ends(
    workspace: Workspace, connection: Connection, wait_for
) -> None:
    """What will be answered in a moment is waited for."""
    thread, answers = in_background(lambda: ask(connection, "slow"))
    wait_for(begun(workspace, connection.run_id), "the call")
    assert stop_gateway(workspace.state)
    thread.join()
    assert answers[0]["outcome"]["answer"]["text"] == "late"
    assert read_record(workspace.state) is None, "the kernel had no reason to start another gateway"
    assert state_of(workspace, connection.run_id) == [CallState.OK]


def test_a_call_that_takes_too_long_is_in_doubt_and_answered_by_the_next_gateway(
    workspace: Workspace, connection: Connection, wait_for
) -> None:
    """An outcome that only says that a gateway ended would be a lie about the provider."""
    script = workspace.registry / "answers.yaml"
    script.write_text(NEVER)
    # Without the workspace's folder it cannot start the next gateway by itself.
    kernel = Connection(str(workspace.socket), token=connection._token).open()
    thread, answers = in_background(lambda: ask(kernel, "never"))
    wait_for(begun(workspace, kernel.run_id), "the call")
    assert stop_gateway(workspace.state)
    assert state_of(workspace, kernel.run_id) == [CallState.STARTED]
    script.write_text(AT_ONCE)
    ensure_gateway(workspace.root)
    thread.join()
    assert answers[0]["outcome"]["answer"]["text"] == "an answer"
    assert state_of(workspace, kernel.run_id) == [CallState.OK]
    kernel.close()


def test_a_kernel_that_asks_while_a_gateway_ends_gets_the_next_one(
    workspace: Workspace, connection: Connection, wait_for
) -> None:
    """The one that ends holds the lock until it has ended; the next one waits for its turn."""
    thread, answers = in_background(lambda: ask(connection, "slow"))
    wait_for(begun(workspace, connection.run_id), "the call")
    record = read_record(workspace.state)
    assert record is not None
    os.kill(record.pid, signal.SIGTERM)
    late = Connection(ensure_gateway(workspace.root), root=workspace.root).open()
    assert ask(late, "hello")["outcome"]["answer"]["text"] == "an answer"
    thread.join()
    assert answers[0]["outcome"]["state"] == "ok"
    late.close()


def test_a_gateway_that_is_told_to_end_while_it_starts_ends_in_order(workspace: Workspace) -> None:
    """Told twice, before it serves: nothing is left behind."""
    ensure_gateway(workspace.root)
    thread, answers = in_background(lambda: stop_gateway(workspace.state))
    assert stop_gateway(workspace.state) in {True, False}
    thread.join()
    assert answers[0] in {True, False}
    assert read_record(workspace.state) is None
