"""A gateway that is killed, and files that are broken under a living one."""

from __future__ import annotations

import signal

import pytest
from gateway_world import ask, open_run
from workspace_world import end_gateway

from toolkit.client import Connection, wire
from toolkit.errors import CallDenied, ConfigurationError
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, RunState

pytestmark = pytest.mark.chaos  # it ends processes: `make chaos`, in CI as well


@pytest.fixture
def workspace(own_workspace: Workspace) -> Workspace:
    """Here every test has a gateway of its own."""
    return own_workspace


def test_the_token_of_an_ended_run_is_refused(workspace: Workspace, connection: Connection) -> None:
    """A token lives as long as its run."""
    del connection
    kernel = open_run(workspace, "run-7")
    ledger = Ledger.open(workspace.database_url)
    ledger.update_run("run-7", state=RunState.CANCELLED)
    ledger.close()
    end_gateway(workspace)  # a new gateway has no memory of the run
    fresh = Connection(str(workspace.socket), root=workspace.root, token=kernel._token)
    with pytest.raises(CallDenied, match="has ended"):
        fresh.post(wire.STATUS, {})
    fresh.close()


def test_a_broken_policy_closes_the_door_until_it_is_mended(
    workspace: Workspace, connection: Connection, wait_for
) -> None:
    """A bad edit never weakens what is in force."""
    path = workspace.registry / "policies" / "sandbox" / "policy.yaml"
    good = path.read_text()
    path.write_text("mode: maybe\n")

    def refused() -> bool:
        try:
            ask(connection, "hello")
        except ConfigurationError:
            return True
        return False

    wait_for(refused, "the refusal")
    path.write_text(good)
    wait_for(lambda: not refused(), "the mending")


def test_a_killed_gateway_comes_back_and_nothing_is_asked_twice(
    workspace: Workspace, connection: Connection
) -> None:
    """The kernel starts a new gateway and finds its recorded calls."""
    arguments = {"messages": [{"role": "user", "content": "hello"}]}
    request = connection.identify(CallKind.MODEL, "default", arguments)
    first = connection.post(wire.MODEL, request)
    pid = end_gateway(workspace, number=signal.SIGKILL)
    second = connection.post(wire.MODEL, request)
    assert first["call_id"] == second["call_id"]
    assert end_gateway(workspace) != pid
