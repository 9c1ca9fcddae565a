"""Processes of a run: ended together, whoever started them, and counted when memory ran out."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from toolkit.ledger import is_alive

__all__ = ["MARK", "OomCounter", "Warden", "kill_group", "mark_of", "reap"]

MARK = "TOOLKIT_KERNEL_OF"
"""Environment variable that a kernel and all it starts inherit; its value is :func:`mark_of`."""

_DIE_S = 1.0
_LOOK_S = 0.005


def kill_group(leader: int) -> None:
    """Kill the process group that ``leader`` leads; a group that is gone is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def mark_of(ledger: str, run_id: str) -> str:
    """Return what names a run among all processes of this machine.

    A run id alone does not: two workspaces may execute the same one.  A folder would say too much:
    workers of several folders that share a ledger execute the same run, one after another.

    Args:
        ledger: See :attr:`toolkit.ledger.Ledger.identity`.
        run_id: The run.
    """
    return f"{ledger}/{run_id}"


def reap(ledger: str, run_id: str) -> int:
    """Kill every process that a kernel of this run left behind; return how many there were.

    They are dead when this returns, unless one is stuck in the system for more than a second.

    Finds those that left the kernel's process group too, by :data:`MARK` in their environment.
    Processes of other users and the caller with its ancestors are left alone.

    Args:
        ledger: Identity of the ledger that records the run.
        run_id: The run.
    """
    mark = mark_of(ledger, run_id)
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    killed: dict[int, psutil.Process] = {}
    # Again until none is found: a process may fork between the listing and the signal.
    for _ in range(5):
        found = [process for process in _marked(mark) if process.pid not in spared | killed.keys()]
        if not found:
            break
        for process in found:
            with suppress(psutil.Error):
                process.kill()
            killed[process.pid] = process
    deadline = time.monotonic() + _DIE_S
    while any(is_alive(each) for each in killed.values()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return len(killed)


def _marked(mark: str) -> Iterator[psutil.Process]:
    uid = os.geteuid()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().effective == uid and process.environ().get(MARK) == mark:
                yield process


class Warden:
    """Kills the kernel's process group when this process ends without doing so itself.

    A shell waits on a pipe that only this process holds open.  However this process dies, the
    kernel closes the pipe, and the shell acts at once; ipykernel's own check of its parent
    takes up to a second, ends the kernel only, and does not run while C code holds the GIL.
    """

    def __init__(self, leader: int) -> None:
        reader, self._writer = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r line; kill -s KILL -- "-$1"', "warden", str(leader)],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={},
            )
        finally:
            os.close(reader)

    def dismiss(self) -> None:
        """End the watch; the caller has seen to the kernel."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._writer)


class OomCounter:
    """Counts out-of-memory kills in the control group of this process and its children.

    Format: ``oom_kill N`` in ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1), see
    cgroup-v2.rst and memory.rst of the Linux kernel's documentation.

    Args:
        membership: File that names the control groups of the process.
        root: Where the control groups are mounted.
    """

    def __init__(
        self, membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
    ) -> None:
        self._files = [path for path in self._candidates(membership, root) if path.is_file()]
        self._before = self._count()

    def rose(self) -> bool:
        """Whether a process was killed for memory since this counter was made."""
        return self._count() > self._before

    @staticmethod
    def _candidates(membership: Path, root: Path) -> Iterator[Path]:
        with suppress(OSError):
            for line in membership.read_text("utf-8").splitlines():
                _, controllers, path = line.split(":", 2)
                inside = path.lstrip("/")
                if controllers == "memory":
                    yield root / "memory" / inside / "memory.oom_control"
                elif not controllers:
                    yield root / inside / "memory.events"
                    yield root / "unified" / inside / "memory.events"

    def _count(self) -> int:
        total = 0
        for path in self._files:
            with suppress(OSError, ValueError):
                for line in path.read_text("utf-8").splitlines():
                    name, _, number = line.partition(" ")
                    total += int(number) if name == "oom_kill" else 0
        return total
