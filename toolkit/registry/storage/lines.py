"""A file of lines in a bucket, which has no append: objects that follow each other.

``log/audit.jsonl`` is kept as ``log/audit.jsonl/<first byte, 16 digits>``; put together in order
they are, byte for byte, the file that a folder would hold.  The last one is replaced with itself
and the new lines, if it still has the ETag that was read, until it holds ``CLOSED_BYTES`` or more;
then it is closed, and the next one is created if it does not exist.  Which one is open follows
from its length alone, so two writers who know different ends cannot both succeed.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from toolkit.registry.storage.bucket import Bucket, Changed
from toolkit.registry.storage.interface import Extend, TooLargeError

__all__ = ["CLOSED_BYTES", "Lines"]

CLOSED_BYTES = 1 << 18
_NAME = re.compile(r"[0-9]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Open:
    """The segment that lines are added to; without an ETag it is still to be made."""

    offset: int
    data: bytes
    etag: str | None


class Lines:
    """One file of lines.

    Args:
        bucket: Where.
        path: ``log/audit.jsonl``.
    """

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket = bucket
        self._path = path
        self._known: _Open | None = None

    def extend(self, make: Extend) -> None:
        """Add lines; see :meth:`toolkit.registry.storage.Place.extend`."""
        end = self._known or self._end()
        while True:
            lines = make(_last_line(end.data), None)
            segment = end
            if len(end.data) >= CLOSED_BYTES:
                segment = _Open(end.offset + len(end.data), b"", None)
            data, key = segment.data + lines, self._key(segment.offset)
            try:
                if segment.etag is None:
                    etag = self._bucket.create(key, data)
                else:
                    etag = self._bucket.put(key, data, match=segment.etag)
            except Changed:
                self._known = None
                if self._stored(key, data):
                    return
                end = self._end()
                continue
            except OSError:
                self._known = None
                raise
            self._known = _Open(segment.offset, data, etag)
            return

    def _stored(self, key: str, data: bytes) -> bool:
        """Whether what was refused is there: the client repeats a write whose answer was lost.

        Another writer's record that is equal in everything, its microsecond included, cannot be
        told from this one: then it is in the log once.
        """
        try:
            return self._bucket.get(key).data.startswith(data)
        except FileNotFoundError:
            return False

    def read(self, limit: int) -> bytes:
        """Return the whole file.

        Raises:
            FileNotFoundError: There is none.
            OSError: A segment in the middle is missing.
        """
        parts: list[bytes] = []
        size, last = 0, self._last_listed()
        while True:
            try:
                data = self._bucket.get(self._key(size), limit - size).data
            except FileNotFoundError:
                if size <= last:
                    raise OSError(errno.EIO, f"the segment at byte {size} is missing") from None
                break
            if not data:
                raise OSError(errno.EIO, f"the segment at byte {size} is empty")
            parts.append(data)
            size += len(data)
            if size > limit:
                raise TooLargeError(errno.EFBIG, f"longer than {limit} bytes")
            if len(data) < CLOSED_BYTES and size > last:
                break
        if not parts:
            raise FileNotFoundError(errno.ENOENT, "is missing", self._path)
        return b"".join(parts)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``."""
        parts = []
        for start, size in self._segments():
            begin, end = max(offset, start), min(offset + length, start + size)
            if begin < end:
                parts.append(self._bucket.get_range(self._key(start), begin - start, end - start))
        return b"".join(parts)

    def size(self) -> int:
        """Return the file's length in bytes; 0 if there is none."""
        segments = self._segments()
        return sum(segments[-1]) if segments else 0

    def _key(self, offset: int) -> str:
        return f"{self._path}/{offset:016d}"

    def _listed(self) -> list[tuple[int, int]]:
        found = self._bucket.list(f"{self._path}/")
        return [(int(name), size or 0) for name, size in found if _NAME.fullmatch(name)]

    def _last_listed(self) -> int:
        """First byte of the last segment that the listing has; -1 without one."""
        listed = self._listed()
        return listed[-1][0] if listed else -1

    def _segments(self) -> list[tuple[int, int]]:
        """First byte and length of each segment; a listing that lags behind is completed."""
        found = self._listed()
        offset = found.pop()[0] if found else 0
        while True:
            try:
                size = self._bucket.size(self._key(offset))
            except FileNotFoundError:
                return found
            found.append((offset, size))
            if size < CLOSED_BYTES:
                return found
            offset += size

    def _end(self) -> _Open:
        """Return the open segment as it is now."""
        offset, last = max(self._last_listed(), 0), None
        while True:
            try:
                found = self._bucket.get(self._key(offset))
            except FileNotFoundError:
                return last or _Open(0, b"", None)
            last = _Open(offset, found.data, found.etag)
            if len(found.data) < CLOSED_BYTES:
                return last
            offset += len(found.data)


def _last_line(data: bytes) -> bytes:
    return data[data.rfind(b"\n", 0, -1) + 1 :] if data else b""
