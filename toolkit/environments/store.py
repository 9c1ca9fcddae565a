"""All environments of a workspace: built once, found by digest, verified, pruned.

<folder>/<hex>/venv/               the environment, its folders closed for writing
<folder>/<hex>/environment.json    what it was made of
<folder>/<hex>/files.json          digest of every file
<folder>/<hex>/stamp               names, sizes, times and inodes in one digest
<folder>/<hex>/verified            boot id of the last full check; its time is the last use
<folder>/.<hex>.lock               held by who builds
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from toolkit.environments.building import FACTS, FILES, VENV, Facts, build, delete_tree
from toolkit.environments.kernel_side import KernelSide
from toolkit.environments.lock import Lock, this_platform
from toolkit.environments.verifying import digest_files, record_faults, stamp, startup_faults
from toolkit.errors import Fault, InfrastructureError, NotFound
from toolkit.values import Clock, Digest, SystemClock, digest_bytes, digest_json

__all__ = ["Built", "Environments", "Listed"]

_BUILD_TIMEOUT_S = 1800.0
_LEFTOVER_AGE_S = 86_400.0
_BUILDING, _BROKEN = ".building-", ".broken-"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Built:
    """An environment that may be used now.

    Attributes:
        digest: Its name.
        python: Its interpreter.
        folder: Everything that a kernel must be able to read, beside the base Python.
        fresh: Whether it was built just now; ``seconds``: how long that took.
        notes: What a person should know (a broken one was replaced …).
    """

    digest: Digest
    python: Path
    folder: Path
    fresh: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """One environment as people see it.

    Attributes:
        digest: Its name.
        facts: What it was made of; ``None`` when that cannot be read.
        used_s: Seconds since the epoch of its last use.
        in_use: Whether a process of it runs.
    """

    digest: Digest
    facts: Facts | None
    used_s: float
    in_use: bool


@dataclass(frozen=True)
class Environments:
    """The environments below one folder.

    Attributes:
        folder: ``.toolkit/environments``.
        cwd: The workspace, where uv looks for its configuration.
        kernel_side: What is installed beside each lock.
    """

    folder: Path
    cwd: Path
    kernel_side: KernelSide = field(default_factory=KernelSide.running)
    clock: Clock = field(default_factory=SystemClock)

    def digest_of(self, lock: Lock) -> Digest:
        """Name the environment of a lock on this machine, with this Python and this toolkit."""
        return digest_json(
            {
                "format": "environment/1",
                "lock": lock.digest,
                "kernel_side": self.kernel_side.digest,
                "python": sys.version,
                "base": sys.base_prefix,
                "platform": this_platform(),
            }
        )

    def ensure(self, lock: Lock) -> Built:
        """Return the environment of a lock, building it if it is missing or broken.

        Raises:
            ConfigurationError: The lock is for another machine, or the packages are not fit.
            IntegrityError: A file does not have its locked hash.
            InfrastructureError: Network, index, disk or uv failed; nothing was published.
        """
        lock.check_machine()
        digest = self.digest_of(lock)
        if self._fit(digest):
            return self._built(digest)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._building(digest):
            notes: tuple[str, ...] = ()
            if self._place(digest).exists():
                faults = self.verify(digest)  # another one may have built it meanwhile
                if not faults:
                    return self._built(digest)
                notes = (f"a broken environment was replaced: {_sentence(faults)}",)
                self._set_aside(digest)
            facts = self._build(digest, lock)
        return self._built(digest, fresh=True, seconds=facts.seconds, notes=notes)

    def verify(self, digest: Digest) -> list[Fault]:
        """Read every file of an environment; return what is wrong, and note when nothing is.

        Raises:
            NotFound: There is no such environment.
        """
        place = self._place(digest)
        if not place.is_dir():
            raise NotFound(
                f"there is no environment {digest}", next_step="toolkit environments list"
            )
        try:
            faults = _faults(place)
        except (OSError, ValueError) as error:
            return [Fault(place.name, f"it cannot be read: {error}")]
        if not faults:
            _write(place / "stamp", stamp(place / VENV))
            _write(place / "verified", _boot())
        return faults

    def all(self) -> list[Listed]:
        """Return every environment, the one used last first."""
        if not self.folder.is_dir():
            return []
        busy = _running_programs()
        found = []
        for place in self.folder.iterdir():
            if place.name.startswith(".") or not place.is_dir():
                continue
            try:
                facts = Facts.read(place / FACTS)
            except (OSError, ValueError):
                facts = None
            used = any(program.startswith(f"{place}/") for program in busy)
            digest = Digest(f"sha256:{place.name}")
            found.append(Listed(digest, facts, _used_s(place), used))
        return sorted(found, key=lambda one: -one.used_s)

    def prune(self, unused_s: float) -> list[Digest]:
        """Delete environments that were not used for so long, and old leftovers of builds.

        An environment that a process uses stays.  A version that needs a deleted one has it
        built again at its next run.
        """
        now = time.time()
        deleted = []
        for one in self.all():
            if one.in_use or now - one.used_s < unused_s:
                continue
            with contextlib.suppress(InfrastructureError), self._building(one.digest, 0.0):
                self._set_aside(one.digest)
                deleted.append(one.digest)
        self._sweep(now)
        return deleted

    # -- steps --------------------------------------------------------------------------------

    def _place(self, digest: Digest) -> Path:
        return self.folder / digest.removeprefix("sha256:")

    def _fit(self, digest: Digest) -> bool:
        """The check of every run: the stamp, and a full one since this boot."""
        place = self._place(digest)
        try:
            known = (place / "stamp").read_text("ascii")
            checked = (place / "verified").read_text("ascii")
            return checked == _boot() and known == stamp(place / VENV)
        except (OSError, UnicodeDecodeError):
            return False

    def _built(
        self,
        digest: Digest,
        *,
        fresh: bool = False,
        seconds: float = 0.0,
        notes: tuple[str, ...] = (),
    ) -> Built:
        place = self._place(digest)
        with contextlib.suppress(OSError):
            os.utime(place / "verified")  # its last use, for `prune`
        python = place / VENV / "bin" / "python"
        return Built(digest, python, place, fresh, seconds, notes)

    @contextlib.contextmanager
    def _building(self, digest: Digest, timeout_s: float = _BUILD_TIMEOUT_S) -> Iterator[None]:
        guard = FileLock(self.folder / f".{self._place(digest).name}.lock", timeout=timeout_s)
        try:
            with guard:
                yield
        except Timeout as error:
            raise InfrastructureError(
                f"another process has been building the environment for {timeout_s:.0f} s",
                where=str(self._place(digest)),
                next_step="try again when it has ended",
            ) from error

    def _build(self, digest: Digest, lock: Lock) -> Facts:
        """Build aside, then rename: the caller holds the lock."""
        scratch = self.folder / f"{_BUILDING}{secrets.token_hex(8)}"
        scratch.mkdir(mode=0o700)
        try:
            facts = build(
                scratch, digest, lock, self.kernel_side, cwd=self.cwd, clock=self.clock.now_us
            )
            _write(scratch / "verified", _boot())
            _sync(scratch)
            scratch.rename(self._place(digest))
        except OSError as error:
            raise InfrastructureError(
                f"the environment could not be written: {error.strerror or error}",
                where=str(self.folder),
                next_step="make room (`toolkit environments prune`), then try again",
            ) from error
        finally:
            if scratch.exists():
                delete_tree(scratch)
        return facts

    def _set_aside(self, digest: Digest) -> None:
        aside = self.folder / f"{_BROKEN}{secrets.token_hex(8)}"
        self._place(digest).rename(aside)
        delete_tree(aside)

    def _sweep(self, now: float) -> None:
        """Delete what builders that crashed left a day ago or earlier."""
        for place in self.folder.glob(".*"):
            old = now - place.lstat().st_mtime > _LEFTOVER_AGE_S
            if old and place.name.startswith((_BUILDING, _BROKEN)):
                delete_tree(place)


def _faults(place: Path) -> list[Fault]:
    facts = Facts.read(place / FACTS)
    listed = (place / FILES).read_bytes()
    if digest_bytes(listed) != facts.files:
        return [Fault(FILES, "it is not the list that was made when the environment was built")]
    known: dict[str, str] = json.loads(listed)
    files = digest_files(place / VENV)
    faults = []
    for path in sorted(known.keys() | files.keys()):
        if path not in files:
            faults.append(Fault(path, "it is missing"))
        elif path not in known:
            faults.append(Fault(path, "it was not there when the environment was built"))
        elif files[path] != known[path]:
            faults.append(Fault(path, "it has changed since the environment was built"))
    if faults:
        return faults
    return startup_faults(place / VENV, files) + record_faults(place / VENV, files)


def _sentence(faults: list[Fault]) -> str:
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{faults[0].where}: {faults[0].message}{more}"


def _boot() -> str:
    """Return what is new after each start of the machine; without it, every run checks in full."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return secrets.token_hex(8)


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    scratch.write_text(text, "ascii")
    scratch.replace(path)


def _sync(folder: Path) -> None:
    """Sync the records; a crash that loses a package's file shows in the first check after it."""
    for name in (FACTS, FILES, "stamp", "verified"):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())


def _used_s(place: Path) -> float:
    for name in ("verified", "."):
        with contextlib.suppress(OSError):
            return (place / name).stat().st_mtime
    return 0.0


def _running_programs() -> set[str]:
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.update(process.cmdline()[:1])
    return found
