"""A workspace with a script for tool calls, one gateway per module, and runs to be in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from workspace_world import end_gateway, write_workspace

from toolkit.client import Connection, connect, disconnect, ensure_gateway, wire
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import (
    CallRecord,
    Environment,
    RunKind,
    RunRecord,
    RunState,
    digest_bytes,
    new_id,
)

SCRIPT = """
answers:
  - when: {contains: add two and three}
    tool_calls: [{name: add, arguments: {a: 2, b: 3}}]
  - when: {contains: add as text}
    tool_calls: [{name: add, arguments: {a: "2", b: "3"}}]
  - when: {contains: add badly}
    tool_calls: [{name: add, arguments: {a: two, b: 3}}]
  - when: {contains: use what is not there}
    tool_calls: [{name: launch, arguments: {}}]
  - when: {contains: look it up}
    tool_calls: [{name: look_up, arguments: {word: x}}]
  - when: {contains: two at once}
    tool_calls: [{name: add, arguments: {a: 1, b: 1}}, {name: add, arguments: {a: 2, b: 2}}]
  - when: {contains: weigh the parcel}
    tool_calls: [{name: weigh, arguments: {parcel: {name: box, grams: 5}}}]
  - when: {contains: for ever}
    tool_calls: [{name: echo, arguments: {text: for ever}}]
  - when: {contains: as json}
    data: {spdx: MIT, share: 0.5}
  - when: {contains: wrong json}
    data: {spdx: 5}
  - when: {contains: broken}
    fail: server
  - text: "an answer"
    input_tokens: 7
    output_tokens: 3
"""

TOOLS = "tools:\n" + "".join(
    f"  {name}: {{effect: read, description: A tool.}}\n"
    for name in ("add", "order", "orders", "table", "when", "nothing", "late", "fail", "echo")
)
TOOLS += """\
  hurried: {effect: read, description: A tool., timeout_s: 0.2}
  patient: {effect: read, description: A tool., timeout_s: 600}
  hurried_write: {effect: write, description: A tool., timeout_s: 0.2}
  hurried_again: {effect: write, idempotent: true, description: A tool., timeout_s: 0.2}
"""


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose gateway serves a whole module."""
    root = tmp_path_factory.mktemp("client") / "ws"
    root.mkdir()
    made = write_workspace(root)
    (made.registry / "answers.yaml").write_text(SCRIPT)
    (made.registry / "tools.yaml").write_text(TOOLS)
    yield made
    end_gateway(made)


@pytest.fixture
def workspace(shared_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The shared workspace, as the working folder."""
    monkeypatch.chdir(shared_workspace.root)
    ensure_gateway(shared_workspace.root)
    return shared_workspace


@pytest.fixture
def ledger(workspace: Workspace) -> Iterator[Ledger]:
    """The workspace's ledger."""
    made = Ledger.open(workspace.database_url)
    yield made
    made.close()


@pytest.fixture
def calls(ledger: Ledger) -> Callable[[], list[CallRecord]]:
    """What the ledger holds of this process's session or run."""
    return lambda: ledger.calls(connect().run_id)


@dataclass
class Kernel:
    """One run, whose kernels come and go."""

    run_id: str
    ledger: Ledger

    def restart(self) -> Connection:
        """What a new kernel of the same run does first."""
        disconnect()
        return connect()


@pytest.fixture
def run(
    workspace: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Kernel]]:
    """Make this process the kernel of a fresh run under the production policy."""

    def go(kind: RunKind = RunKind.RUN, parameters: str | None = None, **facts: Any) -> Kernel:
        token = new_id("token")
        record = RunRecord(
            run_id=new_id("run"),
            kind=kind,
            environment=Environment.PRODUCTION,
            user="ana",
            state=RunState.RUNNING,
            token_digest=digest_bytes(token.encode()),
            **facts,
        )
        ledger.create_run(record)
        monkeypatch.setenv(wire.ENV_SOCKET, str(workspace.socket))
        monkeypatch.setenv(wire.ENV_TOKEN, token)
        if parameters is not None:
            monkeypatch.setenv(wire.ENV_PARAMETERS, parameters)
        disconnect()
        return Kernel(record.run_id, ledger)

    yield go
    disconnect()
