"""How an answer is said in a protocol: whole, or piece by piece."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from toolkit.gateway.doors.reading import Asked
from toolkit.values import CallRecord, Intent, Usage, digest_bytes

__all__ = ["KEEP_ALIVE", "Heard", "Piece", "Spoken", "Voice", "sse"]

KEEP_ALIVE = b": still working\n\n"
"""A comment of server-sent events, which every reader skips."""


def sse(data: Any, event: str | None = None) -> bytes:
    """Return one server-sent event (WHATWG HTML, 9.2)."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: More text.
        tool_calls: Pieces of calls in the shape of OpenAI's chunks: ``index`` says which call,
            ``function.arguments`` is more of its JSON text.
    """

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a recorded call answered.

    Attributes:
        text, refusal, tool_calls, finish_reason, logprobs: As the provider answered.
        usage: Zero tokens where nothing was counted.
        model: Who answered.
        created: Seconds since the epoch.
    """

    text: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    logprobs: list[float] | None
    usage: Usage
    model: str
    created: int

    @classmethod
    def of(cls, call: CallRecord) -> Spoken:
        """Read the record of a call that succeeded."""
        outcome = call.outcome
        answer = outcome.answer if outcome is not None and isinstance(outcome.answer, dict) else {}
        return cls(
            text=answer.get("text"),
            refusal=answer.get("refusal"),
            tool_calls=list(answer.get("tool_calls") or []),
            finish_reason=str(answer.get("finish_reason") or "stop"),
            logprobs=answer.get("logprobs"),
            usage=(outcome.usage if outcome is not None else None) or Usage(),
            model=(outcome.model if outcome is not None else None) or call.intent.name,
            created=call.started_us // 1_000_000,
        )


@dataclass
class Heard:
    """What of an answer went out already."""

    text: str = ""
    calls: dict[int, str] = field(default_factory=dict)

    def add(self, delta: Piece) -> None:
        """Count a piece."""
        self.text += delta.text
        for number, call in enumerate(delta.tool_calls):
            index = int(call.get("index", number))
            more = (call.get("function") or {}).get("arguments") or ""
            self.calls[index] = self.calls.get(index, "") + more

    def missing(self, spoken: Spoken) -> Piece:
        """Return what the record holds beyond it: all of it, when the call was recorded before.

        What was cut out of a record after it went out cannot be unsaid; then nothing is added.
        """
        text = spoken.text or ""
        rest = text[len(self.text) :] if text.startswith(self.text) else ""
        calls = [
            {**call, "index": index}
            for index, call in enumerate(spoken.tool_calls)
            if index not in self.calls
        ]
        return Piece(rest, tuple(calls))

    def unsaid(self, spoken: Spoken) -> bool:
        """Whether something went out that the record does not hold: it was cut out there."""
        if not (spoken.text or "").startswith(self.text):
            return True
        kept = [str((call.get("function") or {}).get("arguments")) for call in spoken.tool_calls]
        return any(said and kept[index : index + 1] != [said] for index, said in self.calls.items())


class Voice(ABC):
    """One answer in one protocol.

    Attributes:
        asked: The request.
        intent: The call; names in the answer follow from it, so that a replay has the same ones.
        model: The route's model, until the answer tells who gave it.
    """

    keep_alive: bytes = KEEP_ALIVE

    def __init__(self, asked: Asked, intent: Intent, model: str) -> None:
        self.asked = asked
        self.intent = intent
        self.model = model
        self.created = int(time.time())
        self.heard = Heard()

    def name(self, prefix: str, *more: object) -> str:
        """Return an id for (a part of) the answer."""
        whole = "/".join((self.intent.run_id, self.intent.key, prefix, *map(str, more)))
        return prefix + digest_bytes(whole.encode()).rpartition(":")[2][:24]

    @abstractmethod
    def whole(self, spoken: Spoken) -> dict[str, Any]:
        """Return the answer as one JSON object."""

    @abstractmethod
    def opening(self) -> Iterator[bytes]:
        """Yield the events before the first piece."""

    @abstractmethod
    def piece(self, delta: Piece) -> Iterator[bytes]:
        """Yield the events of one piece."""

    @abstractmethod
    def ending(self, spoken: Spoken, rest: Piece) -> Iterator[bytes]:
        """Yield what was not said yet, and the end."""

    @abstractmethod
    def failing(self, body: dict[str, Any]) -> Iterator[bytes]:
        """Yield the end of a stream that failed; ``body`` is the protocol's error body."""
