"""One call through the gateway: what was asked, what was decided, what came back.

A call's *key* is the digest of (parent key, kind, name, arguments digest, occurrence): not a
position, so concurrent calls may arrive in another order and still find their record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.values.canonical import digest_json
from toolkit.values.copies import changed
from toolkit.values.labels import Labels
from toolkit.values.money import Money

__all__ = [
    "ANSWER",
    "IN_DOUBT",
    "Attempt",
    "CallKind",
    "CallRecord",
    "CallState",
    "Decision",
    "Effect",
    "Intent",
    "Outcome",
    "Usage",
    "Verdict",
    "call_key",
    "idempotency_key",
]


ANSWER = "answer"
"""Name of the question (kind ``human``) whose answer takes the place of a model's."""

IN_DOUBT = "in-doubt"
"""Name of the call of kind ``human`` that asks what became of the write it is made in."""


class CallKind(StrEnum):
    """What is asked of the outside."""

    MODEL = "model"
    TOOL = "tool"
    AGENT = "agent"
    DATA = "data"
    JOB = "job"
    HUMAN = "human"
    RESULT = "result"
    VALUE = "value"  # the time, a seed, a new id: made by the gateway, kept for the next attempt


class Effect(StrEnum):
    """Whether repeating a call is harmless."""

    READ = "read"
    WRITE = "write"


class Verdict(StrEnum):
    """What policy answers."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class CallState(StrEnum):
    """Where a call stands.  ``STARTED`` without a living gateway is *in doubt*."""

    STARTED = "started"
    OK = "ok"
    ERROR = "error"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, as the provider counted them.

    Attributes:
        input_tokens: Prompt tokens, cached ones included.
        output_tokens: Answer tokens.
        cached_tokens: Prompt tokens that were read from the provider's cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gateway decided before a call, and why.

    Attributes:
        verdict: What holds now.
        policies: Ids of the policies that decided.
        reasons: Sentences for a person, the policies' own ``@reason`` annotations first.
        policy_digest: The bundle that decided.
        production_verdict: In the sandbox, what the production bundle would have said.
        production_reasons: Why it would have said so.
        approver: Where the verdict is ``ASK``: the role that may decide.
        expires_s: Where the verdict is ``ASK``: seconds until the request expires.
        shadow: What policies in shadow mode would have said; they decide nothing.
        targets: Of a model call: the targets (``provider/model``) that it is about.  Those that may
            be asked; where the verdict is ``ASK``, those that a person is asked about.
    """

    verdict: Verdict
    policies: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    policy_digest: str | None = None
    production_verdict: Verdict | None = None
    production_reasons: tuple[str, ...] = ()
    approver: str | None = None
    expires_s: float | None = None
    shadow: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict is Verdict.ALLOW


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one provider.

    Attributes:
        target: ``provider/model``.
        started_us, ended_us: Microseconds since the epoch.
        error: Why it failed, ``None`` if it answered.
        reason: Why it was made, where it is not the first: ``retry``, ``fallback: timeout`` …
    """

    target: str
    started_us: int
    ended_us: int
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        state: ``OK``, ``ERROR`` or ``DENIED``.
        answer: A JSON value (for a model call: ``text``, ``data``, ``tool_calls``, ``finish_reason``).
        error: ``ToolkitError.to_json()`` of what went wrong.
        usage: Tokens, for model calls.
        cost: ``None`` means *unknown*, never free.
        provider, model: Who answered and with which model.
        attempts: Every try, in order.
        labels: Where the answer came from and who may see it.
        seconds: Seconds of work that budgets are charged with; ``None``: from intent to outcome.
    """

    state: CallState
    answer: Any = None
    error: dict[str, Any] | None = None
    usage: Usage | None = None
    cost: Money | None = None
    provider: str | None = None
    model: str | None = None
    attempts: tuple[Attempt, ...] = ()
    labels: Labels | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A call that is about to happen.

    Attributes:
        run_id: The run, session or evaluation it belongs to.
        kind, name: ``model`` and the route, ``tool`` and the tool, …
        arguments: JSON values; their digest is part of the key.
        parent: Key of the call that this one is made in, ``None`` at the top.
        occurrence: 0 for the first call of this (parent, kind, name, arguments), then 1, 2 …
        request_id: Fresh per call in the kernel; a resent request carries the same one.
        effect: ``write`` is never repeated without a person.
        cell: Notebook cell id, if known.
        case_id: Evaluation case, if any.
        agent: Name of the innermost agent that it is made in.
        purpose: Why, in the caller's words: the decision that the call serves.
        labels: Labels of each argument by its name; ``""`` where the arguments have no names.
        traceparent: The caller's own span (W3C Trace Context), if it sent one.
        idempotent: The caller says that a repetition with the same idempotency key changes nothing.
        at_gateway: A tool that the gateway itself calls; no kernel can say how it ended.
    """

    run_id: str
    kind: CallKind
    name: str
    arguments: Any
    parent: str | None = None
    occurrence: int = 0
    request_id: str = ""
    effect: Effect = Effect.READ
    cell: str | None = None
    case_id: str | None = None
    agent: str | None = None
    purpose: str | None = None
    labels: dict[str, Labels] = field(default_factory=dict)
    traceparent: str | None = None
    idempotent: bool = False
    at_gateway: bool = False
    # Asked for a dozen times on a call's way.  Not taken over by ``dataclasses.replace``: see :meth:`but`.
    _digest: str | None = field(default=None, init=False, repr=False, compare=False)
    _key: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def arguments_digest(self) -> str:
        """Digest of the canonical arguments, which nobody changes once they are here."""
        if self._digest is None:
            object.__setattr__(self, "_digest", digest_json(self.arguments))
        return str(self._digest)

    @property
    def key(self) -> str:
        """See :func:`call_key`."""
        if self._key is None:
            digest = self.arguments_digest
            key = call_key(self.parent, self.kind, self.name, digest, self.occurrence)
            object.__setattr__(self, "_key", key)
        return str(self._key)

    def but(self, **changes: Any) -> Intent:
        """Return the call with other members; digests of what stays the same are not made again."""
        if "arguments" in changes:
            return changed(self, _digest=None, _key=None, **changes)
        if _IDENTITY.isdisjoint(changes):
            return changed(self, **changes)
        return changed(self, _key=None, **changes)


_IDENTITY = frozenset({"parent", "kind", "name", "occurrence"})


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as the ledger keeps it; ``outcome`` is ``None`` while it is under way.

    Attributes:
        key: See :func:`call_key`; unique in a run together with ``generation``.
        generation: 0, and one more each time a person re-runs the cell in the sandbox.
        trace_key: Which trace of the run it is drawn in (≤ 200 spans each).
        started_us, ended_us: Microseconds since the epoch.
    """

    seq: int
    key: str
    generation: int
    intent: Intent
    decision: Decision
    trace_key: str
    started_us: int
    ended_us: int | None = None
    outcome: Outcome | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def call_id(self) -> str:
        """``run_id/key/generation``, unique everywhere."""
        return f"{self.intent.run_id}/{self.key}/{self.generation}"

    @property
    def idempotency_key(self) -> str:
        """See :func:`idempotency_key`."""
        return idempotency_key(self.call_id)

    @property
    def state(self) -> CallState:
        """``STARTED`` until an outcome is recorded."""
        return self.outcome.state if self.outcome else CallState.STARTED

    @property
    def latency_s(self) -> float | None:
        """Seconds from intent to outcome."""
        return None if self.ended_us is None else (self.ended_us - self.started_us) / 1e6


def call_key(
    parent: str | None, kind: str, name: str, arguments_digest: str, occurrence: int
) -> str:
    """Return the key of a call: 32 hex digits of the digest of its identity."""
    identity = [parent, str(kind), name, arguments_digest, occurrence]
    return digest_json(identity).partition(":")[2][:32]


def idempotency_key(call_id: str) -> str:
    """Return what tells the other side that two requests are one call: 32 hex digits.

    The same at every attempt of one call, and another one in every other run.
    """
    return digest_json(["idempotency", call_id]).partition(":")[2][:32]
