"""The process that kernels are forked from: ``python -m toolkit.kernels.zygote FOLDER``.

``FOLDER`` is private to the user and to one interpreter with one set of start variables.  In it:
``lock`` (held while a zygote lives), ``socket`` (there when it serves), ``refused.json`` (why it
did not), ``log``.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from toolkit.kernels import birth, channel
from toolkit.kernels.freshness import Imported

__all__ = ["main"]

IDLE_S = 900.0
MAX_FORKS = 1_000
_REHEARSAL_S = 30
_PIPE_BYTES = 65_536  # what a pipe holds without a reader, pipe(7)
_TAKEN = 3
_REFUSED = 4
# What kernels need, in the order in which a fresh one would import it.
_NEEDED = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "IPython.core.completer",
    "matplotlib_inline.config",
)
_IF_THERE = (
    "numpy",
    "numpy.random",
    "pandas",
    "toolkit.client",
    "toolkit.client.transport",
    "toolkit.magics",
    "toolkit.magics.extension",
)


class RefusedError(Exception):
    """This interpreter cannot be forked safely; the text says why."""


class Zygote:
    """Serves forks of this process.

    Args:
        folder: The zygote's folder.
        lock: Descriptor of its lock; only this process may hold it.
        idle_s: Seconds without a request after which it ends.
        max_forks: Kernels after which it ends.
    """

    def __init__(self, folder: Path, lock: int, idle_s: float, max_forks: int) -> None:
        self._folder = folder
        self._lock = lock
        self._idle_s = idle_s
        self._left = max_forks
        self._block = birth.EnvironmentBlock()
        self._known = set(_descriptors())
        self._imported = Imported({})

    def prepare(self) -> None:
        """Import, check and freeze.

        Raises:
            RefusedError: A kernel forked from this process would not be what a fresh one is.
        """
        if not self._block.found:
            raise RefusedError("there is no place for a run's mark in its environment")
        import_packages()
        for name in rehearse(self._folder):
            with suppress(Exception):  # a module that only its own package can load
                importlib.import_module(name)
        self._check_fork_safe()
        self._imported = Imported.now()
        gc.collect()
        gc.freeze()

    def _check_fork_safe(self) -> None:
        if threading.active_count() > 1:
            names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
            raise RefusedError(f"a package started threads when it was imported: {names}")
        # OpenBLAS ends its own threads when a process forks and starts them again on demand
        # (pthread_atfork(3)); threads that a fork leaves behind are others.
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        threads = _threads()
        if threads > 1:
            raise RefusedError(f"a package started {threads - 1} threads below Python")
        extra = {fd: to for fd, to in _descriptors().items() if fd not in self._known}
        if extra:
            what = ", ".join(sorted(extra.values()))
            raise RefusedError(f"a package keeps files open after its import: {what}")

    def serve(self) -> birth.Birth | None:
        """Fork a kernel per request until it is time to end.

        Returns:
            ``None`` in the zygote and in keepers; in a kernel its birth.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
        with _listen(self._folder) as listener:
            poller = select.poll()
            poller.register(listener, select.POLLIN)
            last = time.monotonic()
            while self._left and time.monotonic() - last < self._idle_s:
                if not poller.poll(self._wait_ms(last)):
                    continue
                connection, _ = listener.accept()
                with connection:
                    if channel.peer(connection)[1] != os.geteuid():
                        continue
                    if reason := self._stale():
                        (self._folder / "socket").unlink(missing_ok=True)
                        os.close(self._lock)  # for the next one, which is started on this answer
                        with suppress(OSError):
                            channel.send(connection, {"stale": reason})
                        return None
                    if os.fork() == 0:
                        listener.close()
                        os.close(self._lock)
                        return birth.keep(connection)
                self._left, last = self._left - 1, time.monotonic()
            (self._folder / "socket").unlink(missing_ok=True)
        return None

    def _wait_ms(self, last: float) -> int:
        return int(max(0.0, last + self._idle_s - time.monotonic()) * 1000) + 1

    def _stale(self) -> str | None:
        if path := self._imported.changed():
            return f"{path} has changed since it was read"
        if _threads() > 1:
            return "it has more than one thread"
        return None

    def become_kernel(self, born: birth.Birth) -> None:
        """Run the kernel of a request in this process, to its end."""
        birth.become_kernel(born, self._block)


def import_packages() -> None:
    """Import what kernels need, and what notebooks often use where the environment has it.

    Raises:
        RefusedError: The environment has no kernel.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RefusedError(f"{name} cannot be imported: {error}") from error
    for name in _IF_THERE:
        # A broken package breaks the notebook that uses it, not every other one.
        with suppress(Exception):
            importlib.import_module(name)


def rehearse(folder: Path) -> list[str]:
    """Start a kernel in a child that nobody sees; return the modules that it loaded besides."""
    place = folder / "rehearsal"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    reader, writer = os.pipe()
    before = set(sys.modules)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            signal.alarm(_REHEARSAL_S)
            os.environ["IPYTHONDIR"] = str(place)
            birth.try_kernel(place)
        names = [
            n for n in sys.modules if n not in before and not n.lstrip("_").startswith("pydev")
        ]
        os.write(writer, "\n".join(names).encode()[:_PIPE_BYTES])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read().split()
    os.waitpid(child, 0)
    shutil.rmtree(place, ignore_errors=True)
    return names


def _descriptors() -> dict[int, str]:
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the others
            found[int(path.name)] = str(path.readlink())
    return found


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _listen(folder: Path) -> socket.socket:
    """Return a socket that others find in the folder as soon as it answers, and not before."""
    os.umask(0o077)
    fresh = folder / "new"
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    handle = os.open(folder, os.O_PATH)
    try:
        # Through the folder's descriptor: its own path may be too long for unix(7).
        listener.bind(f"/proc/self/fd/{handle}/new")
    finally:
        os.close(handle)
    listener.listen(128)
    fresh.rename(folder / "socket")
    return listener


def _lock(folder: Path) -> int | None:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def main(arguments: list[str]) -> None:
    """Prepare a zygote and serve; in a forked kernel, run it.

    Raises:
        SystemExit: With 3 when another zygote has the folder, with 4 when this one refuses.
    """
    parser = argparse.ArgumentParser(prog="python -m toolkit.kernels.zygote")
    parser.add_argument("folder", type=lambda text: Path(text).absolute())
    parser.add_argument("--idle", type=float, default=IDLE_S)
    parser.add_argument("--forks", type=int, default=MAX_FORKS)
    options = parser.parse_args(arguments)
    if (lock := _lock(options.folder)) is None:
        sys.exit(_TAKEN)
    with suppress(ValueError):  # what `-m` puts there; a kernel adds its own folder by itself
        sys.path.remove(os.getcwd())  # noqa: PTH109 - as the interpreter wrote it
    gc.disable()
    birth.call_process("zygote")
    zygote = Zygote(options.folder, lock, options.idle, options.forks)
    refused = options.folder / "refused.json"
    try:
        zygote.prepare()
    except RefusedError as error:
        refused.write_text(json.dumps({"reason": str(error)}), "utf-8")
        sys.exit(_REFUSED)
    refused.unlink(missing_ok=True)
    born = zygote.serve()
    if born is None:
        os._exit(0)
    zygote.become_kernel(born)


if __name__ == "__main__":
    main(sys.argv[1:])
