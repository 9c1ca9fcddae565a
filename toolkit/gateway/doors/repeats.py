"""Which call a request of an SDK is: a new one, or one that was sent before.

The toolkit's own client counts its calls and gives each a ``request_id``.  The SDKs do neither, so
the gateway counts for them, per run token and cell, what a person's notebook would count: how often
the same call was made.  A request is *sent again* when

* it carries an ``idempotency-key`` that came before with the same token, or
* its ``x-stainless-retry-count`` is above 0 (OpenAI's and Anthropic's clients count their own
  attempts, and send no key by themselves): then it is the earliest call of the same arguments
  whose answer did not reach anybody, else the last one.

Known limits: of several *equal* requests under way at once the retried one cannot be told from its
twins (each twin still is asked at most once more, and nothing is asked twice for one answer).  A
client that repeats without either header makes a new call.  After a restart of the gateway counts
are read from the ledger, where the calls carry the token's mark.  A call that was answered is
forgotten when a thousand other ones came after it; who sends it again makes a new one.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from toolkit.client import Counters
from toolkit.errors import Conflict
from toolkit.values import CallRecord, CallState, Intent

__all__ = ["Claim", "Repeats", "Sent"]

_MOST_TOKENS = 1_000
_MOST_KEYS = 10_000
_MOST_CALLS = 1_000
_MARK = 16


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request's headers say about its being sent again.

    Attributes:
        retry: ``x-stainless-retry-count``.
        key: ``idempotency-key``.
    """

    retry: int = 0
    key: str | None = None


@dataclass(eq=False)
class Claim:
    """One call of an SDK.

    Attributes:
        intent: With its occurrence and request id.
        again: Whether this request was sent before.
        answered: Whether a reply reached somebody who still listened.
        refused: Whether it ended without being asked, so that asking again is a new call.
    """

    intent: Intent
    again: bool = False
    answered: bool = False
    refused: bool = False

    def ended(self, call: CallRecord | None, *, heard: bool) -> None:
        """Tell how it ended; ``None``: it was refused before it was recorded."""
        self.answered = self.answered or heard
        self.refused = call is None or call.state is CallState.DENIED


@dataclass
class _Token:
    """What was asked with one token."""

    cell: str | None = None
    counters: Counters = field(default_factory=Counters)
    claims: OrderedDict[tuple[str, str, str], list[Claim]] = field(default_factory=OrderedDict)
    keys: OrderedDict[str, Claim] = field(default_factory=OrderedDict)
    # What the ledger held of a call is counted once: nothing is forgotten then.
    recovered: bool = False

    def forget(self) -> None:
        """Let go of the oldest call, if there are many and its answers have arrived."""
        if len(self.claims) <= _MOST_CALLS or self.recovered:
            return
        oldest = next(iter(self.claims))
        if all(claim.answered for claim in self.claims[oldest]):
            del self.claims[oldest]
        else:
            self.claims.move_to_end(oldest)


class Repeats:
    """Counts the calls of SDKs.

    Args:
        lookup: Returns the ledger's record of a run's call by key; blocking.
        since_us: When this process began: what was recorded before has to be looked up.
    """

    def __init__(self, lookup: Callable[[str, str], CallRecord | None], since_us: int) -> None:
        self._lookup = lookup
        self._since_us = since_us
        self._tokens: OrderedDict[str, _Token] = OrderedDict()

    def start_cell(self, token: str, cell: str) -> None:
        """Tell that a cell begins, for the first time or again: its calls count as before."""
        held = self._token(token)
        held.cell = cell
        held.counters.start_cell(cell)
        # What an earlier execution of the cell asked is no attempt of this one's.
        held.claims.clear()

    def cell(self, token: str) -> str | None:
        """Return the cell that runs, if it was told."""
        return self._token(token).cell

    def must_look(self, token: str, intent: Intent, began_us: int) -> bool:
        """Whether :meth:`recover` has to come first: an earlier gateway may have known the token."""
        return began_us < self._since_us and _identity(intent) not in self._token(token).claims

    def recover(self, token: str, intent: Intent) -> None:
        """Count what the ledger holds of a call under this token; reads it."""
        found: list[Claim] = []
        while True:
            one = replace(intent, occurrence=len(found))
            call = self._lookup(intent.run_id, one.key)
            if call is None or not call.intent.request_id.startswith(_mark(token)):
                break
            one = replace(one, request_id=call.intent.request_id)
            found.append(Claim(one, answered=call.outcome is not None))
        held = self._token(token)
        held.recovered = True
        if _identity(intent) not in held.claims:
            held.claims[_identity(intent)] = found
            for _ in found:
                held.counters.next(_identity(intent))

    def claim(self, token: str, intent: Intent, sent: Sent) -> Claim:
        """Return the call that a request is.

        Raises:
            Conflict: Its idempotency key was used for another call.
        """
        held = self._token(token)
        identity = _identity(intent)
        claims = held.claims.setdefault(identity, [])
        if sent.key is not None and (known := held.keys.get(sent.key)) is not None:
            if _identity(known.intent) != identity:
                raise Conflict(
                    "the idempotency key was used for another call",
                    where="idempotency-key",
                    next_step="give each call a key of its own",
                )
            if not known.refused:
                return self._again(known)
        if sent.retry > 0 and claims:
            waiting = [one for one in claims if not one.answered]
            one = waiting[0] if waiting else claims[-1]
            if not one.refused:
                return self._again(one)
        fresh = Claim(
            intent.but(
                occurrence=held.counters.next(identity),
                request_id=_mark(token) + secrets.token_hex(16),
            )
        )
        # Answered calls are forgotten but for the last one: nobody sends them again.
        held.claims[identity] = [*[one for one in claims if not one.answered][-99:], fresh]
        held.claims.move_to_end(identity)
        held.forget()
        if sent.key is not None:
            held.keys[sent.key] = fresh
            if len(held.keys) > _MOST_KEYS:
                held.keys.popitem(last=False)
        return fresh

    @staticmethod
    def _again(claim: Claim) -> Claim:
        claim.again = True
        return claim

    def _token(self, token: str) -> _Token:
        held = self._tokens.get(token)
        if held is None:
            held = self._tokens[token] = _Token()
            if len(self._tokens) > _MOST_TOKENS:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(token)
        return held


def _identity(intent: Intent) -> tuple[str, str, str]:
    return f"{intent.parent or ''}/{intent.kind}", intent.name, intent.arguments_digest


def _mark(token: str) -> str:
    """What the request ids of a token's calls begin with; a part of its digest, never of itself."""
    return f"sdk-{token.rpartition(':')[2][:_MARK]}-"
