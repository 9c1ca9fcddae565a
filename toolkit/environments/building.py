"""Builds one environment in a folder of its own; the caller publishes it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.environments.kernel_side import KernelSide
from toolkit.environments.lock import Lock
from toolkit.environments.uv import run_uv
from toolkit.environments.verifying import digest_files, record_faults, stamp, startup_faults
from toolkit.errors import ConfigurationError, Fault, InvalidFile, ToolkitError
from toolkit.values import Digest, digest_bytes

__all__ = ["FACTS", "FILES", "VENV", "Facts", "build", "delete_tree", "list_bytes"]

VENV = "venv"
FACTS = "environment.json"
FILES = "files.json"
FORMAT = "environment/1"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is written beside an environment.

    Attributes:
        format: ``environment/1``.
        digest: The environment's name.
        lock: Digest of the lock; ``kernel_side``: of the toolkit's wheel.
        python: The interpreter's full version.
        packages: How many are locked.
        files: Digest of the list of all files.
        size_bytes: Of all files together (files shared with uv's cache are counted in full).
        built_us: Microseconds since the epoch, UTC.
        seconds: How long it took.
    """

    format: str
    digest: Digest
    lock: Digest
    kernel_side: Digest
    python: str
    packages: int
    files: Digest
    size_bytes: int
    built_us: int
    seconds: float

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Read the file.

        Raises:
            ValueError, OSError: It is missing or not such a file.
        """
        body = json.loads(path.read_bytes())
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ValueError(f"it is not {FORMAT}")
        try:
            return cls(**body)
        except TypeError as error:
            raise ValueError("it has other members") from error


def build(
    folder: Path,
    digest: Digest,
    lock: Lock,
    side: KernelSide,
    *,
    cwd: Path,
    clock: Callable[[], int],
) -> Facts:
    """Make the environment in an empty folder; what is there afterwards is complete and verified.

    Raises:
        ConfigurationError: A package brings what must not be in an environment, or the toolkit of
            this machine needs packages that the lock does not have.
        IntegrityError: A file does not have its locked hash.
        InfrastructureError: Network, index, disk or uv failed.
    """
    started_us = clock()
    venv = folder / VENV
    with tempfile.TemporaryDirectory(prefix="toolkit-wheel-") as scratch:
        sync = _make(venv, lock, side, Path(scratch), cwd)
        run_uv(sync, cwd=cwd, what="installing the locked packages")
        # Before any program of this environment is started: looking at it executes nothing.
        _check_files(venv)
        _check_requirements(venv, cwd)
        # Bytecode now: later nobody may write there, and kernels start quicker.
        compiling = [*sync, "--compile-bytecode", "--offline"]
        run_uv(compiling, cwd=cwd, what="compiling the locked packages")
    files = _check_files(venv)
    _close_folders(venv)
    listed = list_bytes(files)
    (folder / FILES).write_bytes(listed)
    ended_us = clock()
    facts = Facts(
        format=FORMAT,
        digest=digest,
        lock=lock.digest,
        kernel_side=side.digest,
        python=".".join(map(str, sys.version_info[:3])),
        packages=len(lock.packages),
        files=digest_bytes(listed),
        size_bytes=_size(venv),
        built_us=ended_us,
        seconds=round((ended_us - started_us) / 1e6, 3),
    )
    (folder / FACTS).write_bytes(facts.to_bytes())
    (folder / "stamp").write_text(stamp(venv), "ascii")
    return facts


def list_bytes(files: dict[str, str]) -> bytes:
    """Return the list of files in its one form."""
    return json.dumps(files, sort_keys=True, indent=0).encode()


def delete_tree(folder: Path) -> None:
    """Delete a folder whose folders may be closed for writing; what is gone is no error."""
    for path, _, _ in os.walk(folder):
        try:
            Path(path).chmod(0o700)
        except OSError:
            continue
    shutil.rmtree(folder, ignore_errors=True)


def _make(venv: Path, lock: Lock, side: KernelSide, scratch: Path, cwd: Path) -> list[str]:
    """Make the empty environment; return the command that installs the packages."""
    # Relocatable: it is renamed when it is complete, and its scripts must find their Python then.
    made = ["venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable]
    run_uv([*made, str(venv)], cwd=cwd, what="making an environment")
    wheel = scratch / side.file_name
    wheel.write_bytes(side.wheel)
    wanted = scratch / "requirements.txt"
    own = f"{wheel} --hash={side.digest}\n"
    wanted.write_bytes(lock.to_bytes() + own.encode())
    python = str(venv / "bin" / "python")
    return [
        *("pip", "sync", str(wanted), "--quiet", "--python", python),
        *("--require-hashes", "--no-build"),
    ]


def _check_files(venv: Path) -> dict[str, str]:
    files = digest_files(venv)
    faults = startup_faults(venv, files) + record_faults(venv, files)
    if faults:
        raise _refused(faults)
    return files


def _check_requirements(venv: Path, cwd: Path) -> None:
    """The lock is as old as the version; the toolkit's needs are today's."""
    python = str(venv / "bin" / "python")
    try:
        run_uv(["pip", "check", "--quiet", "--python", python], cwd=cwd, what="the check")
    except ToolkitError as error:
        raise ConfigurationError(
            f"the lock does not hold what this toolkit's kernels need: {error.message}",
            next_step="promote the notebook again with this toolkit, or run the version with the "
            "toolkit that promoted it",
        ) from error


def _refused(faults: list[Fault]) -> ConfigurationError:
    error = InvalidFile.of("the environment", faults[:20])
    if len(faults) > 20:
        error.details["more"] = len(faults) - 20
    return error


def _close_folders(venv: Path) -> None:
    """Take the right to write from all folders: pip and bytecode leave nothing behind.

    Files keep their modes: they may be the same files as in uv's cache.
    """
    for path, _, _ in os.walk(venv):
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        Path(path).chmod(mode & ~0o222)


def _size(venv: Path) -> int:
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(venv)
        for name in names
    )
