"""Places in the audit log: where it is now, and whether a remembered place is still in it.

The log's form is the registry's (``audit/1``): one JSON line per record, ``hash`` being the
digest of the other members.  Only the line at the place is read; that all lines before it are
linked to it is what `toolkit registry verify` recomputes.
"""

from __future__ import annotations

from toolkit.trust.root import refused
from toolkit.trust.statements import LogMark
from toolkit.trust.store import AUDIT, Store
from toolkit.trust.strict import parse_json
from toolkit.values import digest_json

__all__ = ["EMPTY_LOG", "check_mark", "mark_at"]

EMPTY_LOG = LogMark(records=0, bytes=0, head="sha256:" + "0" * 64)
# A record's body holds at most 1 MiB of canonical JSON, each byte of which may be escaped.
_CHUNKS_BYTES = (1 << 13, 1 << 23)


def mark_at(store: Store, length: int) -> LogMark:
    """Return the place that the record ending at a byte offset makes.

    Raises:
        IntegrityError: No record ends there.
    """
    if length == 0:
        return EMPTY_LOG
    for size in _CHUNKS_BYTES:
        start = max(0, length - size)
        try:
            data = store.read_at(AUDIT, start, length - start)
        except OSError as error:
            raise refused(AUDIT, f"cannot be read: {error.strerror}") from error
        if len(data) < length - start:
            raise refused(AUDIT, f"was cut: it had {length} bytes when it was last vouched for")
        begin = data.rfind(b"\n", 0, -1) + 1
        if begin or not start:
            return _mark(data[begin:], length)
    raise refused(AUDIT, f"has no record that ends at byte {length}")


def check_mark(store: Store, mark: LogMark) -> None:
    """Check that a place is still in the log.

    Raises:
        IntegrityError: The log was cut before it, or was written again.
    """
    found = mark_at(store, mark.bytes)
    if found != mark:
        raise refused(
            AUDIT,
            f"was written again: record {mark.records} had the hash {mark.head}, "
            f"record {found.records} there has {found.head}",
        )


def _mark(line: bytes, length: int) -> LogMark:
    try:
        if not line.endswith(b"\n"):
            raise ValueError("the line goes on")  # noqa: TRY301 - told below, once
        record = parse_json(line)
        told = record.pop("hash")
        if digest_json(record) != told:
            raise ValueError("its hash is wrong")  # noqa: TRY301 - told below, once
        return LogMark(records=record["n"], bytes=length, head=told)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise refused(AUDIT, f"has no record that ends at byte {length}: {error}") from error
