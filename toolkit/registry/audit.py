"""The audit log: one JSON line per record, each bound to the one before it.

Format ``audit/1``.  A line is the JSON object ``{n, at, event, by, body, prev, hash}`` with
sorted members, no blanks, and everything outside printable ASCII escaped, then a line feed;
``hash`` is the digest of the canonical JSON of the other six, ``prev`` the hash of the record
before (64 zeros at first), ``n`` counts from 1.  Record 1 is ``audit.created``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import Fault, IntegrityError
from toolkit.registry.manifest import loads_strict
from toolkit.registry.storage import Place, Torn, disk_errors
from toolkit.values import Clock, canonical_bytes, digest_json, iso_utc

__all__ = ["AUDIT_FILE", "AUDIT_FOLDER", "AuditLog", "AuditRecord", "LogEnds", "read_records"]

AUDIT_FOLDER = "log"
AUDIT_FILE = "audit.jsonl"
_FORMAT = "audit/1"
_START = "sha256:" + "0" * 64
_MAX_BODY_BYTES = 1 << 20
_MAX_LOG_BYTES = 1 << 40
_MEMBERS = {"n", "at", "event", "by", "body", "prev", "hash"}
_WHERE = f"{AUDIT_FOLDER}/{AUDIT_FILE}"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the log.

    Attributes:
        n: Position, from 1.
        at: When, ``2026-11-21T05:16:01.000000Z``.
        event: ``version.sealed``, ``alias.moved``, or what a caller recorded.
        by: Who.
        body: JSON facts.
        prev: Hash of the record before.
        hash: Digest of all the others.
    """

    n: int
    at: str
    event: str
    by: str
    body: dict[str, Any]
    prev: str
    hash: str

    @classmethod
    def of(  # noqa: PLR0917 - the record's own members, in their order
        cls, n: int, at: str, event: str, by: str, body: dict[str, Any], prev: str
    ) -> AuditRecord:
        """Build a record and its hash.

        Raises:
            ValueError: ``body`` is not JSON.
        """
        plain = json.loads(canonical_bytes(body))
        facts = {"n": n, "at": at, "event": event, "by": by, "body": plain, "prev": prev}
        return cls(n, at, event, by, plain, prev, digest_json(facts))

    def to_line(self) -> bytes:
        """Return the line, its line feed included."""
        text = json.dumps(
            asdict(self), ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        # DEL is ASCII, and a control character to a terminal all the same.
        return text.replace("\x7f", "\\u007f").encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> AuditRecord:
        """Read a line with its line feed.

        Raises:
            ValueError: It is not a record, its hash is wrong, or it has another byte form.
        """
        facts = loads_strict(line)
        if not isinstance(facts, dict) or set(facts) != _MEMBERS:
            raise ValueError("the line is not a record")
        told = facts.pop("hash")
        record = cls.of(**facts)
        if record.hash != told:
            raise ValueError(f"its hash is {told}, its facts have {record.hash}")
        if record.to_line() != line:
            raise ValueError("its bytes are not the one form a record has")
        return record


@dataclass(frozen=True, slots=True)
class LogEnds:
    """The ends of a log, for whoever keeps them elsewhere.

    Attributes:
        first: Hash of record 1: no other log has it.
        records: How many there are.
        head: Hash of the last one.
        middle: Hash of the record that was asked for; ``None`` if the log does not reach it.
    """

    first: str
    records: int
    head: str
    middle: str | None = None


def read_records(data: bytes) -> Iterator[AuditRecord | Fault]:
    """Yield every record of a log, and a fault where the chain or a line is broken.

    The chain goes on from what stands in the file, so one altered line gives one or two faults
    and not a fault for every line after it.
    """
    prev = _START
    for n, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", data), start=1):
        where = f"{_WHERE}:{n}"
        if not line.endswith(b"\n"):
            yield Fault(where, "the last line was cut by a crash", "the next record moves it aside")
            return
        try:
            record = AuditRecord.from_line(line)
        except (ValueError, TypeError, RecursionError) as error:
            yield Fault(where, f"is not a record of the log: {error}")
            prev = ""
            continue
        if prev and record.prev != prev:
            yield Fault(where, f"follows {record.prev}, the record before it is {prev}")
        if record.n != n:
            yield Fault(where, f"is numbered {record.n}")
        prev = record.hash
        yield record


class AuditLog:
    """Appends to the log and reads it.

    Args:
        place: The registry's folder and locks.
        clock: Where ``at`` comes from.

    Attributes:
        appended: How many times this object added to the log.
    """

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self.appended = 0

    def append(self, event: str, body: dict[str, Any], by: str) -> AuditRecord:
        """Write one record and make it durable; half a line that a crash left is recorded too.

        Raises:
            IntegrityError: The last record is damaged; nothing is added to a broken chain.
            InfrastructureError: The storage refused.
            ValueError: ``body`` is not JSON or longer than 1 MiB.
        """
        if len(canonical_bytes(body)) > _MAX_BODY_BYTES:
            raise ValueError(f"an audit record holds at most {_MAX_BODY_BYTES} bytes")
        record: AuditRecord | None = None

        def lines(line: bytes, torn: Torn | None) -> bytes:
            nonlocal record
            new: list[AuditRecord] = []
            last = _last_record(line) if line else None
            if last is None:
                creator = "registry" if torn else by
                new.append(self._make(None, "audit.created", {"format": _FORMAT}, creator))
            if torn:
                new.append(self._make([last, *new][-1], "audit.repaired", asdict(torn), "registry"))
            record = self._make([last, *new][-1], event, body, by)
            return b"".join(one.to_line() for one in (*new, record))

        self._place.extend(_WHERE, lines, keep=True)
        self.appended += 1
        assert record is not None  # noqa: S101 - extend called it
        return record

    def end(self) -> int:
        """Return how long the log is, in bytes, when nobody is writing to it."""
        with disk_errors(f"reading {_WHERE}"):
            return self._place.size(_WHERE)

    def read(self) -> bytes:
        """Return the log's bytes as they are now; nothing if there is no log.

        Raises:
            IntegrityError: It is a link, a folder or a device, or cannot be read.
        """
        try:
            return self._place.read(_WHERE, _MAX_LOG_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise IntegrityError(
                f"the audit log cannot be read: {error.strerror}",
                where=_WHERE,
                next_step="restore the log from a copy",
            ) from error

    def ends(self, middle: int = 0) -> LogEnds | None:
        """Return first, last and one more hash; only these records are read, no link is followed.

        Args:
            middle: Number of that record; 0: none.

        Raises:
            IntegrityError: One of these records is damaged.
        """
        lines = self.read().split(b"\n")[:-1]
        if not lines:
            return None
        wanted = {1, len(lines), *([middle] if 0 < middle <= len(lines) else ())}
        hashes = {n: _last_record(lines[n - 1] + b"\n", n).hash for n in wanted}
        return LogEnds(hashes[1], len(lines), hashes[len(lines)], hashes.get(middle))

    def records(self) -> Iterator[AuditRecord]:
        """Yield every record, oldest first; see :meth:`toolkit.registry.Registry.audit`."""
        data = self.read()
        for item in read_records(data[: data.rfind(b"\n") + 1]):
            if isinstance(item, Fault):
                raise IntegrityError(
                    f"the audit log is damaged: {item.message}",
                    where=item.where,
                    next_step="run `toolkit registry verify` and restore the log from a copy",
                )
            yield item

    def _make(
        self, last: AuditRecord | None, event: str, body: dict[str, Any], by: str
    ) -> AuditRecord:
        n, prev = (last.n + 1, last.hash) if last else (1, _START)
        return AuditRecord.of(n, iso_utc(self._clock.now_us()), event, by, body, prev)


def _last_record(line: bytes, n: int | None = None) -> AuditRecord:
    try:
        return AuditRecord.from_line(line)
    except (ValueError, TypeError, RecursionError) as error:
        which = "the last record" if n is None else f"record {n}"
        raise IntegrityError(
            f"{which} of the audit log is damaged: {error}",
            where=_WHERE if n is None else f"{_WHERE}:{n}",
            next_step="run `toolkit registry verify` and restore the log from a copy",
        ) from error
