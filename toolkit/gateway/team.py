"""Tokens with which people of a team open sessions at a shared gateway.

``tokens.json`` in the workspace's ``.toolkit/`` (mode 0600) holds their digests; a token itself is
shown once, when it is made.  It opens sessions and nothing else; the sessions that it opened end
with it: their next call is refused when it was revoked or has expired.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from toolkit.errors import CallDenied, ConfigurationError, NotFound, UsageError
from toolkit.values import Clock, SystemClock, digest_bytes

__all__ = ["TeamToken", "TeamTokens"]

_PREFIX = "tkt_"
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class TeamToken:
    """What is kept of one token.

    Attributes:
        id: Names it in lists and in the runs that it opened.
        digest: SHA-256 of the token.
        user, team: Who acts with it.
        created_us, expires_us, revoked_us: Microseconds since the epoch.
    """

    id: str
    digest: str
    user: str
    team: str | None
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None

    def valid(self, now_us: int) -> bool:
        """Whether it may be used now."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


@dataclass
class TeamTokens:
    """The tokens of one gateway; read again when the file changes.

    Attributes:
        path: The file; it need not exist.
    """

    path: Path
    clock: Clock = field(default_factory=SystemClock)
    _stamp: tuple[int, int, int] | None = None
    _held: tuple[TeamToken, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, user: str, team: str | None, ttl_s: float | None) -> tuple[TeamToken, str]:
        """Make a token and return what is kept of it, and the token itself.

        Raises:
            UsageError: The user has no name, or the time to live is not positive.
            ConfigurationError: The file cannot be read or written.
        """
        if not user.strip() or (ttl_s is not None and ttl_s <= 0):
            raise UsageError("a token needs a user and a time to live above 0")
        shown = _PREFIX + secrets.token_urlsafe(32)
        now = self.clock.now_us()
        until = None if ttl_s is None else now + int(ttl_s * _US)
        made = TeamToken(secrets.token_hex(4), _digest(shown), user.strip(), team, now, until)
        with self._changing() as held:
            held.append(made)
        return made, shown

    def revoke(self, token_id: str) -> TeamToken:
        """End a token, and with it the sessions that it opened.

        Raises:
            NotFound: There is no such token.
        """
        with self._changing() as held:
            for number, one in enumerate(held):
                if one.id == token_id:
                    now = self.clock.now_us()
                    held[number] = replace(one, revoked_us=one.revoked_us or now)
                    return held[number]
        raise NotFound(
            f"there is no token {token_id!a}", next_step="see `toolkit gateway token list`"
        )

    def all(self) -> tuple[TeamToken, ...]:
        """Return every token, the revoked ones included, in the order they were made."""
        return self._current()

    def opened_by(self, token: str) -> TeamToken:
        """Return the valid token that somebody shows.

        Raises:
            CallDenied: It is unknown, revoked or expired.
        """
        digest = _digest(token)
        for one in self._current():
            if secrets.compare_digest(one.digest, digest):
                self._check(one)
                return one
        raise CallDenied("the team token is unknown here", next_step=_NEW_TOKEN)

    def still(self, token_id: str) -> None:
        """Check that a token that opened a session is still valid.

        Raises:
            CallDenied: It is not.
        """
        for one in self._current():
            if one.id == token_id:
                self._check(one)
                return
        raise CallDenied("the session's team token is gone", next_step=_NEW_TOKEN)

    def _check(self, one: TeamToken) -> None:
        if not one.valid(self.clock.now_us()):
            state = "was revoked" if one.revoked_us is not None else "has expired"
            raise CallDenied(f"the team token {one.id} {state}", next_step=_NEW_TOKEN)

    def _current(self) -> tuple[TeamToken, ...]:
        with self._lock:
            stamp = self._look()
            if stamp is None:
                self._stamp, self._held = None, ()
            elif stamp != self._stamp:
                self._held, self._stamp = tuple(_read(self.path)), stamp
            return self._held

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def _changing(self) -> Iterator[list[TeamToken]]:
        with FileLock(f"{self.path}.lock", mode=0o600):
            held = _read(self.path) if self.path.exists() else []
            yield held
            temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"tokens": [asdict(one) for one in held]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)


_NEW_TOKEN = "ask the owner of the gateway for one: toolkit gateway token create --user NAME"  # noqa: S105 - a command


def _digest(token: str) -> str:
    return digest_bytes(token.encode("utf-8", "surrogatepass"))


def _read(path: Path) -> list[TeamToken]:
    try:
        return [TeamToken(**one) for one in json.loads(path.read_text("utf-8"))["tokens"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the team's tokens cannot be read: {type(error).__name__}",
            where=str(path),
            next_step="restore the file, or remove it and create the tokens again",
        ) from error
