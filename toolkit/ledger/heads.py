"""Heads of chains, kept outside of the ledger: what shows that a whole chain was rewritten.

Format ``heads/1``.  One line for each time that a run ended or a stop was said or taken back: the JSON
object ``{format, run_id, n, hash, at_us, prev}`` with sorted members and no blanks, then a line feed.
``prev`` is the digest of the line before (without its line feed), the empty text at first.  So a line
that is changed or taken from the middle is found; whoever can write both this file and the ledger can
still take lines from its end.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import LedgerError
from toolkit.ledger.records import ChainFault, ChainHead, FaultKind
from toolkit.values import digest_bytes

__all__ = ["HeadFile"]

_FORMAT = "heads/1"
_NO_HEAD = "is no head of a chain"
_VERSION = re.compile(r"heads/[0-9]{1,6}", re.ASCII)
_MOST_LINE = 4_096
_MEMBERS = {"format", "run_id", "n", "hash", "at_us", "prev"}


@dataclass(frozen=True, slots=True)
class HeadFile:
    """Appends heads to a file and reads them; several processes may.

    Attributes:
        path: The file, made with the first head.
    """

    path: Path

    def append(self, head: ChainHead, at_us: int) -> None:
        """Keep a head durably.

        Raises:
            OSError: It cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            tail = os.pread(file, _MOST_LINE, max(0, size - _MOST_LINE))
            torn = bool(tail) and not tail.endswith(b"\n")
            last = tail.rstrip(b"\n").rpartition(b"\n")[2]
            facts = {
                "format": _FORMAT,
                "run_id": head.run_id,
                "n": head.n,
                "hash": head.hash,
                "at_us": at_us,
                "prev": digest_bytes(last) if last else "",
            }
            line = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
            os.write(file, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> tuple[list[ChainHead], list[ChainFault]]:
        """Return the heads, and what is wrong with the file.

        A line that a crash cut short is a fault, and so is one that does not follow the line before.

        Raises:
            LedgerError: It is there and cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise LedgerError(
                f"the heads of chains cannot be read: {error.strerror}",
                where=str(self.path),
                next_step="give yourself the right to read the file",
            ) from error
        heads: list[ChainHead] = []
        faults: list[ChainFault] = []
        before = b""
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            found = _head(line)
            if isinstance(found, str):
                faults.append(self._fault(f"line {number} {found}"))
            else:
                head, prev = found
                heads.append(head)
                if prev != (digest_bytes(before) if before else ""):
                    faults.append(self._fault(f"line {number} does not follow line {number - 1}"))
            before = line
        return heads, faults

    def _fault(self, message: str) -> ChainFault:
        return ChainFault(self.path.name, FaultKind.HEAD, message)


def _head(line: bytes) -> tuple[ChainHead, str] | str:
    """Return a head and the digest of the line before, or what is wrong with the line."""
    try:
        facts = json.loads(line)
        if isinstance(facts, dict) and _newer(facts.get("format")):
            return (
                f"has format {facts['format']}, and this toolkit knows {_FORMAT}: verify with the "
                "toolkit that wrote it, or a later one"
            )
        if set(facts) != _MEMBERS or facts["format"] != _FORMAT:
            return _NO_HEAD
        return ChainHead(str(facts["run_id"]), int(facts["n"]), str(facts["hash"])), facts["prev"]
    except (ValueError, TypeError, RecursionError):
        return _NO_HEAD


def _newer(name: object) -> bool:
    return isinstance(name, str) and name != _FORMAT and bool(_VERSION.fullmatch(name))
