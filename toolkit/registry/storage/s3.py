"""A registry in an S3-compatible bucket: nothing is renamed, so nothing needs to be.

    blobs/<sha256>              bytes of every file of every version, by their digest
    jobs/<name>/<n>             tree/1: the names and digests of a version's files
    jobs/<name>/aliases.json    and all other files as in a folder, one object each
    log/audit.jsonl/<offset>    the log in segments (:mod:`toolkit.registry.storage.lines`)
    .locks/<name>               leases (:mod:`toolkit.registry.storage.lease`)

A version is published by creating its tree, which must not exist: then all its bytes are there
already, and of many writers exactly one gets the number.  Under a lock, an object that was read is
replaced only while it has the ETag it had then.  A crash leaves blobs that no tree names; they do
no harm, and nothing deletes them.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from toolkit.registry.storage.bucket import Bucket, Changed
from toolkit.registry.storage.cache import ByteCache
from toolkit.registry.storage.interface import Extend, NotAFileError, TooLargeError, disk_errors
from toolkit.registry.storage.lease import lease
from toolkit.registry.storage.lines import Lines
from toolkit.values import Clock, digest_bytes

__all__ = ["S3Draft", "S3Folder", "S3Place"]

_SCHEMA = "tree/1"
_MAX_TREE_BYTES = 1 << 20
_VERSION = re.compile(r"jobs/[^/]+/[1-9][0-9]{0,8}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class _Held(threading.local):
    """What this thread holds: locks, and the ETag of what it read under them.

    Attributes:
        locks: How many.
        seen: ETag by path; ``None`` if there was no object.
        fresh: Whether copies on this machine are left aside.
    """

    def __init__(self) -> None:
        self.locks = 0
        self.seen: dict[str, str | None] = {}
        self.fresh = False


class S3Place:
    """A registry's bucket.

    Args:
        bucket: Its objects.
        cache: Where copies of blobs are kept on this machine; without it, all is read again.
    """

    def __init__(self, bucket: Bucket, cache: Path | None = None) -> None:
        self.bucket = bucket
        self.where = bucket.address
        self._cache = ByteCache(cache) if cache else None
        self._held = _Held()
        self._lines: dict[str, Lines] = {}

    def open(self) -> S3Folder:
        """Open the root; it is always there."""
        return S3Folder(self, "")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lease; what is read meanwhile is replaced only if nobody else did."""
        with lease(self.bucket, name):
            self._held.locks += 1
            try:
                yield
            finally:
                self._held.locks -= 1
                if not self._held.locks:
                    self._held.seen.clear()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Read from the bucket, and from no copy on this machine."""
        before, self._held.fresh = self._held.fresh, True
        try:
            yield
        finally:
            self._held.fresh = before

    @contextmanager
    def draft(self, job: str, clock: Clock) -> Iterator[S3Draft]:
        """Begin a version; its blobs are stored as they come."""
        del clock  # nothing of an earlier crash needs to be swept
        yield S3Draft(self, job)

    def show(self, version: str, files: Mapping[str, bytes]) -> Path | None:
        """Write a copy beside the copies of blobs."""
        return self._cache.show(version, files) if self._cache else None

    # -- files by path ---------------------------------------------------------------------

    def read(self, path: str, limit: int) -> bytes:
        """Return an object's bytes, or those of a version's file."""
        folder, _, name = _checked(path).rpartition("/")
        if _is_lines(path):
            return self._lines_of(path).read(limit)
        if _VERSION.fullmatch(folder):
            return self.blob(self._digest_in(folder, name), limit)
        try:
            found = self.bucket.get(path, limit)
        except FileNotFoundError:
            self._saw(path, None)
            raise
        self._saw(path, found.etag)
        return found.data

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes from the middle of a file."""
        if _is_lines(_checked(path)):
            return self._lines_of(path).read_at(offset, length)
        return self.bucket.get_range(path, offset, offset + length)

    def size(self, path: str) -> int:
        """Return how long a file of lines is."""
        return self._lines_of(_checked(path)).size()

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, or of a version's files."""
        if _VERSION.fullmatch(_checked(path)):
            try:
                return sorted(self.tree(path))
            except FileNotFoundError:
                return []
        return [name for name, _ in self.bucket.list(f"{path}/" if path else "")]

    def write(self, path: str, data: bytes) -> None:
        """Replace an object; under a lock, only if nobody replaced what was read.

        Raises:
            InfrastructureError: Somebody did: the lock was lost to another writer.
        """
        with disk_errors(f"writing {path}"):
            if self._held.locks and path in self._held.seen:
                self._write_over(path, data, self._held.seen[path])
            else:
                self._saw(path, self.bucket.put(_checked(path), data))

    def _write_over(self, path: str, data: bytes, etag: str | None) -> None:
        try:
            if etag is None:
                new = self.bucket.create(path, data)
            else:
                new = self.bucket.put(path, data, match=etag)
        except Changed:
            found = self.bucket.get(path)
            if found.data != data:  # else the client repeated a write whose answer was lost
                raise
            new = found.etag
        self._saw(path, new)

    def extend(self, path: str, make: Extend, *, keep: bool) -> None:
        """Add lines; an object is written whole, so none is ever torn."""
        del keep
        with disk_errors(f"writing {path}"):
            self._lines_of(_checked(path)).extend(make)

    def remove(self, path: str) -> None:
        """Delete an object, if it is there."""
        with disk_errors(f"deleting {path}"):
            self.bucket.delete(_checked(path))

    def _saw(self, path: str, etag: str | None) -> None:
        if self._held.locks:
            self._held.seen[path] = etag

    def _lines_of(self, path: str) -> Lines:
        return self._lines.setdefault(path, Lines(self.bucket, path))

    # -- versions --------------------------------------------------------------------------

    def tree(self, path: str) -> dict[str, str]:
        """Return the digest of each file of a version, by name.

        Raises:
            FileNotFoundError: There is no such version.
            NotAFileError: What is there is not ``tree/1``.
        """
        return _parsed(self.bucket.get(path, _MAX_TREE_BYTES).data)

    def blob(self, digest: str, limit: int) -> bytes:
        """Return the bytes that are stored under a digest; the caller verifies them.

        Raises:
            FileNotFoundError: There are none.
            TooLargeError: They are more than ``limit``.
        """
        cache = None if self._held.fresh else self._cache
        known = cache.get(digest) if cache else None
        if known is not None:
            if len(known) > limit:
                raise TooLargeError(errno.EFBIG, f"longer than {limit} bytes")
            return known
        data = self.bucket.get(_blob_key(digest), limit).data
        if self._cache and digest_bytes(data) == digest:
            self._cache.keep(digest, data)
        return data

    def _digest_in(self, folder: str, name: str) -> str:
        try:
            return self.tree(folder)[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "is missing", f"{folder}/{name}") from None


class S3Folder:
    """A prefix of the bucket, or the tree of a version.

    Args:
        place: The bucket.
        where: The path; empty for the root.
        tree: Digest by name, of a version.
    """

    def __init__(self, place: S3Place, where: str, tree: dict[str, str] | None = None) -> None:
        self.where = where
        self._place = place
        self._tree = tree

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def path(self, name: str) -> str:
        """Return ``name`` in this folder, for messages."""
        return f"{self.where}/{name}" if self.where else name

    def child(self, name: str) -> Self:
        """Open a folder in this one."""
        path = _checked(self.path(name))
        if self._tree is not None:
            raise NotADirectoryError(errno.ENOTDIR, "is a file", path)
        if _VERSION.fullmatch(path):
            return type(self)(self._place, path, self._place.tree(path))
        if not self.is_folder(name):
            raise FileNotFoundError(errno.ENOENT, "is missing", path)
        return type(self)(self._place, path)

    def names(self) -> list[str]:
        """Every entry's name, sorted."""
        return sorted(self._tree) if self._tree is not None else self._place.names(self.where)

    def is_folder(self, name: str) -> bool:
        """Whether anything lies below ``name``."""
        return bool(self._place.bucket.list(f"{self.path(name)}/", at_most=1))

    def read(self, name: str, limit: int) -> bytes:
        """Return an object's bytes."""
        if self._tree is None:
            return self._place.read(self.path(name), limit)
        if name not in self._tree:
            raise FileNotFoundError(errno.ENOENT, "is missing", self.path(name))
        return self._place.blob(self._tree[name], limit)

    def replace(self, name: str, data: bytes) -> None:
        """Replace an object in one step."""
        self._place.write(self.path(name), data)


class S3Draft:
    """A version whose blobs are stored and whose tree is not.

    Args:
        place: The bucket.
        job: The job.
    """

    def __init__(self, place: S3Place, job: str) -> None:
        self._place = place
        self._job = job
        self._tree: dict[str, str] = {}

    def write(self, name: str, data: bytes) -> None:
        """Store the bytes under their digest; equal bytes are stored once."""
        digest = digest_bytes(data)
        bucket, key = self._place.bucket, _blob_key(digest)
        try:
            bucket.create(key, data)
        except Changed:
            if bucket.get(key).data != data:  # somebody damaged it
                bucket.put(key, data)
        self._tree[name] = digest

    def read(self, name: str, limit: int) -> bytes:
        """Read the bytes back from the bucket."""
        with self._place.fresh():
            return self._place.blob(self._tree[name], limit)

    def remove(self, name: str) -> None:
        """Leave the file out; its blob stays."""
        self._tree.pop(name, None)

    def sync(self) -> None:
        """An object that was stored is durable."""

    def taken(self) -> int:
        """Return the highest number in the listing."""
        names = self._place.names(f"jobs/{self._job}")
        return max((int(name) for name in names if _NUMBER.fullmatch(name)), default=0)

    def claim(self, number: int) -> bool:
        """Create the tree, which must not exist."""
        key, data = f"jobs/{self._job}/{number}", _tree_bytes(self._tree)
        try:
            self._place.bucket.create(key, data)
        except Changed:
            # The client repeats a write whose answer was lost; ``writer`` tells whose it is.
            return self._place.bucket.get(key).data == data
        return True


def _tree_bytes(tree: dict[str, str]) -> bytes:
    facts = {
        "schema": _SCHEMA,
        "writer": secrets.token_hex(16),
        "files": dict(sorted(tree.items())),
    }
    return (json.dumps(facts, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def _parsed(data: bytes) -> dict[str, str]:
    try:
        facts = json.loads(data)
        if facts["schema"] != _SCHEMA:
            raise ValueError(facts["schema"])  # noqa: TRY301 - told once, below
        files = {name: digest for name, digest in facts["files"].items() if "/" not in name}
        if not all(_DIGEST.fullmatch(digest) for digest in files.values()):
            raise ValueError("digest")  # noqa: TRY301 - told once, below
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotAFileError(errno.EINVAL, f"is not {_SCHEMA}") from error
    return files


def _blob_key(digest: str) -> str:
    return f"blobs/{digest.removeprefix('sha256:')}"


def _is_lines(path: str) -> bool:
    return path.startswith("log/") and path.endswith(".jsonl")


def _checked(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise NotAFileError(errno.EINVAL, "not a path in the registry")
    return path
