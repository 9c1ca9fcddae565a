"""Runs that start as forks of a prepared process, beside those that start as programs."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.kernels import channel
from toolkit.scheduling.children import Child, Children, kill_tree

__all__ = ["HostedChildren", "Hosting", "make_children"]

_ANSWER_S = 10.0
_READY_S = 5.0
_LENGTH = struct.Struct("!I")  # as toolkit.kernels.channel
# Arrow's allocator would start a thread when it is imported; its own setting says not to.
_ALSO = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


@dataclass(frozen=True)
class Hosting:
    """What a worker's runs have in common.

    Attributes:
        command: How the commands begin that a fork can do; others are started as programs.
        target: ``module:function``, called with the rest of a command; it returns the exit code.
        modules: Imported before the first fork; ``module:function`` is called too.  What it leaves
            in memory every run finds there; it must leave no thread and no open file.
        max_runs: Runs after which a host is replaced by a fresh one.
    """

    command: tuple[str, ...]
    target: str
    modules: tuple[str, ...] = ()
    max_runs: int = 500


class _NoForkError(Exception):
    """A host does not serve this run; the text is one clause that says why.

    Attributes:
        hopeless: Whether a fresh host would not serve either.
    """

    def __init__(self, why: str, *, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


class _Host:
    """One host process, as its worker sees it.

    The kernel kills it with the thread that makes this object, and with it every run of it.
    """

    def __init__(self, hosting: Hosting, root: Path, log: Path, setpriv: str) -> None:
        self._environment = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        arguments = [str(theirs.fileno()), hosting.target, str(hosting.max_runs), *hosting.modules]
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(setpriv, "--pdeathsig", "KILL", "--"),
                    *(sys.executable, "-m", "toolkit.scheduling.host", *arguments),
                ],
                cwd=root,
                env={**_ALSO, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def serves(self) -> bool:
        """Whether it forks by now.

        Raises:
            _NoForkError: It never will.
        """
        if self._environment != dict(os.environ):
            raise _NoForkError("the environment has changed since it started")
        if self.ready:
            return True
        if select.select([self._control], [], [], 0)[0]:
            self._control.settimeout(_READY_S)
            try:
                told, _ = channel.receive(self._control)
            except (OSError, EOFError, ValueError) as error:
                raise _NoForkError("it died while it was prepared", hopeless=True) from error
            if reason := told.get("refused"):
                raise _NoForkError(str(reason), hopeless=True)
            self.ready = True
        return self.ready

    async def fork(self, arguments: list[str], output: int) -> HostedProcess:
        """Start a run.

        Raises:
            _NoForkError: It does not start, now or later.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._control, [b"r"], [theirs.fileno(), output])
            except OSError as error:
                ours.close()
                raise _NoForkError("it died") from error
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        process: HostedProcess | None = None
        why = "it died"
        try:
            told = await asyncio.wait_for(_receive(reader), _ANSWER_S)
            why = str(told.get("stale", why))
            if "pid" in told:
                process = HostedProcess(int(told["pid"]), reader, writer)
                # Only with this it begins: a run that nobody waits for never does.
                body = json.dumps({"arguments": arguments}).encode()
                writer.write(_LENGTH.pack(len(body)) + body)
        except TimeoutError:
            why = "it hangs"
        except (OSError, EOFError):
            pass
        finally:
            if process is None:
                writer.close()
        if process is None:
            raise _NoForkError(why)
        return process

    def close(self) -> None:
        """Have it end once its runs have; those of a worker that ends have ended."""
        self._control.close()

    def has_ended(self) -> bool:
        """Whether it is gone; then nothing of it is left here either."""
        if self._process.poll() is None:
            return False
        self._control.close()
        return True

    def end(self) -> None:
        """End it, now."""
        self._control.close()
        self._process.kill()
        self._process.wait()


class HostedProcess:
    """A run that a host forked; its methods are those of :class:`asyncio.subprocess.Process`."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # Of its own: the number is the host's to keep, and a host may die.
        self._pidfd = os.pidfd_open(pid)
        self._reader = reader
        self._writer = writer
        self._end = asyncio.ensure_future(self._follow())

    async def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        return await asyncio.shield(self._end)

    def terminate(self) -> None:
        """Ask it to end."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    async def _follow(self) -> int:
        try:
            code = int((await _receive(self._reader))["status"])
        except (OSError, EOFError):
            # The host is gone, which kills the run.  It may not be taken for ended before it is.
            kill_tree(self.pid)
            await _gone(self._pidfd)
            code = -signal.SIGKILL
        self.returncode = code
        self._writer.close()
        os.close(self._pidfd)
        return code


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    found: dict[str, Any] = json.loads(await reader.readexactly(length))
    return found


async def _gone(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)


class HostedChildren(Children):
    """Starts what it can as a fork of a host, and everything else as a program.

    Args:
        root, logs, term_s: See :class:`Children`.
        hosting: What is forked.
        warn: Told why a host does not serve.
    """

    def __init__(
        self, root: Path, logs: Path, term_s: float, hosting: Hosting, warn: Callable[[str], None]
    ) -> None:
        super().__init__(root, logs, term_s)
        self._hosting = hosting
        self._warn = warn
        self._host: _Host | None = None
        self._retired: list[_Host] = []
        self._hopeless = False

    def prepare(self) -> None:
        """Start a host; it serves when it has imported what runs need.

        Call it in a thread that lives as long as the worker (PDEATHSIG follows the thread).
        """
        if self._hopeless:
            return
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._host = _Host(self._hosting, self._root, self._logs / "host.log", self._setpriv)
        except OSError as error:
            self._give_up(f"it cannot be started: {error}")

    def is_ready(self) -> bool:
        """Whether the next run would be a fork."""
        return self._serving() is not None

    def close(self) -> None:
        """End the hosts, and with them what may still run."""
        for host in [*self._retired, *([] if self._host is None else [self._host])]:
            host.end()
        self._host, self._retired = None, []

    async def _start(self, argv: list[str], output: int) -> Child:
        size = len(self._hosting.command)
        if tuple(argv[:size]) == self._hosting.command and (host := self._serving()) is not None:
            try:
                return await host.fork(argv[size:], output)
            except _NoForkError as error:
                self._replace(str(error))
        return await super()._start(argv, output)

    def _serving(self) -> _Host | None:
        host = self._host
        try:
            self._retired = [other for other in self._retired if not other.has_ended()]
            return host if host is not None and host.serves() else None
        except _NoForkError as error:
            if error.hopeless:
                self._give_up(str(error))
            else:
                self._replace(str(error))
            return None

    def _replace(self, why: str) -> None:
        self._warn(f"the process that runs are forked from is replaced: {why}")
        self._retire()
        self.prepare()

    def _give_up(self, why: str) -> None:
        self._warn(f"runs start slowly, there is no process to fork them from: {why}")
        self._retire()
        self._hopeless = True

    def _retire(self) -> None:
        """Let go of a host that serves no more; its runs go on until they end."""
        if self._host is not None:
            self._host.close()
            self._retired.append(self._host)
            self._host = None


def make_children(
    root: Path, logs: Path, term_s: float, hosting: Hosting | None, warn: Callable[[str], None]
) -> Children:
    """Return what starts a worker's processes; without ``hosting`` all of them are programs."""
    if hosting is None:
        return Children(root, logs, term_s)
    return HostedChildren(root, logs, term_s, hosting, warn)
