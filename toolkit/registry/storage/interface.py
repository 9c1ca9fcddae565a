"""What the registry needs of a storage, and how its errors are told.

A storage keeps a tree of small files below one root.  It is not trusted: what it returns is
verified by whoever asked.  What it must do by itself is little: list, read, replace a file in one
step, publish a version on a number that is not taken, and add lines to the end of a file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from toolkit.errors import ConfigurationError, InfrastructureError
from toolkit.values import Clock

__all__ = [
    "Draft",
    "Extend",
    "Folder",
    "NotAFileError",
    "Place",
    "TooLargeError",
    "Torn",
    "disk_errors",
]

_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class NotAFileError(OSError):
    """A name is a link, a folder, a pipe or a device where a plain file is expected."""


class TooLargeError(OSError):
    """A file is longer than it may be."""


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an operating system error into one of the toolkit's.

    Raises:
        ConfigurationError: The files may not be read or written.
        InfrastructureError: The disk is full, failing or too small.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _FORBIDDEN:
            raise ConfigurationError(
                f"{what} is not permitted: {reason}",
                where=what,
                next_step="give this user write access to the registry",
            ) from error
        mend = "" if error.errno == errno.ESTALE else "make room on the disk or repair it, then "
        raise InfrastructureError(
            f"{what} failed: {reason}", where=what, next_step=f"{mend}run the command again"
        ) from error


@dataclass(frozen=True, slots=True)
class Torn:
    """Half a line that a crash left at the end of a file, moved aside.

    Attributes:
        bytes: How many bytes.
        digest: Their digest.
        kept_in: Name of the file beside it that holds them now.
    """

    bytes: int
    digest: str
    kept_in: str


Extend = Callable[[bytes, Torn | None], bytes]
"""Returns the lines to add, given the last line (empty if there is none) and what was torn.

It is called again, with the new last line, when somebody else was quicker.
"""


class Folder(Protocol):
    """One folder, held open; a context manager that closes it.

    Attributes:
        where: Its path in the registry, for messages.
    """

    where: str

    def __enter__(self) -> Self:
        """Return the folder."""
        ...

    def __exit__(self, *_: object) -> None:
        """Close it."""
        ...

    def path(self, name: str) -> str:
        """Return ``name`` in this folder, for messages."""
        ...

    def child(self, name: str) -> Self:
        """Open a folder in this one.

        Raises:
            OSError: It is missing (``FileNotFoundError``) or not a folder.
        """
        ...

    def names(self) -> list[str]:
        """Every entry's name, sorted."""
        ...

    def is_folder(self, name: str) -> bool:
        """Whether ``name`` is a real folder, not a link to one."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return a plain file's bytes.

        Raises:
            TooLargeError: It holds more than ``limit`` bytes.
            NotAFileError: It is something else.
            FileNotFoundError: It is missing.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Put ``data`` in place of a file in one step: readers see the old or the new bytes."""
        ...


class Draft(Protocol):
    """A version that is being written: no reader sees it before it is claimed."""

    def write(self, name: str, data: bytes) -> None:
        """Keep a file of the version."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Read back what was kept, from where it is kept."""
        ...

    def remove(self, name: str) -> None:
        """Take a file out of the version again."""
        ...

    def sync(self) -> None:
        """Make all that was written durable."""
        ...

    def taken(self) -> int:
        """Return the highest number that is taken, 0 if none is; it may be out of date."""
        ...

    def claim(self, number: int) -> bool:
        """Publish the version as this number; ``False`` if it is taken.

        Of all who try, exactly one gets the number, and a reader sees all of it or nothing.
        """
        ...


class Place(Protocol):
    """Where a registry is.

    Attributes:
        where: A path or an address, for messages.
    """

    where: str

    def open(self) -> Folder:
        """Open the root to read.

        Raises:
            FileNotFoundError: Nothing was ever written.
        """
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Exclude everybody else who takes the lock of this name.

        It keeps order; that no number is given twice never rests on it.

        Raises:
            InfrastructureError: Somebody held it for a minute.
        """
        ...

    def fresh(self) -> AbstractContextManager[None]:
        """Read from the storage itself, and from no copy on this machine."""
        ...

    def draft(self, job: str, clock: Clock) -> AbstractContextManager[Draft]:
        """Begin a version of a job; what was not claimed at the end is thrown away."""
        ...

    def show(self, version: str, files: Mapping[str, bytes]) -> Path | None:
        """Return a folder in which a person can look at a version that was just sealed.

        Args:
            version: Its folder in the registry.
            files: What it holds.  Where no folder holds it, a copy is made, which nobody reads
                again but people; ``None`` if there is no room for copies.
        """
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return a plain file's bytes; see :meth:`Folder.read`."""
        ...

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer where the file ends."""
        ...

    def size(self, path: str) -> int:
        """Return how long a file of lines is, in bytes, when nobody adds to it; 0 if missing."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place in one durable step; its folder is made if need be."""
        ...

    def extend(self, path: str, make: Extend, *, keep: bool) -> None:
        """Add lines to a file and make them durable, after what was there is whole lines again.

        Args:
            path: A file of ``log/``.
            make: Returns the lines.
            keep: Keep half a line that a crash left in a file of its own; else it is cut off.
        """
        ...

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        ...
