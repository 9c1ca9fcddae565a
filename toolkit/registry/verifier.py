"""Recomputes everything: every version, every alias, the audit log, and that they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import Fault, IntegrityError, InvalidFile, NotFound, UsageError
from toolkit.registry.aliases import ALIASES
from toolkit.registry.audit import AUDIT_FILE, AUDIT_FOLDER, AuditLog, AuditRecord, read_records
from toolkit.registry.manifest import MANIFEST
from toolkit.registry.reading import (
    JOBS,
    open_job,
    read_aliases,
    read_version,
    version_numbers,
)
from toolkit.registry.storage import Folder, Place
from toolkit.values import check_name

__all__ = ["Progress", "verify_registry"]

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what comes next)."""

_LOG = f"{AUDIT_FOLDER}/{AUDIT_FILE}"


@dataclass
class _Told:
    """What the audit log says must be there.

    Attributes:
        sealing: Digests that a version was about to be published with.
        sealed: Digest that it was published with.
        moved: Where an alias points since its last completed move.
        moving: Where a later move, that no record completes, was about to put it.
    """

    sealing: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    sealed: dict[tuple[str, int], str] = field(default_factory=dict)
    moved: dict[tuple[str, str], int] = field(default_factory=dict)
    moving: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def read(self, record: AuditRecord) -> None:
        """Take in one record."""
        body: dict[str, Any] = record.body
        if record.event in ("version.sealing", "version.sealed"):
            version = (body["name"], body["version"])
            if record.event == "version.sealed":
                self.sealed.setdefault(version, body["bundle_digest"])
            else:
                self.sealing.setdefault(version, set()).add(body["bundle_digest"])
        elif record.event in ("alias.moving", "alias.moved"):
            alias = (body["name"], body["alias"])
            if record.event == "alias.moved":
                self.moved[alias] = body["after"]
                self.moving.pop(alias, None)
            else:
                self.moving.setdefault(alias, set()).add(body["after"])


def verify_registry(place: Place, audit: AuditLog, progress: Progress | None = None) -> list[Fault]:
    """Return everything that is wrong in a registry, with the file and the reason.

    Steps: (1) every line and link of the audit log; (2) every version byte by byte, against its
    manifest and against the log; (3) every alias against the versions and the log; (4) every
    version that the log says was sealed is still there.
    """
    told, faults = _read_log(audit)  # 1
    present: set[tuple[str, int]] = set()
    work = _work(place, faults)
    for done, (name, number) in enumerate(work):
        if progress is not None:
            progress(done, len(work), f"{name}@{number}" if number else f"{name}: aliases")
        with open_job(place, name) as job:
            if number:
                present.add((name, number))
                faults += _version_faults(job, name, number, told)  # 2
            else:
                faults += _alias_faults(job, name, told)  # 3
    if progress is not None:
        progress(len(work), len(work), "audit log")
    faults += [  # 4
        Fault(f"{JOBS}/{name}/{number}", "is missing: the audit log says that it was sealed")
        for name, number in sorted(told.sealed)
        if (name, number) not in present
    ]
    return faults


def _read_log(audit: AuditLog) -> tuple[_Told, list[Fault]]:
    told, faults = _Told(), []
    try:
        data = audit.read()
    except IntegrityError as error:
        return told, [Fault(_LOG, error.message)]
    for item in read_records(data):
        if isinstance(item, Fault):
            faults.append(item)
            continue
        try:
            told.read(item)
        except (KeyError, TypeError) as error:
            faults.append(Fault(f"{_LOG}:{item.n}", f"{item.event} lacks {error}"))
    return told, faults


def _work(place: Place, faults: list[Fault]) -> list[tuple[str, int]]:
    """Each version, and number 0 for each job's aliases."""
    try:
        with place.open() as top, top.child(JOBS) as jobs:
            names = jobs.names()
    except FileNotFoundError:
        return []
    except OSError:
        faults.append(Fault(JOBS, "is not a folder"))
        return []
    work: list[tuple[str, int]] = []
    for name in names:
        try:
            with open_job(place, check_name(name)) as job:
                work += [(name, number) for number in (*version_numbers(job), 0)]
        except (UsageError, NotFound, OSError):
            faults.append(Fault(f"{JOBS}/{ascii(name)[1:-1]}", "is not the folder of a job"))
    return work


def _version_faults(job: Folder, name: str, number: int, told: _Told) -> list[Fault]:
    read = read_version(job, name, number, files=True)
    if read.manifest is None:
        return read.faults
    where = f"{JOBS}/{name}/{number}/{MANIFEST}"
    actual, key = read.manifest.bundle_digest, (name, number)
    if key in told.sealed:
        if told.sealed[key] != actual:
            expected = f"expected {told.sealed[key]} (audit log), actual {actual}"
            read.faults.append(Fault(where, f"was replaced: {expected}"))
    elif actual not in told.sealing.get(key, set()):
        # A crash between rename and record leaves the digest in version.sealing.
        read.faults.append(Fault(where, f"{actual} was never recorded as sealed in {_LOG}"))
    return read.faults


def _alias_faults(job: Folder, name: str, told: _Told) -> list[Fault]:
    where = f"{JOBS}/{name}/{ALIASES}"
    try:
        current = read_aliases(job, name).current
    except InvalidFile as error:
        return [Fault(where, fault["message"]) for fault in error.details["faults"]]
    numbers = set(version_numbers(job))
    faults = [
        Fault(where, f"{alias} points at version {number}, which is not there")
        for alias, number in current.items()
        if number not in numbers
    ]
    recorded = {alias for job_name, alias in (*told.moved, *told.moving) if job_name == name}
    for alias in sorted(recorded | set(current)):
        key, actual = (name, alias), current.get(alias)
        allowed = {told.moved.get(key), *told.moving.get(key, set())}
        if actual not in allowed:
            expected = told.moved.get(key) or "nothing"
            faults.append(Fault(where, f"{alias} points at {actual}, the audit log at {expected}"))
    return faults
