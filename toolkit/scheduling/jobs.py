"""``registry/jobs.yaml``: how many runs of a job at a time, how often, how urgent, how stubborn.

    defaults:
      retries: {infrastructure: {times: 3, backoff: 1s}}
    jobs:
      licence-review:
        concurrency: 1            # runs at a time, over all workers
        priority: 20              # 1 to 100, lower first; 50 if nothing is said
        rate: {runs: 10, per: 1h} # starts in any hour
        limits: {run: 30m, cell: 5m}
        retries:
          killed: {times: 1, backoff: 10s}
          infrastructure: {times: 20, backoff: 2s, up_to: 5m}
          timeout: {times: 0}
    retention: {keep: 90d}
    alerts: {queued: 1h, running: 1d}

One file for all jobs, read at every submission and by every worker, which sees a change within
seconds: the settings are about operating a job, not part of its sealed version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from toolkit.errors import Fault, InvalidFile, ToolkitError, UsageError
from toolkit.settings import read_model
from toolkit.values import check_name

__all__ = [
    "CAUSES",
    "DEFAULT_RETRIES",
    "NO_JOBS",
    "JobRules",
    "Jobs",
    "JobsFile",
    "Rate",
    "Retry",
    "seconds_of",
    "spaced_retries",
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_YEAR_S = 366 * 86_400
DEFAULT_PRIORITY = 50


def seconds_of(text: Any) -> float:
    """Return the seconds of ``90s``, ``15m``, ``2h`` or ``90d``.

    Raises:
        ValueError: It is none of these, or longer than a year.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _YEAR_S:
        raise ValueError("is not a time like 90s, 15m, 2h or 90d (at most a year)")
    return float(seconds)


_Seconds = Annotated[float, BeforeValidator(seconds_of)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Rate(_Model):
    runs: int = Field(ge=1, le=100_000)
    per: _Seconds


class _Retry(_Model):
    times: int = Field(ge=0, le=100)
    backoff: _Seconds = 1.0
    up_to: _Seconds | None = None


class _Retries(_Model):
    infrastructure: _Retry | None = None
    killed: _Retry | None = None
    kernel_start: _Retry | None = None
    out_of_memory: _Retry | None = None
    timeout: _Retry | None = None
    cell_error: _Retry | None = None


class _Limits(_Model):
    run: _Seconds | None = None
    cell: _Seconds | None = None


class _Job(_Model):
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    priority: int | None = Field(default=None, ge=1, le=100)
    rate: _Rate | None = None
    retries: _Retries = _Retries()
    limits: _Limits = _Limits()


class _Retention(_Model):
    keep: _Seconds | None = None


class _Alerts(_Model):
    queued: _Seconds = 3600.0
    running: _Seconds = 86_400.0


class _File(_Model):
    defaults: _Job = _Job()
    jobs: dict[str, _Job] = Field(default_factory=dict)
    retention: _Retention = _Retention()
    alerts: _Alerts = _Alerts()


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``runs`` starts in any ``per_s`` seconds."""

    runs: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a run is tried again after one cause, and seconds before the first time.

    The wait doubles each time, up to ``most_s``.
    """

    times: int
    backoff_s: float = 1.0
    most_s: float = 3600.0

    def delay_s(self, number: int) -> float:
        """Return the seconds before the first, second … try."""
        return min(self.most_s, self.backoff_s * 2.0 ** min(number - 1, 20))


CAUSES = ("infrastructure", "killed", "kernel_start", "out_of_memory", "timeout", "cell_error")
"""What a job's ``retries`` tell apart."""

# What is away may be away for minutes: eight of them here.  Who kills processes (a host that is
# drained, a system short of memory) does it several times in half a minute.  What is not named is not
# repeated: more memory or time does not come of trying again, and a cell that failed fails again.
DEFAULT_RETRIES = {
    "infrastructure": Retry(10, 1.0, 120.0),
    "killed": Retry(5),
    "kernel_start": Retry(3),
}


def spaced_retries(delay_s: float) -> dict[str, Retry]:
    """Return the default retries with another first delay."""
    return {cause: replace(rule, backoff_s=delay_s) for cause, rule in DEFAULT_RETRIES.items()}


@dataclass(frozen=True, slots=True)
class JobRules:
    """The settings of one job.

    Attributes:
        concurrency: Runs at a time over all workers; ``None``: no limit but the slots.
        priority: 1 to 100; lower starts first.
        rate: Starts in a period; ``None``: no limit.
        retries: By cause (:data:`CAUSES`); a cause that is missing has the worker's own rule.
        run_s, cell_s: Seconds for the whole run and for one cell.
    """

    concurrency: int | None = None
    priority: int = DEFAULT_PRIORITY
    rate: Rate | None = None
    retries: dict[str, Retry] = field(default_factory=dict)
    run_s: float | None = None
    cell_s: float | None = None

    @property
    def limited(self) -> bool:
        """Whether a run has to be let in."""
        return self.concurrency is not None or self.rate is not None


@dataclass(frozen=True, slots=True)
class Jobs:
    """The settings of every job.

    Attributes:
        defaults: For jobs that are not named.
        named: By the job's name.
        keep_s: Seconds for which ended runs are kept; ``None``: for ever.
        queued_s, running_s: After so many seconds a run that is queued or running is told of.
    """

    defaults: JobRules = JobRules()
    named: dict[str, JobRules] = field(default_factory=dict)
    keep_s: float | None = None
    queued_s: float = 3600.0
    running_s: float = 86_400.0

    def of(self, job: str) -> JobRules:
        """Return the settings of a job, by its name or a reference to it."""
        return self.named.get(job.partition("@")[0], self.defaults)

    @classmethod
    def read(cls, path: Path) -> Jobs:
        """Read the file; without one, nothing is limited.

        Raises:
            InvalidFile: It has faults (all are named).
        """
        if not path.exists():
            return NO_JOBS
        file = read_model(path, _File, "job settings", missing="").value
        faults = []
        for name in file.jobs:
            try:
                check_name(name, "job name")
            except UsageError as error:
                faults.append(Fault(f"jobs.{name}", error.message, error.next_step))
        if faults:
            raise InvalidFile.of(str(path), faults)
        defaults = _rules(file.defaults, JobRules())
        return cls(
            defaults,
            {name: _rules(job, defaults) for name, job in file.jobs.items()},
            file.retention.keep,
            file.alerts.queued,
            file.alerts.running,
        )


NO_JOBS = Jobs()


def _rules(job: _Job, base: JobRules) -> JobRules:
    """A job's settings over the defaults, each on its own."""
    told = {cause: getattr(job.retries, cause) for cause in type(job.retries).model_fields}
    retries = {
        cause: Retry(one.times, one.backoff, one.up_to or 3600.0)
        for cause, one in told.items()
        if one
    }
    return replace(
        base,
        concurrency=base.concurrency if job.concurrency is None else job.concurrency,
        priority=base.priority if job.priority is None else job.priority,
        rate=base.rate if job.rate is None else Rate(job.rate.runs, job.rate.per),
        retries={**base.retries, **retries},
        run_s=job.limits.run or base.run_s,
        cell_s=job.limits.cell or base.cell_s,
    )


class JobsFile:
    """The settings as they are now: read again when the file changes.

    Args:
        path: ``registry/jobs.yaml``.
        tell: Told when a changed file has faults; the last good settings stay in force.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._tell = tell
        self._stamp = self._look()
        self._jobs = Jobs.read(path)

    def _look(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return found.st_mtime_ns, found.st_size

    def now(self) -> Jobs:
        """Return the settings in force."""
        if (stamp := self._look()) != self._stamp:
            self._stamp = stamp
            try:
                self._jobs = Jobs.read(self._path)
            except ToolkitError as error:
                self._tell(f"the old settings of jobs stay in force: {error.message}")
        return self._jobs
