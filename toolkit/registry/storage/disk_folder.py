"""One directory held open, and the only operations on local files that the registry uses.

Every name is a single path component, opened relative to the directory's descriptor and never
through a symbolic link: a folder that is swapped while it is read cannot redirect the reader.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Self

from toolkit.registry.storage.interface import NotAFileError, TooLargeError

__all__ = ["DiskFolder", "write_all"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_READ_CHUNK_BYTES = 1 << 20


class DiskFolder:
    """A directory by its descriptor; a context manager that closes it.

    Attributes:
        fd: The open descriptor.
        where: The path as a person would write it, for messages.
    """

    def __init__(self, fd: int, where: str) -> None:
        self.fd = fd
        self.where = where

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the root; links in the path that leads to it are the owner's choice."""
        return cls(os.open(path, _DIRECTORY), "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def path(self, name: str) -> str:
        """Return ``name`` in this folder, for messages."""
        return f"{self.where}/{name}" if self.where else name

    def child(self, name: str, *, create: bool = False) -> Self:
        """Open a folder in this one.

        Raises:
            OSError: It is missing (``FileNotFoundError``) or not a folder.
        """
        if create:
            try:
                os.mkdir(name, 0o755, dir_fd=self.fd)
                os.fsync(self.fd)
            except FileExistsError:
                pass
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
        return type(self)(fd, self.path(name))

    def names(self) -> list[str]:
        """Every entry's name, sorted."""
        return sorted(os.listdir(self.fd))  # noqa: PTH208 - Path has no descriptors

    def is_folder(self, name: str) -> bool:
        """Whether ``name`` is a real folder, not a link to one."""
        return stat.S_ISDIR(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name, a link included."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def modified_s(self, name: str) -> float:
        """Seconds since the epoch of the entry's last change."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime

    def open_file(self, name: str, flags: int, mode: int = 0o644) -> int:
        """Open a plain file and return its descriptor.

        Raises:
            NotAFileError: It is a link, a folder, a pipe or a device.
            FileNotFoundError: It is missing.
        """
        # O_NONBLOCK: opening a planted pipe must not hang; it means nothing for plain files.
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, flags, mode, dir_fd=self.fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                raise NotAFileError(error.errno, "not a plain file") from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotAFileError(errno.EINVAL, "not a plain file")
        return fd

    def read(self, name: str, limit: int) -> bytes:
        """Return a plain file's bytes.

        Args:
            name: The file.
            limit: Bytes that may be read at most.

        Raises:
            TooLargeError: It holds more than ``limit`` bytes.
            OSError: See :meth:`open_file`.
        """
        fd = self.open_file(name, os.O_RDONLY)
        try:
            parts: list[bytes] = []
            room = limit + 1
            while room and (part := os.read(fd, min(room, _READ_CHUNK_BYTES))):
                parts.append(part)
                room -= len(part)
            if not room:
                raise TooLargeError(errno.EFBIG, f"longer than {limit} bytes")
            return b"".join(parts)
        finally:
            os.close(fd)

    def write_new(self, name: str, data: bytes, mode: int = 0o444) -> None:
        """Create a file that must not exist, write all of ``data`` and sync it."""
        fd = self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(fd, data)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, name: str, data: bytes) -> None:
        """Put ``data`` in place of a file in one step: readers see the old or the new bytes."""
        scratch = f".replacing-{secrets.token_hex(8)}"
        try:
            self.write_new(scratch, data, 0o644)
            os.rename(scratch, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            self.discard(scratch)
            raise
        self.sync()

    def claim(self, scratch: str, name: str) -> bool:
        """Rename a non-empty folder to ``name``; ``False`` if ``name`` is taken.

        POSIX ``rename`` of a folder replaces nothing but an empty folder, so of several
        processes exactly one gets the name.
        """
        try:
            os.rename(scratch, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def sync(self) -> None:
        """Make the folder's entries durable."""
        os.fsync(self.fd)

    def remove(self, name: str) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self.fd)

    def discard(self, name: str) -> None:
        """Delete a file or a folder with all it holds, if it is there and may be deleted."""
        try:
            if self.is_folder(name):
                shutil.rmtree(name, ignore_errors=True, dir_fd=self.fd)
            else:
                self.remove(name)
        except OSError:
            return  # readers ignore leftovers, and the sweep comes by again


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: the kernel may store a part of them and report only how many.

    Raises:
        OSError: Not all bytes could be stored.
    """
    view = memoryview(data)
    while view:
        stored = os.write(fd, view)
        if stored == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[stored:]
