"""One call as one span: ids, names, attributes, costs, cuts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_factory import Factory

from toolkit.tracing.attributes import PAYLOAD_BYTES
from toolkit.tracing.conventions import OPERATIONS, SHARD_SPAN_TYPE, SPAN_TYPES
from toolkit.tracing.ids import agent_root, is_shard, root_span_id, span_id, trace_id
from toolkit.tracing.spans import SpanData, call_span, shard_span, stub_span
from toolkit.values import (
    Attempt,
    CallKind,
    CallState,
    Decision,
    Money,
    Outcome,
    Usage,
    Verdict,
)

TEXT = st.text(st.characters(codec=None), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def facts(span: SpanData) -> dict:
    return {name: json.loads(text) for name, text in span.attributes.items()}


def test_ids_are_derived_and_stable(make):
    """The same call has the same ids in every process, and these are the documented ones."""
    assert trace_id("run-1", "loose:0") == int.from_bytes(
        hashlib.sha256(b"run-1loose:0").digest()[:16], "big"
    )
    assert span_id("run-1/k/0") == int.from_bytes(hashlib.sha256(b"run-1/k/0").digest()[:8], "big")
    call = make.call()
    assert call_span(call, make.run(), parent=1) == call_span(call, make.run(), parent=1)


@pytest.mark.parametrize(
    ("trace_key", "shard", "agent"),
    [
        ("loose:0", True, None),
        ("loose:12#2", True, None),
        ("abc:0", False, ("abc", 0)),
        ("abc:7", False, ("abc", 7)),
        ("abc:7#2", True, ("abc", 7)),
        ("odd", False, None),
    ],
)
def test_a_trace_key_says_who_its_root_is(trace_key, shard, agent):
    """Loose calls and continuations have a root of their own; an agent's trace has the agent."""
    assert (is_shard(trace_key), agent_root(trace_key)) == (shard, agent)


def test_the_root_of_an_agents_trace_is_the_agents_call(make):
    """The root's span id is the agent's, so a resent child never moves."""
    agent = make.call(CallKind.AGENT, "review", generation=2)
    assert root_span_id("session-1", agent.trace_key) == span_id(agent.call_id)


@pytest.mark.parametrize("kind", list(CallKind))
def test_every_kind_has_a_name_and_a_type(make, kind):
    """Span names are `{operation} {what}`; no call has the type of a shard's root."""
    span = call_span(make.call(kind, "thing"), make.run(), parent=1)
    what = "gpt-4o" if kind is CallKind.MODEL else "thing"
    assert span.name == f"{OPERATIONS[kind]} {what}"
    assert facts(span)["gen_ai.operation.name"] == OPERATIONS[kind]
    assert facts(span)["mlflow.spanType"] == SPAN_TYPES[kind] != SHARD_SPAN_TYPE


def test_a_model_call_carries_the_standard_names(make):
    """OpenTelemetry GenAI names and MLflow's own say the same thing."""
    found = facts(call_span(make.call(), make.run(), parent=1))
    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.request.model"] == found["gen_ai.response.model"] == "gpt-4o"
    assert found["gen_ai.usage.input_tokens"] == 1000
    assert found["mlflow.chat.tokenUsage"] == {
        "input_tokens": 1000,
        "output_tokens": 100,
        "total_tokens": 1100,
    }
    assert found["mlflow.spanOutputs"]["choices"][0]["message"]["content"] == "an answer"


def test_the_door_is_visible(make):
    """Verdicts, policies, key and the rest of what the gateway knew are on the span."""
    decision = Decision(
        Verdict.ALLOW, ("p1", "p2"), ("fine",), "sha256:aa", Verdict.DENY, ("not there",)
    )
    call = make.call(decision=decision, case_id="case-7", tags={"shard": "3"})
    run = make.run(job="licence-review", version=3)
    found = facts(call_span(call, run, parent=1))
    expected = {
        "run": "session-1",
        "job": "licence-review",
        "version": 3,
        "notebook": "notebooks/review.ipynb",
        "user": "ana",
        "team": "licences",
        "environment": "sandbox",
        "route": "default",
        "verdict": "allow",
        "production_verdict": "deny",
        "production_reasons": ["not there"],
        "policies": ["p1", "p2"],
        "policy_digest": "sha256:aa",
        "key": call.key,
        "generation": 0,
        "occurrence": 1,
        "cell": "cell-1",
        "case": "case-7",
        "tag.shard": "3",
    }
    assert {name: found[f"toolkit.{name}"] for name in expected} == expected
    assert found["session.id"] == "session-1"
    assert found["user.id"] == "ana"


def test_a_known_cost_is_exact_and_its_split_is_called_an_estimate(make):
    """Total cost is what the ledger recorded; MLflow's parts add up to it."""
    outcome = make.answer(cost=Money(123_456_789), usage=Usage(300, 100))
    found = facts(call_span(make.call(outcome=outcome), make.run(), parent=1))
    cost = found["mlflow.llm.cost"]
    assert cost["total_cost"] == 0.123456789
    assert cost["input_cost"] + cost["output_cost"] == pytest.approx(0.123456789)
    assert found["toolkit.cost"] == "0.123456789"
    assert "estimated" in found["toolkit.cost_split"]


def test_a_local_model_costs_nothing(make):
    """A cost of zero is a known cost."""
    found = facts(call_span(make.call(outcome=make.answer(cost=Money(0))), None, parent=1))
    assert found["mlflow.llm.cost"]["total_cost"] == 0
    assert found["toolkit.cost"] == "0"


def test_an_unknown_cost_is_not_set(make):
    """No cost, and a model name that no price catalogue holds."""
    found = facts(call_span(make.call(outcome=make.answer(cost=None)), None, parent=1))
    assert "mlflow.llm.cost" not in found
    assert found["toolkit.cost"] == "unknown"
    assert found["mlflow.llm.model"] == "gpt-4o (price unknown)"
    assert found["gen_ai.request.model"] == "gpt-4o"


def test_a_denied_call_has_no_unknown_cost(make):
    """A call that was never made did not cost an unknown amount."""
    denied = Outcome(CallState.DENIED, error={"code": "denied", "message": "forbidden"})
    call = make.call(outcome=denied)
    span = call_span(call, None, parent=1)
    assert "toolkit.cost" not in facts(span)
    assert (facts(span)["error.type"], span.error) == ("denied", "forbidden")


def test_attempts_and_errors_are_events(make):
    """A retried call is one span; each attempt and the failure are events of it."""
    outcome = Outcome(
        CallState.ERROR,
        error={"code": "provider", "message": "overloaded"},
        attempts=(Attempt("a/m1", 10, 20, "timeout"), Attempt("b/m2", 20, 40, "status 529")),
    )
    span = call_span(make.call(outcome=outcome), None, parent=1)
    assert [event.name for event in span.events] == ["attempt", "attempt", "exception"]
    assert span.name == "chat m1"
    assert span.events[0].attributes["error.message"] == "timeout"


def test_a_long_payload_is_cut_and_its_digest_noted(make):
    """Inputs above 64 KiB are cut; the rest of the span is untouched."""
    call = make.call(CallKind.TOOL, "t", {"text": "é" * PAYLOAD_BYTES})
    span = call_span(call, None, parent=1)
    inputs = facts(span)["mlflow.spanInputs"]
    assert inputs["bytes"] > PAYLOAD_BYTES
    assert len(inputs["text"].encode()) <= PAYLOAD_BYTES
    assert inputs["digest"].startswith("sha256:")
    assert span.size_bytes < 3 * PAYLOAD_BYTES


def test_a_clock_that_jumps_back_does_not_turn_a_span_inside_out(make):
    """A span never ends before it starts."""
    call = replace(make.call(), ended_us=5)
    span = call_span(call, None, parent=1)
    assert span.end_ns == span.start_ns


def test_only_roots_name_and_tag_the_trace(make):
    """Name and tags of a trace come from its root; other spans do not repeat them."""
    agent = make.call(CallKind.AGENT, "review")
    child = make.call(parent=agent)
    root = facts(call_span(agent, make.run(), parent=None))
    assert root["mlflow.traceTag.mlflow.traceName"] == "review"
    assert root["mlflow.traceTag.toolkit.run"] == "session-1"
    assert not any(k.startswith("mlflow.traceTag") for k in facts(call_span(child, None, parent=1)))
    shard = shard_span(make.call(), make.run(), start_ms=1, end_ms=2)
    assert shard.name == "review.ipynb"


@given(arguments=JSON, name=TEXT, answer=JSON, message=TEXT, kind=st.sampled_from(list(CallKind)))
def test_whatever_a_notebook_sends_is_a_span_that_a_database_takes(
    arguments, name, answer, message, kind
):
    """Any JSON, any text: attributes are JSON in valid UTF-8."""
    outcome = Outcome(CallState.ERROR, answer=answer, error={"code": "x", "message": message})
    make = Factory()
    # The key of a call needs canonical arguments; the span has to bear more than that.
    call = make.call(kind, "n", {"a": 1}, outcome=outcome)
    object.__setattr__(call.intent, "arguments", arguments)
    object.__setattr__(call.intent, "name", name)
    for span in (
        call_span(call, make.run(), parent=None),
        stub_span(call, None, parent=None, why=message),
    ):
        for text in (span.name, span.error or "", *span.attributes.values()):
            text.encode("utf-8")
        facts(span)
