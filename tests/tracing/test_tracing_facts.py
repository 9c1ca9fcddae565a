"""Agent, purpose, labels, decision, attempts, caller, data and vectors on the span of a call."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_factory import START_US, Factory

from toolkit.tracing import MemoryOutbox, Note, Shipper, call_notes, compare_counts, mlflow_trace_id
from toolkit.tracing.conventions import ATTEMPT_SPAN_TYPE, MOST_ATTEMPT_SPANS, NOT_CALLS, SPAN_TYPES
from toolkit.tracing.ids import attempt_span_id, span_id
from toolkit.tracing.provenance import caller_span
from toolkit.tracing.spans import SpanData, call_span
from toolkit.values import (
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    DataClass,
    Decision,
    Labels,
    Outcome,
    Source,
    Verdict,
)

OUTSIDE = Labels(frozenset({Source.UNTRUSTED}), frozenset({DataClass.PII}))
USER = Labels(frozenset({Source.USER}))
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def facts(span: SpanData) -> dict:
    return {name: json.loads(text) for name, text in span.attributes.items()}


def of(call: CallRecord) -> dict:
    return facts(call_span(call, None, parent=1))


def tries(*errors: str | None, reasons: tuple[str | None, ...] = ()) -> tuple[Attempt, ...]:
    """Attempts of 100 ms, one after the other."""
    told = [*reasons, *[None] * len(errors)]
    return tuple(
        Attempt(f"p{n}/m{n}", at, at + 100_000, error, told[n])
        for n, error in enumerate(errors)
        for at in [START_US + n * 100_000]
    )


def with_intent(call: CallRecord, **changes: object) -> CallRecord:
    return replace(call, intent=replace(call.intent, **changes))


# -- attempts ----------------------------------------------------------------------------------


def test_every_attempt_is_a_span_below_the_call(make):
    """Target, times, reason and failure of each; ids follow from the call's id and the number."""
    attempts = tries("too slow", None, reasons=(None, "fallback: timeout"))
    call = make.call(outcome=make.answer(attempts=attempts))
    span = call_span(call, make.run(), parent=1)
    assert [a.name for a in span.attempts] == ["toolkit.attempt p0/m0", "toolkit.attempt p1/m1"]
    assert [a.span for a in span.attempts] == [attempt_span_id(call.call_id, n) for n in (1, 2)]
    assert {(a.trace, a.parent) for a in span.attempts} == {(span.trace, span.span)}
    first, second = span.attempts
    assert (first.error, second.error) == ("too slow", None)
    assert (first.start_ns, first.end_ns) == (START_US * 1000, (START_US + 100_000) * 1000)
    assert facts(first)["error.type"] == "timeout"
    assert facts(second)["toolkit.reason"] == "fallback: timeout"
    assert facts(second)["gen_ai.request.model"] == "m1"
    assert [event.attributes.get("toolkit.reason") for event in span.events] == [
        None,
        "fallback: timeout",
    ]


def test_an_attempt_is_never_counted_or_paid_twice(make):
    """No tokens, no cost, no model of MLflow's, no operation of the conventions; a type of its own."""
    call = make.call(outcome=make.answer(attempts=tries("no", None)))
    for attempt in call_span(call, None, parent=1).attempts:
        found = facts(attempt)
        assert found["mlflow.spanType"] == ATTEMPT_SPAN_TYPE
        assert found["gen_ai.operation.name"] == "toolkit.attempt"
        assert not {"mlflow.llm.cost", "mlflow.llm.model", "mlflow.chat.tokenUsage"} & set(found)
        assert not any(name.startswith("gen_ai.usage") for name in found)
    assert not NOT_CALLS & {*SPAN_TYPES.values(), "EMBEDDING"}


def test_one_attempt_that_answered_says_nothing_more(make):
    """The usual call is one span, without events."""
    span = call_span(make.call(), None, parent=1)
    assert (span.attempts, span.events) == ((), ())


@pytest.mark.parametrize(
    ("errors", "reasons", "error", "kinds"),
    [
        (("a", "b"), (None, "retry 1: rate_limited, waited 0.5 s"), {"details": {"kind": "server"}},
         ["rate_limited", "server"]),
        (("left alone", "b"), ("breaker open: skipped", None), {"code": "provider"},
         ["skipped", "provider"]),
        (("cancelled: it was not needed any more", None), (None, "hedge"), None,
         ["cancelled", None]),
        (("a", None), (None, "hedge"), None, ["_OTHER", None]),
        (("a",), (), {"details": "odd"}, ["_OTHER"]),
    ],
)  # fmt: skip
def test_failures_have_a_word_that_can_be_grouped_by(make, errors, reasons, error, kinds):
    """The sentence is the span's error; its type is the kind that the next reason names."""
    state = CallState.ERROR if error else CallState.OK
    attempts = tries(*errors, reasons=reasons)
    call = make.call(outcome=make.answer(state=state, error=error, attempts=attempts))
    spans = call_span(call, None, parent=1).attempts
    assert [facts(a).get("error.type") for a in spans] == kinds


def test_of_many_attempts_the_first_ones_and_the_last_are_drawn(make):
    """A trace stays readable in an outage; the events and the count have all of them."""
    attempts = tries(*["no"] * 29, None)
    span = call_span(make.call(outcome=make.answer(attempts=attempts)), None, parent=1)
    assert [facts(a)["toolkit.attempt"] for a in span.attempts] == [1, 2, 3, 4, 5, 6, 7, 30]
    assert len(span.attempts) == MOST_ATTEMPT_SPANS
    assert len(span.events) == facts(span)["toolkit.attempts"] == 30


def test_attempts_arrive_once_and_calls_are_still_counted_right(make, store, rows):
    """Shipped twice: the same rows; calls in the ledger = spans that stand for calls."""
    agent = make.call(CallKind.AGENT, "review")
    outcome = make.answer(attempts=tries("no", "no", None))
    calls = [agent, *(make.call(parent=agent, outcome=outcome) for _ in range(3)), make.call()]
    for _ in range(2):
        outbox = MemoryOutbox([make.run()], calls)
        assert Shipper(outbox, store.uri, store=store).drain(60) == 0
        (count,) = compare_counts(outbox, store, experiment="toolkit-sandbox")
        assert (count.calls, count.spans) == (5, 5)
        assert rows("select type, count(*) from spans group by type order by type") == [
            ("AGENT", 1), ("ATTEMPT", 9), ("CHAIN", 1), ("CHAT_MODEL", 4),
        ]  # fmt: skip
    parents = rows("select distinct parent_span_id from spans where type = 'ATTEMPT'")
    assert {row[0] for row in parents} == {f"{span_id(c.call_id):016x}" for c in calls[1:4]}
    info = store.trace_infos([mlflow_trace_id("session-1", agent.trace_key)])[0]
    usage = json.loads(info.trace_metadata["mlflow.trace.tokenUsage"])
    assert usage["input_tokens"] == 3000
    assert rows("select sum(total_cost) from spans where type = 'ATTEMPT'") == [(None,)]


def test_requests_count_attempts_as_well(make):
    """MLflow gets at most 900 spans at a time, whatever they stand for."""
    call = make.call(outcome=make.answer(attempts=tries(*["no"] * 8)))
    item = (call, call_span(call, None, parent=1))
    assert [len(chunk) for chunk in Shipper._chunks([item] * 250)] == [100, 100, 50]


# -- who, why, whence --------------------------------------------------------------------------


def test_agent_and_purpose_are_on_the_span(make):
    """The innermost agent under its standard name; an agent's own call has its own."""
    call = with_intent(make.call(CallKind.TOOL, "pay"), agent="triage", purpose="refund of order 7")
    assert of(call)["gen_ai.agent.name"] == "triage"
    assert of(call)["toolkit.purpose"] == "refund of order 7"
    inner = of(with_intent(make.call(CallKind.AGENT, "review"), agent="triage"))
    assert (inner["gen_ai.agent.name"], inner["toolkit.agent"]) == ("review", "triage")


def test_labels_of_arguments_and_answer_are_on_the_span(make):
    """Each argument's, their union, and whether somebody outside may have chosen anything."""
    call = make.call(CallKind.TOOL, "pay", {"to": "x", "sum": 1})
    call = with_intent(call, labels={"to": OUTSIDE, "sum": USER, "note": Labels()})
    call = replace(call, outcome=replace(call.outcome, labels=USER))
    found = of(call)
    assert found["toolkit.arguments.sources"] == ["untrusted", "user"]
    assert found["toolkit.arguments.classes"] == ["pii"]
    assert found["toolkit.arguments.tainted"] is True
    assert found["toolkit.arguments.labels"] == {
        "to": {"sources": ["untrusted"], "classes": ["pii"]},
        "sum": {"sources": ["user"], "classes": []},
    }
    assert found["toolkit.answer.sources"] == ["user"]
    assert "toolkit.answer.tainted" not in found


@pytest.mark.parametrize(
    ("decision", "state", "verdict", "action"),
    [
        (Decision(Verdict.ALLOW, ("p",)), CallState.OK, "allow", "allow"),
        (Decision(Verdict.ALLOW, ("p",), ("would be denied: no",)), CallState.OK, "warn", "allow"),
        (Decision(Verdict.DENY, ("p",), ("no",)), CallState.DENIED, "deny", "block"),
        (Decision(Verdict.DENY, ("stop",), ("all was stopped by ana",)), CallState.DENIED, "deny",
         "block"),
        (Decision(Verdict.ALLOW, ("p",), ("ana approved it",), approver="finance"), CallState.OK,
         "escalate", "allow"),
        (Decision(Verdict.ASK, ("p",), ("ask",), approver="finance"), CallState.DENIED, "escalate",
         "block"),
    ],
)  # fmt: skip
def test_the_decision_has_the_guardrail_names(make, decision, state, verdict, action):
    """What policy said and what was done are two facts."""
    error = None if state is CallState.OK else {"code": "denied", "message": "no"}
    call = make.call(CallKind.TOOL, "pay", decision=decision, outcome=Outcome(state, error=error))
    found = of(call)
    assert found["toolkit.guardrail.verdict.type"] == verdict
    assert found["toolkit.guardrail.action.type"] == action
    assert found["toolkit.guardrail.target.subtype"] == "tool_call"
    assert found["toolkit.guardrail.security.policy.id"] == list(decision.policies)
    assert found.get("toolkit.guardrail.verdict.reason") == ("; ".join(decision.reasons) or None)
    assert found.get("toolkit.approver") == decision.approver


def test_what_is_only_tried_out_is_on_the_span(make):
    """Sentences of policies in shadow mode."""
    decision = Decision(Verdict.ALLOW, shadow=("in shadow mode: no-friday would deny",))
    found = of(make.call(decision=decision))
    assert found["toolkit.shadow"] == ["in shadow mode: no-friday would deny"]
    assert found["toolkit.guardrail.verdict.type"] == "allow"


# -- the caller's own span ---------------------------------------------------------------------


def test_the_callers_span_is_linked(make, store):
    """A `traceparent` becomes a link that MLflow gives back."""
    call = with_intent(make.call(), traceparent=TRACEPARENT)
    outbox = MemoryOutbox([make.run()], [call])
    assert Shipper(outbox, store.uri, store=store).drain(60) == 0
    trace = store.client.get_trace(mlflow_trace_id("session-1", call.trace_key))
    (link,) = [link for span in trace.data.spans for link in span.links]
    assert link.trace_id == "tr-4bf92f3577b34da6a3ce929d0e0e4736"
    assert link.span_id == "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    ["", None, "00", TRACEPARENT.upper(), "ff" + TRACEPARENT[2:], TRACEPARENT + "x",
     f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{'1' * 32}-{'0' * 16}-01"],
)  # fmt: skip
def test_a_header_that_names_no_span_is_no_link(make, header):
    """By the rules of W3C Trace Context."""
    assert caller_span(header) is None
    assert call_span(with_intent(make.call(), traceparent=header), None, parent=1).caller is None


def test_a_later_version_of_the_header_is_read():
    """More parts may follow in one."""
    assert caller_span("01" + TRACEPARENT[2:] + "-more") == caller_span(TRACEPARENT) is not None


@given(st.text(max_size=80))
def test_no_header_breaks_a_span(text):
    """Whatever a client sent."""
    found = caller_span(text)
    assert found is None or (0 < found[0] < 2**128 and 0 < found[1] < 2**64)


# -- data and vectors --------------------------------------------------------------------------


def test_a_data_call_shows_query_count_and_digest(make):
    """A retriever's span: what was asked and how much came."""
    answer = {"rows": 3, "bytes": 120, "columns": ["id", "city"], "digest": "sha256:ab"}
    arguments = {"operation": "query", "sql": "SELECT id, city FROM orders"}
    call = make.call(
        CallKind.DATA, "orders", arguments, outcome=Outcome(CallState.OK, answer=answer)
    )
    span = call_span(call, None, parent=1)
    found = facts(span)
    assert (span.name, found["mlflow.spanType"]) == ("retrieval orders", "RETRIEVER")
    assert found["gen_ai.data_source.id"] == "orders"
    assert found["gen_ai.retrieval.query.text"] == "SELECT id, city FROM orders"
    assert (found["toolkit.rows"], found["toolkit.digest"]) == (3, "sha256:ab")
    assert found["toolkit.columns"] == ["id", "city"]
    read = make.call(CallKind.DATA, "files", {"operation": "read", "path": "a.csv"})
    assert of(read)["gen_ai.retrieval.query.text"] == "a.csv"


@pytest.mark.parametrize("dimension", [1, 2, 3, 384])
def test_an_embedding_shows_count_and_dimension_and_no_vector(make, dimension):
    """The ledger has the vectors; nobody reads them on a page."""
    vector = base64.b64encode(struct.pack(f"<{dimension}f", *[0.5] * dimension)).decode()
    outcome = make.answer(answer={"embeddings": [vector] * 4})
    call = make.call(CallKind.MODEL, "embed", {"input": list("abcd")}, outcome=outcome)
    span = call_span(call, None, parent=1)
    found = facts(span)
    assert (span.name, found["mlflow.spanType"]) == ("embeddings gpt-4o", "EMBEDDING")
    assert found["gen_ai.operation.name"] == "embeddings"
    assert found["mlflow.spanOutputs"] == {"embeddings": 4, "dimension": dimension}
    assert found["gen_ai.embeddings.dimension.count"] == dimension
    assert "mlflow.message.format" not in found
    assert vector not in str(span.attributes)


@given(
    st.sampled_from(list(CallKind)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["input", "sql", "rows", "embeddings", "digest", "columns", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
)
def test_odd_arguments_and_answers_are_still_a_span(kind, value):
    """Whatever shape a call of any kind has, its span and its notes can be written."""
    outcome = Outcome(CallState.OK, answer=value)
    call = Factory().call(kind, "n", {"a": value}, outcome=outcome)
    object.__setattr__(call.intent, "arguments", value)
    assert facts(call_span(call, None, parent=1))["toolkit.kind"] == kind.value
    assert call_notes(call) == []


# -- in words ----------------------------------------------------------------------------------


def test_a_call_that_went_well_is_not_remarkable(make):
    """No note: a list of calls stays short."""
    assert call_notes(make.call(decision=Decision(Verdict.ALLOW, ("p",)))) == []


def test_what_is_remarkable_is_said_in_order(make):
    """Purpose, data, decision, attempts: one line each."""
    decision = Decision(
        Verdict.ALLOW,
        ("pay",),
        ("payments need a second pair of eyes", "ana (finance) approved it: fine"),
        approver="finance",
        shadow=("in shadow mode: no-friday would deny",),
    )
    attempts = tries("too slow", None, reasons=(None, "fallback: timeout"))
    call = make.call(decision=decision, outcome=make.answer(attempts=attempts, labels=OUTSIDE))
    call = with_intent(call, purpose="refund\n of order 7", labels={"to": OUTSIDE, "sum": USER})
    assert call_notes(call) == [
        Note("purpose", "refund of order 7"),
        Note("data", "to: from outside, personal data"),
        Note("answer", "from outside, personal data"),
        Note("policy", "payments need a second pair of eyes [pay]"),
        Note("approval", "ana (finance) approved it: fine"),
        Note("shadow", "in shadow mode: no-friday would deny"),
        Note("attempt", "1/2 p0/m0 failed after 0.10 s: too slow"),
        Note("attempt", "2/2 p1/m1 (fallback: timeout) answered in 0.10 s"),
    ]


def test_a_denial_is_told_once(make):
    """The policy's reason, not again as an error; another reason than the policy's is told."""
    decision = Decision(Verdict.DENY, ("stop",), ("all was stopped by ana: fire",))
    denied = Outcome(CallState.DENIED, error={"message": "all was stopped by ana: fire"})
    assert [n.subject for n in call_notes(make.call(decision=decision, outcome=denied))] == [
        "policy"
    ]
    asked = Decision(Verdict.ASK, ("pay",), ("ask",), approver="finance")
    said = {"message": "ana rejected 'pay': too much"}
    refused = make.call(decision=asked, outcome=Outcome(CallState.DENIED, error=said))
    assert call_notes(refused)[1:] == [
        Note("approval", "the role finance was asked"),
        Note("error", "ana rejected 'pay': too much"),
    ]


def test_a_call_that_waits_for_a_person_says_for_whom(make):
    """Before the outcome; and what production would do."""
    asked = Decision(Verdict.ASK, ("pay",), approver="finance", production_verdict=Verdict.DENY)
    waiting = make.call(decision=asked, finished=False)
    assert call_notes(waiting) == [
        Note("approval", "waits for the role finance"),
        Note("production", "would deny"),
    ]
