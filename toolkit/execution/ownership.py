"""Which process executes a run, and whether it is still there."""

from __future__ import annotations

import socket

import psutil

from toolkit.values import RunRecord

__all__ = ["QUEUED_TAG", "myself", "runner_alive", "was_left"]

QUEUED_TAG = "queued"
"""Tag of runs that the queue owns."""


def was_left(run: RunRecord, wanted: RunRecord) -> bool:
    """Whether the runner of a run has left it, so that another one may take it over.

    Of queued work the queue says whose it is: a worker on another machine, which nobody here can
    look at, has lost its lease when the run is handed out again.
    """
    if run.runner is None or not runner_alive(run.runner):
        return True
    elsewhere = run.runner.partition(":")[0] != socket.gethostname()
    return elsewhere and QUEUED_TAG in run.tags and QUEUED_TAG in wanted.tags


def myself() -> str:
    """Return the name of this process: ``host:pid:start``."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def runner_alive(runner: str) -> bool:
    """Whether the process that ``runner`` names still runs; on another host: assume it does."""
    host, _, rest = runner.partition(":")
    pid, _, created = rest.partition(":")
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        return False
