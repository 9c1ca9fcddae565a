"""One call of the ledger as one span: plain data, no vendor.

Traps of MLflow 3.17 that shape this file (read in its source, kept by the tests of this room):

* A span with a known model, usage and *no* cost gets one from MLflow's own price catalogue.  A
  cost that the ledger calls unknown must stay unknown, and an empty cost would be shown as $0, so
  such a span's ``mlflow.llm.model`` says ``(price unknown)``, which no catalogue holds.
* The interface shows a cost only when input, output and total are there.  The ledger records one
  sum, so the two parts are an estimate by tokens, and ``toolkit.cost_split`` says so.
* A trace takes name and tags from its root span only, and its state only once.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from toolkit.tracing.attempts import attempt_events, attempt_spans
from toolkit.tracing.attributes import (
    clean,
    encode,
    is_embedding,
    kind_attributes,
    payload,
    run_attributes,
    session_attributes,
    shown_answer,
    to_json,
)
from toolkit.tracing.conventions import (
    CHARS_ATTRIBUTE,
    CHARS_NAME,
    CHARS_TAG,
    EMBEDDING_SPAN_TYPE,
    EMBEDDINGS,
    OPERATIONS,
    SHARD_SPAN_TYPE,
    SPAN_TYPES,
    GenAi,
    Mlflow,
)
from toolkit.tracing.data import SpanData, SpanEvent
from toolkit.tracing.ids import is_shard, root_span_id, span_id, trace_id
from toolkit.tracing.provenance import (
    caller_span,
    decision_attributes,
    provenance_attributes,
)
from toolkit.values import CallKind, CallRecord, CallState, RunRecord

__all__ = [
    "SpanData",
    "SpanEvent",
    "call_span",
    "case_span",
    "shard_span",
    "stub_span",
    "trace_name",
    "trace_tags",
]

_MAX_NS = 2**62


def _title(run: RunRecord | None, run_id: str) -> str:
    """Return what a person calls the run: its notebook, its job, else its id."""
    if run is None:
        return run_id
    if run.notebook:
        return PurePosixPath(run.notebook).name
    return run.job or run.run_id


def trace_name(call: CallRecord) -> str:
    """Return the name of the trace whose root is ``call``."""
    return clean(call.intent.name, CHARS_NAME)


def trace_tags(run: RunRecord | None, call: CallRecord) -> dict[str, str]:
    """Return the tags of the trace that ``call`` is drawn in, without empty ones.

    MLflow writes each tag with two statements, a third of the cost of a small trace; so these are
    the ones that people filter by, and the rest is on the spans and on the run.
    """
    tags: dict[str, Any] = {"toolkit.run": call.intent.run_id}
    if run is not None:
        tags |= {
            "toolkit.kind": run.kind.value,
            "toolkit.job": run.job,
            "toolkit.version": run.version,
            "toolkit.notebook": run.notebook,
        }
    if not is_shard(call.trace_key):
        tags |= {
            "toolkit.case": call.intent.case_id,
            "toolkit.generation": call.generation or None,
        }
    return {
        name: clean(str(value), CHARS_TAG)
        for name, value in tags.items()
        if value is not None and value != ""
    }


def _tag_attributes(name: str, tags: dict[str, str]) -> dict[str, Any]:
    return {Mlflow.TRACE_NAME: clean(name, CHARS_NAME)} | {
        Mlflow.TAG_PREFIX + key: value for key, value in tags.items()
    }


def _operation(call: CallRecord) -> tuple[str, str]:
    """Return the conventions' name of the operation, and MLflow's type of the span."""
    if is_embedding(call):
        return EMBEDDINGS, EMBEDDING_SPAN_TYPE
    return OPERATIONS[call.intent.kind], SPAN_TYPES[call.intent.kind]


def _span_name(call: CallRecord, operation: str, facts: dict[str, Any]) -> str:
    kind = call.intent.kind
    what = facts[GenAi.REQUEST_MODEL] if kind is CallKind.MODEL else call.intent.name
    return clean(f"{operation} {what}", CHARS_NAME)


def _failure(call: CallRecord) -> tuple[str | None, str | None]:
    """Return (error.type, message) of a call that did not succeed."""
    if call.state is CallState.OK or call.outcome is None:
        return None, None
    error = call.outcome.error or {}
    code = str(error.get("code") or call.state.value)
    return code, clean(str(error.get("message") or code), CHARS_ATTRIBUTE)


def _times_ns(call: CallRecord) -> tuple[int, int]:
    start = call.started_us * 1000
    # A clock that jumped back must not turn a span inside out.
    return start, max(start, (call.ended_us or call.started_us) * 1000)


def _events(call: CallRecord, code: str | None, message: str | None) -> tuple[SpanEvent, ...]:
    events = list(attempt_events(call.outcome.attempts if call.outcome else ()))
    if code is not None and message is not None:
        failure: dict[str, str | int | float | bool] = {
            "exception.type": code,
            "exception.message": message,
        }
        events.append(SpanEvent("exception", _times_ns(call)[1], failure))
    return tuple(events)


def call_span(call: CallRecord, run: RunRecord | None, *, parent: int | None) -> SpanData:
    """Return the span of a call.

    Args:
        call: A call of the ledger; one without an outcome ends where it starts.
        run: Its run, ``None`` if the ledger does not know it.
        parent: Span id of the parent in the same trace, ``None`` if this call is the root.
    """
    intent = call.intent
    kind_facts = kind_attributes(call)
    operation, span_type = _operation(call)
    code, message = _failure(call)
    facts: dict[str, Any] = {
        GenAi.OPERATION: operation,
        Mlflow.SPAN_TYPE: span_type,
        GenAi.ERROR_TYPE: code,
        "toolkit.attempts": len(call.outcome.attempts) or None if call.outcome else None,
    }
    # A call of an agent is made in another one: its own name is the last word.
    facts |= run_attributes(run, intent.run_id) | provenance_attributes(call)
    facts |= decision_attributes(call) | kind_facts
    facts |= {f"toolkit.tag.{key}": value for key, value in call.tags.items()}
    if parent is None:
        facts |= _tag_attributes(trace_name(call), trace_tags(run, call))
    attributes = encode(facts)
    attributes[Mlflow.INPUTS] = payload(intent.arguments)
    answer = shown_answer(call)
    if answer is not None:
        attributes[Mlflow.OUTPUTS] = payload(answer)
    start, end = _times_ns(call)
    trace, span = trace_id(intent.run_id, call.trace_key), span_id(call.call_id)
    return SpanData(
        trace=trace,
        span=span,
        parent=parent,
        name=_span_name(call, operation, kind_facts),
        attributes=attributes,
        start_ns=start,
        end_ns=end,
        error=message,
        events=_events(call, code, message),
        caller=caller_span(intent.traceparent),
        attempts=attempt_spans(call, trace, span),
    )


def stub_span(call: CallRecord, run: RunRecord | None, *, parent: int | None, why: str) -> SpanData:
    """Return a span without payload for a call whose real span MLflow refuses.

    It keeps *calls in the ledger = spans in MLflow* true, and says what is missing.
    """
    operation, span_type = _operation(call)
    facts = {
        Mlflow.SPAN_TYPE: span_type,
        **session_attributes(run, call.intent.run_id),
        "toolkit.run": call.intent.run_id,
        "toolkit.key": call.key,
        "toolkit.shipping_error": clean(why, CHARS_ATTRIBUTE),
    }
    if parent is None:
        facts |= _tag_attributes(trace_name(call), trace_tags(run, call))
    start, end = (min(max(at, 0), _MAX_NS) for at in _times_ns(call))
    return SpanData(
        trace=trace_id(call.intent.run_id, call.trace_key),
        span=span_id(call.call_id),
        parent=parent,
        name=clean(f"{operation} (not shown)", CHARS_NAME),
        attributes=encode(facts),
        start_ns=start,
        end_ns=max(start, end),
        error="this call could not be shown; `toolkit show` reads it from the ledger",
    )


def shard_span(call: CallRecord, run: RunRecord | None, *, start_ms: int, end_ms: int) -> SpanData:
    """Return the root span of the shard that ``call`` is drawn in.

    Args:
        call: Any call of the shard.
        run: Its run.
        start_ms: Start of the first call of the shard, milliseconds since the epoch.
        end_ms: End of the last call of the shard so far, milliseconds since the epoch.
    """
    run_id = call.intent.run_id
    name = _title(run, run_id)
    facts: dict[str, Any] = {Mlflow.SPAN_TYPE: SHARD_SPAN_TYPE, "toolkit.shard": call.trace_key}
    facts |= run_attributes(run, run_id) | _tag_attributes(name, trace_tags(run, call))
    return SpanData(
        trace=trace_id(run_id, call.trace_key),
        span=root_span_id(run_id, call.trace_key),
        parent=None,
        name=clean(name, CHARS_NAME),
        attributes=encode(facts) | {Mlflow.INPUTS: to_json({"calls": call.trace_key})},
        start_ns=start_ms * 1_000_000,
        end_ns=end_ms * 1_000_000,
    )


def case_span(
    run: RunRecord, case_id: str, *, inputs: Any, output: Any, error: str | None, at_us: int
) -> SpanData:
    """Return the only span of the trace of an evaluation case that made no call of its own."""
    key = f"case:{case_id}"
    facts: dict[str, Any] = {Mlflow.SPAN_TYPE: SHARD_SPAN_TYPE, "toolkit.case": case_id}
    tags = {"toolkit.run": run.run_id, "toolkit.case": clean(case_id, CHARS_TAG)}
    facts |= run_attributes(run, run.run_id) | _tag_attributes(case_id, tags)
    attributes = encode(facts) | {Mlflow.INPUTS: payload(inputs)}
    if output is not None:
        attributes[Mlflow.OUTPUTS] = payload(output)
    return SpanData(
        trace=trace_id(run.run_id, key),
        span=root_span_id(run.run_id, key),
        parent=None,
        name=clean(case_id, CHARS_NAME),
        attributes=attributes,
        start_ns=at_us * 1000,
        end_ns=at_us * 1000,
        error=error,
    )
