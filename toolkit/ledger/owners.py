"""The process that a run belongs to: how ``RunRecord.runner`` names it, and whether it is there.

A name is ``machine:pid:start``.  ``start`` is ``ticks@boot.space``: when the process started, in
clock ticks since the boot (field 22 of ``/proc/PID/stat``, see proc_pid_stat(5)), the boot's id and
the number of the process namespace.  None of them moves when the clock is set.  Names of ledgers
that were written before hold the start in seconds since the epoch (``1790000000.25``).
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from pathlib import Path

import psutil

__all__ = [
    "MACHINE_VARIABLE",
    "is_alive",
    "is_here",
    "machine_name",
    "process_name",
    "runner_alive",
]

MACHINE_VARIABLE = "TOOLKIT_MACHINE"
"""Environment variable: the name of this machine, where its host name is not unique."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SPACE = Path("/proc/self/ns/pid")
_START_FIELD = 22
_SECONDS = re.compile(r"\d+\.\d\d")


def machine_name() -> str:
    """Return the name of this machine in the names of its processes."""
    return (os.environ.get(MACHINE_VARIABLE) or socket.gethostname()).replace(":", "-")


def is_alive(process: psutil.Process | int) -> bool:
    """Whether a process, given as such or by its number, still runs.

    A zombie does not: where the first process of a container waits for nobody, one that ended
    without its parent stays one for ever.  Nor does a later process of the same number.
    """
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def process_name(pid: int | None = None) -> str:
    """Return ``machine:pid:start`` of a process of this machine; ``None`` means this one.

    The start tells it from a later process of the same number, and of the same machine after it
    was started again.

    Raises:
        psutil.Error: There is no such process, or it cannot be looked at.
    """
    number = os.getpid() if pid is None else pid
    return f"{machine_name()}:{number}:{_ticks(number)}@{_boot()}"


def is_here(runner: str) -> bool:
    """Whether the process that ``runner`` names can be looked for in this machine's list of them.

    Two containers may have one name, so boot and process namespace have to be the same, too.
    """
    machine, _, rest = runner.partition(":")
    _, _, start = rest.partition(":")
    return machine == machine_name() and (start.partition("@")[2] or _boot()) == _boot()


def runner_alive(runner: str) -> bool:
    """Whether the process that ``runner`` names still runs; on another machine: assume it does.

    ``Ledger.lives`` knows more about a run whose runner holds a lease.
    """
    machine, _, rest = runner.partition(":")
    if not is_here(runner):
        boot = rest.partition("@")[2].partition(".")[0]
        # The same machine, started again: nothing of before is there.
        return machine != machine_name() or boot == _boot().partition(".")[0]
    number, _, start = rest.partition(":")
    try:
        pid = int(number)
        if _SECONDS.fullmatch(start):
            return f"{psutil.Process(pid).create_time():.2f}" == start and is_alive(pid)
        return process_name(pid) == runner and is_alive(pid)
    except (psutil.Error, ValueError):
        return False


def _ticks(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    # The name of the program, field 2, is in brackets and may hold anything.
    return stat.rpartition(")")[2].split()[_START_FIELD - 3]


@cache
def _boot() -> str:
    """Return the id of this boot, shortened, and the number of this process namespace."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip().replace("-", "")[:16]
        return f"{boot}.{_SPACE.stat().st_ino}"
    except OSError:
        return "unknown.0"
