"""Schedules as rows: made, changed and read by any process."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from toolkit.errors import Conflict, NotFound
from toolkit.scheduling.connected import Connected
from toolkit.scheduling.schedules import Schedule, ScheduleInfo, TickInfo, next_fires, tick_run_id
from toolkit.scheduling.tables import SCHEDULES, TICKS, Tables, body_of
from toolkit.scheduling.vendor import engine_errors

__all__ = ["Timetable", "tick_row"]

_NAME = SCHEDULES.c.name


class Timetable(Connected, ABC):
    """The part of the engine that keeps schedules."""

    def add_schedule(self, schedule: Schedule, *, replace: bool = False) -> None:
        """Add a schedule; workers see it within a second.  It begins now.

        Args:
            schedule: What runs when.
            replace: Change a schedule of that name; it stays paused if it was.

        Raises:
            Conflict: There is another schedule of that name.
        """
        tables = self._schedules()
        body = json.dumps(asdict(schedule))
        row = {"name": schedule.name, "body": body, "paused": 0, "seen_s": self._now_s()}
        if tables.add(SCHEDULES, [row]):
            return
        ((known, _),) = self._read(schedule.name)
        if known == schedule:
            return
        if not replace:
            raise Conflict(
                f"there is another schedule {schedule.name}",
                where=f"schedule {schedule.name}",
                next_step=f"choose another name or run `toolkit schedule remove {schedule.name}`",
            )
        tables.change(SCHEDULES, schedule.name == _NAME, body=body, seen_s=self._now_s())

    def list_schedules(self) -> list[ScheduleInfo]:
        """Every schedule by name, with its next and its last tick."""
        now = datetime.fromtimestamp(self._now_s(), UTC)
        return [_info(schedule, row, now) for schedule, row in self._read()]

    def pause(self, name: str) -> None:
        """Stop a schedule from firing; ticks that are due and wait for their turn are skipped.

        Raises:
            NotFound: There is no such schedule.
        """
        self._change(name, paused=1)
        self.tables.change(
            TICKS,
            TICKS.c.schedule == name,
            TICKS.c.state == "due",
            state="skipped",
            reason="the schedule was paused before its turn came",
        )

    def resume(self, name: str) -> None:
        """Let a paused schedule fire again; ticks in between are not made up for.

        Raises:
            NotFound: There is no such schedule.
        """
        # Only a paused one: resuming one that runs must not swallow what it missed.
        if not self._schedules().change(
            SCHEDULES, name == _NAME, SCHEDULES.c.paused == 1, paused=0, seen_s=self._now_s()
        ):
            self._change(name, paused=0)

    def remove(self, name: str) -> None:
        """Delete a schedule; runs it made stay.

        Raises:
            NotFound: There is no such schedule.
        """
        if not self._schedules().delete(SCHEDULES, name == _NAME):
            raise _unknown(name)
        self.tables.delete(TICKS, TICKS.c.schedule == name, TICKS.c.state == "due")

    def backfill(self, name: str, start: datetime, end: datetime) -> int:
        """Queue the ticks between two moments (both with a time zone), except those that ran.

        Returns:
            How many ticks lie in between.

        Raises:
            NotFound: There is no such schedule.
        """
        found = self._read(name)
        if not found:
            raise _unknown(name)
        schedule = found[0][0]
        until, rows = end.astimezone(UTC), []
        for when in next_fires(schedule, start):
            if when.astimezone(UTC) > until:
                break
            rows.append(tick_row(schedule, when))
        for row in rows:
            # Should this process die in between, a worker queues what is due.
            if self.tables.add(TICKS, [row]) and schedule.overlap == "allow":
                self.queue_tick(schedule, row["run_id"], row["tick"])
                self.tables.change(TICKS, TICKS.c.run_id == row["run_id"], state="queued")
        return len(rows)

    @abstractmethod
    def queue_tick(self, schedule: Schedule, run_id: str, tick: str) -> None:
        """Queue the run of a tick; the same one again changes nothing."""

    def ticks(self, name: str | None = None, *, limit: int = 1000) -> list[TickInfo]:
        """What became of the ticks of one schedule, or of all; the latest come last."""
        where = [TICKS.c.schedule == name] if name else []
        order = [TICKS.c.due_s.desc(), TICKS.c.run_id]
        rows = self._schedules().rows(TICKS, *where, order=order, limit=limit)
        return [_tick(row) for row in reversed(rows)]

    def _change(self, name: str, **values: Any) -> None:
        if not self._schedules().change(SCHEDULES, name == _NAME, **values):
            raise _unknown(name)

    def _read(self, name: str | None = None) -> list[tuple[Schedule, dict[str, Any]]]:
        rows = self._schedules().rows(SCHEDULES, *([name == _NAME] if name else []))
        return [(Schedule(**body_of(row)), row) for row in rows]

    def _schedules(self) -> Tables:
        """Our tables, with the schedules of earlier toolkits, which DBOS kept, moved here."""
        tables = self.tables
        with engine_errors("reading the schedules"):
            for old in self._client.list_schedules():
                schedule = Schedule(**old["context"])
                fired = old["last_fired_at"]
                row = {
                    "name": schedule.name,
                    "body": json.dumps(asdict(schedule)),
                    "paused": int(old["status"] != "ACTIVE"),
                    "seen_s": self._now_s(),
                    "fired_s": datetime.fromisoformat(fired).timestamp() if fired else None,
                }
                tables.add(SCHEDULES, [row])
                self._client.delete_schedule(schedule.name)
        return tables


def tick_row(schedule: Schedule, when: datetime) -> dict[str, Any]:
    """Return the row of a tick that is due."""
    local = when.astimezone(schedule.zone).isoformat()
    return {
        "run_id": tick_run_id(schedule, when),
        "schedule": schedule.name,
        "tick": local,
        "last": local,
        "count": 1,
        "due_s": when.timestamp(),
        "state": "due",
        "reason": "",
    }


def _tick(row: dict[str, Any]) -> TickInfo:
    facts = {key: row[key] for key in ("schedule", "run_id", "tick", "last", "count", "reason")}
    return TickInfo(state="queued" if row["state"] == "open" else row["state"], **facts)


def _info(schedule: Schedule, row: dict[str, Any], now: datetime) -> ScheduleInfo:
    fired = row["fired_s"]
    return ScheduleInfo(
        schedule=schedule,
        paused=bool(row["paused"]),
        next_fire=None if row["paused"] else next(next_fires(schedule, now), None),
        last_fired=datetime.fromtimestamp(fired, schedule.zone) if fired else None,
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no schedule {name!a}",
        where=f"schedule {name!a}",
        next_step="run `toolkit schedule list`",
    )
