"""One span as plain data, no vendor."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SpanData", "SpanEvent"]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened during a span.

    Attributes:
        name: ``attempt`` or ``exception``.
        at_ns: Nanoseconds since the epoch.
        attributes: Plain values.
    """

    name: str
    at_ns: int
    attributes: dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class SpanData:
    """One span, ready to be stored.

    Attributes:
        trace, span: 128 and 64 bit ids.
        parent: Span id of the parent, ``None`` for a root.
        name: See the conventions: ``{operation} {model|tool|agent}``.
        attributes: JSON text by attribute name.
        start_ns, end_ns: Nanoseconds since the epoch; ``end_ns`` is never before ``start_ns``.
        error: Message of the failure, ``None`` for success.
        events: See :class:`SpanEvent`.
        caller: Ids of trace and span of the caller's own span elsewhere; becomes a link.
        attempts: Spans of the call's attempts, children of this one; stored together with it.
    """

    trace: int
    span: int
    parent: int | None
    name: str
    attributes: dict[str, str]
    start_ns: int
    end_ns: int
    error: str | None = None
    events: tuple[SpanEvent, ...] = field(default=())
    caller: tuple[int, int] | None = None
    attempts: tuple[SpanData, ...] = ()

    @property
    def mlflow_trace_id(self) -> str:
        """MLflow's name of the trace: ``tr-`` and 32 hex digits."""
        return f"tr-{self.trace:032x}"

    @property
    def size_bytes(self) -> int:
        """Roughly how much the span and its attempts weigh."""
        own = sum(map(len, self.attributes.values())) + 400
        return own + sum(attempt.size_bytes for attempt in self.attempts)
