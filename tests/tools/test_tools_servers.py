"""MCP servers, real ones: started, asked, killed, hung, and changed behind our back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools_world import SERVER, Names, open_toolbox, write_tools

from toolkit.errors import (
    CallDenied,
    CallInDoubt,
    ConfigurationError,
    NotFound,
    ToolFailed,
    UsageError,
)
from toolkit.ledger import is_alive
from toolkit.tools import Toolbox
from toolkit.tools.places import Places
from toolkit.tools.servers import McpServer
from toolkit.tools.settings import StdioServer

TOKEN = "s3cr3t-files-token"
TOOLS = [
    "add", "say", "environment", "fail", "picture", "long", "slow", "die", "hang", "process",
    "betray", "complain", "absent",
]  # fmt: skip


def stdio(folder: Path, *lines: str, tools: list[str] = TOOLS, command: str | None = None) -> Path:
    """Write a catalog with one server over pipes."""
    command = command or f'["{sys.executable}", "{SERVER}"]'
    text = ["tools: {}", "servers:", "  files:", "    transport: stdio", f"    command: {command}"]
    text += [f"    {line}" for line in lines]
    text += ["    tools:", *(f"      {name}: {{effect: read}}" for name in tools)]
    return write_tools(folder, "\n".join([*text, ""]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, loop: asyncio.Runner) -> Iterator[Toolbox]:
    """One server for the tests that leave it alive, or let it be started again."""
    path = stdio(tmp_path_factory.mktemp("files"), "env_from: [FILES_TOKEN]")
    box = open_toolbox(path, {"FILES_TOKEN": TOKEN, "OTHER_KEY": "not yours"}, Names())
    yield box
    loop.run(box.close())


class Ask:
    """Calls tools of one toolbox in the module's loop."""

    def __init__(self, loop: asyncio.Runner, box: Toolbox, server: str = "files") -> None:
        self.loop, self.box, self.server = loop, box, server

    def __call__(
        self, tool: str, *, timeout_s: float = 10.0, again: bool = True, **given: Any
    ) -> Any:
        name = f"{self.server}.{tool}"
        return self.loop.run(self.box.call(name, given, timeout_s=timeout_s, repeatable=again))


@pytest.fixture
def ask(loop: asyncio.Runner, files: Toolbox) -> Ask:
    return Ask(loop, files)


def test_answers_are_json(ask: Ask) -> None:
    """Structured content as it is, else text; a picture as type, length and digest."""
    assert ask("add", a=2, b=3) == {"result": 5}
    assert ask("say", text="grüß dich") == "grüß dich"
    seen = ask("picture")
    assert seen["text"] == "a dot"
    (part,) = seen["parts"]
    assert part["media_type"] == "image/png"
    assert part["bytes"] == len(b"\x89PNG dot")
    assert part["digest"].startswith("sha256:")


def test_arguments_are_checked_before_they_leave(ask: Ask) -> None:
    """By the schema that the server itself gives."""
    with pytest.raises(UsageError, match="b is missing"):
        ask("add", a=2)
    with pytest.raises(UsageError, match="a does not fit the schema's type"):
        ask("add", a="two", b=3)


def test_the_server_gets_its_own_secrets_only(ask: Ask) -> None:
    """And what it repeats of them is cut out."""
    assert ask("environment", name="FILES_TOKEN") == {"result": "[secret]"}
    assert ask("environment", name="OTHER_KEY") == {"result": "(not set)"}
    with pytest.raises(ToolFailed, match=r"the disk is full for \[secret\]"):
        ask("fail")


def test_an_answer_that_is_too_large_is_an_error(ask: Ask) -> None:
    """What cannot be recorded is not returned."""
    with pytest.raises(ToolFailed, match="more than the 1048576 allowed"):
        ask("long", characters=1_100_000)


def test_what_is_not_listed_is_not_called(ask: Ask) -> None:
    """Neither what the server offers and the file does not name, nor the other way round."""
    with pytest.raises(NotFound, match="does not offer absent"):
        ask("absent")
    with pytest.raises(NotFound, match="not listed") as refused:
        ask("server")
    assert "toolkit tools list files" in str(refused.value.next_step)
    with pytest.raises(NotFound, match="not listed"):
        Ask(ask.loop, ask.box, "elsewhere")("add", a=1, b=2)


def test_the_servers_error_output_goes_to_a_private_log(ask: Ask, files: Toolbox) -> None:
    """`.toolkit/logs/server-files.log`, for its owner only."""
    ask("complain", text="the disk is nearly full")
    log = files._places.logs / "server-files.log"
    deadline = time.monotonic() + 10
    while "nearly full" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "the disk is nearly full" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_a_slow_call_is_given_up_alone(ask: Ask) -> None:
    """The server is not blamed for one slow tool."""
    before = ask("process")
    with pytest.raises(ToolFailed, match=r"did not answer within 0.2 s during files.slow"):
        ask("slow", timeout_s=0.2, seconds=30.0)
    assert ask("process") == before


def test_a_server_that_dies_is_started_again(ask: Ask) -> None:
    """A write that was under way is in doubt; a read is asked once more before it is an error."""
    before = ask("process")
    with pytest.raises(CallInDoubt, match="whether it took effect is not known"):
        ask("die", again=False)
    with pytest.raises(ToolFailed, match=r"ended during files\.die"):
        ask("die")
    assert ask("process") != before


def test_a_server_that_died_in_silence_costs_no_write(ask: Ask) -> None:
    """It is found dead before anything is sent, so nothing is in doubt."""
    os.kill(ask("process")["result"], signal.SIGKILL)
    ask.loop.run(asyncio.sleep(0.2))
    assert ask("add", again=False, a=1, b=1) == {"result": 2}


def test_a_hung_server_is_ended(tmp_path: Path, loop: asyncio.Runner) -> None:
    """The agent hears of it at once, and the process is gone soon after."""
    places = Places({}, tmp_path, tmp_path, tmp_path / "logs", Names())
    settings = StdioServer(transport="stdio", command=[sys.executable, str(SERVER)])
    server = McpServer("files", settings, places, probe_s=0.2)

    async def story() -> None:
        offers = await server.offers()
        told = await server.call(offers["process"], {}, timeout_s=10, repeatable=True)
        with pytest.raises(ToolFailed, match="did not answer within"):
            await server.call(offers["hang"], {}, timeout_s=0.3, repeatable=True)
        async with asyncio.timeout(30):
            while is_alive(told["result"]):  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.05)
        await server.close()

    loop.run(story())


def test_a_tool_that_changes_after_approval_is_refused(
    tmp_path: Path, loop: asyncio.Runner
) -> None:
    """The pinned digest is of what a person read; the new words reach no model."""

    async def story() -> None:
        box = open_toolbox(stdio(tmp_path), {}, Names())
        listed = {one.name: one for one in await box.offered("files")}
        assert listed["files.betray"].callable
        path = tmp_path / "registry" / "tools.yaml"
        pinned = f'add: {{effect: read, digest: "{listed["files.add"].offer.digest}"}}'
        path.write_text(path.read_text().replace("add: {effect: read}", pinned))
        box.reload()
        three = {"a": 1, "b": 2}
        assert await box.call("files.add", three, timeout_s=5, repeatable=True) == {"result": 3}
        await box.call("files.betray", {}, timeout_s=5, repeatable=True)
        with pytest.raises(CallDenied, match="no longer what was approved") as refused:
            await box.describe("files.add", fresh=True)
        with pytest.raises(CallDenied, match="no longer what was approved"):
            await box.call("files.add", three, timeout_s=5, repeatable=True)
        assert "evil" not in str(refused.value.to_json())
        assert next(one for one in await box.offered("files") if one.changed).name == "files.add"
        await box.close()

    loop.run(story())


def test_a_file_that_changes_restarts_only_what_changed(
    tmp_path: Path, loop: asyncio.Runner
) -> None:
    """And a fault in it changes nothing but the answer."""

    async def story() -> None:
        path = stdio(tmp_path, tools=["process"])
        box = open_toolbox(path, {}, Names())

        async def process() -> int:
            told = await box.call("files.process", {}, timeout_s=10, repeatable=True)
            number: int = told["result"]
            return number

        first = await process()
        text = path.read_text()
        path.write_text(text + "http: {}\n")
        box.reload()
        assert await process() == first
        path.write_text(text + "http: 5\n")
        with pytest.raises(ConfigurationError, match="http"):
            box.reload()
        path.write_text(text.replace("command:", "start_timeout_s: 20\n    command:"))
        box.reload()
        assert await process() != first
        await box.close()
        assert not is_alive(first)

    loop.run(story())


START = {
    "no program": ('["no-such-program-here"]', "could not be started"),
    "ends at once": (f'["{sys.executable}", "-c", "raise SystemExit(3)"]', "could not be started"),
    "never ready": (
        f'["{sys.executable}", "-c", "import time; time.sleep(60)"]',
        "not ready within",
    ),
    "speaks nonsense": (f'["{sys.executable}", "-c", "print(1)"]', "could not be started"),
}


@pytest.mark.parametrize(("command", "told"), START.values(), ids=START.keys())
def test_a_server_that_does_not_start_is_told(
    tmp_path: Path, loop: asyncio.Runner, command: str, told: str
) -> None:
    """In a sentence, with the log to look at, within its time."""
    path = stdio(tmp_path, "start_timeout_s: 0.7", command=command)
    box = open_toolbox(path, {}, Names())
    with pytest.raises(ToolFailed, match=told) as failed:
        Ask(loop, box)("say", text="x")
    assert "server-files.log" in str(failed.value.next_step)
    loop.run(box.close())


def test_a_missing_variable_of_a_server_is_named(tmp_path: Path, loop: asyncio.Runner) -> None:
    """The server is not started without its secret."""
    box = open_toolbox(stdio(tmp_path, "env_from: [FILES_TOKEN]"), {}, Names())
    with pytest.raises(ConfigurationError, match="FILES_TOKEN"):
        Ask(loop, box)("say", text="x")
    loop.run(box.close())


# -- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wiki() -> Iterator[int]:
    """A server over HTTP that wants a token; returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVER, "http", str(port), TOKEN])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield port
    server.kill()
    server.wait(10)


def over_http(
    folder: Path, url: str, *lines: str, environ: dict[str, str], names: Names
) -> Toolbox:
    text = ["tools: {}", "servers:", "  wiki:", "    transport: http", f"    url: {url}"]
    text += [f"    {line}" for line in lines]
    text += ["    tools:", *(f"      {name}: {{effect: read}}" for name in TOOLS)]
    return open_toolbox(write_tools(folder, "\n".join(text)), environ, names)


def test_a_server_over_http_gets_its_token(tmp_path: Path, loop: asyncio.Runner, wiki: int) -> None:
    """From the gateway's environment, and only there."""
    names = Names(**{"127_0_0_1": "127.0.0.1"})
    lines = ("token_env: WIKI_TOKEN", "allow_private: [127.0.0.1/32]")
    url = f"http://127.0.0.1:{wiki}/mcp"
    box = over_http(tmp_path, url, *lines, environ={"WIKI_TOKEN": TOKEN}, names=names)
    ask = Ask(loop, box, "wiki")
    assert ask("add", a=2, b=3) == {"result": 5}
    assert box.host("wiki.add") == "127.0.0.1"
    loop.run(box.close())
    box = over_http(tmp_path, url, *lines, environ={"WIKI_TOKEN": "wrong-token"}, names=names)
    with pytest.raises(ToolFailed, match="could not be started"):
        Ask(loop, box, "wiki")("add", a=2, b=3)
    loop.run(box.close())


def test_a_server_over_http_is_guarded_like_a_service(
    tmp_path: Path, loop: asyncio.Runner, wiki: int
) -> None:
    """Loopback opens only where it is written."""
    names = Names().add("wiki.example", ["127.0.0.1"])
    url = f"http://wiki.example:{wiki}/mcp"
    box = over_http(tmp_path, url, environ={}, names=names)
    with pytest.raises(CallDenied, match="the gateway's own machine"):
        Ask(loop, box, "wiki")("add", a=2, b=3)
    loop.run(box.close())


def test_a_server_that_is_not_there_is_told(tmp_path: Path, loop: asyncio.Runner) -> None:
    """Within its time, as an error of the tool."""
    names = Names(**{"127_0_0_1": "127.0.0.1"})
    box = over_http(
        tmp_path, "http://127.0.0.1:9/mcp", "allow_private: [127.0.0.1/32]", environ={}, names=names
    )
    with pytest.raises(ToolFailed, match="could not be started"):
        Ask(loop, box, "wiki")("add", a=2, b=3)
    loop.run(box.close())
