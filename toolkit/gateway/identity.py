"""Who is calling: tokens to runs, and new sandbox sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from toolkit.errors import CallDenied, UsageError
from toolkit.gateway.team import TeamToken, TeamTokens
from toolkit.ledger import Ledger, Occupied
from toolkit.values import (
    Clock,
    Environment,
    RunKind,
    RunRecord,
    RunState,
    SystemClock,
    digest_bytes,
)

__all__ = ["TEAM_TOKEN", "Identity", "new_token", "token_digest"]

TEAM_TOKEN = "team_token"  # noqa: S105 - the tag that names a token
"""The tag of a session that was opened with a team token: the token's id."""

_CACHE_US = 500_000
"""How long a run's record is believed before it is read again: a stopped run is refused soon."""
_MOST_KNOWN = 10_000


def new_token() -> str:
    """Return a fresh bearer token (256 bits)."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """Return what the ledger stores instead of the token."""
    return digest_bytes(token.encode())


@dataclass
class Identity:
    """Sessions and runs by token.

    Attributes:
        ledger: Where runs are recorded.
        user, team: Who owns sandbox sessions of this gateway.
        tokens: Who may open sessions from elsewhere; ``None`` means nobody.
    """

    ledger: Ledger
    user: str
    team: str | None = None
    tokens: TeamTokens | None = None
    clock: Clock = field(default_factory=SystemClock)
    _known: dict[str, tuple[int, RunRecord]] = field(default_factory=dict)

    def opener(self, authorization: str | None) -> TeamToken:
        """Return the team token that a request from elsewhere shows.

        Raises:
            CallDenied: It shows none, or none that is valid.
        """
        token = _bearer(authorization)
        if token is None or self.tokens is None:
            raise CallDenied(
                "a session over TCP needs a team token",
                next_step="set TOOLKIT_TOKEN to one of `toolkit gateway token create --user NAME`",
            )
        return self.tokens.opened_by(token)

    def open_session(
        self,
        notebook: str | None,
        request_id: str,
        opener: TeamToken | None = None,
        process: str | None = None,
    ) -> tuple[RunRecord, str]:
        """Record a new sandbox session and return it with its token.

        A repeated request (the answer to the first one was lost) finds the same session and
        replaces its token, which nobody else has seen.

        Args:
            notebook: Workspace-relative path, if known.
            request_id: Fresh per session, at least 16 characters.
            opener: The team token it is opened with; ``None`` means the gateway's own user.
            process: ``host:pid:start`` of the kernel, if it is of this machine: the session ends
                with it.

        Raises:
            UsageError: The request id is missing.
            CallDenied: The request id belongs to somebody else's session.
        """
        if len(request_id) < 16:
            raise UsageError("the session request carries no request_id")
        token = new_token()
        run_id = f"session-{request_id[:20]}"
        run = self.ledger.create_run(
            RunRecord(
                run_id=run_id,
                kind=RunKind.SESSION,
                environment=Environment.SANDBOX,
                user=self.user if opener is None else opener.user,
                team=self.team if opener is None else opener.team,
                tags={} if opener is None else {TEAM_TOKEN: opener.id},
                state=RunState.RUNNING,
                notebook=notebook,
                token_digest=token_digest(token),
                runner=process,
                started_us=self.clock.now_us(),
            )
        )
        if run.token_digest != token_digest(token):
            if run.tags.get(TEAM_TOKEN) != (None if opener is None else opener.id):
                raise CallDenied("this session was opened by somebody else")
            run = self.ledger.update_run(run_id, token_digest=token_digest(token))
        return run, token

    def remembered(self, authorization: str | None) -> RunRecord | None:
        """Return the run of a token that was looked up just now; reads nothing."""
        known = self._known.get(token_digest(authorization or ""))
        if known is not None and 0 <= self.clock.now_us() - known[0] < _CACHE_US:
            return known[1]
        return None

    def quickly(self, authorization: str | None) -> RunRecord | None:
        """Return what :meth:`who` does, where that takes no wait; ``None`` means: ask that in a thread.

        For an event loop: at most one question to a local database.
        """
        if (known := self.remembered(authorization)) is not None:
            return known
        token = _bearer(authorization)
        if token is None:
            return None
        now = self.clock.now_us()
        try:
            run = self.ledger.find_run_at_once(token_digest(token))
        except Occupied:
            return None
        if run is None or run.state.terminal or TEAM_TOKEN in run.tags:
            return None
        return self._keep(authorization, now, run)

    def who(self, authorization: str | None) -> RunRecord:
        """Return the run that a bearer token belongs to.

        Raises:
            CallDenied: No token, an unknown token, or the run has ended.
        """
        if (known := self.remembered(authorization)) is not None:
            return known
        token = _bearer(authorization)
        if token is None:
            raise CallDenied(
                "the request carries no run token",
                next_step="load the extension again: %load_ext toolkit",
            )
        now = self.clock.now_us()
        run = self.ledger.find_run(token_digest(token))
        if run is None:
            raise CallDenied(
                "the run token is unknown here",
                next_step="restart the kernel and load the extension again",
            )
        if run.state.terminal:
            raise CallDenied(
                f"the run {run.run_id} has ended ({run.state}); its token is no longer valid",
                next_step="start a new run",
            )
        if (opened_with := run.tags.get(TEAM_TOKEN)) is not None:
            if self.tokens is None:
                raise CallDenied("this gateway takes no team tokens any more")
            self.tokens.still(opened_with)
        return self._keep(authorization, now, run)

    def _keep(self, authorization: str | None, now: int, run: RunRecord) -> RunRecord:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[token_digest(authorization or "")] = (now, run)
        return run


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
