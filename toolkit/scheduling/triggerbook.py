"""Triggers as rows: made, changed and read by any process."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from toolkit.errors import Conflict, NotFound, UsageError
from toolkit.scheduling.connected import Connected
from toolkit.scheduling.tables import SEEN, TRIGGERS, body_of
from toolkit.scheduling.triggers import Trigger, TriggerInfo

__all__ = ["TriggerBook"]

_NAME = TRIGGERS.c.name


class TriggerBook(Connected):
    """The part of the engine that keeps triggers."""

    def add_trigger(self, trigger: Trigger) -> None:
        """Add a trigger; workers see it within a second.  Earlier events do not count.

        Raises:
            Conflict: There is another trigger of that name.
            UsageError: Triggers would start each other in a circle.
        """
        known = {info.trigger.name: info.trigger for info in self.list_triggers()}
        if known.get(trigger.name) == trigger:
            return
        if trigger.name in known:
            raise Conflict(
                f"there is another trigger {trigger.name}",
                where=f"trigger {trigger.name}",
                next_step=f"choose another name or run `toolkit trigger remove {trigger.name}`",
            )
        _refuse_circle(trigger, list(known.values()))
        row = {"name": trigger.name, "body": json.dumps(asdict(trigger)), "paused": 0}
        now_s = self._now_s()
        self.tables.add(TRIGGERS, [{**row, "made_s": now_s, "since_s": now_s, "fault": ""}])

    def list_triggers(self) -> list[TriggerInfo]:
        """Every trigger by name."""
        return [_info(row) for row in self.tables.rows(TRIGGERS)]

    def get_trigger(self, name: str) -> TriggerInfo:
        """Return one trigger.

        Raises:
            NotFound: There is no such trigger.
        """
        rows = self.tables.rows(TRIGGERS, name == _NAME)
        if not rows:
            raise _unknown(name)
        return _info(rows[0])

    def pause_trigger(self, name: str) -> None:
        """Leave events alone: requests are refused, ends of jobs do not count.

        Raises:
            NotFound: There is no such trigger.
        """
        self._change_trigger(name, paused=1)

    def resume_trigger(self, name: str) -> None:
        """Look at events again; files that came meanwhile count, ends of jobs do not.

        Raises:
            NotFound: There is no such trigger.
        """
        now_s = self._now_s()
        self._change_trigger(name, paused=0, made_s=now_s, since_s=now_s)

    def remove_trigger(self, name: str) -> None:
        """Delete a trigger and what it has seen; runs it started stay.

        Raises:
            NotFound: There is no such trigger.
        """
        if not self.tables.delete(TRIGGERS, name == _NAME):
            raise _unknown(name)
        self.tables.delete(SEEN, SEEN.c.trigger_name == name)

    def _change_trigger(self, name: str, **values: Any) -> None:
        if not self.tables.change(TRIGGERS, name == _NAME, **values):
            raise _unknown(name)


def _refuse_circle(new: Trigger, known: list[Trigger]) -> None:
    follows: dict[str, set[str]] = {}
    for trigger in (*known, new):
        if trigger.kind == "job" and trigger.after:
            follows.setdefault(trigger.after, set()).add(trigger.job.partition("@")[0])
    start, todo, met = new.after, [new.job.partition("@")[0]], set[str]()
    while new.kind == "job" and todo:
        job = todo.pop()
        if job == start:
            raise UsageError(
                f"the trigger {new.name} would start {start} after itself, by way of others",
                where=f"trigger {new.name}",
                next_step="run `toolkit trigger list` and take one link of the circle away",
            )
        if job not in met:
            met.add(job)
            todo += follows.get(job, ())


def _info(row: dict[str, Any]) -> TriggerInfo:
    fired = row["fired_s"]
    return TriggerInfo(
        trigger=Trigger(**body_of(row)),
        paused=bool(row["paused"]),
        last_fired=datetime.fromtimestamp(fired, UTC) if fired else None,
        fault=row["fault"],
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no trigger {name!a}",
        where=f"trigger {name!a}",
        next_step="run `toolkit trigger list`",
    )
