"""The gateway as a process: one per workspace, on a private unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette

from toolkit.errors import GatewayUnavailable

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


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """What a running gateway leaves in ``.toolkit/gateway.json``.

    Attributes:
        socket: Path of the unix socket.
        pid: Process id.
        started_us: Microseconds since the epoch.
    """

    socket: str
    pid: int
    started_us: int


def read_record(state: Path) -> GatewayRecord | None:
    """Return the record of the last started gateway, dead or alive; ``None`` if there is none."""
    try:
        body = json.loads((state / "gateway.json").read_text("utf-8"))
        return GatewayRecord(str(body["socket"]), int(body["pid"]), int(body["started_us"]))
    except (OSError, ValueError, KeyError):
        return None


class Served(Protocol):
    """What is served, and how it ends."""

    @property
    def app(self) -> Starlette:
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
    build: Callable[[Callable[[], None]], Served], *, state: Path, path: Path, idle_s: float
) -> int:
    """Serve until a signal, or until nobody has asked for ``idle_s`` seconds.

    Args:
        build: Makes what is served, once it is this process's turn; gets a function to call at
            every request.
        state: The workspace's ``.toolkit`` folder.
        path: The socket.
        idle_s: Seconds without a request after which an unused gateway ends.

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

        listener = _listen(path)
        try:
            _write_record(state, path)
            with (
                contextlib.closing(build(touched)) as served,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                runner.run(_serve(served, listener, idle, idle_s, told))
        finally:
            listener.close()
            path.unlink(missing_ok=True)
            (state / "gateway.json").unlink(missing_ok=True)
    return 0


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


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # left by a killed gateway; the lock says that none is alive
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise GatewayUnavailable(
            f"the socket cannot be made: {error.strerror}", where=str(path)
        ) from error
    finally:
        os.umask(old)
    listener.listen(512)
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own shape
    return listener


def _write_record(state: Path, path: Path) -> None:
    body = {"socket": str(path), "pid": os.getpid(), "started_us": time.time_ns() // 1000}
    temporary = state / f"gateway.json.{os.getpid()}"
    temporary.write_text(json.dumps(body), "utf-8")
    temporary.replace(state / "gateway.json")


async def _serve(
    served: Served,
    listener: socket.socket,
    idle: Callable[[], float],
    idle_s: float,
    told: list[int],
) -> None:
    config = uvicorn.Config(
        served.app, log_level="warning", access_log=False, lifespan="off", http="httptools",
        timeout_graceful_shutdown=_REQUESTS_S, timeout_keep_alive=_KEEP_S,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def watch() -> None:
        while not (server.should_exit or told):
            await asyncio.sleep(min(_TEND_S, idle_s / 2))
            served.tend()
            if idle() > idle_s and not await asyncio.to_thread(served.busy):
                break
        server.should_exit = True

    watcher = asyncio.ensure_future(watch())
    if not told:
        await server.serve(sockets=[listener])
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
        if read_record(state) != record or not _alive(record.pid):
            return True
        time.sleep(_LOOK_S)
    raise GatewayUnavailable(
        f"the gateway (pid {record.pid}) did not end within {timeout_s:.0f} s",
        next_step=f"kill {record.pid}",
    )


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and whose parent has not noticed does not."""
    try:
        process = psutil.Process(pid)
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
