"""Frozen facts that every room shares: calls, runs, money, digests, time, names.

Rules
-----
* Values never change after they are made, hold JSON or plain types only, and import no vendor.
* Anything that is hashed is hashed over :func:`canonical_bytes`.
* Time is microseconds since the epoch in UTC (``…_us``) or seconds (``…_s``); money is
  :class:`Money`; an unknown price is ``None``.
"""

from __future__ import annotations

from toolkit.values.calls import (
    ANSWER,
    IN_DOUBT,
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Effect,
    Intent,
    Outcome,
    Usage,
    Verdict,
    call_key,
    idempotency_key,
)
from toolkit.values.canonical import Digest, canonical_bytes, digest_bytes, digest_json
from toolkit.values.clock import Clock, ManualClock, SystemClock, iso_utc, sleepless_s
from toolkit.values.copies import changed
from toolkit.values.exact_json import read_json, write_json
from toolkit.values.isolation import Caps, IsolationLevel
from toolkit.values.labels import NO_LABELS, DataClass, Labels, Source
from toolkit.values.lineage import (
    Ancestor,
    argument_labels,
    child_run_id,
    child_tags,
    inherited_agent,
    inherited_purpose,
    lineage_of,
)
from toolkit.values.money import Money
from toolkit.values.names import JobRef, check_name, check_parameter_name, new_id
from toolkit.values.runs import (
    FAILED_FROM,
    RESUMED,
    Cause,
    Environment,
    RunKind,
    RunRecord,
    RunState,
    repeatable,
    resumable,
)
from toolkit.values.tracecontext import number_of, span_id, trace_id, traceparent

__all__ = [
    "ANSWER",
    "FAILED_FROM",
    "IN_DOUBT",
    "NO_LABELS",
    "RESUMED",
    "Ancestor",
    "Attempt",
    "CallKind",
    "CallRecord",
    "CallState",
    "Caps",
    "Cause",
    "Clock",
    "DataClass",
    "Decision",
    "Digest",
    "Effect",
    "Environment",
    "Intent",
    "IsolationLevel",
    "JobRef",
    "Labels",
    "ManualClock",
    "Money",
    "Outcome",
    "RunKind",
    "RunRecord",
    "RunState",
    "Source",
    "SystemClock",
    "Usage",
    "Verdict",
    "argument_labels",
    "call_key",
    "canonical_bytes",
    "changed",
    "check_name",
    "check_parameter_name",
    "child_run_id",
    "child_tags",
    "digest_bytes",
    "digest_json",
    "idempotency_key",
    "inherited_agent",
    "inherited_purpose",
    "iso_utc",
    "lineage_of",
    "new_id",
    "number_of",
    "read_json",
    "repeatable",
    "resumable",
    "sleepless_s",
    "span_id",
    "trace_id",
    "traceparent",
    "write_json",
]
