"""What happens to one fork of a zygote: the keeper of a kernel, and the kernel itself.

Zygote, keeper and kernel are three processes.  The zygote forks the keeper and forgets it.  The
keeper reads the request, forks the kernel, and stays until the connection closes and the kernel is
gone; it holds the kernel's process id until then, so that a signal never reaches a stranger.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.isolation.inside import enter_with
from toolkit.kernels import channel

__all__ = [
    "MARK",
    "Birth",
    "EnvironmentBlock",
    "become_kernel",
    "call_process",
    "keep",
    "try_kernel",
]

MARK = "TOOLKIT_KERNEL_OF"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # prctl(2)
_REQUEST_S = 10.0
_CONTROL_S = 2.0
_STDIO = 3
_FILES = (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase)
# 1 is nobody: ipykernel neither watches a parent nor greets a person at a terminal.
_NO_PARENT = "--IPKernelApp.parent_handle=1"

# Loaded before the fork: a child of a threadless parent may do what it likes, but sooner is cheaper.
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Birth:
    """One request, in the process that becomes its kernel.

    Attributes:
        request: See :class:`toolkit.kernels.zygotes.WarmRequest`.
        fds: Standard output, standard error, then what the request brought along.
    """

    request: dict[str, Any]
    fds: list[int]


class EnvironmentBlock:
    """A place in the environment block that the operating system shows to others.

    ``/proc/PID/environ`` is the memory that a process was started with; a forked kernel shows its
    zygote's.  Whoever looks for the processes of a run reads :data:`MARK` there, so a zygote is
    started with a placeholder, and each kernel writes its own value over it.
    """

    WIDTH = 128

    def __init__(self) -> None:
        self._address: int | None = None
        environ = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
        start = f"{MARK}=".encode()
        for index in range(100_000):
            address = environ[index]
            if not address:
                break
            if ctypes.string_at(address, len(start)) == start:
                size = len(ctypes.string_at(address)) - len(start)
                self._address = address + len(start) if size == self.WIDTH else None
                break

    @classmethod
    def placeholder(cls) -> dict[str, str]:
        """Return the variable to start a zygote with; it must be the last one."""
        return {MARK: "-" * cls.WIDTH}

    @property
    def found(self) -> bool:
        """Whether there is a placeholder."""
        return self._address is not None

    def write(self, value: str) -> None:
        """Show ``value`` to others from now on.

        Raises:
            ValueError: It is too long, or there is no place for it.
        """
        raw = value.encode()
        if self._address is None or len(raw) > self.WIDTH or b"\0" in raw:
            msg = f"the environment block has no place for {len(raw)} bytes"
            raise ValueError(msg)
        ctypes.memmove(self._address, raw.ljust(self.WIDTH, b"\0"), self.WIDTH)


def call_process(name: str) -> None:
    """Show this process under ``name``, at most 15 bytes, in lists of processes."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


# -- the keeper ---------------------------------------------------------------------------------


def keep(connection: socket.socket) -> Birth | None:
    """Read the request, fork, and keep the kernel until it and the connection have ended.

    Returns:
        In the new kernel its birth; in the keeper ``None``, when there is nothing left to keep.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    call_process("kernel-keeper")
    connection.settimeout(_REQUEST_S)
    try:
        request, fds = channel.receive(connection)
    except (OSError, EOFError, ValueError):
        return None
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        connection.close()
        _die_with(keeper)
        os.setsid()
        call_process("kernel")
        return Birth(request, fds)
    for fd in fds:
        os.close(fd)
    request.clear()
    _supervise(connection, pid)
    return None


def _die_with(parent: int) -> None:
    """Have the operating system kill this process when ``parent`` ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended a moment ago
        os._exit(1)


def _supervise(connection: socket.socket, pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    wanted = _tell(connection, {"pid": pid})
    if wanted:
        wanted = not _closed_before(connection, pidfd)
    if not wanted:
        _kill(pid)
    # WNOWAIT: the dead kernel keeps its number, so its group can still be killed by it.
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    status = 0
    if info is not None:
        died = info.si_code != os.CLD_EXITED
        status = -info.si_status if died else info.si_status
    if wanted and _tell(connection, {"status": status}):
        _closed_before(connection, None)
    _kill(pid)
    os.waitpid(pid, 0)


def _tell(connection: socket.socket, message: dict[str, int]) -> bool:
    try:
        channel.send(connection, message)
    except OSError:
        return False
    return True


def _closed_before(connection: socket.socket, pidfd: int | None) -> bool:
    """Wait until the connection closes or the process ends; return whether it closed first."""
    poller = select.poll()
    poller.register(connection, select.POLLIN | select.POLLRDHUP)
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    ready = {fd for fd, _ in poller.poll()}
    # Nobody speaks after the request, so whatever comes is the end.
    return connection.fileno() in ready


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not have made its group yet
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


# -- the kernel ---------------------------------------------------------------------------------


def become_kernel(birth: Birth, block: EnvironmentBlock) -> None:
    """Turn this fork into the process that the request describes, and run it to its end.

    Returns only by an exception, which ends a process as it would end any program.

    Raises:
        SystemExit: The working folder is gone, or a limit cannot be set.
    """
    request = birth.request
    _reset_signals()
    _take_descriptors(birth.fds)
    _take_environment(request["env"], block)
    os.umask(request["umask"])
    try:
        os.chdir(request["cwd"])
        _take_limits(request["limits"])
        os.sched_setaffinity(0, request["affinity"])
        if request["ticket"] is not None:
            enter_with(request["ticket"])  # from L2 on, a child returns
    except (OSError, ValueError) as error:
        sys.exit(f"the kernel cannot be set up: {error}")
    _seed()
    gc.enable()
    arguments = [*request["argv"], _NO_PARENT]
    sys.argv = ["ipykernel_launcher", *arguments]
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=arguments)
    # It answers the request to shut down, then flushes; ipykernel ends what it flushes to without
    # waiting, and may then wait ten seconds for it.
    if (control := IPKernelApp.instance().control_thread) is not None:
        control.join(_CONTROL_S)
    _end()


def _end() -> None:
    """End as an interpreter does, but for taking its modules apart.

    Threads are joined, ``atexit`` runs (IPython clears the notebook's names there, and with them
    their ``__del__``), open files are closed.  What is left would only copy the zygote's memory,
    page by page, to throw it away.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    atexit._run_exitfuncs()  # noqa: SLF001 - as above
    gc.collect()
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    # Not ipykernel's own streams, which wait for threads that have ended.
    files = [item for item in gc.get_objects() if isinstance(item, _FILES)]
    # Text first: closing the bytes below it would lose what it still holds.
    for file in sorted(files, key=lambda file: not isinstance(file, io.TextIOBase)):
        with suppress(Exception):
            file.close()
    os._exit(0)


def try_kernel(place: Path) -> None:
    """Set up a kernel in an empty folder, and run a cell that fails; for the imports alone."""
    from ipykernel.kernelapp import IPKernelApp

    os.chdir(place)
    app = IPKernelApp.instance()
    app.initialize(
        [
            *("--transport=ipc", "--ip=z", "-f", str(place / "connection.json")),
            *("--HistoryManager.hist_file=:memory:", _NO_PARENT),
        ]
    )
    app.shell.run_cell("1 / 0")


def _reset_signals() -> None:
    """Handle signals as a fresh interpreter does."""
    ours: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGPIPE: signal.SIG_IGN,
        signal.SIGXFSZ: signal.SIG_IGN,
    }
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):  # those that the C library keeps to itself
            signal.signal(number, ours.get(signal.Signals(number), signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _take_descriptors(fds: list[int]) -> None:
    """Have standard input from nowhere, output where the request says, and nothing else open."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for target, fd in enumerate((nowhere, *fds[:2])):
        os.dup2(fd, target)
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if fd >= _STDIO:
            with suppress(OSError):  # the one that listed the others
                os.close(fd)


def _take_environment(environment: dict[str, str], block: EnvironmentBlock) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if MARK in environment:
        block.write(environment[MARK])


def _take_limits(limits: dict[str, list[int]]) -> None:
    """Set the limits of setrlimit(2); a hard limit that may not be raised stays as it is."""
    for number, (soft, hard) in limits.items():
        _, highest = resource.getrlimit(int(number))
        with suppress(ValueError, PermissionError):
            resource.setrlimit(int(number), (soft, hard))
            continue
        limit = _lower(hard, highest)
        resource.setrlimit(int(number), (_lower(soft, limit), limit))


def _lower(one: int, other: int) -> int:
    known = [limit for limit in (one, other) if limit != resource.RLIM_INFINITY]
    return min(known, default=resource.RLIM_INFINITY)


def _seed() -> None:
    """Seed what keeps state in memory; the rest (uuid4, secrets, OpenSSL) asks the system."""
    import random
    import uuid

    random.seed()
    uuid._node = None  # type: ignore[attr-defined]  # noqa: SLF001 - where uuid1 keeps its node
    uuid._last_timestamp = None  # type: ignore[attr-defined]  # noqa: SLF001
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
