"""The one door through which runs are cancelled: by people, by schedules, by runs above them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from toolkit.app.queued import QueuedRuns
from toolkit.app.workbench import Workbench
from toolkit.errors import Busy, Conflict, EngineError, NotFound, ToolkitError
from toolkit.execution import QUEUED_TAG
from toolkit.ledger import is_here
from toolkit.values import Cause, RunRecord, RunState

__all__ = ["cancel_run", "superseded"]


def superseded(bench: Workbench, run_id: str) -> None:
    """Cancel a run and the runs below it; one that has ended stays as it is.

    Raises:
        EngineError, LedgerError: Queue or ledger does not answer; to be repeated.
    """
    with suppress(Conflict, NotFound):
        cancel_run(bench, run_id, "a later tick takes its place", "the schedule")


def cancel_run(bench: Workbench, run_id: str, reason: str = "", by: str | None = None) -> RunState:
    """Cancel a run of this workspace and the runs that it started, wherever they stand.

    Args:
        bench: The workspace.
        run_id: The run.
        reason: Why, for whoever asks later.
        by: Who; ``None``: the workspace's user.

    Returns:
        ``CANCELLED`` if it has ended so; ``RUNNING`` if the process that executes it was told, by
        the queue or by SIGTERM, and ends within seconds.

    Raises:
        Conflict: It has ended, or a process of another machine executes it.
        NotFound: Neither the ledger nor the queue knows it.
        EngineError: The queue does not answer, and the run is the queue's.
    """
    by = by or bench.workspace.user
    try:
        run = bench.ledger.get_run(run_id)
    except NotFound:
        return _cancel_queued(bench, run_id, reason, by)
    if run.state.terminal:
        raise Conflict(
            f"the run {run_id} has already ended ({run.state})",
            where=run_id,
            next_step=f"see how: toolkit show {run_id}",
        )
    try:
        return _cancel_one(bench, run, reason, by)
    finally:  # the parent first: it starts no more of them
        for child in bench.ledger.children(run_id):
            if not child.state.terminal:
                with suppress(Conflict, NotFound):
                    cancel_run(bench, child.run_id, reason or f"{run_id} was cancelled", by)


def _cancel_queued(bench: Workbench, run_id: str, reason: str, by: str) -> RunState:
    """Cancel a run that has not begun: it never will, and the ledger says so."""
    told = bench.engine.status(run_id)
    if told.state.terminal:
        raise Conflict(
            f"the run {run_id} has already ended ({told.state})",
            where=run_id,
            next_step=f"see how: toolkit show {run_id}",
        )
    bench.engine.cancel(run_id)
    why = f": {reason}" if reason else ""
    ending = (RunState.CANCELLED, Cause.REQUESTED, f"{by} cancelled it before it began{why}")
    # One that has begun in this moment was told by the queue, and records its own end.
    return (
        RunState.CANCELLED
        if QueuedRuns(bench).record(told, ending).state.terminal
        else RunState.RUNNING
    )


def _cancel_one(bench: Workbench, run: RunRecord, reason: str, by: str) -> RunState:
    queued = QUEUED_TAG in run.tags
    waits = run.state in (RunState.WAITING, RunState.QUEUED)
    why = f": {reason}" if reason else ""
    if waits or (QueuedRuns(bench).over(run) if queued else not bench.ledger.lives(run)):
        when = "while it waited" if waits else "after its process had ended without a word"
        bench.ledger.take(
            run,
            state=RunState.CANCELLED,
            cause=Cause.REQUESTED,
            message=f"{by} cancelled it {when}{why}",
        )
        if queued:
            _forget(bench, run.run_id)
        return RunState.CANCELLED
    process = None if queued else _process(run)
    # The process that executes it writes how it ends, and repeats this; it is told in any case.
    with suppress(ToolkitError):
        bench.ledger.update_run(run.run_id, message=f"{by} cancelled it{why}")
    if process is None:
        bench.engine.cancel(run.run_id)
    else:
        with suppress(ProcessLookupError):  # it ended in this moment; it is asked for its state
            os.kill(process, signal.SIGTERM)
    return RunState.RUNNING


def _forget(bench: Workbench, run_id: str) -> None:
    """Tell the queue not to wake a run; if it does, there is nothing left to execute."""
    with suppress(EngineError, NotFound):
        bench.engine.cancel(run_id)


def _process(run: RunRecord) -> int:
    """Return the process of this machine that executes a run."""
    if not is_here(run.runner or ""):
        raise Busy(
            f"the run {run.run_id} is not executed by a process of this machine",
            where=run.runner,
            next_step="cancel it there; once that process is gone and its lease is over (30 s), this "
            f"machine can: toolkit cancel {run.run_id}; meanwhile stop its calls: "
            f"toolkit stop --run {run.run_id} --reason …",
        )
    return int((run.runner or "").split(":")[1])
