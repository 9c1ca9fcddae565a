"""When jobs run: a durable queue, schedules, and workers that run each piece of work once.

DBOS keeps queue and schedules in SQLite (one worker at a time) or PostgreSQL (many machines);
this room is the only one that knows it.

Rules
-----
* Run ids are idempotency keys.  A tick's run id follows from the schedule's name and the tick's
  time alone, so however many workers see a tick, one run comes of it.
* Work is done in one subprocess per run.  Its exit code is the contract: 0 succeeded, 3 waiting,
  75 or killed by a signal: tried again, 99 skipped, 124 timed out, 143 cancelled, else failed.
* That subprocess may be a fork of a prepared process, the worker's *host*: one thread, no database,
  no request in its memory.  Where it cannot serve, runs start as programs and behave alike.
* A process that could not record its end, because the records are away, or that met another living
  process of its run, uses up no retry: its worker waits until that is over.  Other causes have few
  retries, infrastructure's are spread over minutes, and work that is handed back costs none.
* How work ended is told to whoever keeps the runs' records before the queue records it.
* A worker holds a lease in the database.  Who loses it stops at once; who sees a lease expire
  (it looks every two seconds) puts that worker's work back into the queue.  So work is started at least once and recorded
  exactly once; a run that starts again resumes from its journal.
* A child never outlives its worker: the kernel kills it when the worker, or the host that
  it was forked from, dies.
* A schedule that names hours (``30 2 * * *``) fires once per local time: the double hour at the
  end of summer time counts once, and a time that the missing hour swallows fires at the first
  moment after the gap.  A schedule for every hour (``30 * * * *``) fires every hour that passes.
* Ticks and limits are looked at by one worker at a time, in its *turn*; triggers, and tidying up, in
  turns and threads of their own, so that no folder or store keeps a tick waiting: what is decided
  is written down, then acted on, with ids that make every act repeatable.
* A tick up to 60 s late is in time; what becomes of older ones is the schedule's ``catch_up``.
  Every skipped tick is recorded with its reason.
* Ticks of a schedule start in order, whatever their jitter.
* A run that a later tick replaces is cancelled by the door that people use, not in the queue alone.
* Runs that wait are woken in batches, each one transaction, and only by a place in the queue.
* A request from outside counts only with a fresh signature; nothing it says chooses the job.
* Settings of jobs (limits, priority, retries) are ``registry/jobs.yaml``, not part of a version.
* Errors of DBOS and of its database leave this room as :class:`toolkit.errors.EngineError`.
"""

from __future__ import annotations

from toolkit.scheduling.engine import Engine
from toolkit.scheduling.hosts import Hosting
from toolkit.scheduling.jobs import (
    CAUSES,
    DEFAULT_RETRIES,
    NO_JOBS,
    JobRules,
    Jobs,
    JobsFile,
    Rate,
    Retry,
    seconds_of,
)
from toolkit.scheduling.retention import prune_folders
from toolkit.scheduling.schedules import (
    CATCH_UPS,
    OVERLAPS,
    Schedule,
    ScheduleInfo,
    TickInfo,
    next_fires,
    tick_run_id,
)
from toolkit.scheduling.signatures import sign
from toolkit.scheduling.triggers import KINDS, ONS, Trigger, TriggerInfo, trigger_run_id
from toolkit.scheduling.work import (
    AWAY,
    BUSY,
    EventKind,
    Outcome,
    RunStatus,
    Work,
    WorkerEvent,
    cause_of_exit,
    state_of_exit,
)
from toolkit.scheduling.worker import Worker

__all__ = [
    "AWAY",
    "BUSY",
    "CATCH_UPS",
    "CAUSES",
    "DEFAULT_RETRIES",
    "KINDS",
    "NO_JOBS",
    "ONS",
    "OVERLAPS",
    "Engine",
    "EventKind",
    "Hosting",
    "JobRules",
    "Jobs",
    "JobsFile",
    "Outcome",
    "Rate",
    "Retry",
    "RunStatus",
    "Schedule",
    "ScheduleInfo",
    "TickInfo",
    "Trigger",
    "TriggerInfo",
    "Work",
    "Worker",
    "WorkerEvent",
    "cause_of_exit",
    "next_fires",
    "prune_folders",
    "seconds_of",
    "sign",
    "state_of_exit",
    "tick_run_id",
    "trigger_run_id",
]
