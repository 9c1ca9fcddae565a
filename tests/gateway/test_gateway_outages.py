"""The outage drill of controls: a real gateway, and the table in docs/outages.md says what is seen."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import doors_world
import httpx
import pytest
import uvicorn
from doors_world import write_doors_workspace
from gateway_world import begin, close_runs
from outage_upstream import OutageUpstream, Say, closed_port, running_upstream
from postgres_world import postgres_server
from workspace_world import RULES

from toolkit.app.approvals import make_desk
from toolkit.app.assembly import Assembly
from toolkit.client import Connection, wire
from toolkit.errors import ToolkitError, error_from_json
from toolkit.gateway import Answer, Choice, Governance, stop_gateway
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.settings import Workspace, open_workspace
from toolkit.tracing import MlflowStore, Shipper
from toolkit.values import CallKind, CallState, Environment, RunKind, RunRecord, RunState

assert doors_world  # it makes outage_upstream importable

PAGE = Path(__file__).parents[2] / "docs" / "outages.md"
DAY_S = 86_400
BROKEN = "this: [is, not\n"
ASK = """
@id("two-people") @reason("files are written by two people") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"write_file");
"""
ONCE, NEVER, LATER = "the same call is made once", "it was never made", "shipped later"


@dataclass
class JumpingClock:
    """The machine's clock, some seconds off; its monotonic side does not jump, like the real one."""

    off_s: float = 0.0

    def now_us(self) -> int:
        return time.time_ns() // 1000 + round(self.off_s * 1e6)

    def monotonic_s(self) -> float:
        return time.monotonic()


class Live:
    """A gateway on its socket, in a thread of this process: so its clock and its disk are ours."""

    def __init__(self, workspace: Workspace, clock: JumpingClock | None = None) -> None:
        self._workspace = workspace
        self._clock = clock or JumpingClock()
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        close_runs()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        url = self._workspace.database_url
        with (
            Ledger.open(url, clock=self._clock, busy_timeout_s=0.5) as ledger,
            LedgerWriter(ledger) as writer,
        ):
            assembly = Assembly(self._workspace, ledger, writer, clock=self._clock)
            path = str(self._workspace.socket)
            self._server = uvicorn.Server(
                uvicorn.Config(assembly.app, uds=path, log_level="critical", lifespan="off")
            )
            serving = asyncio.ensure_future(self._server.serve())
            while not self._server.started:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0.01)
            self._up.set()
            await serving
            await assembly.close(1.0)


@dataclass
class Drill:
    """One workspace, its upstream, and what a caller does in it."""

    root: Path
    upstream: OutageUpstream
    clock: JumpingClock = field(default_factory=JumpingClock)
    workspace: Workspace = field(init=False)
    url: str = ""
    tokens: list[str] = field(default_factory=list)
    _open: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir()
        up = self.upstream
        self.workspace = write_doors_workspace(self.root, up.openai_url, up.anthropic_url)
        self.url = self.workspace.database_url
        (self.registry / "people.yaml").write_text("people:\n  anna: {roles: [approver]}\n")
        up.heard.clear()
        up.tell(Say())

    @property
    def registry(self) -> Path:
        return self.workspace.registry

    @property
    def production(self) -> Path:
        return self.registry / "policies" / "production"

    def live(self) -> Live:
        return Live(self.workspace, self.clock)

    def configure(self, text: str) -> None:
        """Write ``toolkit.toml`` and read it."""
        (self.root / "toolkit.toml").write_text(f'user = "ana"\n{text}\n')
        self.workspace = open_workspace(self.root)
        self.url = self.workspace.database_url

    def kernel(self, run_id: str = "run-1") -> Connection:
        """Return a production run's connection."""
        return self.connect(self.register(run_id))

    def register(self, run_id: str = "run-1") -> str:
        """Record a production run and return its token."""
        token = new_token()
        run = RunRecord(
            run_id=run_id,
            kind=RunKind.RUN,
            environment=Environment.PRODUCTION,
            user="ana",
            state=RunState.RUNNING,
            token_digest=token_digest(token),
        )
        with Ledger.open(self.url) as ledger:
            ledger.create_run(run)
        self.tokens.append(token)
        return token

    def connect(self, token: str) -> Connection:
        """Return a kernel's connection to the gateway."""
        made = Connection(str(self.workspace.socket), root=self.root, token=token)
        self._open.append(made)
        return made.open()

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def verified(self) -> None:
        """The ledger's chains and tables agree."""
        with Ledger.open(self.url) as ledger:
            assert ledger.verify() == []

    def calls(self, run_id: str = "run-1"):
        with Ledger.open(self.url) as ledger:
            return ledger.calls(run_id)

    def asked(self) -> int:
        """How often the provider was asked."""
        return len(self.upstream.heard)

    def asked_pay(self, webhook: str = "") -> None:
        """Let production ask a person before a file is written."""
        (self.production / "rules.cedar").write_text(RULES + ASK)
        path = self.production / "policy.yaml"
        path.write_text(path.read_text() + f"approvals: {{expires: 1h{webhook}}}\n")


@dataclass(frozen=True)
class Seen:
    """What came of an outage: the cells of its row."""

    mode: str
    caller: ToolkitError | str
    after: str


def request_of(kernel: Connection, text: str = "hello") -> dict[str, Any]:
    arguments = {"messages": [{"role": "user", "content": text}]}
    return kernel.identify(CallKind.MODEL, "default", arguments)


def post(kernel: Connection, request: dict[str, Any], path: str = wire.MODEL) -> dict[str, Any]:
    """Send a request; raise the error that it was answered with, also a recorded one."""
    reply = kernel.post(path, request)
    outcome = reply.get("outcome")
    if outcome is not None and outcome["error"] is not None:
        raise error_from_json(outcome["error"])
    return reply


def refusal(
    kernel: Connection, request: dict[str, Any], path: str = wire.MODEL, *, within_s: float = 10
) -> ToolkitError:
    """Send a request until it is refused: files are looked at twice a second."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            post(kernel, request | {"request_id": new_token()}, path)
        except ToolkitError as error:
            return error
        time.sleep(0.1)
    raise AssertionError("it was not refused")


def recovered(drill: Drill, kernel: Connection, request: dict[str, Any]) -> str:
    """Send a request until it is answered, and once more; tell how often the call was made."""
    before = drill.asked()
    deadline = time.monotonic() + 15
    while True:
        try:
            post(kernel, request)
            break
        except ToolkitError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    post(kernel, request)
    drill.verified()
    (call,) = [c for c in drill.calls(kernel.run_id) if c.key in str(post(kernel, request))]
    assert call.state is CallState.OK
    return ONCE if drill.asked() == max(before, 1) or drill.asked() == before + 1 else "made twice"


# -- drills: the ledger ------------------------------------------------------------------------------


@contextmanager
def on_a_small_disk(drill: Drill) -> Iterator[Path]:
    """Run the workspace's gateway where the ledger's disk is a small one of its own.

    What was recorded before is copied onto it.  Nobody else has it mounted: the test sees its files
    through the process.
    """
    disk = drill.workspace.database_url.removeprefix("sqlite:///").removesuffix("/ledger.db")
    script = (
        'cp "$0/ledger.db" "$0.seed" && mount -t tmpfs -o size=6m none "$0" || exit 97;'
        'cp "$0.seed" "$0/ledger.db" && "$@"; exit $?'
    )
    command = [sys.executable, "-m", "toolkit.app.serve", str(drill.root)]
    log = (drill.root / "gateway.log").open("wb")
    shell = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script, disk, *command], stdout=log, stderr=log
    )
    seen = Path(f"/proc/{shell.pid}/root{disk}")
    try:
        deadline = time.monotonic() + 40
        while not answers(drill.workspace):
            if shell.poll() in (1, 97):
                pytest.skip("this machine does not let a user mount a disk of his own")
            assert time.monotonic() < deadline, (drill.root / "gateway.log").read_text()
            time.sleep(0.05)
        yield seen
    finally:
        stop_gateway(drill.workspace.state)
        shell.wait(20)
        log.close()


def answers(workspace: Workspace) -> bool:
    """Whether a gateway listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(workspace.socket)) == 0


def full_disk(drill: Drill) -> Seen:
    small = drill.root / "disk"
    small.mkdir()
    drill.configure(f'database_url = "sqlite:///{small}/ledger.db"')
    token = drill.register()
    with on_a_small_disk(drill) as disk:
        kernel = drill.connect(token)
        request = request_of(kernel)
        ballast = os.open(disk / "ballast", os.O_CREAT | os.O_WRONLY)
        with suppress(OSError):
            while True:
                os.write(ballast, bytes(4096))
        os.close(ballast)
        caller = refusal(kernel, request, within_s=30)
        begun = drill.asked()
        (disk / "ballast").unlink()
        post(kernel, request)
        post(kernel, request)
        (drill.root / "copy").mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(disk / name, drill.root / "copy" / name)
        drill.url = f"sqlite:///{drill.root}/copy/ledger.db"
        drill.verified()
        return Seen("closed", caller, ONCE if drill.asked() == begun + 1 else "made twice")


def locked(drill: Drill) -> Seen:
    with drill.live():
        kernel = drill.kernel()
        request = request_of(kernel)
        other = sqlite3.connect(drill.url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        caller = refusal(kernel, request)
        assert drill.asked() == 0
        other.execute("ROLLBACK")
        other.close()
        return Seen("closed", caller, recovered(drill, kernel, request))


def locked_under_way(drill: Drill) -> Seen:
    drill.upstream.tell(Say(first_byte_s=1.0))
    with drill.live():
        kernel = drill.kernel()
        request = request_of(kernel)
        with under_way(drill, kernel, request) as ended:
            other = sqlite3.connect(drill.url.removeprefix("sqlite:///"), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
        (caller,) = ended
        other.execute("ROLLBACK")
        other.close()
        return Seen("closed", caller, recovered(drill, kernel, request))


@contextmanager
def under_way(drill: Drill, kernel: Connection, request: dict[str, Any]) -> Iterator[list[Any]]:
    """While the provider works on a call; then the list has what the caller got."""
    ended: list[Any] = []

    def call() -> None:
        try:
            ended.append(post(kernel, request))
        except ToolkitError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not drill.upstream.heard:
        time.sleep(0.01)
    yield ended
    thread.join(30)
    assert ended


def postgres_stopped(drill: Drill) -> Seen:
    drill.upstream.tell(Say(first_byte_s=3.0))
    with postgres_server() as server:
        drill.configure(f'database_url = "{server.get_uri()}"')
        with drill.live():
            kernel = drill.kernel()
            request = request_of(kernel)
            with under_way(drill, kernel, request) as ended:
                stop = [str(server.bin_path / "pg_ctl"), "-w", "-m", "immediate", "-D"]
                subprocess.run(
                    [*stop, str(server.pgdata), "stop"],
                    check=True,
                    capture_output=True,
                    user=server.system_user,
                )
            (caller,) = ended
            server.ensure_postgres_running()
            return Seen("closed", caller, recovered(drill, kernel, request))


# -- drills: files of the registry -------------------------------------------------------------------


def broken_file(name: str, *, text: str | None = BROKEN) -> Callable[[Drill], Seen]:
    """A file that somebody breaks (``None``: a file or folder that is away) and mends."""

    def drilled(drill: Drill) -> Seen:
        path, away = drill.registry / name, drill.registry / "away"
        with drill.live():
            kernel = drill.kernel()
            post(kernel, request_of(kernel, "before"))
            request = request_of(kernel)
            path.rename(away)
            if text is not None:
                path.write_text(text)
            caller = refusal(kernel, request)
            made = drill.asked()
            with pytest.raises(ToolkitError):
                post(kernel, request)
            assert drill.asked() == made
            path.unlink(missing_ok=True)
            away.rename(path)
            assert recovered(drill, kernel, request) == ONCE
            return Seen("closed", caller, ONCE)

    return drilled


def broken_under_way(drill: Drill) -> Seen:
    drill.upstream.tell(Say(first_byte_s=1.0))
    path = drill.production / "policy.yaml"
    good = path.read_text()
    with drill.live():
        kernel = drill.kernel()
        with under_way(drill, kernel, request_of(kernel)) as ended:
            path.write_text(BROKEN)
            time.sleep(0.6)  # it is looked at twice a second
        assert ended[0]["outcome"]["state"] == "ok"
        refusal(kernel, request_of(kernel, "next"))
        path.write_text(good)
        (call,) = drill.calls()
        assert call.state is CallState.OK
        drill.verified()
        return Seen("open", "answer", "recorded" if drill.asked() == 1 else "made twice")


# -- drills: what is beside the calls ----------------------------------------------------------------


def ship(drill: Drill, uri: str) -> int:
    """Send what is there, and return what is left."""
    with Ledger.open(drill.url) as ledger:
        return Shipper(ledger, uri, artifacts=drill.workspace.artifacts).drain(2)


def mlflow_away(drill: Drill) -> Seen:
    with drill.live():
        kernel = drill.kernel()
        reply = post(kernel, request_of(kernel))
        with suppress(ToolkitError):
            assert ship(drill, f"http://127.0.0.1:{closed_port()}") == 1
        assert kernel.post(wire.STATUS, {})["unshipped"] == 1
        post(kernel, request_of(kernel, "another"))
        return Seen("open", reply["outcome"]["state"], shipped(drill))


def no_shipper(drill: Drill) -> Seen:
    with drill.live():  # only the gateway's own process starts one
        kernel = drill.kernel()
        reply = post(kernel, request_of(kernel))
        assert kernel.post(wire.STATUS, {})["unshipped"] == 1
        return Seen("open", reply["outcome"]["state"], shipped(drill))


def shipped(drill: Drill) -> str:
    uri = f"sqlite:///{drill.workspace.state / 'mlflow.db'}"
    store = MlflowStore(uri, artifacts=drill.workspace.artifacts)
    with Ledger.open(drill.url) as ledger:
        left = Shipper(ledger, uri, store=store).drain(60)
    drill.verified()
    return LATER if left == 0 else f"{left} are left"


def webhook_away(drill: Drill) -> Seen:
    hook = f", webhook: {{url: 'http://127.0.0.1:{closed_port()}/', secret_env: HOOK_SECRET}}"
    drill.asked_pay(hook)
    os.environ["HOOK_SECRET"] = "whsec_of-the-outage-drill"  # taken away with the test's variables
    with drill.live():
        kernel = drill.kernel()
        request = kernel.identify(CallKind.TOOL, "write_file", {"line": "x"}, effect="write")
        caller = refusal(kernel, request, wire.BEGIN)
        approve(drill)
        reply = kernel.post(wire.BEGIN, request)
        assert (reply["decision"]["verdict"], reply["outcome"]) == ("allow", None)
        finish(kernel, reply)
        assert kernel.post(wire.BEGIN, request)["outcome"]["state"] == "ok"
        drill.verified()
        return Seen("open", caller, ONCE)


def approve(drill: Drill) -> None:
    with Ledger.open(drill.url, clock=drill.clock) as ledger:
        (asked,) = ledger.approvals()
        desk = make_desk(ledger, Governance(drill.registry), drill.clock)
        desk.answer(asked.id, Answer(Choice.APPROVE, asked.digest), by="anna")


def finish(kernel: Connection, begun: dict[str, Any], answer: Any = None) -> dict[str, Any]:
    """Tell that a tool's body has ended."""
    done = {"key": begun["key"], "generation": begun["generation"], "state": "ok", "answer": answer}
    return kernel.post(wire.FINISH, done)


# -- drills: clocks ----------------------------------------------------------------------------------


def jump(seconds: float) -> Callable[[Drill], Seen]:
    """The clock jumps while a tool runs, and stays so."""

    def drilled(drill: Drill) -> Seen:
        with drill.live():
            kernel = drill.kernel()
            post(kernel, request_of(kernel, "before"))
            begun = begin(kernel, "add", {"a": 1})
            drill.clock.off_s += seconds
            finish(kernel, begun, 2)
            reply = post(kernel, request_of(kernel, "after"))
            tool = next(call for call in drill.calls() if call.intent.name == "add")
            assert tool.outcome is not None
            assert tool.outcome.seconds is not None
            assert 0 <= tool.outcome.seconds < 60
            assert tool.ended_us is not None
            assert tool.ended_us >= tool.started_us
            drill.verified()
            with Ledger.open(drill.url) as ledger:
                budget = ledger.budget("run:run-1")
            assert budget is not None
            assert 0 <= budget.spent_seconds < 60
            return Seen("open", reply["outcome"]["state"], "charged with the seconds that passed")

    return drilled


def expiry(seconds: float) -> Callable[[Drill], Seen]:
    """The clock jumps while a person is asked."""

    def drilled(drill: Drill) -> Seen:
        drill.asked_pay()
        with drill.live():
            kernel = drill.kernel()
            request = kernel.identify(CallKind.TOOL, "write_file", {"line": "x"}, effect="write")
            refusal(kernel, request, wire.BEGIN)
            drill.clock.off_s += seconds
            caller = refusal(kernel, request, wire.BEGIN)
            drill.clock.off_s -= seconds
            states = {call.state for call in drill.calls()}
            drill.verified()
            if states == {CallState.DENIED}:
                return Seen("closed", caller, NEVER)
            approve(drill)
            assert kernel.post(wire.BEGIN, request)["decision"]["verdict"] == "allow"
            return Seen("closed", caller, ONCE)

    return drilled


# -- drills: callers and input -----------------------------------------------------------------------


def ended_run(drill: Drill) -> Seen:
    with drill.live():
        kernel = drill.kernel()
        with Ledger.open(drill.url) as ledger:
            ledger.update_run("run-1", state=RunState.CANCELLED)
        time.sleep(0.6)  # a run's record is believed for half a second
        caller = refusal(kernel, request_of(kernel))
        drill.verified()
        return Seen("closed", caller, NEVER if drill.asked() == 0 else "made")


def key_missing(drill: Drill) -> Seen:
    path = drill.registry / "models.yaml"
    path.write_text(path.read_text().replace("kind: openai,", "kind: openai, api_key_env: NO_KEY,"))
    with drill.live():
        kernel = drill.kernel()
        caller = refusal(kernel, request_of(kernel))
        drill.verified()
        assert drill.asked() == 0
    os.environ["NO_KEY"] = "sk-of-the-outage-drill"
    with drill.live():
        kernel = drill.kernel("run-2")
        return Seen("closed", caller, recovered(drill, kernel, request_of(kernel)))


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def foreign(drill: Drill, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send what our own client would not."""
    transport = httpx.HTTPTransport(uds=str(drill.workspace.socket))
    headers = {"authorization": f"Bearer {drill.tokens[-1]}"}
    with httpx.Client(transport=transport, base_url="http://gateway", headers=headers) as client:
        return client.post(path, json=body, timeout=30).json()


def deep_arguments(drill: Drill) -> Seen:
    with drill.live():
        kernel = drill.kernel()
        request = kernel.identify(CallKind.TOOL, "add", {})
        body = request | {"arguments": {"a": nested(100)}}
        caller = error_from_json(foreign(drill, wire.BEGIN, body)["error"])
        drill.verified()
        return Seen("closed", caller, NEVER if drill.calls() == [] else "made")


def deep_answer(drill: Drill) -> Seen:
    with drill.live():
        kernel = drill.kernel()
        begun = begin(kernel, "write_file", {"line": "x"}, effect="write")
        done = {"key": begun["key"], "state": "ok", "answer": nested(100)}
        caller = error_from_json(foreign(drill, wire.FINISH, done)["outcome"]["error"])
        (call,) = drill.calls()
        drill.verified()
        return Seen("closed", caller, "recorded" if call.state is CallState.ERROR else call.state)


def eight_megabytes(drill: Drill) -> Seen:
    text = "plain words, and a number: 4711; " * (7_900_000 // 33)
    with drill.live():
        kernel = drill.kernel()
        begun = begin(kernel, "add", {"a": 1})
        reply = finish(kernel, begun, text)
        drill.verified()
        return Seen("open", reply["outcome"]["state"], "recorded")


DRILLS: dict[str, Callable[[Drill], Seen]] = {
    "the ledger's disk is full": full_disk,
    "another process holds the ledger's lock": locked,
    "the same, when the call has been made": locked_under_way,
    "PostgreSQL stops, when the call has been made": postgres_stopped,
    "the policy's folder is missing": broken_file("policies/production", text=None),
    "`policy.yaml` is broken": broken_file("policies/production/policy.yaml"),
    "a Cedar file is broken": broken_file("policies/production/rules.cedar", text="permit("),
    "`policy.yaml` is broken while a call is made": broken_under_way,
    "`models.yaml` is broken": broken_file("models.yaml"),
    "`tools.yaml` is broken": broken_file("tools.yaml"),
    "`people.yaml` is broken": broken_file("people.yaml"),
    "MLflow is away": mlflow_away,
    "the shipper is dead": no_shipper,
    "the webhook's receiver is away": webhook_away,
    "the clock jumps a day ahead": jump(DAY_S),
    "the clock jumps a day back": jump(-DAY_S),
    "the clock jumps a day ahead, a person is asked": expiry(DAY_S),
    "the clock jumps a day back, a person is asked": expiry(-DAY_S),
    "the token of a run that has ended": ended_run,
    "the provider's key is not set": key_missing,
    "arguments of 100 levels": deep_arguments,
    "an answer of 100 levels": deep_answer,
    "an answer of 8 MB": eight_megabytes,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[OutageUpstream]:
    with running_upstream() as running:
        yield running


@pytest.fixture
def drill(tmp_path: Path, upstream: OutageUpstream, monkeypatch) -> Iterator[Drill]:
    """A workspace of the test's own."""
    for name in ("HOOK_SECRET", "NO_KEY"):
        monkeypatch.setenv(name, "")  # whatever a drill sets is taken back
        os.environ.pop(name)
    made = Drill(tmp_path / "ws", upstream)
    monkeypatch.chdir(made.root)
    yield made
    made.close()


def table() -> dict[str, tuple[str, str, str]]:
    """Return the rows of the page's second table."""
    text = PAGE.read_text("utf-8").partition("## Controls")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    return {row[0].strip(): (row[1], row[2], row[3].strip()) for row in rows[2:]}


def test_the_table_has_every_drill_and_nothing_else():
    """No row without a drill, no drill without a row."""
    assert list(table()) == list(DRILLS)


@pytest.mark.parametrize("name", list(DRILLS))
def test_an_outage_is_as_the_table_says(name: str, drill: Drill):
    """Closed or open, the words that the caller reads, and what is true afterwards."""
    mode, caller, after = table()[name]
    seen = DRILLS[name](drill)
    assert (seen.mode, seen.after) == (mode, after)
    if isinstance(seen.caller, str):
        assert (caller, seen.caller) in {("answer", "ok"), ("answer", "answer")}
        return
    code, _, words = caller.partition(": ")
    assert code == f"`{seen.caller.code}`", str(seen.caller)
    assert words
    assert words in str(seen.caller)
    assert seen.caller.next_step, "nobody is told what to do"


def test_a_row_that_lies_is_found(drill: Drill):
    """The comparison is one: a row of another outage does not fit what is seen."""
    rows = table()
    seen = deep_arguments(drill)
    assert (seen.mode, seen.after) != (rows["MLflow is away"][0], rows["MLflow is away"][2])
