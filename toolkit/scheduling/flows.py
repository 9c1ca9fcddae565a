"""Runs as the queue's workflows: one for each time that a run was started or woken."""

from __future__ import annotations

from typing import Any

from toolkit.errors import NotFound
from toolkit.scheduling.connected import Connected
from toolkit.scheduling.vendor import VERSION, engine_errors
from toolkit.scheduling.work import RunStatus, state_of_exit
from toolkit.values import RunState, check_name

__all__ = ["Flows", "after_of", "arguments_of", "options_of", "status_of", "wake_id"]

_STATES = {
    "ENQUEUED": RunState.QUEUED,
    "DELAYED": RunState.QUEUED,
    "PENDING": RunState.RUNNING,
    "CANCELLED": RunState.CANCELLED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": RunState.LOST,
}


class Flows(Connected):
    """The part of the engine that finds and queues workflows."""

    def _enqueue(
        self,
        workflow: str,
        queue: str,
        workflow_id: str,
        body: Any,
        *,
        delay_s: float | None = None,
        priority: int | None = None,
    ) -> None:
        options = options_of(workflow, queue, workflow_id)
        if delay_s is not None:
            options["delay_seconds"] = delay_s
        if priority is not None:
            options["priority"] = priority
        self._client.enqueue(options, body)

    def _family(self, run_id: str) -> list[Any]:
        """A run's workflow and those that woke it again, in order."""
        check_name(run_id, "run id")
        with engine_errors(f"reading {run_id}"):
            flows = self._client.list_workflows(workflow_ids=[run_id])
            later = self._client.list_workflows(workflow_id_prefix=f"{run_id}~")
        if not flows:
            raise NotFound(
                f"the queue does not know the run {run_id}",
                where=run_id,
                next_step="run `toolkit runs` to see the runs",
            )
        found = {flow.workflow_id: flow for flow in later}
        while (wake := wake_id(run_id, len(flows))) in found:
            flows.append(found[wake])
        return list(flows)


def wake_id(run_id: str, number: int) -> str:
    """Return the workflow of a run that was woken so often."""
    return f"{run_id}~{number}"


def after_of(run_id: str, number: int, flow: Any) -> dict[str, Any]:
    """Return what queues a run again after its latest workflow."""
    body = {**arguments_of(flow), "wake": number}
    return {"after": flow.workflow_id, "id": wake_id(run_id, number), "body": body}


def options_of(workflow: str, queue: str, workflow_id: str) -> dict[str, Any]:
    """Return what the queue is told of a workflow."""
    return {
        "workflow_name": workflow,
        "queue_name": queue,
        "workflow_id": workflow_id,
        "app_version": VERSION,
    }


def arguments_of(flow: Any) -> dict[str, Any]:
    """Return what a workflow was queued with."""
    arguments = (flow.input or {}).get("args") or [{}]
    return dict(arguments[0])


def status_of(run_id: str, family: list[Any]) -> RunStatus:
    """Return where a run stands, by its workflows."""
    flow, body = family[-1], arguments_of(family[0])
    outcome = flow.output if flow.status == "SUCCESS" and isinstance(flow.output, dict) else {}
    code = outcome.get("exit_code")
    state = RunState.FAILED if code is None else state_of_exit(code)
    return RunStatus(
        run_id=run_id,
        job=str(body.get("job", "")),
        state=_STATES.get(flow.status, state),
        schedule=body.get("schedule") or body.get("trigger"),
        exit_code=code,
        attempts=outcome.get("attempts", 0),
        message=outcome.get("message") or (str(flow.error) if flow.error else ""),
        created_us=(family[0].created_at or 0) * 1000,
        ended_us=flow.completed_at * 1000 if flow.completed_at else None,
        parameters=dict(body.get("parameters") or {}),
        created_by=str(body.get("created_by") or ""),
        tick=body.get("tick"),
    )
