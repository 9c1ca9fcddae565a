"""The workflows that the queue knows; their names and what they take is :data:`vendor.VERSION`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from toolkit.scheduling.schedules import Schedule, tick_run_id
from toolkit.scheduling.vendor import RUN_QUEUE
from toolkit.scheduling.work import Outcome, Work

__all__ = ["register"]

# How many workers may die over one run before it is given up as lost.
_MAX_RECOVERIES = 10
_WAITING = 3


def register(work: Callable[[Work], Awaitable[Outcome]]) -> None:
    """Register the three workflows; what they are called and take is :data:`vendor.VERSION`."""
    from dbos import DBOS, SetWorkflowID

    @DBOS.step(name="execute", preemptible=True)  # type: ignore[untyped-decorator]
    async def execute(body: Any) -> Any:
        return asdict(await work(Work(**body)))

    @DBOS.workflow(name="run", max_recovery_attempts=_MAX_RECOVERIES)  # type: ignore[untyped-decorator]
    async def run(body: Any) -> Any:
        return await execute(body)

    @DBOS.workflow(name="tick", max_recovery_attempts=_MAX_RECOVERIES)  # type: ignore[untyped-decorator]
    async def tick(when: Any, context: Any) -> Any:
        schedule = Schedule(**context)
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
        run_id = tick_run_id(schedule, moment)
        body = {
            "run_id": run_id,
            "job": schedule.job,
            "parameters": schedule.parameters,
            "schedule": schedule.name,
            "tick": moment.astimezone(schedule.zone).isoformat(),
            "created_by": schedule.created_by,
            "wake": 0,
        }
        with SetWorkflowID(run_id):
            await DBOS.enqueue_workflow_async(RUN_QUEUE, run, body)
        return run_id

    @DBOS.workflow(name="wake", max_recovery_attempts=_MAX_RECOVERIES)  # type: ignore[untyped-decorator]
    async def wake(request: Any) -> Any:
        before = await DBOS.retrieve_workflow_async(request["after"], existing_workflow=False)
        outcome = await before.get_result()
        if outcome["exit_code"] != _WAITING:
            return None
        with SetWorkflowID(request["id"]):
            await DBOS.enqueue_workflow_async(RUN_QUEUE, run, request["body"])
        return request["id"]
