"""Asks zygotes for kernels, and starts them where none serves."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import InfrastructureError
from toolkit.kernels import channel
from toolkit.kernels.birth import EnvironmentBlock
from toolkit.kernels.freshness import start_variables

__all__ = ["ColdStart", "WarmKernel", "WarmRequest", "Zygote", "stop_zygotes"]

_ANSWER_S = 10.0
_RELEASE_S = 2.0
_NAP_S = 0.01
_AGAIN_S = 0.3
# A zygote that could not serve is not started again for this long.
_RETRY_S = 60.0
# Arrow's allocator starts a thread when it is imported unless it is told not to.
_ALWAYS = {"PATH": os.defpath, "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Zygotes outlive who started them; while that lives, it must reap them.
_started: dict[Path, subprocess.Popen[bytes]] = {}
_ending: list[subprocess.Popen[bytes]] = []


class ColdStart(Exception):  # noqa: N818 - a reason to take the other way, not an error
    """No zygote can serve; the text is one clause that says why."""


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """One kernel to fork.

    Attributes:
        argv: Arguments of ``ipykernel_launcher``.
        env: The kernel's whole environment.
        cwd: Its working folder.
        limits: (soft, hard) by the number of setrlimit(2); others are those of this process.
        stdout, stderr: Descriptors of this process.
        ticket: With which it enters an enclosure (:class:`toolkit.isolation.Ticket`).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    stdout: int = 1
    stderr: int = 2
    ticket: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the keeper reads: what a child of this process would have inherited, too."""
        mask = os.umask(0o077)
        os.umask(mask)
        return {
            "argv": list(self.argv),
            "env": dict(self.env),
            "cwd": self.cwd,
            "ticket": self.ticket,
            "umask": mask,
            "affinity": sorted(os.sched_getaffinity(0)),
            "limits": {**_own_limits(), **{str(n): list(pair) for n, pair in self.limits.items()}},
        }


def _own_limits() -> dict[str, list[int]]:
    numbers = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    return {str(number): list(resource.getrlimit(number)) for number in sorted(set(numbers))}


class WarmKernel:
    """A forked kernel, with the part of :class:`subprocess.Popen` that jupyter_client uses.

    Attributes:
        pid: Process id of the kernel, and of the process group that it leads.
        returncode: As in :class:`subprocess.Popen`; ``None`` while it runs.
    """

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection: socket.socket | None = connection
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how the kernel ended, or ``None`` while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Return how the kernel ended.

        Raises:
            subprocess.TimeoutExpired: It runs after ``timeout`` seconds.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
        return code

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is not None or self._connection is None:
            return self.returncode
        ready, _, _ = select.select([self._connection], [], [], timeout_s)
        if ready:
            try:
                message, _ = channel.receive(self._connection)
                self.returncode = int(message["status"])
            except (OSError, EOFError, ValueError, KeyError, TypeError):
                # Its keeper was killed, and the system kills the kernel with it.
                self.send_signal(signal.SIGKILL)
                self.returncode = -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel's process group; a kernel that has ended is fine."""
        if self.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the kernel's process group."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the kernel's process group to end."""
        self.send_signal(signal.SIGTERM)

    def release(self) -> None:
        """End what is left of the kernel and its keeper; return when both are gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with connection, suppress(OSError):
            connection.settimeout(_RELEASE_S)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):  # until the keeper has ended
                pass
        if self.returncode is None:
            self.returncode = -signal.SIGKILL


class Zygote:
    """The zygote of one interpreter with one set of start variables.

    Args:
        home: Folder of all zygotes.
        python: The interpreter, as it is called: a link in a virtual environment stays one.
        environment: The kernel's environment, of which the start variables count.
    """

    def __init__(self, home: Path, python: Path, environment: Mapping[str, str]) -> None:
        self._python = Path(os.path.abspath(python))  # noqa: PTH100 - resolve() would follow links
        self._variables = start_variables(environment)
        key = json.dumps([str(self._python), self._variables]).encode()
        self.folder = home / hashlib.sha256(key).hexdigest()[:16]

    def fork(self, request: WarmRequest, wait_s: float) -> WarmKernel:
        """Return a new kernel.

        Args:
            request: What it is to be.
            wait_s: Seconds to wait for a zygote that is still importing.

        Raises:
            ColdStart: No zygote can serve now; one is being started unless it would refuse.
        """
        connection = self._connect(wait_s)
        try:
            connection.settimeout(_ANSWER_S)
            # One that ends says why as soon as it sees who calls, and does not wait for the request.
            with suppress(BrokenPipeError):
                channel.send(connection, request.to_json(), (request.stdout, request.stderr))
            answer, _ = channel.receive(connection)
            pid = answer.get("pid")
        except (OSError, EOFError, ValueError, AttributeError) as error:
            connection.close()
            raise ColdStart(f"its zygote did not answer ({error or 'it closed'})") from error
        if pid is None:
            connection.close()
            self.start()
            raise ColdStart(f"its zygote ended: {answer.get('stale')}")
        connection.settimeout(None)
        return WarmKernel(connection, pid)

    def start(self) -> None:
        """Start a zygote in the background; where one runs, the new one ends at once.

        Raises:
            ColdStart: It cannot be started, or has refused a moment ago.
        """
        self._reap()
        if reason := self._refusal():
            raise ColdStart(reason)
        try:
            _make_private(self.folder)
            with (self.folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [str(self._python), "-m", "toolkit.kernels.zygote", "."],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=self.folder,
                    env={**_ALWAYS, **self._variables, **EnvironmentBlock.placeholder()},
                )
        except OSError as error:
            raise ColdStart(f"its zygote cannot be started: {error.strerror}") from error
        if (former := _started.get(self.folder)) is not None:
            _ending.append(former)
        _started[self.folder] = process

    def wait(self, seconds: float) -> None:
        """Start a zygote if there is none, and return when it serves.

        Raises:
            ColdStart: It does not serve within ``seconds``, or refuses.
        """
        self._connect(seconds).close()

    def pid(self) -> int | None:
        """Return the process id of the zygote that serves, if one does."""
        return self.pid_in(self.folder)

    @staticmethod
    def pid_in(folder: Path) -> int | None:
        """Return the process id of the zygote that serves in a folder, if one does."""
        with suppress(OSError), _dial(folder) as connection:
            return channel.peer(connection)[0]
        return None

    def _connect(self, wait_s: float) -> socket.socket:
        deadline = time.monotonic() + wait_s
        started = 0.0
        while True:
            with suppress(OSError):
                return _dial(self.folder)
            if reason := self._refusal():
                raise ColdStart(reason)
            # One that found the folder taken has ended; whoever had it may have ended since.
            if self.folder not in _started and time.monotonic() - started > _AGAIN_S:
                self.start()
                started = time.monotonic()
            if time.monotonic() >= deadline:
                raise ColdStart("its zygote is not ready yet")
            time.sleep(_NAP_S)

    def _refusal(self) -> str | None:
        """Return why the zygote refused, if it did so lately."""
        self._reap()
        path = self.folder / "refused.json"
        try:
            if time.time() - path.stat().st_mtime > _RETRY_S:
                return None
            return str(json.loads(path.read_text("utf-8"))["reason"])
        except (OSError, ValueError, KeyError):
            return None

    def _reap(self) -> None:
        """Note the end of a zygote that could not even refuse."""
        _ending[:] = [process for process in _ending if process.poll() is None]
        process = _started.get(self.folder)
        if process is None or (code := process.poll()) is None:
            return
        del _started[self.folder]
        refused = self.folder / "refused.json"
        if code == 1 and not refused.exists():
            lines = (self.folder / "log").read_text("utf-8", "replace").strip().splitlines()
            reason = f"its zygote did not start: {lines[-1] if lines else 'it wrote no log'}"
            refused.write_text(json.dumps({"reason": reason[:500]}), "utf-8")


def _dial(folder: Path) -> socket.socket:
    """Return a connection to the zygote in a folder.

    Raises:
        OSError: None serves there, or it is another user's.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        # Through the folder's descriptor: its own path may be too long for unix(7).
        handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{handle}/socket")
        finally:
            os.close(handle)
        if channel.peer(connection)[1] != os.geteuid():
            raise PermissionError
    except OSError:
        connection.close()
        raise
    return connection


def _make_private(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InfrastructureError(
            f"{folder} is not private to this user",
            where=str(folder),
            next_step=f"remove {folder}",
        )


def stop_zygotes(home: Path) -> int:
    """End every zygote below a folder; return how many there were.  Their kernels live on."""
    count = 0
    for path in sorted(home.glob("*/socket")):
        if (pid := Zygote.pid_in(path.parent)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            count += 1
        path.unlink(missing_ok=True)
    for folder, process in list(_started.items()):
        if folder.parent == home:
            process.terminate()
            process.wait()
            del _started[folder]
    return count
