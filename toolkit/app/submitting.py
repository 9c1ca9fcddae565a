"""Runs that are left to a worker: new ones, and those that are to go on."""

from __future__ import annotations

from contextlib import suppress

from toolkit.app.queued import QueuedRuns
from toolkit.app.running import Request, plan_version
from toolkit.app.workbench import Workbench
from toolkit.errors import NotFound
from toolkit.execution import QUEUED_TAG
from toolkit.values import Cause, RunState

__all__ = ["submit_run"]


def submit_run(
    bench: Workbench, request: Request, pairs: list[str]
) -> tuple[str, RunState, Cause | None]:
    """Leave a run of a registered version to a worker; it counts for who asks.

    A run id that came before is queued again where it would go on, and is told otherwise.

    Returns:
        The run's id, and where it stands: ``QUEUED`` unless it has begun, or has ended for good.

    Raises:
        UsageError, NotFound, IntegrityError, ConfigurationError, Conflict: As ``plan_version``.
        EngineError: The queue does not answer.
    """
    plan = plan_version(bench, request, pairs)  # refuses unknown versions and bad values now
    run_id = plan.run.run_id
    known = None
    if request.run_id is not None:
        with suppress(NotFound):
            known = bench.ledger.get_run(run_id)
    if known is not None and QUEUED_TAG in known.tags:
        known = QueuedRuns(bench).settled(known)
    if known is not None and known.state.terminal and not known.resumable:
        return run_id, known.state, known.cause
    told = bench.engine.statuses([run_id]).get(run_id)
    if told is None and known is not None and not known.state.terminal:
        return run_id, known.state, None  # it runs or waits, by hand
    if told is None or (known is None and not told.state.terminal):
        user = request.user or bench.workspace.user
        bench.engine.submit(
            request.reference,
            plan.parameters,
            run_id=run_id,
            created_by=user,
            timeout_s=request.timeout_s,
        )
        return run_id, RunState.QUEUED, None
    if told.state.terminal:
        if known is None and told.state in (RunState.SUCCEEDED, RunState.CANCELLED):
            return run_id, told.state, None  # it ended in the queue, without a record
        bench.engine.again(run_id)
        return run_id, RunState.QUEUED, None
    return run_id, told.state, None
