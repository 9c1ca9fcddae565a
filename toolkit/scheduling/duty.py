"""What a worker does beside its work, one worker at a time: ticks, triggers, limits, alerts.

Each of three kinds of it has a turn and a thread of its own (:attr:`Duty.parts`): a slow folder or
a long tidying up keeps no tick waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from toolkit.errors import EngineError, ToolkitError
from toolkit.scheduling.admission import Admission
from toolkit.scheduling.engine import Engine
from toolkit.scheduling.jobs import Jobs
from toolkit.scheduling.listings import Listings
from toolkit.scheduling.schedules import Schedule
from toolkit.scheduling.tables import Turn
from toolkit.scheduling.ticker import Ticker
from toolkit.scheduling.watchers import Watchers
from toolkit.scheduling.work import EventKind, Work, WorkerEvent
from toolkit.values import Clock, RunState, SystemClock

__all__ = ["Duty"]

_ALERT_S = 60.0
_HOUSEKEEP_S = 3600.0


class Duty:
    """Everything that somebody has to look at now and then.

    Args:
        engine: The queue, its schedules and triggers; a connection of its own.
        jobs: Returns the settings of jobs.
        on_event: Told of skipped ticks, overdue runs and failing triggers.
        lost: Whether this worker's lease may be lost, so that it may not act.
        housekeep: Called once an hour.
        listings: How watched files are listed.
        clock: What time it is.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: Callable[[], Jobs],
        on_event: Callable[[WorkerEvent], None],
        *,
        lost: Callable[[], bool] = lambda: False,
        housekeep: Callable[[], object] | None = None,
        listings: Listings | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._engine = engine
        self._jobs = jobs
        self._on_event = on_event
        self._lost = lost
        self._housekeep = housekeep
        self._ticker = Ticker(engine.tables, engine, clock, self._skipped)
        self._watchers = Watchers(engine, clock, self._warn, listings)
        self._admission = Admission(engine.tables, engine.client, jobs, clock)
        self._alerted_s = self._housekept_s = float("-inf")
        self._told: set[tuple[str, RunState]] = set()

    @property
    def parts(self) -> tuple[Callable[[], None], ...]:
        """What to call again and again, each in a thread of its own."""
        return (self.look, self.watch, self.clean)

    def look(self) -> None:
        """Look at ticks, limits and overdue runs once, if nobody else is looking.

        Raises:
            EngineError: The database does not answer; the rest was looked at all the same.
        """
        self._do("turn", self._ticker.look, self._admission.look, self._alert)

    def watch(self) -> None:
        """Look at new files and ends of jobs once, if nobody else is looking.

        Raises:
            EngineError: The database does not answer.
        """
        self._do("watch", self._watchers.look)

    def clean(self) -> None:
        """Tidy up once an hour, if nobody else does.

        Raises:
            EngineError: It failed.
        """
        if self._housekeep is not None and time.monotonic() - self._housekept_s >= _HOUSEKEEP_S:
            self._do("clean", self._clean)

    def _do(self, name: str, *parts: Callable[[Turn], object]) -> None:
        if self._lost():
            return
        with self._engine.tables.turn(name) as turn:
            if turn is None:
                return
            fault: EngineError | None = None
            for part in parts:
                try:
                    part(turn)
                except EngineError as error:
                    fault = error
                except Exception as error:  # noqa: BLE001 - one broken row must not stop the rest
                    text = error.message if isinstance(error, ToolkitError) else repr(error)
                    fault = EngineError(f"a look at {part.__qualname__} failed: {text}")
            if fault is not None:
                raise fault

    def _alert(self, turn: Turn) -> None:
        del turn
        if time.monotonic() - self._alerted_s < _ALERT_S:
            return
        self._alerted_s = time.monotonic()
        jobs = self._jobs()
        found = self._engine.overdue(queued_s=jobs.queued_s, running_s=jobs.running_s)
        for status, age_s in found:
            key = (status.run_id, status.state)
            if key not in self._told:
                text = f"{status.run_id} of {status.job} has been {status.state} for {age_s:.0f} s"
                self._on_event(WorkerEvent(EventKind.OVERDUE, text))
        self._told = {(status.run_id, status.state) for status, _ in found}

    def _clean(self, turn: Turn) -> None:
        turn.check()
        self._housekept_s = time.monotonic()
        if self._housekeep is not None:
            self._housekeep()

    def _warn(self, text: str) -> None:
        self._on_event(WorkerEvent(EventKind.WARNING, text))

    def _skipped(self, text: str, schedule: Schedule, row: dict[str, Any]) -> None:
        work = Work(
            row["run_id"],
            schedule.job,
            schedule.parameters,
            schedule=schedule.name,
            tick=row["tick"],
            created_by=schedule.created_by,
        )
        self._on_event(WorkerEvent(EventKind.TICK_SKIPPED, text, work, RunState.SKIPPED))
