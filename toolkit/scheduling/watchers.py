"""Looks for new files and for ends of other jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from toolkit.errors import ToolkitError
from toolkit.scheduling.listings import Files, Listings
from toolkit.scheduling.tables import SEEN, TRIGGERS, Turn
from toolkit.scheduling.triggers import Trigger
from toolkit.values import Clock, RunState

if TYPE_CHECKING:
    from toolkit.scheduling.engine import Engine

__all__ = ["Watchers"]

_MAX_FILES = 10_000
_MAX_FAULT = 300
# An end may be written a little after its time, and by a machine whose clock is behind.
_OVERLAP_S = 120.0
_BASELINE = ""
_GONE = "gone"
# So long a file that vanished is remembered: it may come back with the disk that it is on.
_REMEMBERED_S = 7 * 86_400.0


class Watchers:
    """Fires triggers of the kinds ``file`` and ``job``.

    Args:
        engine: Where triggers are and runs are queued.
        clock: What time it is.
        tell: Told of what went wrong, once while it stays the same.
        listings: How files are listed.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        tell: Callable[[str], None],
        listings: Listings | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._tell = tell
        self._listings = listings or Listings()
        self._looked_s: dict[str, float] = {}

    def look(self, turn: Turn) -> None:
        """Look at every trigger once; what fails at one, or hangs, does not stop the others.

        Raises:
            EngineError: The turn was lost, or the database does not answer.
        """
        now_s = self._clock.now_us() / 1e6
        for info in self._engine.list_triggers():
            trigger = info.trigger
            if (
                info.paused
                or trigger.kind not in ("file", "job")
                or not self._is_time(trigger, now_s)
            ):
                continue
            turn.check()
            fault = ""
            try:
                events = self._events(trigger, now_s)
                if events is None:
                    continue
                for key, event in events:
                    fault = self._fire(trigger, key, event) or fault
            except ToolkitError:
                raise
            except Exception as error:  # noqa: BLE001 - a store's package may raise anything
                fault = f"{type(error).__name__}: {error}"[:_MAX_FAULT]
            if fault != info.fault:
                mine = TRIGGERS.c.name == trigger.name
                self._engine.tables.change(TRIGGERS, mine, fault=fault)
                if fault:
                    self._tell(f"trigger {trigger.name}: {fault}")

    def _is_time(self, trigger: Trigger, now_s: float) -> bool:
        if self._listings.pending(trigger.name):
            return True
        every_s = trigger.every_s if trigger.kind == "file" else 1.0
        if now_s - self._looked_s.get(trigger.name, -1e12) < every_s:
            return False
        self._looked_s[trigger.name] = now_s
        return True

    def _events(
        self, trigger: Trigger, now_s: float
    ) -> Iterator[tuple[str, dict[str, Any]]] | None:
        """Return what happened; ``None``: it is not known yet."""
        if trigger.kind == "job":
            return self._ends(trigger, now_s)
        found = self._listings.files(trigger.name, trigger.watch or "")
        return None if found is None else self._files(trigger, found, now_s)

    def _fire(self, trigger: Trigger, key: str, event: dict[str, Any]) -> str:
        """Start the run of an event; return why it cannot be, in which case it is left alone."""
        try:
            self._engine.fire(trigger, key, event)
        except ToolkitError as error:
            if error.exit_code == 75:  # noqa: PLR2004 - it is seen again next time
                raise
            return error.message
        return ""

    # -- files -----------------------------------------------------------------------------

    def _files(
        self, trigger: Trigger, found: Files, now_s: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = self._engine.tables
        mine = SEEN.c.trigger_name == trigger.name
        known = {row["item"]: row for row in tables.rows(SEEN, mine)}
        if len(found) > _MAX_FILES:
            raise ValueError(f"{len(found)} files fit, at most {_MAX_FILES} can be watched")
        first = _BASELINE not in known
        everything = not first or trigger.existing
        (row,) = tables.rows(TRIGGERS, TRIGGERS.c.name == trigger.name) or [{"made_s": now_s}]
        fresh = []
        for item, (stamp, event) in found.items():
            if item not in known:
                # No worker may have looked for hours after the trigger was made.
                new = everything or (event["modified_s"] or 0) >= row["made_s"]
                fresh.append(_seen(trigger, item, stamp, "new" if new else "known", now_s))
        # The mark of the first look last, in the same transaction: all of it, or nothing.
        marks = [_seen(trigger, _BASELINE, "", "known", now_s)] if first else []
        tables.add(SEEN, fresh + marks)
        for item, row in known.items():
            if item == _BASELINE:
                continue
            if item not in found:
                self._missed(row, now_s)
                continue
            stamp, event = found[item]
            here = mine & (SEEN.c.item == item)
            if row["state"] == "new" and stamp == row["stamp"]:
                if now_s - row["at_s"] >= trigger.settle_s:
                    yield f"{item} {stamp}", event
                    tables.change(SEEN, here, state="fired")
            elif row["state"] == "new" or (row["state"] == _GONE and stamp != row["stamp"]):
                tables.change(SEEN, here, state="new", stamp=stamp, at_s=now_s)
            elif row["state"] == _GONE:  # the very file is back
                tables.change(SEEN, here, state="fired", at_s=now_s)
            elif stamp != row["stamp"]:  # what vanishes is remembered as it was last
                tables.change(SEEN, here, stamp=stamp)

    def _missed(self, row: dict[str, Any], now_s: float) -> None:
        """Remember for a while what was there: its disk may be away, and bring it back."""
        tables = self._engine.tables
        here = (SEEN.c.trigger_name == row["trigger_name"]) & (SEEN.c.item == row["item"])
        if row["state"] == "new" or (row["state"] == _GONE and now_s - row["at_s"] > _REMEMBERED_S):
            tables.delete(SEEN, here)
        elif row["state"] != _GONE:
            tables.change(SEEN, here, state=_GONE, at_s=now_s)

    # -- ends of jobs ----------------------------------------------------------------------

    def _ends(self, trigger: Trigger, now_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = self._engine.tables
        mine = SEEN.c.trigger_name == trigger.name
        (row,) = tables.rows(TRIGGERS, TRIGGERS.c.name == trigger.name) or [None]
        if row is None:
            return
        known = {seen["item"] for seen in tables.rows(SEEN, mine)}
        since = datetime.fromtimestamp(row["since_s"] - _OVERLAP_S, UTC)
        for run in self._engine.ended_since(since):
            counts = run.job.partition("@")[0] == trigger.after and _counts(trigger, run.state)
            if not counts or run.run_id in known:
                continue
            # What ended before the trigger was made or resumed does not count; times of SQLite
            # are whole seconds.
            if (run.ended_us or 0) // 1_000_000 >= int(row["made_s"]):
                yield run.run_id, {"run_id": run.run_id, "job": run.job, "state": run.state.value}
            tables.add(SEEN, [_seen(trigger, run.run_id, "", "fired", now_s)])
        tables.change(TRIGGERS, TRIGGERS.c.name == trigger.name, since_s=now_s)
        tables.delete(SEEN, mine, SEEN.c.at_s < now_s - 4 * _OVERLAP_S)


def _seen(trigger: Trigger, item: str, stamp: str, state: str, now_s: float) -> dict[str, Any]:
    return {
        "trigger_name": trigger.name,
        "item": item,
        "stamp": stamp,
        "state": state,
        "at_s": now_s,
    }


def _counts(trigger: Trigger, state: RunState) -> bool:
    if not state.terminal or state is RunState.SKIPPED:
        return False
    succeeded = state is RunState.SUCCEEDED
    return trigger.on == "any" or (trigger.on == "success") == succeeded
