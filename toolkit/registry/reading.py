"""Reads a job's folder the way a distrustful reader does; shared by loading and verifying."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from typing import NoReturn

from toolkit.errors import Fault, IntegrityError, InvalidFile, NotFound, UsageError
from toolkit.registry.aliases import ALIASES, MAX_ALIASES_BYTES, AliasBook
from toolkit.registry.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from toolkit.registry.storage import (
    Folder,
    NotAFileError,
    Place,
    TooLargeError,
    disk_errors,
)
from toolkit.trust import ATTESTATION
from toolkit.values import check_name, digest_bytes

__all__ = [
    "JOBS",
    "VersionRead",
    "is_job",
    "open_job",
    "read_aliases",
    "read_version",
    "refuse",
    "version_numbers",
]

JOBS = "jobs"
_NO_FOLDER = {errno.ENOTDIR, errno.ELOOP, errno.EINVAL}
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass
class VersionRead:
    """What reading a version's folder gave.

    Attributes:
        manifest: ``None`` if it cannot be read.
        files: The bytes of every file that is what the manifest says.
        faults: Everything that is wrong.
        missing: There is no such folder.
    """

    manifest: Manifest | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    missing: bool = False


def open_job(place: Place, name: str) -> Folder:
    """Open a job's folder.

    Raises:
        NotFound: There is none.
        ConfigurationError: It may not be read.
        InfrastructureError: It cannot be read now.
    """
    try:
        with place.open() as top, top.child(JOBS) as jobs:
            return jobs.child(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no job {name}",
            where=f"{JOBS}/{name}",
            next_step="run `toolkit registry list` to see the jobs",
        ) from error
    except OSError:
        with disk_errors(f"reading {JOBS}/{name}"):
            raise


def is_job(jobs: Folder, name: str) -> bool:
    """Whether an entry of the folder of jobs is a job's folder."""
    try:
        return jobs.is_folder(check_name(name))
    except (UsageError, OSError):
        return False


def version_numbers(job: Folder) -> list[int]:
    """Numbers that are taken, ascending; whatever has such a name takes it."""
    return sorted(int(name) for name in job.names() if _NUMBER.fullmatch(name))


def read_aliases(job: Folder, name: str) -> AliasBook:
    """Read ``aliases.json``; a job without one has no aliases.

    Raises:
        InvalidFile: It is damaged.
    """
    where = job.path(ALIASES)
    try:
        data = job.read(ALIASES, MAX_ALIASES_BYTES)
    except FileNotFoundError:
        return AliasBook(name)
    except OSError as error:
        raise InvalidFile.of(where, [Fault("file", str(error.strerror))]) from error
    return AliasBook.from_bytes(data, name, where)


def read_version(job: Folder, name: str, number: int, *, files: bool) -> VersionRead:
    """Read one version.

    Steps: (1) the folder is a real one; (2) ``job.yaml`` has its one byte form, its own digest,
    this name and this number; (3) the folder holds exactly the files it lists,
    and its attestation if it has one, which :mod:`toolkit.trust` verifies; (4) each is a
    plain file of the recorded size whose bytes, read once, have the recorded digest.

    Args:
        job: The job's folder.
        name: Which job it must be of.
        number: Which version it must be.
        files: Read the files too; otherwise stop after step 2.
    """
    result = VersionRead()
    try:
        folder = job.child(str(number))
    except FileNotFoundError:
        result.missing = True
        result.faults.append(Fault(job.path(str(number)), "is missing"))
        return result
    except OSError as error:  # 1
        other = error.errno in _NO_FOLDER
        reason = "is not a folder" if other else f"cannot be read ({error.strerror})"
        result.faults.append(Fault(job.path(str(number)), reason))
        return result
    with folder:
        result.manifest = _read_manifest(folder, name, number, result.faults)  # 2
        if result.manifest is not None and files:
            _read_files(folder, result.manifest, result)
    return result


def _read_manifest(folder: Folder, name: str, number: int, faults: list[Fault]) -> Manifest | None:
    where = folder.path(MANIFEST)
    try:
        manifest = Manifest.from_bytes(folder.read(MANIFEST, MAX_MANIFEST_BYTES), where)
    except InvalidFile as error:
        found = error.details["faults"][0]
        faults.append(Fault(where, found["message"]))
        return None
    except OSError as error:
        faults.append(Fault(where, _reason(error)))
        return None
    if (manifest.name, manifest.version) != (name, number):
        faults.append(
            Fault(where, f"is of {manifest.name}@{manifest.version}, expected {name}@{number}")
        )
        return None
    return manifest


def _read_files(folder: Folder, manifest: Manifest, result: VersionRead) -> None:
    present = set(folder.names()) - {MANIFEST, ATTESTATION}
    result.faults += [  # 3
        Fault(folder.path(ascii(extra)[1:-1]), "is not in the manifest: expected no such file")
        for extra in sorted(present - set(manifest.files))
    ]
    for path, fact in manifest.files.items():  # 4
        expected = f"expected {fact.digest} ({fact.size} bytes)"
        try:
            data = folder.read(path, fact.size)
        except OSError as error:
            result.faults.append(Fault(folder.path(path), f"{_reason(error)}: {expected}"))
            continue
        actual = digest_bytes(data)
        if actual != fact.digest or len(data) != fact.size:
            changed = f"was changed: {expected}, actual {actual} ({len(data)} bytes)"
            result.faults.append(Fault(folder.path(path), changed))
        else:
            result.files[path] = data


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, NotAFileError):
        return "is a link, a folder or a device"
    if isinstance(error, TooLargeError):
        return f"is {error.strerror}"
    return f"cannot be read ({error.strerror})"


def refuse(faults: list[Fault], ref: str, *, missing: bool) -> NoReturn:
    """Raise what is wrong with a version.

    Raises:
        NotFound: It is not there.
        IntegrityError: Otherwise; ``details["faults"]`` has every fault.
    """
    details = InvalidFile.of(ref, faults).details
    if missing:
        raise NotFound(
            f"there is no version {ref}",
            where=ref,
            next_step=f"run `toolkit registry show {ref.partition('@')[0]}`",
        )
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise IntegrityError(
        f"{ref} is not what was sealed: {faults[0].where}: {faults[0].message}{more}",
        where=faults[0].where,
        next_step="restore the version from a copy, or run an older version",
        details=details,
    )
