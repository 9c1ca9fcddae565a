"""What a schedule is, and when it fires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from toolkit.errors import Fault, UsageError
from toolkit.scheduling.cron import cron_faults, fires, tick_key
from toolkit.values import JobRef, canonical_bytes, check_name, check_parameter_name, digest_json

__all__ = ["Schedule", "ScheduleInfo", "next_fires", "tick_run_id"]


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

    Raises:
        UsageError: Every fault of every field, in ``details["faults"]``.
    """

    name: str
    job: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    created_by: str

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


def next_fires(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield when a schedule fires after a moment (with a time zone), without end."""
    return fires(schedule.cron, schedule.zone, after)


def tick_run_id(schedule: Schedule, when: datetime) -> str:
    """Return the run id of a tick: the same for everybody who sees it, and a safe name.

    It depends on the schedule's name, its zone and the tick's time only: a schedule that is
    changed, or removed and made again, does not run a tick twice.
    """
    key = tick_key(schedule.cron, schedule.zone, when)
    digest = digest_json([schedule.name, key]).partition(":")[2]
    return f"run-{schedule.name[:32]}-{digest[:20]}"
