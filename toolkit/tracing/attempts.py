"""The attempts of a call: events of its span, and spans below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from toolkit.tracing.attributes import clean, encode
from toolkit.tracing.conventions import (
    ATTEMPT,
    ATTEMPT_SPAN_TYPE,
    CHARS_ATTRIBUTE,
    CHARS_NAME,
    CHARS_TAG,
    CONVENTIONS_VERSION,
    MOST_ATTEMPT_SPANS,
    GenAi,
    Mlflow,
)
from toolkit.tracing.data import SpanData, SpanEvent
from toolkit.tracing.ids import attempt_span_id
from toolkit.values import Attempt, CallRecord

__all__ = ["attempt_events", "attempt_spans", "worth_showing"]

_OTHER: Final = "_OTHER"
"""OpenTelemetry's ``error.type`` where no better word is known."""
_BECAUSE = re.compile(r"(?:retry \d+|fallback): ([a-z_]{1,40})(?:,|$)")
"""The reason of an attempt that follows another one names the kind of that one's failure."""


def worth_showing(attempts: tuple[Attempt, ...]) -> bool:
    """Whether the attempts say more than the call does: there are several, or one failed."""
    return len(attempts) > 1 or any(attempt.error for attempt in attempts)


def attempt_events(attempts: tuple[Attempt, ...]) -> Iterator[SpanEvent]:
    """Yield every attempt as an event of the call's own span, where they are worth showing."""
    if not worth_showing(attempts):
        return
    for number, attempt in enumerate(attempts, 1):
        facts: dict[str, str | int | float | bool] = {
            "toolkit.attempt": number,
            "toolkit.target": clean(attempt.target, CHARS_NAME),
            "toolkit.seconds": (attempt.ended_us - attempt.started_us) / 1e6,
        }
        if attempt.reason:
            facts["toolkit.reason"] = clean(attempt.reason, CHARS_ATTRIBUTE)
        if attempt.error:
            facts["error.message"] = clean(attempt.error, CHARS_ATTRIBUTE)
        yield SpanEvent("attempt", attempt.started_us * 1000, facts)


def attempt_spans(call: CallRecord, trace: int, parent: int) -> tuple[SpanData, ...]:
    """Return the spans of a call's attempts, where they are worth showing.

    Of more than :data:`~toolkit.tracing.conventions.MOST_ATTEMPT_SPANS` the first ones and the last
    one are drawn.

    Args:
        call: A finished call.
        trace: Id of the call's trace.
        parent: Id of the call's own span.
    """
    attempts = call.outcome.attempts if call.outcome else ()
    if not worth_showing(attempts):
        return ()
    numbered = list(enumerate(attempts, 1))
    if len(numbered) > MOST_ATTEMPT_SPANS:
        numbered = [*numbered[: MOST_ATTEMPT_SPANS - 1], numbered[-1]]
    spans = []
    for number, attempt in numbered:
        start = attempt.started_us * 1000
        error = None if attempt.error is None else clean(attempt.error, CHARS_ATTRIBUTE)
        spans.append(
            SpanData(
                trace=trace,
                span=attempt_span_id(call.call_id, number),
                parent=parent,
                name=clean(f"{ATTEMPT} {attempt.target}", CHARS_NAME),
                attributes=encode(_facts(call, number, attempt)),
                start_ns=start,
                end_ns=max(start, attempt.ended_us * 1000),
                error=error,
            )
        )
    return tuple(spans)


def _facts(call: CallRecord, number: int, attempt: Attempt) -> dict[str, Any]:
    provider, _, model = attempt.target.partition("/")
    reason = attempt.reason
    return {
        GenAi.OPERATION: ATTEMPT,
        Mlflow.SPAN_TYPE: ATTEMPT_SPAN_TYPE,
        # No `mlflow.llm.model`, tokens or cost: the call's own span has them, and they are summed.
        GenAi.PROVIDER: clean(provider, CHARS_TAG),
        GenAi.REQUEST_MODEL: clean(model, CHARS_TAG) or None,
        GenAi.ERROR_TYPE: _error_type(call, number, attempt),
        "toolkit.conventions": CONVENTIONS_VERSION,
        "toolkit.run": call.intent.run_id,
        "toolkit.key": call.key,
        "toolkit.attempt": number,
        "toolkit.target": clean(attempt.target, CHARS_NAME),
        "toolkit.reason": None if reason is None else clean(reason, CHARS_ATTRIBUTE),
    }


def _error_type(call: CallRecord, number: int, attempt: Attempt) -> str | None:
    """Return a word of low cardinality: the record has a sentence about each failure."""
    if attempt.error is None:
        return None
    if attempt.reason and attempt.reason.endswith(": skipped"):
        return "skipped"
    if attempt.error.startswith("cancelled"):
        return "cancelled"
    attempts = call.outcome.attempts if call.outcome else ()
    if number < len(attempts):
        because = _BECAUSE.match(attempts[number].reason or "")
        return because[1] if because else _OTHER
    error = (call.outcome.error if call.outcome else None) or {}
    details = error.get("details")
    kind = details.get("kind") if isinstance(details, dict) else None
    return clean(str(kind or error.get("code") or _OTHER), CHARS_TAG)
