"""What starts a job besides the clock, and what an event tells it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from toolkit.errors import Fault, UsageError
from toolkit.values import JobRef, canonical_bytes, check_name, check_parameter_name, digest_json

__all__ = ["KINDS", "ONS", "Trigger", "TriggerInfo", "trigger_run_id", "value_at"]

KINDS = ("http", "mlflow", "file", "job")
ONS = ("success", "failure", "any")
_ENV = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_EVENT = re.compile(r"[a-z_]+\.[a-z_]+", re.ASCII)
_MAX_DEPTH = 16
_MAX_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """A job that runs when something happens.

    Attributes:
        name: Its name, unique in the workspace; part of the address of an HTTP event.
        job: Job reference.
        kind: ``http`` (a signed request), ``mlflow`` (its webhook), ``file`` (a new one) or
            ``job`` (the end of another job's run).
        created_by: Who made it.
        parameters: JSON values that every run gets.
        mapping: Parameter name to the place of its value in the event: ``data.items.0.id``.
        secret_env: Name of the environment variable that holds the signing secret.
        watch: Glob of the files, a path or an fsspec URL.
        every_s: Seconds between two looks at the files.
        settle_s: Seconds for which size and time of a file must not have changed.
        existing: Whether files that are there at the first look count as new.
        after, on: The other job's name, and the ends that count.
        model: Only events of this MLflow model.
        event: MLflow's entity and action, ``model_version.created``.

    Raises:
        UsageError: Every fault of every field, in ``details["faults"]``.
    """

    name: str
    job: str
    kind: str
    created_by: str
    parameters: dict[str, Any] = field(default_factory=dict)
    mapping: dict[str, str] = field(default_factory=dict)
    secret_env: str | None = None
    watch: str | None = None
    every_s: float = 10.0
    settle_s: float = 10.0
    existing: bool = False
    after: str | None = None
    on: str = "success"
    model: str | None = None
    event: str = "model_version.created"

    def __post_init__(self) -> None:
        faults = [*self._faults(), *self._kind_faults()]
        if faults:
            raise UsageError(
                f"the trigger {self.name!a} is not valid: "
                + "; ".join(f"{fault.where}: {fault.message}" for fault in faults),
                where=f"trigger {self.name!a}",
                next_step="; ".join(f.next_step for f in faults if f.next_step) or None,
                details={"faults": [asdict(fault) for fault in faults]},
            )

    def _faults(self) -> Iterator[Fault]:
        checks: list[tuple[str, Callable[[], object]]] = [
            ("name", partial(check_name, self.name, "trigger name")),
            ("job", partial(JobRef.parse, self.job)),
        ]
        names = (*self.parameters, *self.mapping)
        checks += [("parameters", partial(check_parameter_name, name)) for name in names]
        for where, check in checks:
            try:
                check()
            except UsageError as error:
                yield Fault(where, error.message, error.next_step)
        for name in sorted(set(self.parameters) & set(self.mapping)):
            yield Fault("parameters", f"{name} is given and mapped")
        try:
            canonical_bytes(self.parameters)
        except ValueError as error:
            yield Fault("parameters", str(error))
        for path in self.mapping.values():
            if not path or "" in path.split(".") or path.count(".") >= _MAX_DEPTH:
                yield Fault("mapping", f"{path!a} is not a place like data.customer.id")
        if not self.created_by.strip():
            yield Fault("created_by", "must name a person")

    def _kind_faults(self) -> Iterator[Fault]:
        if self.kind not in KINDS:
            yield Fault("kind", f"{self.kind!a} is none of {', '.join(KINDS)}")
        if self.kind in ("http", "mlflow") and not _ENV.fullmatch(self.secret_env or ""):
            yield Fault(
                "secret",
                "must name the environment variable that holds the signing secret",
                "write --secret-env TOOLKIT_EVENT_SECRET and set it where the worker runs",
            )
        if self.kind == "mlflow" and not _EVENT.fullmatch(self.event):
            yield Fault("event", f"{self.event!a} is not like model_version.created")
        if self.kind == "file" and (not self.watch or "::" in self.watch):
            yield Fault("watch", "must be the path or URL of files, with * where names vary")
        for name, seconds in (("every", self.every_s), ("settle", self.settle_s)):
            if not 0 <= seconds <= _MAX_WAIT_S:
                yield Fault(name, f"must be from 0 to {_MAX_WAIT_S:g} seconds")
        if self.kind == "job":
            yield from self._job_faults()

    def _job_faults(self) -> Iterator[Fault]:
        try:
            check_name(self.after or "", "job name")
        except UsageError as error:
            yield Fault("after", error.message, error.next_step)
        if self.after == self.job.partition("@")[0]:
            yield Fault("after", "would start the job after itself, for ever")
        if self.on not in ONS:
            yield Fault("on", f"{self.on!a} is none of {', '.join(ONS)}")

    def values(self, event: Any) -> dict[str, Any]:
        """Return the parameters of a run that an event starts.

        Raises:
            UsageError: The event has no value at a place of the mapping (all are named).
        """
        found, missing = dict(self.parameters), []
        for name, path in self.mapping.items():
            try:
                found[name] = value_at(event, path)
            except LookupError:
                missing.append(path)
        if missing:
            raise UsageError(
                f"the event has nothing at {', '.join(sorted(missing))}",
                where=f"trigger {self.name}",
                next_step="change the sender, or the trigger's --map",
            )
        return found


@dataclass(frozen=True, slots=True)
class TriggerInfo:
    """A trigger and where it stands.

    Attributes:
        trigger: The trigger.
        paused: Whether events are left alone.
        last_fired: When it last started a run, in UTC; ``None`` before the first.
        fault: Why the last look failed, empty if it did not.
    """

    trigger: Trigger
    paused: bool
    last_fired: datetime | None
    fault: str = ""


def value_at(event: Any, path: str) -> Any:
    """Return what lies at a place: member names and positions in lists, with dots between.

    Raises:
        LookupError: Nothing lies there.
    """
    for step in path.split("."):
        if isinstance(event, Mapping):
            event = event[step]
        elif isinstance(event, list) and step.isascii() and step.isdigit():
            event = event[int(step)]
        else:
            raise LookupError(path)
    return event


def trigger_run_id(trigger: str, key: str) -> str:
    """Return the run id of an event: the same for everybody who sees it, and a safe name."""
    digest = digest_json(["trigger", trigger, key]).partition(":")[2]
    return f"run-{trigger[:32]}-{digest[:20]}"
