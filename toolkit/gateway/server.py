"""The gateway as a process: one per workspace, on a private unix socket and a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

import uvicorn
import uvloop
from starlette.types import ASGIApp

from toolkit.errors import GatewayUnavailable
from toolkit.gateway.answering import WholeProtocol
from toolkit.gateway.exchange import Via, reached_by
from toolkit.gateway.listeners import Listener, TeamAddress, open_listeners
from toolkit.gateway.peers import PeerCheckedProtocol
from toolkit.ledger import is_alive

__all__ = ["GatewayRecord", "read_record", "serve", "stop_gateway"]

# What a stop may take: requests under way, then the calls that outlive their requests.  Together
# less than the time that `stop_gateway` waits.
_REQUESTS_S = 4
_LEAVE_S = 4.0
_TURN_S = 15.0
_TEND_S = 2.0
# A kernel that thinks for a minute need not connect again.
_KEEP_S = 300
_LOOK_S = 0.05
# The ledger's thread asks for the interpreter after each statement, and Python lets it wait this
# long while the event loop computes.  The default of 5 ms is longer than a whole call.
_SWITCH_S = 0.0005
_COLLECT_AFTER = (20_000, 20, 50)


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """What a running gateway leaves in ``.toolkit/gateway.json``.

    Attributes:
        socket: Path of the unix socket.
        pid: Process id.
        started_us: Microseconds since the epoch.
        port: The loopback port, for SDKs that cannot use a unix socket.
        team: The address for other machines (``https://host:port``), if there is one.
    """

    socket: str
    pid: int
    started_us: int
    port: int | None = None
    team: str | None = None


def read_record(state: Path) -> GatewayRecord | None:
    """Return the record of the last started gateway, dead or alive; ``None`` if there is none."""
    try:
        body = json.loads((state / "gateway.json").read_text("utf-8"))
        return GatewayRecord(
            str(body["socket"]),
            int(body["pid"]),
            int(body["started_us"]),
            port=body.get("port"),
            team=body.get("team"),
        )
    except (OSError, ValueError, KeyError):
        return None


class Served(Protocol):
    """What is served, and how it ends."""

    @property
    def app(self) -> ASGIApp:
        """The application."""
        ...

    def busy(self) -> bool:
        """Whether a run needs the gateway although it is silent."""
        ...

    def tend(self) -> None:
        """Look after what runs beside the application; called every few seconds."""
        ...

    async def leave(self) -> None:
        """Runs in the event loop after the last request; cut off after a few seconds."""
        ...

    def close(self) -> None:
        """Release what the application holds."""
        ...


def serve(
    build: Callable[[Callable[[], None]], Served],
    *,
    state: Path,
    path: Path,
    idle_s: float,
    team: TeamAddress | None = None,
) -> int:
    """Serve until a signal, or until nobody has asked for ``idle_s`` seconds.

    Args:
        build: Makes what is served, once it is this process's turn; gets a function to call at
            every request.
        state: The workspace's ``.toolkit`` folder.
        path: The socket.
        idle_s: Seconds without a request after which an unused gateway ends.
        team: Where to listen for other machines, if anywhere.

    Returns:
        The process's exit code: 0 also when another gateway already serves this workspace.
    """
    with _turn(state, path) as won:
        if not won:
            return 0
        told = _end_in_order()
        last = [time.monotonic()]

        def touched() -> None:
            last[0] = time.monotonic()

        def idle() -> float:
            return time.monotonic() - last[0]

        try:
            with open_listeners(path, team) as listeners:
                _write_record(state, path, listeners)
                with (
                    contextlib.closing(build(touched)) as served,
                    asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
                ):
                    _quicken()
                    runner.run(_serve(served, listeners, idle, idle_s, told))
        finally:
            (state / "gateway.json").unlink(missing_ok=True)
    return 0


def _quicken() -> None:
    """Set up the interpreter for many short calls and few long-lived objects."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()  # what was imported stays, so no collection has to look at it
    gc.set_threshold(*_COLLECT_AFTER)


def _end_in_order() -> list[int]:
    """Take the default action from the signals that ask for an end; return those that came.

    One that comes before uvicorn listens is found in the list.  And uvicorn raises the signal that
    ended it once more, for whoever had the handler before: the default would kill this process
    before it has closed anything.
    """
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: told.append(came))
    return told


@contextlib.contextmanager
def _turn(state: Path, path: Path) -> Iterator[bool]:
    """Hold the workspace's gateway lock; it falls with the process, however that ends.

    A held lock alone does not say that somebody serves: its holder may be about to end, or may
    only be looking.  So this waits until a gateway answers (false) or the lock is free (true).
    """
    deadline = time.monotonic() + _TURN_S
    while True:
        with _only_one(state) as won:
            if won or _answers(path) or time.monotonic() > deadline:
                yield won
                return
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[bool]:
    handle = os.open(state / "gateway.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2.0)
            probe.connect(str(path))
    except OSError:
        return False
    return True


def _write_record(state: Path, path: Path, listeners: tuple[Listener, ...]) -> None:
    record = GatewayRecord(str(path), os.getpid(), time.time_ns() // 1000)
    for one in listeners:
        if one.via is Via.LOOPBACK:
            record = replace(record, port=one.port)
        if one.team is not None:
            host = f"[{one.team.host}]" if ":" in one.team.host else one.team.host
            record = replace(record, team=f"{one.team.scheme}://{host}:{one.port}")
    temporary = state / f"gateway.json.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(record)), "utf-8")
    temporary.replace(state / "gateway.json")


class _Beside(uvicorn.Server):
    """A server beside the first one, which alone listens to signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _First(uvicorn.Server):
    """The server whose signals end all of them."""

    def __init__(self, config: uvicorn.Config, others: list[_Beside]) -> None:
        super().__init__(config)
        self.others = others

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.end()

    def end(self) -> None:
        for server in (self, *self.others):
            server.should_exit = True


def _config(app: ASGIApp, one: Listener) -> uvicorn.Config:
    team = one.team if one.team is not None and one.team.certificate is not None else None
    return uvicorn.Config(
        reached_by(app, one.via), log_level="warning", access_log=False, lifespan="off",
        http=PeerCheckedProtocol if one.via is Via.UNIX else WholeProtocol, ws="none",
        # Who a caller is, is told by its token, never by a header that anybody can write.
        proxy_headers=False, server_header=False,
        timeout_graceful_shutdown=_REQUESTS_S, timeout_keep_alive=_KEEP_S,
        ssl_certfile=team.certificate if team else None, ssl_keyfile=team.key if team else None,
    )  # fmt: skip


async def _serve(
    served: Served,
    listeners: tuple[Listener, ...],
    idle: Callable[[], float],
    idle_s: float,
    told: list[int],
) -> None:
    others = [_Beside(_config(served.app, one)) for one in listeners[1:]]
    server = _First(_config(served.app, listeners[0]), others)

    async def watch() -> None:
        while not (server.should_exit or told):
            await asyncio.sleep(min(_TEND_S, idle_s / 2))
            served.tend()
            if idle() > idle_s and not await asyncio.to_thread(served.busy):
                break
        server.end()

    watcher = asyncio.ensure_future(watch())
    if not told:
        await asyncio.gather(
            *(
                one.serve(sockets=[listener.socket])
                for one, listener in zip((server, *others), listeners, strict=True)
            )
        )
    watcher.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(served.leave(), _LEAVE_S)


def stop_gateway(state: Path, *, timeout_s: float = 15.0) -> bool:
    """End the workspace's gateway; return whether one was running.

    Raises:
        GatewayUnavailable: It did not end in time.
    """
    record = read_record(state)
    with _only_one(state) as free:
        if free or record is None:
            return False  # nobody holds the lock: a record left by a killed gateway names no one
    try:
        os.kill(record.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        # A gateway that somebody started meanwhile is not the one that was to end.
        if read_record(state) != record or not is_alive(record.pid):
            return True
        time.sleep(_LOOK_S)
    raise GatewayUnavailable(
        f"the gateway (pid {record.pid}) did not end within {timeout_s:.0f} s",
        next_step=f"kill {record.pid}",
    )
