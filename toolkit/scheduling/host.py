"""The process that runs are forked from: ``python -m toolkit.scheduling.host FD TARGET …``.

It imports what a run needs, says that it is ready on the socket ``FD``, and then forks a process
per request.  It has one thread and no database, and never reads a request: the fork does.

Per run there is a connection of its own.  The worker sends its descriptor and that of the run's
output (SCM_RIGHTS of unix(7)); this process answers with ``{"pid": …}``; the worker then sends the
arguments to the fork, which starts only now, and gets ``{"status": …}`` at the end.  The dead process
keeps its number until the worker closes the connection, so no signal reaches a stranger.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from toolkit.kernels import Imported, channel

__all__ = ["main"]

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # prctl(2)
_STDIO = 3
_LIBC = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """This process cannot be forked safely; the text says why."""


@dataclass
class _Run:
    pid: int
    pidfd: int
    connection: socket.socket
    ended: bool = False


class Host:
    """Serves forks of this process.

    Args:
        control: Connection to the worker; when it closes there are no more runs.  (A worker that
            dies takes this process along, and every run with it: PDEATHSIG of prctl(2).)
        max_runs: Forks after which it serves no more.
    """

    def __init__(self, control: socket.socket, max_runs: int) -> None:
        self._control = control
        self._left = max_runs
        # Who has served its share stays to say so: the worker would have to take it for dead.
        self._open = True
        self._runs: dict[int, _Run] = {}
        self._poller = select.poll()
        self._kept: set[int] = set()
        self._imported = Imported({})

    def prepare(self, modules: list[str]) -> None:
        """Import, check, freeze.

        Raises:
            RefusedError: A fork of this process would not be what a fresh one is.
        """
        for name in modules:
            try:
                _load(name)
            except Exception as error:  # noqa: BLE001 - whatever a package raises
                raise RefusedError(f"{name} cannot be prepared: {error}") from error
        # OpenBLAS ends its own threads when a process forks and starts them again on demand
        # (pthread_atfork(3)); threads that a fork leaves behind are others.
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        if threads := _others():
            raise RefusedError(f"an import started threads: {threads}")
        self._kept = {fd for fd, to in _descriptors().items() if to.startswith("/dev/")}
        known = {*range(_STDIO), self._control.fileno(), *self._kept}
        extra = [to for fd, to in _descriptors().items() if fd not in known]
        if extra:
            raise RefusedError(f"an import keeps files open: {', '.join(extra)}")
        self._imported = Imported.now()
        for stream in (sys.stdout, sys.stderr):  # else every fork would write it once more
            stream.flush()
        gc.collect()
        gc.freeze()

    def serve(self) -> socket.socket | None:
        """Fork per request until no more may come, and the last run has ended.

        Returns:
            ``None`` in this process; in a fork its connection.
        """
        self._poller.register(self._control, select.POLLIN)
        channel.send(self._control, {"ready": os.getpid()})
        while self._open or self._runs:
            for fd, _ in self._poller.poll():
                if fd == self._control.fileno():
                    try:
                        born = self._accept()
                    except EOFError:
                        self._poller.unregister(self._control)
                        self._open = False
                        continue
                    if born is not None:
                        return born
                else:
                    self._look(fd)
        return None

    def _accept(self) -> socket.socket | None:
        """Fork; return the connection in the fork.

        Raises:
            EOFError: No more will come.
        """
        data, fds, _, _ = socket.recv_fds(self._control, 1, 2)
        if not data:
            raise EOFError
        if len(fds) != 2:
            return None
        connection = socket.socket(fileno=fds[0])
        if reason := self._stale():
            _tell(connection, {"stale": reason})
            connection.close()
            os.close(fds[1])
            raise EOFError
        self._left -= 1
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(host, connection, fds[1])
            return connection
        os.close(fds[1])
        run = _Run(pid, os.pidfd_open(pid), connection)
        for fd, event in ((run.pidfd, select.POLLIN), (connection.fileno(), select.POLLRDHUP)):
            self._runs[fd] = run
            self._poller.register(fd, event)
        _tell(connection, {"pid": pid})
        return None

    def _stale(self) -> str | None:
        if self._left <= 0:
            return "it has served its share of runs"
        if path := self._imported.changed():
            return f"{path} has changed since it was read"
        return f"it has other threads: {found}" if (found := _others()) else None

    def _become(self, host: int, connection: socket.socket, output: int) -> None:
        """Be a process of its own that dies with the host, and holds nothing that is not its own."""
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != host:  # it ended a moment ago
            os._exit(1)
        os.setsid()
        _LIBC.prctl(_PR_SET_NAME, b"toolkit-run", 0, 0, 0)
        for other in (self._control, *(run.connection for run in self._runs.values())):
            other.detach()  # nobody closes these numbers later, when they are somebody else's
        os.dup2(output, 1)
        os.dup2(output, 2)
        for fd in _descriptors():
            if fd >= _STDIO and fd not in self._kept and fd != connection.fileno():
                with suppress(OSError):
                    os.close(fd)

    def _look(self, fd: int) -> None:
        run = self._runs.get(fd)
        if run is None:  # both of its descriptors had something to say
            return
        if fd == run.pidfd:
            info = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
            code = 0
            if info is not None:
                died = info.si_code != os.CLD_EXITED
                code = -info.si_status if died else info.si_status
            self._poller.unregister(run.pidfd)
            del self._runs[run.pidfd]
            run.ended = True
            if _tell(run.connection, {"status": code}):
                return
        elif not run.ended:  # nobody waits for it any more
            os.kill(run.pid, signal.SIGKILL)
            self._poller.unregister(run.pidfd)
            del self._runs[run.pidfd]
        self._forget(run)

    def _forget(self, run: _Run) -> None:
        os.waitpid(run.pid, 0)
        self._poller.unregister(run.connection)
        del self._runs[run.connection.fileno()]
        run.connection.close()
        os.close(run.pidfd)


def _tell(connection: socket.socket, message: dict[str, object]) -> bool:
    try:
        channel.send(connection, message)
    except OSError:
        return False
    return True


def _others() -> str:
    """Return what is known of threads beside the main one; nothing where there are none."""
    names = sorted(thread.name for thread in threading.enumerate()[1:])
    extra = len(os.listdir("/proc/self/task")) - 1  # noqa: PTH208 - before every fork
    return ", ".join(names) or (f"{extra} below Python" if extra else "")


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - before every run
        with suppress(OSError):  # the one that lists the others
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
    return found


def _seed() -> None:
    """Seed what keeps state in memory; the rest (uuid4, secrets, OpenSSL) asks the system."""
    import random
    import uuid

    random.seed()
    uuid._node = None  # type: ignore[attr-defined]  # noqa: SLF001 - where uuid1 keeps its node
    uuid._last_timestamp = None  # type: ignore[attr-defined]  # noqa: SLF001
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _load(name: str) -> None:
    if ":" in name:
        _function(name)()
    else:
        importlib.import_module(name)


def _run(connection: socket.socket, target: str) -> int:
    """Do what the worker asks of this fork; without a request there is nothing to do."""
    try:
        with connection:
            request, _ = channel.receive(connection)
    except (OSError, EOFError, ValueError):
        return 1
    arguments = [str(each) for each in request["arguments"]]
    sys.argv = [target, *arguments]
    _seed()
    time.tzset()
    gc.enable()
    return int(_function(target)(arguments))


def _leave(code: int) -> None:
    """End as an interpreter does, but for taking its modules apart.

    Threads are joined, ``atexit`` runs, what was printed is written.  The rest would only copy the
    host's memory, page by page, to throw it away.
    """
    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    with suppress(Exception):
        atexit._run_exitfuncs()  # noqa: SLF001 - as above
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def main(argv: list[str]) -> None:
    """Prepare, serve; in a fork, run the target and end."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.scheduling.host")
    parser.add_argument("control", type=int)
    parser.add_argument("target")
    parser.add_argument("max_runs", type=int)
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args(argv)
    control = socket.socket(fileno=options.control)
    control.set_inheritable(False)  # noqa: FBT003 - its only argument
    gc.disable()
    _LIBC.prctl(_PR_SET_NAME, b"toolkit-host", 0, 0, 0)
    host = Host(control, options.max_runs)
    try:
        host.prepare(options.modules)
    except RefusedError as error:
        _tell(control, {"refused": str(error)})
        return
    try:
        connection = host.serve()
    except OSError:  # the worker went while it was told something
        return
    if connection is None:
        os._exit(0)
    try:
        code = _run(connection, options.target)
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:  # noqa: BLE001 - as the interpreter: the traceback goes to the run's log
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


if __name__ == "__main__":
    main(sys.argv[1:])
