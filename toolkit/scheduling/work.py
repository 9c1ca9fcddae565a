"""What a worker is given, what it reports, and what an exit code means."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.values import RunState

__all__ = [
    "AWAY",
    "BUSY",
    "EventKind",
    "Outcome",
    "RunStatus",
    "Work",
    "WorkerEvent",
    "cause_of_exit",
    "state_of_exit",
]

AWAY = "away"
"""Why a process ended that could not even record its end; whoever says so cannot read it either."""

BUSY = "busy"
"""Why a process ended that found its run executed by another one, which still lives."""

_TRANSIENT = 75
_TIMED_OUT = 124
_STATES = {
    0: RunState.SUCCEEDED,
    3: RunState.WAITING,
    99: RunState.SKIPPED,
    124: RunState.TIMED_OUT,
    143: RunState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Work:
    """One run that a worker is to start.

    Attributes:
        run_id: Idempotency key; of a tick see :func:`toolkit.scheduling.tick_run_id`.
        job: Job reference.
        parameters: JSON values by parameter name.
        schedule, tick: Name of the schedule and local time of the tick (ISO 8601 with offset),
            ``None`` for work that was submitted.
        created_by: Who submitted it or made the schedule.
        wake: 0 at first; counts how often the run was woken after it waited.
        attempt: 1 at first, more after a transient failure on this worker.
        trigger: Name of the trigger that it comes from.
        timeout_s: Seconds for the whole run, where who submitted it said so.
    """

    run_id: str
    job: str
    parameters: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    tick: str | None = None
    created_by: str = ""
    wake: int = 0
    attempt: int = 1
    trigger: str | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last attempt's process ended.

    Attributes:
        exit_code: As :mod:`subprocess` has it: minus the signal's number for a killed process.
        attempts: How many there were.
        message: The last line that it wrote, or why it could not be started.
    """

    exit_code: int
    attempts: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands, as the queue sees it; the ledger knows what happened inside.

    Attributes:
        run_id, job: Which.
        state: ``lost`` when too many workers died over it.
        schedule: Name of the schedule that made it.
        exit_code: Of the last process, ``None`` before it ended.
        attempts: Processes that the last worker started for it.
        message: Why it failed, if it says.
        created_us, ended_us: Microseconds since the epoch; on SQLite to the full second.
        parameters: What it was queued with.
        created_by: Who submitted it or made its schedule or trigger.
        tick: Local time of the schedule's tick.
    """

    run_id: str
    job: str
    state: RunState
    schedule: str | None = None
    exit_code: int | None = None
    attempts: int = 0
    message: str = ""
    created_us: int = 0
    ended_us: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    created_by: str = ""
    tick: str | None = None


class EventKind(StrEnum):
    """What a worker reports."""

    STARTED = "started"
    RUN_STARTED = "run_started"
    RUN_RETRIED = "run_retried"
    RUN_ENDED = "run_ended"
    RUN_RELEASED = "run_released"
    RECOVERED = "recovered"
    WARNING = "warning"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FENCED = "fenced"
    TICK_SKIPPED = "tick_skipped"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """Something that a worker did or saw.

    Attributes:
        kind: What.
        message: One line for a person.
        work: The run it is about, if any.
        state: How that ended, for ``run_ended``.
        exit_code: The process's, for ``run_ended`` and ``run_retried``.
    """

    kind: EventKind
    message: str
    work: Work | None = None
    state: RunState | None = None
    exit_code: int | None = None


def state_of_exit(code: int) -> RunState:
    """Return the state that an exit code of ``toolkit run`` stands for."""
    return RunState.KILLED if code < 0 else _STATES.get(code, RunState.FAILED)


def cause_of_exit(code: int) -> str | None:
    """Return what stopped a process, as far as its exit code tells, or ``None``.

    The words are those of a job's ``retries``; who can read the ledger can tell more of them apart.
    """
    if code < 0:
        return "killed"
    return {_TRANSIENT: "infrastructure", _TIMED_OUT: "timeout"}.get(code)
