"""Which ticks of a schedule are to run now, and which are skipped: plain arithmetic, no clock.

A tick counts as in time for 60 s: a worker that is restarted, or a peer that takes over, misses
nothing.  Older ones are late, and the schedule's ``catch_up`` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from toolkit.scheduling.schedules import Schedule, next_fires, start_of

__all__ = ["LATE_S", "Gap", "Verdict", "judge"]

LATE_S = 60.0
# Ticks that one look considers; above the most that may be caught up.  A long outage of a
# frequent schedule takes several looks.
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Ticks in a row that do not run.

    Attributes:
        first, last: The first and the last of them, in the schedule's zone.
        count: How many.
        reason: Why, one clause.
    """

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look at a schedule found.

    Attributes:
        run: Ticks that run, in order.
        skipped: The gap before them, if there is one.
        seen: Every tick up to here is decided; the next look starts after it.
        after: When the next tick is to start, in UTC; until then there is nothing to decide.
            ``None`` if none follows.
    """

    run: tuple[datetime, ...]
    skipped: Gap | None
    seen: datetime
    after: datetime | None


def judge(schedule: Schedule, seen: datetime, now: datetime) -> Verdict:
    """Decide on every tick after ``seen`` whose time has come at ``now`` (both in UTC)."""
    found: list[datetime] = []
    starts: list[datetime] = []
    after = None
    for when in next_fires(schedule, seen):
        # Ticks start in order: jitter may draw a later moment for a tick than for the next one.
        start = max([start_of(schedule, when), *starts[-1:]])
        if start > now or len(found) == _CHUNK:
            after = start
            break
        found.append(when)
        starts.append(start)
    keep = {"none": 0, "latest": 1}.get(schedule.catch_up, schedule.catch_up_limit)
    if len(found) == _CHUNK:
        # More follow, so all but the last few are skipped whatever comes: the rest waits for the
        # next look, which begins with them.
        gap = _gap(schedule, found[: len(found) - keep])
        return Verdict((), gap, gap.last.astimezone(UTC) if gap else seen, now)
    too_late = sum((now - start).total_seconds() > LATE_S for start in starts)
    late, in_time = found[:too_late], found[too_late:]
    if schedule.catch_up == "latest" and in_time:
        keep = 0  # one of these is the latest
    run = late[len(late) - keep :] if keep < len(late) else late if keep else []
    gap = _gap(schedule, late[: len(late) - len(run)])
    upto = found[-1].astimezone(UTC) if found else seen
    return Verdict((*run, *in_time), gap, upto, after)


def _gap(schedule: Schedule, missed: Sequence[datetime]) -> Gap | None:
    if not missed:
        return None
    why = {
        "none": "no worker ran in time, and the schedule does not catch up",
        "latest": "no worker ran in time, and only the latest missed tick is made up for",
    }.get(
        schedule.catch_up,
        f"no worker ran in time, and at most {schedule.catch_up_limit} ticks are made up for",
    )
    return Gap(missed[0], missed[-1], len(missed), why)
