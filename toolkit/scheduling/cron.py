"""Cron expressions: a strict grammar, and when they fire in a time zone.

Five fields (minute, hour, day of month, month, day of week) or six with seconds first; each a
list of ``*``, ``n``, ``n-m`` with an optional ``/step``; months and days of the week also by
their English names.  Day of month and day of week together mean *either*, as in every cron.
Six fields exist because a demonstration, a smoke check and our own tests must see the real
scheduler fire within seconds.  Nicknames (``@daily``) and random or hashed fields, which the
engine's parser would take, are refused: they do not say when they fire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterBadDateError

__all__ = ["cron_faults", "fires", "tick_key"]

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_ITEM = re.compile(r"(\*|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]{1,2}))?", re.ASCII)
_HOURS = 24


def _value(text: str, names: dict[str, int], low: int, high: int) -> int:
    value = names[text] if text in names else int(text) if text.isdigit() else -1
    if not low <= value <= high:
        raise ValueError(f"{text!r} is not between {low} and {high}")
    return value


def _members(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    """Return every value of a field.

    Raises:
        ValueError: It is not a field.
    """
    found: set[int] = set()
    for item in field.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None or (match[1] == "*" and match[2]):
            raise ValueError(f"{item!r} is not '*', a value, a range or a step")
        if match[1] == "*":
            first, last = low, high
        else:
            first = _value(match[1], names, low, high)
            last = _value(match[2], names, low, high) if match[2] else first
            if match[3] and not match[2]:
                raise ValueError(f"{item!r} is a step without a range; write {match[1]}-{high}/…")
        step = int(match[3] or 1)
        if match[2] and first == last:  # which the engine reads as *all* values
            raise ValueError(f"{item!r} is a range of one value; write {match[1]}")
        if step == 0 or last < first:
            raise ValueError(f"{item!r} never holds")
        found.update(range(first, last + 1, step))
    return found


def cron_faults(cron: str) -> list[str]:
    """Return everything that is wrong with an expression, one sentence each."""
    parts = cron.split()
    if len(parts) not in (5, 6):
        return [f"{cron!a} has {len(parts)} fields, not 5 (minute hour day month weekday)"]
    faults: list[str] = []
    for part, (name, low, high, names) in zip(parts, _FIELDS[-len(parts) :], strict=True):
        try:
            _members(part, low, high, names)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if not faults:
        try:
            croniter(cron, datetime.now(UTC), second_at_beginning=True).get_next(datetime)
        except CroniterBadDateError:
            faults.append(f"{cron!r} never fires: no such date exists")
        except ValueError as error:  # our grammar is narrower than the engine's; be sure of it
            faults.append(f"{cron!r} is refused by the engine: {error}")
    return faults


def _names_hours(cron: str) -> bool:
    """Whether the schedule is bound to times of day, not to hours that pass."""
    return len(_members(cron.split()[-4], 0, 23, {})) < _HOURS


def fires(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield when a valid expression fires after a moment, in its zone, without end.

    The second of two equal local times (end of summer time) is left out where
    :func:`tick_key` makes one run of both.
    """
    walk = croniter(cron, after.astimezone(zone), second_at_beginning=True)
    once = _names_hours(cron)
    while True:
        when: datetime = walk.get_next(datetime)
        if not (once and when.fold):
            yield when


def tick_key(cron: str, zone: ZoneInfo, when: datetime) -> str:
    """Return what makes a tick the same tick: its local time, or its moment in UTC."""
    if _names_hours(cron):
        return f"{when.astimezone(zone):%Y-%m-%dT%H:%M:%S} {zone.key}"
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
