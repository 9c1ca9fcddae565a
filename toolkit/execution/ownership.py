"""Which process executes a run, and whether it is still there."""

from __future__ import annotations

import socket

from toolkit.ledger import process_name, runner_alive
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
    return process_name()
