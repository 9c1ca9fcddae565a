"""A registry in a folder: of this machine, or of a network file system that several mount.

The layout is what a person or Git sees: every file under its own name.  A version is published
by one rename of a complete, synced folder onto a number that is not taken.  Locks lie in
``.locks/``, which Git ignores, and so does what is remembered of each job's last number.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.errors import InfrastructureError
from toolkit.registry.storage.disk_folder import DiskFolder, write_all
from toolkit.registry.storage.interface import Extend, NotAFileError, Torn, disk_errors
from toolkit.values import Clock, digest_bytes

__all__ = ["DiskDraft", "DiskPlace"]

_LOCKS = ".locks"
_LOCK_TIMEOUT_S = 60.0
_LEFTOVER_AGE_S = 86_400.0
_SWEEP_EVERY_S = 3_600.0
_TAIL_CHUNK_BYTES = 1 << 16
_JOBS = "jobs"
_SCRATCH = ".sealing-"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_HINT = re.compile(rb"([0-9]{1,9}) ([0-9]{1,12})\n")


class DiskPlace:
    """A registry's folder.

    Args:
        path: The folder; made by the first writer.
    """

    folder = DiskFolder
    """How folders are opened; a test of another file system's habits has its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def open(self) -> DiskFolder:
        """Open the folder to read.

        Raises:
            FileNotFoundError: Nothing was ever written.
        """
        return self.folder.open(self.path)

    def make(self) -> DiskFolder:
        """Open the folder to write, and make it if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.folder.open(self.path)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Exclude every other process and thread that takes the lock of this name.

        Raises:
            InfrastructureError: Somebody held it for a minute.
        """
        path = self._locks() / f"{name}.lock"
        try:
            with FileLock(path, timeout=_LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise InfrastructureError(
                f"another process has held {path.name} for {_LOCK_TIMEOUT_S:.0f} s",
                where=str(path),
                next_step=f"find the process with `fuser {path}`, then try again",
            ) from error

    def _locks(self) -> Path:
        folder = self.path / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", "ascii")
        return folder

    def fresh(self) -> AbstractContextManager[None]:
        """Nothing is copied, so every read is fresh."""
        return nullcontext()

    # -- versions --------------------------------------------------------------------------

    @contextmanager
    def draft(self, job: str, clock: Clock) -> Iterator[DiskDraft]:
        """Begin a version in a folder that readers ignore."""
        scratch = f"{_SCRATCH}{secrets.token_hex(8)}"
        with (
            self.make() as root,
            root.child(_JOBS, create=True) as jobs,
            jobs.child(job, create=True) as home,
        ):
            hint = self._locks() / f"job-{job}.head"
            self._sweep(home, hint, clock)
            try:
                with home.child(scratch, create=True) as folder:
                    yield DiskDraft(home, folder, scratch, hint)
            finally:
                home.discard(scratch)

    @staticmethod
    def _sweep(home: DiskFolder, hint: Path, clock: Clock) -> None:
        """Delete what writers that crashed left a day ago or earlier; look at most once an hour."""
        now_s = clock.now_us() / 1e6
        number, swept_s = _hint(hint)
        if abs(now_s - swept_s) < _SWEEP_EVERY_S:
            return
        for name in home.names():
            if not name.startswith((_SCRATCH, ".replacing-")):
                continue
            try:
                old = now_s - home.modified_s(name) > _LEFTOVER_AGE_S
            except FileNotFoundError:
                continue  # its owner finished meanwhile
            if old:
                home.discard(name)
        _keep_hint(hint, number, int(now_s))

    def show(self, version: str, files: Mapping[str, bytes]) -> Path:
        """Return the version's own folder."""
        del files
        return self.path / version

    # -- files by path ---------------------------------------------------------------------

    def read(self, path: str, limit: int) -> bytes:
        """Return a plain file's bytes."""
        with self._folder_of(path) as (folder, name):
            return folder.read(name, limit)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes from the middle of a file."""
        with self._folder_of(path) as (folder, name):
            fd = folder.open_file(name, os.O_RDONLY)
            try:
                parts = []
                while length and (part := os.pread(fd, length, offset)):
                    parts.append(part)
                    offset, length = offset + len(part), length - len(part)
                return b"".join(parts)
            finally:
                os.close(fd)

    def size(self, path: str) -> int:
        """Return a file's length when nobody adds to it; 0 if there is none."""
        with disk_errors(f"reading {path}"), self.lock(_lock_of(path)):
            try:
                with self._folder_of(path) as (folder, name):
                    fd = folder.open_file(name, os.O_RDONLY)
            except FileNotFoundError:
                return 0
            try:
                return os.fstat(fd).st_size
            finally:
                os.close(fd)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder; none if there is no such folder."""
        try:
            with self._folder_of(f"{path}/any") as (folder, _):
                return folder.names()
        except FileNotFoundError:
            return []

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place in one durable step."""
        with disk_errors(f"writing {path}"), self._folder_of(path, create=True) as (folder, name):
            folder.replace(name, data)

    def extend(self, path: str, make: Extend, *, keep: bool) -> None:
        """Add lines to a file, under its lock; an error leaves it as it was.

        The torn bytes are kept in a file of their own before they leave the log: a crash between
        the steps repeats them.
        """
        with (
            disk_errors(f"writing {path}"),
            self.lock(_lock_of(path)),
            self._folder_of(path, create=True) as (folder, name),
        ):
            fd = folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                size, last, torn = _mended_tail(fd, folder, keep=keep)
                if not last:
                    folder.sync()
                _append(fd, size, make(last, torn))
            finally:
                os.close(fd)

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        with disk_errors(f"deleting {path}"), self._folder_of(path) as (folder, name):
            try:
                folder.remove(name)
            except FileNotFoundError:
                return
            folder.sync()

    @contextmanager
    def _folder_of(self, path: str, *, create: bool = False) -> Iterator[tuple[DiskFolder, str]]:
        """Open the folder that holds a path, one component at a time, through no link."""
        *folders, name = path.split("/")
        if any(part in ("", ".", "..") for part in (*folders, name)):
            raise NotAFileError(0, "not a path in the registry")
        folder = self.make() if create else self.open()
        try:
            for part in folders:
                inner = folder.child(part, create=create)
                os.close(folder.fd)
                folder = inner
            yield folder, name
        finally:
            os.close(folder.fd)


class DiskDraft:
    """A version in a folder that readers ignore.

    Args:
        home: The job's folder.
        folder: The version's, in it.
        scratch: Its name.
        hint: Where the last number is remembered.
    """

    def __init__(self, home: DiskFolder, folder: DiskFolder, scratch: str, hint: Path) -> None:
        self._home = home
        self._folder = folder
        self._scratch = scratch
        self._hint = hint

    def write(self, name: str, data: bytes) -> None:
        """Create the file and sync it."""
        self._folder.write_new(name, data)

    def read(self, name: str, limit: int) -> bytes:
        """Read the file back."""
        return self._folder.read(name, limit)

    def remove(self, name: str) -> None:
        """Delete the file."""
        self._folder.remove(name)

    def sync(self) -> None:
        """Sync the folder; its files are."""
        self._folder.sync()

    def taken(self) -> int:
        """Return the highest number that is taken; whatever has such a name takes it.

        The number that was remembered is believed if it is there and the next is not; a folder
        of 100,000 versions is listed only when it is not so.
        """
        number, _ = _hint(self._hint)
        if number and self._home.has(str(number)) and not self._home.has(str(number + 1)):
            return number
        numbers = (int(name) for name in self._home.names() if _NUMBER.fullmatch(name))
        return max(numbers, default=0)

    def claim(self, number: int) -> bool:
        """Rename the folder to the number."""
        if not self._home.claim(self._scratch, str(number)):
            return False
        self._home.sync()
        _keep_hint(self._hint, number, _hint(self._hint)[1])
        return True


def _hint(path: Path) -> tuple[int, int]:
    """Return the last number, and when leftovers were looked for, in seconds; 0 is not known."""
    try:
        found = _HINT.fullmatch(path.read_bytes())
    except OSError:
        found = None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _keep_hint(path: Path, number: int, swept_s: int) -> None:
    try:
        path.write_text(f"{number} {max(swept_s, 0)}\n", "ascii")
    except OSError:
        return  # a hint that is out of date costs a listing


def _lock_of(path: str) -> str:
    """Name of a file's lock; every version of the toolkit takes the same."""
    return "audit" if path == "log/audit.jsonl" else "signed-lines"


def _mended_tail(fd: int, folder: DiskFolder, *, keep: bool) -> tuple[int, bytes, Torn | None]:
    """Return a file's length and last line, after taking a torn line off."""
    size = os.fstat(fd).st_size
    line = _last_line(fd, size)
    if not line or line.endswith(b"\n"):
        return size, line, None
    torn = None
    if keep:
        aside = f"torn-{secrets.token_hex(8)}.bin"
        folder.write_new(aside, line)
        folder.sync()
        torn = Torn(len(line), digest_bytes(line), aside)
    size -= len(line)
    os.ftruncate(fd, size)
    os.fsync(fd)
    return size, _last_line(fd, size), torn


def _last_line(fd: int, size: int) -> bytes:
    """The bytes after the line feed before last; an unfinished line has no line feed."""
    tail = b""
    while size and b"\n" not in tail[:-1]:
        start = max(0, size - _TAIL_CHUNK_BYTES)
        tail = os.pread(fd, size - start, start) + tail
        size = start
    return tail[tail.rfind(b"\n", 0, -1) + 1 :] if tail else b""


def _append(fd: int, size: int, lines: bytes) -> None:
    """Append and sync; on an error take back what was stored, so that readers see no half line."""
    try:
        write_all(fd, lines)
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise
