"""Reads what is signed: every doubt about a file becomes an error that names it."""

from __future__ import annotations

from typing import TypeVar

from toolkit.trust.dsse import MAX_ENVELOPE_BYTES, Envelope
from toolkit.trust.root import refused
from toolkit.trust.statements import Predicate, read_statement
from toolkit.trust.store import Store
from toolkit.values import Digest

__all__ = ["Reader", "statement", "stored"]

P = TypeVar("P", bound=Predicate)


class Reader:
    """A store whose errors are the verifier's.

    Args:
        store: The registry's files; not trusted.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, path: str, limit: int = MAX_ENVELOPE_BYTES) -> bytes:
        """Return a file's bytes.

        Raises:
            IntegrityError: It is missing, a link or a folder, too long, or cannot be read.
        """
        try:
            return self.store.read(path, limit)
        except FileNotFoundError as error:
            raise refused(path, "is missing") from error
        except OSError as error:
            raise refused(path, f"cannot be read: {error.strerror}") from error

    def names(self, path: str) -> list[str]:
        """Return what is in a folder; nothing if there is none.

        Raises:
            IntegrityError: It is not a folder.
        """
        try:
            return self.store.names(path)
        except OSError as error:
            raise refused(path, f"is not a folder: {error.strerror}") from error

    def exists(self, path: str) -> bool:
        """Whether a folder lists a name; what it is shows when it is read."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)

    def envelope(self, where: str) -> Envelope:
        """Read a stored envelope.

        Raises:
            IntegrityError: See :meth:`read`, or it is not one in its one byte form.
        """
        return stored(self.read(where), where)


def stored(data: bytes, where: str) -> Envelope:
    """Parse a stored envelope.

    Raises:
        IntegrityError: It is not one in its one byte form.
    """
    try:
        return Envelope.stored(data)
    except ValueError as error:
        raise refused(where, f"is not a signed file: {error}") from error


def statement(envelope: Envelope, kind: type[P], where: str) -> tuple[P, dict[str, Digest]]:
    """Parse what an envelope holds, after its signatures were verified.

    Raises:
        IntegrityError: It is of another kind, or not sound.
    """
    try:
        return read_statement(envelope.payload, kind)
    except ValueError as error:
        raise refused(where, f"was signed and is not what belongs here: {error}") from error
