"""What this machine saw last, kept where whoever can write the registry cannot write.

``.toolkit/trust/state.json``, format ``trust-state/1``.  Without it a registry that is put back
as it was last month, with all its signatures, cannot be told from the present one.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from toolkit.errors import Fault, InfrastructureError, InvalidFile
from toolkit.trust.shapes import DigestText, Frozen, shape_faults
from toolkit.trust.statements import LogMark
from toolkit.trust.strict import parse_json
from toolkit.values import Digest

__all__ = ["IndexMark", "LastSeen", "StateFile"]

_LOCK_TIMEOUT_S = 30.0
_MAX_BYTES = 16 << 20
_Count = Annotated[int, Field(ge=0)]


class IndexMark(Frozen):
    """The newest signed thing of one name: an alias index, a policy change.

    Attributes:
        epoch: The root's epoch; 0 where there is none.
        number: Its count.
        digest: Digest of what was signed.
    """

    epoch: _Count
    number: _Count
    digest: DigestText

    @property
    def order(self) -> tuple[int, int]:
        """Greater is newer."""
        return self.epoch, self.number


class LastSeen(Frozen):
    """The newest of everything that was accepted here.

    Attributes:
        pinned: Digest of a root that must be in the registry's chain of roots.
        root: The newest root: its version as ``number``.
        log: The longest audit log.
        indexes: Alias index by job.
        policies: Policy change by environment.
        at_us: When something was last accepted, microseconds since the epoch.
    """

    format: Literal["trust-state/1"] = "trust-state/1"
    pinned: DigestText
    root: IndexMark | None = None
    log: LogMark | None = None
    indexes: dict[str, IndexMark] = Field(default_factory=dict)
    policies: dict[str, IndexMark] = Field(default_factory=dict)
    at_us: _Count = 0

    def merged(self, other: LastSeen) -> LastSeen:
        """Return the newer of each part: two processes may have looked at the same time."""
        logs = [mark for mark in (self.log, other.log) if mark]
        return LastSeen(
            pinned=self.pinned,
            root=_newer(self.root, other.root),
            log=max(logs, key=lambda mark: mark.records) if logs else None,
            indexes=_newest(self.indexes, other.indexes),
            policies=_newest(self.policies, other.policies),
            at_us=max(self.at_us, other.at_us),
        )


def _newer(one: IndexMark | None, other: IndexMark | None) -> IndexMark | None:
    marks = [mark for mark in (one, other) if mark]
    return max(marks, key=lambda mark: mark.order) if marks else None


def _newest(one: dict[str, IndexMark], other: dict[str, IndexMark]) -> dict[str, IndexMark]:
    found = {}
    for name in sorted({*one, *other}):
        mark = _newer(one.get(name), other.get(name))
        if mark:
            found[name] = mark
    return found


class StateFile:
    """The file; process- and thread-safe.

    Args:
        path: ``.toolkit/trust/state.json``; its folder is made on the first write, mode 0700.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> LastSeen | None:
        """Return what was seen; ``None`` if nothing ever was.

        Raises:
            InvalidFile: The file is damaged; nothing is accepted until it is mended.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged([f"cannot be read: {error.strerror}"]) from error
        try:
            return LastSeen.model_validate(parse_json(data))
        except ValidationError as error:
            raise self._damaged(shape_faults(error)) from error
        except ValueError as error:
            raise self._damaged([str(error)]) from error

    def advance(self, seen: LastSeen) -> LastSeen:
        """Write what is newer in ``seen`` and return all of it.

        Raises:
            InfrastructureError: The disk refused, or another process holds the file.
        """
        return self._write(lambda old: old.merged(seen) if old else seen)

    def pin(self, digest: Digest) -> None:
        """Forget everything and trust the chain that holds this root: a person decided so."""
        self._write(lambda _: LastSeen(pinned=digest), damaged_too=True)

    def _write(
        self, make: Callable[[LastSeen | None], LastSeen], *, damaged_too: bool = False
    ) -> LastSeen:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(folder / ".state.lock", timeout=_LOCK_TIMEOUT_S):
                old = None if damaged_too else self.load()
                new = make(old)
                if new != old:
                    self._replace(json.dumps(new.model_dump(), indent=1).encode() + b"\n")
                return new
        except (OSError, Timeout) as error:
            reason = getattr(error, "strerror", None) or "another process holds it"
            raise InfrastructureError(
                f"what was seen last cannot be kept: {reason}",
                where=str(self.path),
                next_step="make room or give this user write access, then run the command again",
            ) from error

    def _replace(self, data: bytes) -> None:
        scratch = self.path.with_name(f".state-{secrets.token_hex(8)}")
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _damaged(self, faults: list[str]) -> InvalidFile:
        step = "find out why, then say which root you trust: `toolkit trust pin DIGEST`"
        return InvalidFile.of(str(self.path), [Fault("file", one, step) for one in faults])
