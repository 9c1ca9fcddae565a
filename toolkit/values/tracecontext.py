"""Ids of traces and spans, and how a call is named to others (W3C Trace Context).

A trace id is the first 16 bytes of ``sha256(run_id + trace_key)``, a span id the first 8 bytes of
``sha256(call_id)``: derived from the ledger's ids, so that sending again changes nothing.
"""

from __future__ import annotations

import hashlib

from toolkit.values.calls import CallRecord

__all__ = ["number_of", "span_id", "trace_id", "traceparent"]


def number_of(text: str, size: int) -> int:
    """Return the first ``size`` bytes of a text's SHA-256 as a number that is not 0."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    # An id of zero is invalid in OpenTelemetry.
    return int.from_bytes(digest[:size], "big") or 1


def trace_id(run_id: str, trace_key: str) -> int:
    """Return the 128 bit id of the trace that ``trace_key`` of the run is drawn in."""
    return number_of(run_id + trace_key, 16)


def span_id(call_id: str) -> int:
    """Return the 64 bit id of a call's span."""
    return number_of(call_id, 8)


def traceparent(call: CallRecord) -> str:
    """Return the header that names a call's span to whoever is asked because of it.

    Format: version 00 of https://www.w3.org/TR/trace-context/#traceparent-header, sampled.
    """
    trace = trace_id(call.intent.run_id, call.trace_key)
    return f"00-{trace:032x}-{span_id(call.call_id):016x}-01"
