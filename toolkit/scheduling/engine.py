"""The queue and the schedules, from any process: no worker need be running."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from toolkit.errors import Conflict, NotFound, UsageError
from toolkit.scheduling.schedules import Schedule, ScheduleInfo, next_fires
from toolkit.scheduling.vendor import (
    CONTROL_QUEUE,
    RUN_QUEUE,
    VERSION,
    clean_url,
    connect,
    engine_errors,
)
from toolkit.scheduling.work import RunStatus, state_of_exit
from toolkit.values import (
    Clock,
    JobRef,
    RunState,
    SystemClock,
    canonical_bytes,
    check_name,
    check_parameter_name,
    iso_utc,
)

__all__ = ["Engine"]

_STATES = {
    "ENQUEUED": RunState.QUEUED,
    "DELAYED": RunState.QUEUED,
    "PENDING": RunState.RUNNING,
    "CANCELLED": RunState.CANCELLED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": RunState.LOST,
}
_DONE = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_PRUNE_BATCH = 500


class Engine:
    """Submits, cancels and schedules.  Thread-safe; a context manager that closes it.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``; opened on first use.
        root: The workspace; a relative SQLite path is below it.
        clock: Where *now* comes from, for the next tick.

    Every method raises ``EngineError`` when the database does not answer.
    """

    def __init__(self, url: str, *, root: Path, clock: Clock | None = None) -> None:
        self._url = clean_url(url, root)
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._opened: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        with self._lock:
            if self._opened is not None:
                self._opened.destroy()
                self._opened = None

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = connect(self._url)
            return self._opened

    # -- runs ------------------------------------------------------------------------------

    def submit(
        self, job_ref: str, params: Mapping[str, Any], *, run_id: str, created_by: str = ""
    ) -> str:
        """Queue a run; the same ``run_id`` again changes nothing.

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
        body = {
            "run_id": run_id,
            "job": job_ref,
            "parameters": dict(params),
            "schedule": None,
            "tick": None,
            "created_by": created_by,
            "wake": 0,
        }
        with engine_errors(f"submitting {run_id}"):
            self._enqueue("run", RUN_QUEUE, run_id, body)
            (queued,) = self._client.list_workflows(workflow_ids=[run_id], load_output=False)
        known = _body(queued)
        if known.get("job") != job_ref or canonical_bytes(known.get("parameters")) != canonical:
            raise Conflict(
                f"the run {run_id} was submitted before with another job or other parameters",
                where=run_id,
                next_step="choose another run id, or leave it out",
            )
        return run_id

    def _enqueue(
        self,
        workflow: str,
        queue: str,
        workflow_id: str,
        body: Any,
        *,
        delay_s: float | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": VERSION,
        }
        if delay_s is not None:
            options["delay_seconds"] = delay_s
        self._client.enqueue(options, body)

    def status(self, run_id: str) -> RunStatus:
        """Return where a run stands.

        Raises:
            NotFound: The queue does not know it.
        """
        return _status(run_id, self._family(run_id))

    def cancel(self, run_id: str) -> RunStatus:
        """Cancel a run: a queued one never starts, a running one is asked to end within seconds.

        A run that ended stays as it is; one that waits will not be woken any more.

        Returns:
            The status after it.

        Raises:
            NotFound: The queue does not know it.
        """
        family = self._family(run_id)
        if _status(run_id, family).state is RunState.WAITING:
            wake = _wake_id(run_id, len(family))
            body = {**_body(family[-1]), "wake": len(family)}
            with engine_errors(f"cancelling {run_id}"):
                # Its place in the family is taken, so that no wake can follow; the delay keeps
                # workers off it between the two statements.
                self._enqueue("run", RUN_QUEUE, wake, body, delay_s=86_400.0)
                self._client.cancel_workflows([wake, f"due-{wake}"])
            return self.status(run_id)
        with engine_errors(f"cancelling {run_id}"):
            ids = [flow.workflow_id for flow in family]
            wake = _wake_id(run_id, len(family))
            self._client.cancel_workflows([*ids, f"wake-{wake}", f"due-{wake}"])
        return self.status(run_id)

    def wake(self, run_id: str, *, at_us: int | None = None) -> bool:
        """Run a waiting run again, now that what it waited for is recorded.

        Safe to call at any moment after the record: a run that is still about to end as waiting
        runs again once it has, a queued one will see the record by itself.

        Args:
            run_id: The run.
            at_us: Not before this moment, microseconds since the epoch; a row of the database
                until then.  Whatever wakes the run before makes that row count for nothing.

        Returns:
            Whether it runs again; ``False`` if it ended for good or has not started yet.

        Raises:
            NotFound: The queue does not know it.
        """
        family = self._family(run_id)
        if _status(run_id, family).state not in (RunState.WAITING, RunState.RUNNING):
            return False
        wake = _wake_id(run_id, len(family))
        with engine_errors(f"waking {run_id}"):
            body = {**_body(family[-1]), "wake": len(family)}
            after = {"after": family[-1].workflow_id, "id": wake, "body": body}
            if at_us is None:
                self._enqueue("wake", CONTROL_QUEUE, f"wake-{wake}", after)
            else:
                delay_s = max(0.0, (at_us - self._clock.now_us()) / 1e6)
                self._enqueue("wake", CONTROL_QUEUE, f"due-{wake}", after, delay_s=delay_s)
        return True

    def pending(self) -> list[RunStatus]:
        """Every run that is queued or running, oldest first."""
        with engine_errors("reading the queue"):
            flows = self._client.list_workflows(
                status=["ENQUEUED", "DELAYED", "PENDING"], name="run", load_output=False
            )
        return [_status(str(_body(flow)["run_id"]), [flow]) for flow in flows]

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
        while (wake := _wake_id(run_id, len(flows))) in found:
            flows.append(found[wake])
        return list(flows)

    # -- schedules -------------------------------------------------------------------------

    def add_schedule(self, schedule: Schedule, *, replace: bool = False) -> None:
        """Add a schedule; workers see it within five seconds.

        Args:
            schedule: What runs when.
            replace: Change a schedule of that name; it stays paused if it was.

        Raises:
            Conflict: There is another schedule of that name.
        """
        known = {info.schedule.name: info.schedule for info in self.list_schedules()}
        if known.get(schedule.name) == schedule:
            return
        if schedule.name in known and not replace:
            raise Conflict(
                f"there is another schedule {schedule.name}",
                where=f"schedule {schedule.name}",
                next_step=f"choose another name or run `toolkit schedule remove {schedule.name}`",
            )
        entry = {
            "schedule_name": schedule.name,
            "workflow_name": "tick",
            "schedule": schedule.cron,
            "cron_timezone": schedule.timezone,
            "queue_name": CONTROL_QUEUE,
            "context": {
                "name": schedule.name,
                "job": schedule.job,
                "parameters": schedule.parameters,
                "cron": schedule.cron,
                "timezone": schedule.timezone,
                "created_by": schedule.created_by,
            },
        }
        with engine_errors(f"adding the schedule {schedule.name}"):
            self._client.apply_schedules([entry])

    def list_schedules(self) -> list[ScheduleInfo]:
        """Every schedule by name, with its next and its last tick."""
        with engine_errors("listing the schedules"):
            rows = self._client.list_schedules()
        now = datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)
        return [_info(row, now) for row in sorted(rows, key=lambda row: row["schedule_name"])]

    def pause(self, name: str) -> None:
        """Stop a schedule from firing.

        Raises:
            NotFound: There is no such schedule.
        """
        self._known(name)
        with engine_errors(f"pausing {name}"):
            self._client.pause_schedule(name)

    def resume(self, name: str) -> None:
        """Let a paused schedule fire again; ticks in between are not made up for.

        Raises:
            NotFound: There is no such schedule.
        """
        self._known(name)
        with engine_errors(f"resuming {name}"):
            self._client.resume_schedule(name)

    def remove(self, name: str) -> None:
        """Delete a schedule; runs it made stay.

        Raises:
            NotFound: There is no such schedule.
        """
        self._known(name)
        with engine_errors(f"removing {name}"):
            self._client.delete_schedule(name)

    def backfill(self, name: str, start: datetime, end: datetime) -> int:
        """Queue the ticks between two moments (both with a time zone), except those that ran.

        Returns:
            How many ticks lie in between.

        Raises:
            NotFound: There is no such schedule.
        """
        self._known(name)
        with engine_errors(f"backfilling {name}"):
            return len(self._client.backfill_schedule(name, start, end))

    def _known(self, name: str) -> None:
        if name not in {info.schedule.name for info in self.list_schedules()}:
            raise NotFound(
                f"there is no schedule {name!a}",
                where=f"schedule {name!a}",
                next_step="run `toolkit schedule list`",
            )

    # -- housekeeping ----------------------------------------------------------------------

    def prune(self, *, older_than_s: float) -> int:
        """Forget runs that ended so long ago; their ids are free again.

        Returns:
            How many rows were deleted.
        """
        before = iso_utc(self._clock.now_us() - round(older_than_s * 1e6))
        deleted = 0
        with engine_errors("pruning the queue"):
            while flows := self._client.list_workflows(
                status=_DONE,
                completed_before=before,
                limit=_PRUNE_BATCH,
                load_input=False,
                load_output=False,
            ):
                self._client.delete_workflows([flow.workflow_id for flow in flows])
                deleted += len(flows)
        return deleted


def _wake_id(run_id: str, number: int) -> str:
    return f"{run_id}~{number}"


def _body(flow: Any) -> dict[str, Any]:
    arguments = (flow.input or {}).get("args") or [{}]
    return dict(arguments[0])


def _status(run_id: str, family: list[Any]) -> RunStatus:
    flow, body = family[-1], _body(family[0])
    outcome = flow.output if flow.status == "SUCCESS" and isinstance(flow.output, dict) else {}
    code = outcome.get("exit_code")
    state = RunState.FAILED if code is None else state_of_exit(code)
    return RunStatus(
        run_id=run_id,
        job=str(body.get("job", "")),
        state=_STATES.get(flow.status, state),
        schedule=body.get("schedule"),
        exit_code=code,
        attempts=outcome.get("attempts", 0),
        message=outcome.get("message") or (str(flow.error) if flow.error else ""),
        created_us=(family[0].created_at or 0) * 1000,
        ended_us=flow.completed_at * 1000 if flow.completed_at else None,
    )


def _info(row: Any, now: datetime) -> ScheduleInfo:
    schedule = Schedule(**row["context"])
    paused = row["status"] != "ACTIVE"
    last = row["last_fired_at"]
    return ScheduleInfo(
        schedule=schedule,
        paused=paused,
        next_fire=None if paused else next(next_fires(schedule, now)),
        last_fired=datetime.fromisoformat(last).astimezone(schedule.zone) if last else None,
    )
