"""When jobs run: a durable queue, schedules, and workers that run each piece of work once.

DBOS keeps queue and schedules in SQLite (one worker at a time) or PostgreSQL (many machines);
this room is the only one that knows it.

Rules
-----
* Run ids are idempotency keys.  A tick's run id follows from the schedule's name and the tick's
  time alone, so however many workers see a tick, one run comes of it.
* Work is done in one subprocess per run.  Its exit code is the contract: 0 succeeded, 3 waiting,
  75 or killed by a signal: tried again, 99 skipped, 124 timed out, 143 cancelled, else failed.
* A worker holds a lease in the database.  Who loses it stops at once; who sees a lease expire
  puts that worker's work back into the queue.  So work is started at least once and recorded
  exactly once; a run that starts again resumes from its journal.
* A child never outlives its worker: the kernel kills it when the worker dies.
* A schedule that names hours (``30 2 * * *``) fires once per local time: the double hour at the
  end of summer time counts once, and a time that the missing hour swallows fires at the first
  moment after the gap.  A schedule for every hour (``30 * * * *``) fires every hour that passes.
* Ticks that fall due while no worker runs are skipped, never piled up; each fires up to 10 s
  late, spread at random.  A schedule's queue is never partitioned: such rows would never start.
* Errors of DBOS and of its database leave this room as :class:`toolkit.errors.EngineError`.
"""

from __future__ import annotations

from toolkit.scheduling.beside import stop_on_signals
from toolkit.scheduling.engine import Engine
from toolkit.scheduling.schedules import Schedule, ScheduleInfo, next_fires, tick_run_id
from toolkit.scheduling.work import EventKind, RunStatus, Work, WorkerEvent, state_of_exit
from toolkit.scheduling.worker import Worker

__all__ = [
    "Engine",
    "EventKind",
    "RunStatus",
    "Schedule",
    "ScheduleInfo",
    "Work",
    "Worker",
    "WorkerEvent",
    "next_fires",
    "state_of_exit",
    "stop_on_signals",
    "tick_run_id",
]
