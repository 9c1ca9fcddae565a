"""The process that a run belongs to: how ``RunRecord.runner`` names it, and whether it is there."""

from __future__ import annotations

import socket

import psutil

__all__ = ["is_alive", "process_name", "runner_alive"]


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
    """Return ``host:pid:start`` of a process of this machine; ``None`` means this one.

    The start (seconds since the epoch) tells it from a later process of the same number.

    Raises:
        psutil.Error: There is no such process, or it cannot be looked at.
    """
    process = psutil.Process(pid)
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def runner_alive(runner: str) -> bool:
    """Whether the process that ``runner`` names still runs; on another host: assume it does."""
    host, _, rest = runner.partition(":")
    if host != socket.gethostname():
        return True
    try:
        pid = int(rest.partition(":")[0])
        return process_name(pid) == runner and is_alive(pid)
    except (psutil.Error, ValueError):
        return False
