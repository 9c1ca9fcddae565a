"""What a schedule is, and when it fires."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from toolkit.errors import Fault, UsageError
from toolkit.scheduling.cron import cron_faults, fires, tick_key
from toolkit.values import JobRef, canonical_bytes, check_name, check_parameter_name, digest_json

__all__ = [
    "CATCH_UPS",
    "OVERLAPS",
    "Schedule",
    "ScheduleInfo",
    "TickInfo",
    "next_fires",
    "start_of",
    "tick_run_id",
]

CATCH_UPS = ("none", "latest", "all")
OVERLAPS = ("allow", "skip", "queue", "cancel-previous")
_MAX_CATCH_UP = 10_000
_MAX_JITTER_S = 3600.0


@cache
def _zone_names() -> frozenset[str]:
    """Every IANA name; it takes a walk through the zone files, so once per process."""
    return frozenset(available_timezones())


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that runs again and again.

    Attributes:
        name: Its name, unique in the workspace.
        job: ``licence-review``, ``licence-review@3`` or ``licence-review@production``.
        parameters: JSON values by parameter name.
        cron: Five fields, or six with seconds first.
        timezone: IANA name in which the fields are read (``Europe/Berlin``).
        created_by: Who made it.
        catch_up: What becomes of ticks that no worker saw in time: ``none`` of them runs, the
            ``latest`` does, or ``all`` do.
        catch_up_limit: With ``all``, how many at most, the newest ones.
        overlap: What a tick does while an earlier run of this schedule has not ended (one that
            waits for a person has not): ``allow`` it, ``skip`` the tick, ``queue`` it behind, or
            ``cancel-previous``.
        jitter_s: Each tick starts up to so many seconds late; how many follows from the tick, so
            that every worker agrees.  0: exactly in time.
        not_before, not_after: First and last moment at which it may fire (ISO 8601, in
            ``timezone`` where it names no offset).

    Raises:
        UsageError: Every fault of every field, in ``details["faults"]``.
    """

    name: str
    job: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    created_by: str
    catch_up: str = "none"
    catch_up_limit: int = 100
    overlap: str = "allow"
    jitter_s: float = 0.0
    not_before: str | None = None
    not_after: str | None = None

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise UsageError(
                f"the schedule {self.name!a} is not valid: "
                + "; ".join(f"{fault.where}: {fault.message}" for fault in faults),
                where=f"schedule {self.name!a}",
                next_step="; ".join(f.next_step for f in faults if f.next_step) or None,
                details={"faults": [asdict(fault) for fault in faults]},
            )

    def _faults(self) -> Iterator[Fault]:
        try:
            check_name(self.name, "schedule name")
        except UsageError as error:
            yield Fault("name", error.message, error.next_step)
        try:
            JobRef.parse(self.job)
        except UsageError as error:
            yield Fault("job", error.message, error.next_step)
        for name in self.parameters:
            try:
                check_parameter_name(name)
            except UsageError as error:
                yield Fault("parameters", error.message, error.next_step)
        try:
            canonical_bytes(self.parameters)
        except ValueError as error:
            yield Fault("parameters", str(error))
        for message in cron_faults(self.cron):
            yield Fault("cron", message, "write minute hour day month weekday, as in '30 2 * * *'")
        if self.timezone not in _zone_names():
            yield Fault(
                "timezone", f"{self.timezone!a} is not a time zone", "use a name as Europe/Berlin"
            )
        if not self.created_by.strip():
            yield Fault("created_by", "must name a person")
        yield from self._rule_faults()

    def _rule_faults(self) -> Iterator[Fault]:
        for name, value, known in (
            ("catch_up", self.catch_up, CATCH_UPS),
            ("overlap", self.overlap, OVERLAPS),
        ):
            if value not in known:
                yield Fault(name, f"{value!a} is none of {', '.join(known)}")
        if not 1 <= self.catch_up_limit <= _MAX_CATCH_UP:
            yield Fault("catch_up_limit", f"must be from 1 to {_MAX_CATCH_UP}")
        if not (math.isfinite(self.jitter_s) and 0 <= self.jitter_s <= _MAX_JITTER_S):
            yield Fault("jitter", f"must be from 0 to {_MAX_JITTER_S:g} seconds")
        for name, text in (("not_before", self.not_before), ("not_after", self.not_after)):
            try:
                datetime.fromisoformat(text or "2000-01-01")
            except ValueError:
                yield Fault(name, f"{text!a} is not a moment", "write 2026-12-24T18:00")

    def _moment(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=self.zone)).astimezone(UTC)

    @property
    def first(self) -> datetime | None:
        """:attr:`not_before` in UTC."""
        return self._moment(self.not_before)

    @property
    def last(self) -> datetime | None:
        """:attr:`not_after` in UTC."""
        return self._moment(self.not_after)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule and where it stands.

    Attributes:
        schedule: The schedule.
        paused: Whether it fires.
        next_fire: When it fires next, in its own zone; ``None`` while it is paused.
        last_fired: The last tick that a worker saw, in its own zone; ``None`` before the first.
    """

    schedule: Schedule
    paused: bool
    next_fire: datetime | None
    last_fired: datetime | None

    @property
    def next_fire_utc(self) -> datetime | None:
        """:attr:`next_fire` in UTC."""
        return self.next_fire.astimezone(UTC) if self.next_fire else None

    @property
    def last_fired_utc(self) -> datetime | None:
        """:attr:`last_fired` in UTC."""
        return self.last_fired.astimezone(UTC) if self.last_fired else None


@dataclass(frozen=True, slots=True)
class TickInfo:
    """What became of a tick, or of several in a row that were skipped together.

    Attributes:
        schedule: The schedule's name.
        run_id: The run of it, or the id that it would have had.
        tick, last: Local time of the first and of the last tick, ISO 8601 with offset.
        count: How many ticks this stands for.
        state: ``due`` (it will be queued), ``queued`` or ``skipped``.
        reason: Why, for a skipped one.
    """

    schedule: str
    run_id: str
    tick: str
    last: str
    count: int
    state: str
    reason: str = ""


def next_fires(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield when a schedule fires after a moment (with a time zone), as long as it is valid."""
    first, last = schedule.first, schedule.last
    if first is not None and first > after:
        after = first - timedelta(microseconds=1)
    for when in fires(schedule.cron, schedule.zone, after):
        if last is not None and when.astimezone(UTC) > last:
            return
        yield when


def start_of(schedule: Schedule, when: datetime) -> datetime:
    """Return when a tick is to start, in UTC: its time and its share of the jitter."""
    moment = when.astimezone(UTC)
    if not schedule.jitter_s:
        return moment
    share = int(digest_json(tick_run_id(schedule, when)).partition(":")[2][:12], 16) / 16**12
    return moment + timedelta(seconds=round(share * schedule.jitter_s, 3))


def tick_run_id(schedule: Schedule, when: datetime) -> str:
    """Return the run id of a tick: the same for everybody who sees it, and a safe name.

    It depends on the schedule's name, its zone and the tick's time only: a schedule that is
    changed, or removed and made again, does not run a tick twice.
    """
    key = tick_key(schedule.cron, schedule.zone, when)
    digest = digest_json([schedule.name, key]).partition(":")[2]
    return f"run-{schedule.name[:32]}-{digest[:20]}"
