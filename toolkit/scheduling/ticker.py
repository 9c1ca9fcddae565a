"""Makes runs of ticks.

What is due is written down first, then queued: a crash repeats nothing and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from toolkit.scheduling.schedules import Schedule, tick_run_id
from toolkit.scheduling.tables import SCHEDULES, TICKS, Tables, Turn, body_of
from toolkit.scheduling.ticks import Gap, judge
from toolkit.scheduling.timetable import tick_row
from toolkit.values import Clock

__all__ = ["TickRuns", "Ticker"]

# Ticks of one schedule that may wait behind a run of it; more are skipped.
_MAX_QUEUE = 1000


class TickRuns(Protocol):
    """What a ticker needs of the queue; the engine is one."""

    def queue_tick(self, schedule: Schedule, run_id: str, tick: str) -> None:
        """Queue the run of a tick; the same one again changes nothing."""

    def unfinished(self, run_id: str) -> bool:
        """Whether a run may still do something; ``False`` if nobody knows it."""

    def supersede(self, run_id: str) -> object:
        """Cancel a run whose place a later tick takes."""


class Ticker:
    """Looks at the clock and acts.  Many may look at the same tables; one acts at a time.

    Args:
        tables: Where schedules and ticks are.
        runs: The queue.
        clock: What time it is.
        tell: Told of every skipped tick, in one sentence, with the schedule and the tick's row.
    """

    def __init__(
        self,
        tables: Tables,
        runs: TickRuns,
        clock: Clock,
        tell: Callable[[str, Schedule, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        self._tables = tables
        self._runs = runs
        self._clock = clock
        self._tell = tell
        # By schedule: as it was when it was judged, and until when that cannot change.
        self._resting: dict[str, tuple[str, float, datetime | None]] = {}

    def look(self, turn: Turn) -> None:
        """Decide on every tick whose time has come, and queue what may start.

        Raises:
            EngineError: The database does not answer, or the turn was lost.
        """
        now = datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)
        due = {row["schedule"] for row in self._tables.rows(TICKS, TICKS.c.state == "due")}
        for row in self._tables.rows(SCHEDULES, SCHEDULES.c.paused == 0):
            if row["name"] not in due and self._rests(row, now):
                continue
            schedule = Schedule(**body_of(row))
            if self._decide(turn, schedule, row, now) or schedule.name in due:
                self._release(turn, schedule)

    def _rests(self, row: dict[str, Any], now: datetime) -> bool:
        """Whether no tick of a schedule can have come since it was judged."""
        body, seen_s, after = self._resting.get(row["name"], ("", 0.0, now))
        if (body, seen_s) != (row["body"], row["seen_s"]):
            return False
        return after is None or now < after

    def _decide(self, turn: Turn, schedule: Schedule, row: dict[str, Any], now: datetime) -> bool:
        seen = datetime.fromtimestamp(row["seen_s"], UTC)
        verdict = judge(schedule, seen, now)
        if verdict.seen == seen:
            self._resting[schedule.name] = (row["body"], row["seen_s"], verdict.after)
            return False
        rows = [tick_row(schedule, when) for when in verdict.run]
        gap = _gap_row(schedule, verdict.skipped) if verdict.skipped else None
        turn.check()
        with self._tables.writing() as connection:
            # A schedule that was changed, paused or removed meanwhile is looked at again.
            mine = connection.execute(
                SCHEDULES.update()
                .where(
                    SCHEDULES.c.name == schedule.name,
                    SCHEDULES.c.seen_s == row["seen_s"],
                    SCHEDULES.c.body == row["body"],
                    SCHEDULES.c.paused == 0,
                )
                .values(seen_s=verdict.seen.timestamp())
            ).rowcount
            if not mine:
                return False
            if gap and self._tables.insert(connection, TICKS, gap):
                self._tell(_sentence(gap), schedule, gap)
            for tick in rows:
                self._tables.insert(connection, TICKS, tick)
        return bool(rows)

    def _release(self, turn: Turn, schedule: Schedule) -> None:
        """Queue the ticks that may start, oldest first, by the schedule's rule of overlap."""
        mine = TICKS.c.schedule == schedule.name
        order = [TICKS.c.due_s, TICKS.c.run_id]
        due = self._tables.rows(TICKS, mine, TICKS.c.state == "due", order=order)
        if schedule.overlap == "cancel-previous":
            for tick in due[:-1]:
                self._skip(schedule, tick, "a later tick took its place")
            due = due[-1:]
        elif schedule.overlap == "queue":
            for tick in due[_MAX_QUEUE:]:
                self._skip(schedule, tick, f"{_MAX_QUEUE} ticks were waiting before it")
            due = due[:_MAX_QUEUE]
        for tick in due:
            before = [] if schedule.overlap == "allow" else self._open(schedule)
            if before and schedule.overlap == "skip":
                self._skip(schedule, tick, f"{before[0]} had not ended")
                continue
            if before and schedule.overlap == "queue":
                return
            turn.check()
            for run_id in before:
                self._runs.supersede(run_id)
            self._queue(schedule, tick)

    def _queue(self, schedule: Schedule, tick: dict[str, Any]) -> None:
        self._runs.queue_tick(schedule, tick["run_id"], tick["tick"])
        watched = "queued" if schedule.overlap == "allow" else "open"
        self._tables.change(TICKS, TICKS.c.run_id == tick["run_id"], state=watched)
        self._tables.change(SCHEDULES, SCHEDULES.c.name == schedule.name, fired_s=tick["due_s"])

    def _open(self, schedule: Schedule) -> list[str]:
        """Run ids of this schedule's runs that have not ended; those that have are ticked off."""
        found = []
        for row in self._tables.rows(
            TICKS, TICKS.c.schedule == schedule.name, TICKS.c.state == "open"
        ):
            if self._runs.unfinished(row["run_id"]):
                found.append(row["run_id"])
            else:
                self._tables.change(TICKS, TICKS.c.run_id == row["run_id"], state="queued")
        return found

    def _skip(self, schedule: Schedule, tick: dict[str, Any], reason: str) -> None:
        self._tables.change(TICKS, TICKS.c.run_id == tick["run_id"], state="skipped", reason=reason)
        self._tell(_sentence({**tick, "reason": reason}), schedule, {**tick, "reason": reason})


def _gap_row(schedule: Schedule, gap: Gap) -> dict[str, Any]:
    return {
        **tick_row(schedule, gap.first),
        # Not the run's own id: the same tick may be queued by a backfill later.
        "run_id": f"{tick_run_id(schedule, gap.first)}-skip",
        "last": gap.last.astimezone(schedule.zone).isoformat(),
        "count": gap.count,
        "state": "skipped",
        "reason": gap.reason,
    }


def _sentence(row: dict[str, Any]) -> str:
    what = row["tick"] if row["count"] == 1 else f"{row['count']} ticks from {row['tick']}"
    return f"{row['schedule']}: {what} skipped: {row['reason']}"
