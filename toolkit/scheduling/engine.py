"""The queue and the schedules, from any process: no worker need be running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.errors import Conflict, NotFound, UsageError
from toolkit.scheduling.admission import HELD_S
from toolkit.scheduling.flows import after_of, arguments_of, status_of, wake_id
from toolkit.scheduling.jobs import NO_JOBS, Jobs
from toolkit.scheduling.leases import last_heard
from toolkit.scheduling.schedules import Schedule
from toolkit.scheduling.tables import HELD, TICKS, TRIGGERS
from toolkit.scheduling.timetable import Timetable
from toolkit.scheduling.triggerbook import TriggerBook
from toolkit.scheduling.triggers import Trigger, trigger_run_id
from toolkit.scheduling.vendor import RUN_QUEUE, engine_errors
from toolkit.scheduling.wakes import Wakes
from toolkit.scheduling.work import RunStatus
from toolkit.values import (
    Clock,
    JobRef,
    RunState,
    canonical_bytes,
    check_name,
    check_parameter_name,
    iso_utc,
)

__all__ = ["Engine"]

_DONE = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_PRUNE_BATCH = 500
_WAITING = 3


class Engine(Timetable, TriggerBook, Wakes):
    """Submits, cancels and schedules.  Thread-safe; a context manager that closes it.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``; opened on first use.
        root: The workspace; a relative SQLite path is below it.
        clock: Where *now* comes from, for the next tick.
        jobs: Returns the settings of jobs: what is limited, what is urgent.
        supersede: Cancels a run that a later tick replaces, with all that belongs to it; ``None``:
            :meth:`cancel`, which knows the queue alone.

    Every method raises ``EngineError`` when the database does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        root: Path,
        clock: Clock | None = None,
        jobs: Callable[[], Jobs] = lambda: NO_JOBS,
        supersede: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__(url, root=root, clock=clock)
        self._jobs = jobs
        self._supersede = supersede

    # -- runs ------------------------------------------------------------------------------

    def submit(
        self,
        job_ref: str,
        params: Mapping[str, Any],
        *,
        run_id: str,
        created_by: str = "",
        trigger: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Queue a run; the same ``run_id`` again changes nothing.

        Args:
            job_ref: What runs.
            params: JSON values by parameter name.
            run_id: Idempotency key.
            created_by: Who asks.
            trigger: Name of the trigger that asks.
            timeout_s: Seconds for the whole run; ``None``: the job's own limit.

        Returns:
            ``run_id``.

        Raises:
            UsageError: The reference, a parameter's name or value, or the id is not valid.
            Conflict: The id stands for another job or other parameters.
        """
        JobRef.parse(job_ref)
        check_name(run_id, "run id")
        try:
            canonical = canonical_bytes({check_parameter_name(k): v for k, v in params.items()})
        except ValueError as error:
            raise UsageError(f"the parameters cannot be queued: {error}") from error
        body = _new_body(run_id, job_ref, dict(params), created_by)
        if trigger is not None:
            body["trigger"] = trigger
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        with engine_errors(f"submitting {run_id}"):
            self._queue_run(body)
            (queued,) = self._client.list_workflows(workflow_ids=[run_id], load_output=False)
        known = arguments_of(queued)
        if known.get("job") != job_ref or canonical_bytes(known.get("parameters")) != canonical:
            raise Conflict(
                f"the run {run_id} was submitted before with another job or other parameters",
                where=run_id,
                next_step="choose another run id, or leave it out",
            )
        return run_id

    def again(self, run_id: str) -> bool:
        """Queue a run again whose last try has ended; it goes on under its id.

        Returns:
            Whether it was queued; ``False`` while it is queued, runs or waits.

        Raises:
            NotFound: The queue does not know it.
        """
        family = self._family(run_id)
        if not status_of(run_id, family).state.terminal:
            return False
        after = after_of(run_id, len(family), family[-1])
        priority = self._jobs().of(str(after["body"].get("job", ""))).priority
        with engine_errors(f"queueing {run_id} again"):
            self._enqueue("run", RUN_QUEUE, after["id"], after["body"], priority=priority)
        return True

    def supersede(self, run_id: str) -> None:
        """Cancel a run whose place a later tick takes."""
        (self._supersede or self.cancel)(run_id)

    def queue_tick(self, schedule: Schedule, run_id: str, tick: str) -> None:
        """Queue the run of a tick; the same one again changes nothing."""
        body = _new_body(run_id, schedule.job, schedule.parameters, schedule.created_by)
        with engine_errors(f"queueing {run_id}"):
            self._queue_run({**body, "schedule": schedule.name, "tick": tick})

    def _queue_run(self, body: dict[str, Any]) -> None:
        run_id, job = body["run_id"], JobRef.parse(body["job"]).name
        rules = self._jobs().of(job)
        delay_s = None
        if rules.limited and not self._client.list_workflows(
            workflow_ids=[run_id], load_input=False, load_output=False
        ):
            # The mark first: a run without one would wait for ever.
            row = {"flow": run_id, "job": job, "priority": rules.priority}
            self.tables.add(HELD, [{**row, "at_s": self._now_s(), "released": 0}])
            delay_s = HELD_S
        self._enqueue("run", RUN_QUEUE, run_id, body, delay_s=delay_s, priority=rules.priority)

    def status(self, run_id: str) -> RunStatus:
        """Return where a run stands.

        Raises:
            NotFound: The queue does not know it.
        """
        return status_of(run_id, self._family(run_id))

    def statuses(self, run_ids: Sequence[str]) -> dict[str, RunStatus]:
        """Return where runs stand, with few questions; unknown ones are left out."""
        asked = [check_name(run_id, "run id") for run_id in run_ids]
        found: dict[str, RunStatus] = {}
        for start in range(0, len(asked), _PRUNE_BATCH):
            last = self._last(asked[start : start + _PRUNE_BATCH])
            found |= {run_id: status_of(run_id, [flow]) for run_id, (_, flow) in last.items()}
        return found

    def unfinished(self, run_id: str) -> bool:
        """Whether a run may still do something; ``False`` if the queue does not know it."""
        try:
            return not self.status(run_id).state.terminal
        except NotFound:
            return False

    def cancel(self, run_id: str) -> RunStatus:
        """Cancel a run: a queued one never starts, a running one is asked to end within seconds.

        A run that ended stays as it is; one that waits will not be woken any more.

        Returns:
            The status after it.

        Raises:
            NotFound: The queue does not know it.
        """
        family = self._family(run_id)
        if status_of(run_id, family).state is RunState.WAITING:
            wake = wake_id(run_id, len(family))
            body = {**arguments_of(family[-1]), "wake": len(family)}
            with engine_errors(f"cancelling {run_id}"):
                # Its place in the family is taken, so that no wake can follow; the delay keeps
                # workers off it between the two statements.
                self._enqueue("run", RUN_QUEUE, wake, body, delay_s=86_400.0)
                self._client.cancel_workflows([wake, f"due-{wake}"])
            return self.status(run_id)
        with engine_errors(f"cancelling {run_id}"):
            ids = [flow.workflow_id for flow in family]
            wake = wake_id(run_id, len(family))
            self._client.cancel_workflows([*ids, f"wake-{wake}", f"due-{wake}"])
        return self.status(run_id)

    def pending(self) -> list[RunStatus]:
        """Every run that is queued or running, oldest first."""
        with engine_errors("reading the queue"):
            flows = self._client.list_workflows(
                status=["ENQUEUED", "DELAYED", "PENDING"], name="run", load_output=False
            )
        return [status_of(str(arguments_of(flow)["run_id"]), [flow]) for flow in flows]

    def workers(self) -> list[float]:
        """Every worker that holds a lease: the seconds since it was last heard of, fewest first."""
        assert self._client is not None  # makes the database
        return last_heard(self._url)

    def overdue(self, *, queued_s: float, running_s: float) -> list[tuple[RunStatus, float]]:
        """Runs that have been queued or running for longer than so many seconds, and how long."""
        now_s = self._now_s()
        found = []
        with engine_errors("reading the queue"):
            flows = self._client.list_workflows(
                status=["ENQUEUED", "DELAYED", "PENDING"], name="run", load_output=False
            )
        for flow in flows:
            going = flow.status == "PENDING"
            since_s = ((flow.dequeued_at if going else None) or flow.created_at or 0) / 1000
            age_s = now_s - since_s
            if age_s > (running_s if going else queued_s):
                found.append((status_of(str(arguments_of(flow)["run_id"]), [flow]), age_s))
        return found

    # -- triggers --------------------------------------------------------------------------

    def fire(self, trigger: Trigger, key: str, event: Any) -> str:
        """Queue the run that an event starts; the same event again gives the same run.

        Args:
            trigger: Which.
            key: What makes the event the same event: its delivery's id, a file and its stamp …
            event: JSON values, from which the trigger takes parameters.

        Returns:
            The run's id.

        Raises:
            UsageError: The event lacks a value.
            Conflict: The key came before with other values.
        """
        run_id = trigger_run_id(trigger.name, key)
        values = trigger.values(event)
        self.submit(
            trigger.job, values, run_id=run_id, created_by=trigger.created_by, trigger=trigger.name
        )
        self.tables.change(TRIGGERS, TRIGGERS.c.name == trigger.name, fired_s=self._now_s())
        return run_id

    def ended_since(self, moment: datetime) -> list[RunStatus]:
        """Runs that ended, as the queue sees it, at or after a moment; oldest first."""
        after = iso_utc(round(moment.timestamp() * 1e6))
        with engine_errors("reading what ended"):
            flows = self._client.list_workflows(status=_DONE, name="run", completed_after=after)
        return [status_of(str(arguments_of(flow)["run_id"]), [flow]) for flow in flows]

    # -- housekeeping ----------------------------------------------------------------------

    def prune(self, *, older_than_s: float) -> int:
        """Forget runs that ended so long ago; their ids are free again.

        A run that waits has not ended, whatever its last process did: it stays.

        Returns:
            How many rows were deleted.
        """
        before = iso_utc(self._clock.now_us() - round(older_than_s * 1e6))
        deleted = offset = 0
        with engine_errors("pruning the queue"):
            while flows := self._client.list_workflows(
                status=_DONE, completed_before=before, limit=_PRUNE_BATCH, offset=offset
            ):
                over = [flow for flow in flows if not self._waits(flow)]
                self._client.delete_workflows([flow.workflow_id for flow in over])
                deleted += len(over)
                offset += len(flows) - len(over)
        old = self._now_s() - older_than_s
        gone = TICKS.c.state.in_(("queued", "skipped"))
        return deleted + self.tables.delete(TICKS, gone, TICKS.c.due_s < old)

    def _waits(self, flow: Any) -> bool:
        """Whether a workflow that ended belongs to a run that may still be woken."""
        output = flow.output if isinstance(flow.output, dict) else {}
        if flow.name != "run" or output.get("exit_code") != _WAITING:
            return False
        return self.unfinished(str(arguments_of(flow)["run_id"]))


def _new_body(run_id: str, job: str, parameters: Any, created_by: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "job": job,
        "parameters": parameters,
        "schedule": None,
        "tick": None,
        "created_by": created_by,
        "wake": 0,
    }
