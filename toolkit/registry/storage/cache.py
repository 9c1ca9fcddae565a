"""Copies of bytes on this machine, by their digest: a copy that has another one is no copy."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from toolkit.values import digest_bytes

__all__ = ["ByteCache"]


class ByteCache:
    """A folder of files, each named after the SHA-256 of what it holds.

    It grows; it may be deleted at any time.  It is trusted no more than the storage: what is
    read is hashed again.

    Args:
        folder: Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: str) -> bytes | None:
        """Return the bytes that have this digest, if they are here."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        return data if digest_bytes(data) == digest else None

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a copy; a disk that is full costs only the next read's time."""
        path = self._path(digest)
        scratch = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)

    def show(self, version: str, files: Mapping[str, bytes]) -> Path | None:
        """Write files for people to look at; they are never read by the registry."""
        folder = self._folder / "shown" / version
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
        except OSError:
            return None
        return folder

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._folder / name[:2] / name
