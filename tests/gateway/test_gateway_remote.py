"""Tools of servers and services through a real gateway, from kernels and from MCP clients."""

from __future__ import annotations

import asyncio
import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import httpx2
import pytest
import uvicorn
from gateway_world import open_run
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from workspace_world import end_gateway, write_workspace

import toolkit
from toolkit.app.assembly import Assembly
from toolkit.app.pages import Pages
from toolkit.client import Connection, Waiting, connect, disconnect, ensure_gateway, wire
from toolkit.errors import CallDenied, CallInDoubt, NotFound, ToolFailed, UsageError
from toolkit.gateway import Identity, RemoteTools
from toolkit.gateway.mcp_door import McpDoor
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.settings import Workspace
from toolkit.tools import Toolbox
from toolkit.values import CallKind, CallRecord, CallState, Effect

TOKEN = "s3cr3t-notes-token"
SERVER = '''
import os, signal, pathlib
from mcp.server import MCPServer

server = MCPServer("notes")
file = pathlib.Path("notes.txt")

@server.tool()
def write_note(text: str) -> dict[str, int]:
    """Writes a note down."""
    with file.open("a") as notes:
        notes.write(text + chr(10))
    return {"notes": len(file.read_text().splitlines())}

@server.tool()
def count_notes() -> dict[str, int]:
    """Counts the notes."""
    return {"notes": len(file.read_text().splitlines()) if file.exists() else 0}

@server.tool()
def whisper() -> dict[str, str]:
    """Gives its secret away."""
    return {"token": os.environ["NOTES_TOKEN"]}

@server.tool()
def die() -> str:
    """Dies."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"

@server.tool()
def unlisted() -> str:
    """Nobody approved it."""
    return "no"

server.run()
'''
TOOLS = """
tools:
  add: {{effect: read, description: Adds two numbers.}}
servers:
  notes:
    transport: stdio
    command: ["{python}", server.py]
    env_from: [NOTES_TOKEN]
    tools:
      write_note: {{effect: write}}
      count_notes: {{effect: read, description: How many notes there are.}}
      whisper: {{effect: read}}
      die: {{effect: write}}
http:
  crm:
    openapi: crm.yaml
    base_url: http://127.0.0.1:9
    operations:
      findCustomer: {{effect: read, external: true}}
"""
DOCUMENT = """
openapi: "3.1.0"
paths:
  /customers:
    get:
      operationId: findCustomer
      description: Finds a customer.
      parameters: [{name: email, in: query, required: true, schema: {type: string}}]
"""
ANSWERS = """
answers:
  - when: {contains: please count}
    tool_calls: [{name: notes-count_notes, arguments: {}}]
  - when: {contains: please fail}
    tool_calls: [{name: crm-findCustomer, arguments: {email: a@x.org}}]
  - text: "an answer"
"""
FORBID = """
@id("no-whispers") @reason("secrets are not read in production")
forbid(principal, action == Action::"call_tool", resource == Tool::"notes.whisper");
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a server over pipes and a service that is down; one gateway for all."""
    root = tmp_path_factory.mktemp("notes") / "ws"
    root.mkdir()
    made = write_workspace(root)
    (root / "server.py").write_text(SERVER)
    (made.registry / "tools.yaml").write_text(TOOLS.format(python=sys.executable))
    (made.registry / "crm.yaml").write_text(DOCUMENT)
    (made.registry / "answers.yaml").write_text(textwrap.dedent(ANSWERS))
    rules = made.registry / "policies" / "production" / "rules.cedar"
    rules.write_text(rules.read_text() + FORBID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTES_TOKEN", TOKEN)
        patch.chdir(root)
        ensure_gateway(root)
    yield made
    end_gateway(made)


@pytest.fixture
def session(notes: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A sandbox session, as a notebook has it."""
    monkeypatch.chdir(notes.root)
    yield connect()
    disconnect()


@pytest.fixture
def kernel(notes: Workspace, request: pytest.FixtureRequest) -> Connection:
    """A production run."""
    return open_run(notes, f"run-{request.node.name}"[:60])


def calls_of(workspace: Workspace, run_id: str) -> list[CallRecord]:
    ledger = Ledger.open(workspace.database_url)
    try:
        return list(ledger.calls(run_id))
    finally:
        ledger.close()


def ask(connection: Connection, name: str, arguments: dict, **extra: Any) -> dict:
    """Make one remote tool call over the wire."""
    request = connection.identify(CallKind.TOOL, name, arguments, **extra)
    return connection.post(wire.TOOL, request)


def test_a_notebook_calls_a_servers_tool(notes: Workspace, session: Connection) -> None:
    """Recorded like any call, with the effect that the catalog says, not the caller."""
    before = toolkit.remote("notes.count_notes")()["notes"]
    assert toolkit.remote("notes.write_note")(text="hello")["notes"] == before + 1
    _, wrote = calls_of(notes, session.run_id)
    assert (wrote.intent.name, wrote.intent.effect) == ("notes.write_note", Effect.WRITE)
    assert wrote.outcome is not None
    assert wrote.outcome.answer == {"notes": before + 1}


def test_arguments_and_names_are_checked(session: Connection) -> None:
    """By the server's schema, and by the catalog."""
    with pytest.raises(UsageError, match="text is missing"):
        toolkit.remote("notes.write_note")()
    with pytest.raises(NotFound, match="not listed") as refused:
        toolkit.remote("notes.unlisted")()
    assert "toolkit tools list notes" in str(refused.value.next_step)


def test_a_servers_secret_is_recorded_nowhere(notes: Workspace, session: Connection) -> None:
    """Not in the answer, not in the ledger, not in a log."""
    assert TOKEN not in str(toolkit.remote("notes.whisper")())
    files = [path for path in notes.root.rglob("*") if path.is_file()]
    assert [path.name for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_policy_decides_before_the_server_is_asked(notes: Workspace, kernel: Connection) -> None:
    """A refusal is recorded with the policy's own reason."""
    outcome = ask(kernel, "notes.whisper", {})["outcome"]
    assert outcome["state"] == "denied"
    assert "secrets are not read in production" in outcome["error"]["message"]
    (refused,) = calls_of(notes, kernel.run_id)
    assert refused.state is CallState.DENIED


def test_a_write_that_is_sent_again_happens_once(notes: Workspace, kernel: Connection) -> None:
    """The same request, and the same call of a run that starts again."""
    request = kernel.identify(CallKind.TOOL, "notes.write_note", {"text": "once"})
    first = kernel.post(wire.TOOL, request)["outcome"]["answer"]
    assert kernel.post(wire.TOOL, request)["outcome"]["answer"] == first
    resumed = open_run(notes, kernel.run_id)
    again = ask(resumed, "notes.write_note", {"text": "once"})
    assert again["replayed"]
    assert again["outcome"]["answer"] == first
    assert ask(resumed, "notes.count_notes", {})["outcome"]["answer"] == first


def test_a_write_whose_end_nobody_knows_is_for_a_person(session: Connection) -> None:
    """It is not a failure that a model could try again: the cell waits, and the server is there."""
    asked: list[str] = []

    def take_back(waiting: Waiting) -> None:
        if waiting.approval["waiting"]:
            asked.extend(waiting.approval["view"]["reasons"])
            waiting.answer("reject", reason="nobody knows")

    session.watchers.append(take_back)
    with pytest.raises(CallInDoubt, match="nobody knows"):
        toolkit.remote("notes.die")()
    assert "whether it took effect is not known" in " ".join(asked)
    assert "notes" in toolkit.remote("notes.count_notes")()


def test_a_model_uses_remote_tools_beside_functions(session: Connection) -> None:
    """Description and schema come from the gateway, the catalog's words before the server's."""
    count = toolkit.remote("notes.count_notes")

    @toolkit.tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    told = count.schema()["function"]
    assert told["name"] == "notes-count_notes"
    assert told["description"] == "How many notes there are."
    assert (
        toolkit.remote("notes.write_note").schema()["function"]["description"].startswith("Writes")
    )
    reply = toolkit.model("please count", tools=[count, add])
    assert (reply.text, reply.rounds) == ("an answer", 2)


def test_a_failing_tool_is_told_to_the_model(notes: Workspace, session: Connection) -> None:
    """The loop goes on; the failure is recorded."""
    find = toolkit.remote("crm.findCustomer")
    reply = toolkit.model("please fail", tools=[find])
    assert reply.text == "an answer"
    failed = [call for call in calls_of(notes, session.run_id) if call.intent.kind is CallKind.TOOL]
    assert failed[0].state is CallState.ERROR
    with pytest.raises((ToolFailed, CallDenied)):
        find(email="a@x.org")


def test_tools_are_listed_for_a_kernel(session: Connection) -> None:
    """All of them, or some by name; what cannot be described says why."""
    told = session.query(wire.TOOLS)
    assert {tool["name"] for tool in told["tools"]} == {
        "notes.write_note", "notes.count_notes", "notes.whisper", "notes.die", "crm.findCustomer",
    }  # fmt: skip
    told = session.query(wire.TOOLS, {"names": ["notes.die", "notes.unlisted"]})
    assert [tool["effect"] for tool in told["tools"]] == ["write"]
    assert [fault["name"] for fault in told["faults"]] == ["notes.unlisted"]
    with pytest.raises(UsageError, match="names"):
        session.query(wire.TOOLS, {"names": "all"})


# -- the gateway as an MCP server ------------------------------------------------------------------


class Mounted:
    """The MCP door of a workspace on a loopback port, in this process."""

    def __init__(self, workspace: Workspace) -> None:
        self._ledger = Ledger.open(workspace.database_url)
        self._writer = LedgerWriter(self._ledger)
        assembly = Assembly(workspace, self._ledger, self._writer)

        def toolbox() -> Toolbox:
            return Toolbox(
                workspace.registry / "tools.yaml",
                environ={"NOTES_TOKEN": TOKEN},
                root=workspace.root,
                logs=workspace.state / "logs",
            )

        self._assembly = assembly
        self._remote = RemoteTools(assembly.door, Pages(workspace), toolbox)
        identity = Identity(self._ledger, workspace.user)
        self._door = McpDoor(self._remote, identity, self._ledger)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"
        config = uvicorn.Config(
            Starlette(routes=self._door.routes()), log_level="critical", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._door.close()
        await self._remote.close()
        await self._assembly.close(1.0)
        if self._task is not None:
            await self._task
        self._writer.close()
        self._ledger.close()


def mcp_client(url: str, token: str, http: httpx2.AsyncClient, **options: Any) -> Client:
    http.headers["authorization"] = f"Bearer {token}"
    return Client(streamable_http_client(url, http_client=http), **options)


def token_of(connection: Connection) -> str:
    assert connection._token is not None
    return connection._token


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_mcp_client_gets_governed_tools(
    notes: Workspace, kernel: Connection, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, called, refused and recorded as the token's run, in the new protocol and the old."""
    monkeypatch.chdir(notes.root)

    async def story() -> None:
        async with (
            Mounted(notes) as mounted,
            httpx2.AsyncClient(trust_env=False) as http,
            mcp_client(mounted.url, token_of(kernel), http, mode=mode) as client,
        ):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert "notes-unlisted" not in tools
            assert tools["notes-count_notes"].title == "notes.count_notes"
            assert tools["notes-count_notes"].annotations.read_only_hint
            await client.call_tool("notes-write_note", {"text": "by MCP"})
            counted = await client.call_tool("notes.count_notes", {})
            assert not counted.is_error
            assert counted.structured_content["notes"] >= 1
            refused = await client.call_tool("notes-whisper", {})
            assert refused.is_error
            assert "secrets are not read in production" in refused.content[0].text
            for name, arguments in [("notes-unlisted", {}), ("notes-write_note", {"text": 5})]:
                assert (await client.call_tool(name, arguments)).is_error

    asyncio.run(story())
    recorded = [(call.intent.name, call.state) for call in calls_of(notes, kernel.run_id)]
    assert recorded == [
        ("notes.write_note", CallState.OK),
        ("notes.count_notes", CallState.OK),
        ("notes.whisper", CallState.DENIED),
        ("notes.write_note", CallState.ERROR),
    ]


def test_an_mcp_clients_equal_calls_are_calls_of_their_own(
    notes: Workspace, kernel: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted per token; nothing is answered from another call's record."""
    monkeypatch.chdir(notes.root)

    async def story() -> list[int]:
        async with (
            Mounted(notes) as mounted,
            httpx2.AsyncClient(trust_env=False) as http,
            mcp_client(mounted.url, token_of(kernel), http) as client,
        ):
            told = [await client.call_tool("notes-write_note", {"text": "x"}) for _ in range(3)]
        return [one.structured_content["notes"] for one in told]

    first, second, third = asyncio.run(story())
    assert (second, third) == (first + 1, first + 2)
    # After a restart of the gateway they are counted on.
    assert asyncio.run(story()) == [third + 1, third + 2, third + 3]


def test_without_a_token_nothing_is_said(notes: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even which tools there are."""
    monkeypatch.chdir(notes.root)

    async def story() -> None:
        async with Mounted(notes) as mounted, httpx.AsyncClient(trust_env=False) as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            for headers in ({}, {"authorization": "Bearer nobody"}):
                answer = await http.post(mounted.url, json=body, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "notes" not in answer.text

    asyncio.run(story())


def test_paths_stay_inside(notes: Workspace) -> None:
    """The server's log is where it is said to be."""
    assert (Path(notes.state) / "logs" / "server-notes.log").exists()
