"""A call's name for others: the ids of its span, in the standard's form."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from toolkit.tracing.ids import mlflow_trace_id
from toolkit.values import (
    CallKind,
    CallRecord,
    Decision,
    Intent,
    Verdict,
    span_id,
    trace_id,
    traceparent,
)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_a_call_is_named_by_the_ids_that_mlflow_shows(run: str, key: str) -> None:
    """https://www.w3.org/TR/trace-context/#traceparent-header: lower case hex, never all zeros."""
    intent = Intent(run, CallKind.TOOL, "send", {})
    call = CallRecord(1, "k" * 32, 0, intent, Decision(Verdict.ALLOW), key, 1)
    named = traceparent(call)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", named)
    _, trace, span, _ = named.split("-")
    assert int(trace, 16) == trace_id(run, key) != 0
    assert int(span, 16) == span_id(call.call_id) != 0
    assert mlflow_trace_id(run, key) == f"tr-{trace}"
