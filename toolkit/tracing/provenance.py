"""Who called and why, where the data came from, and what the gateway decided, as attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from toolkit.tracing.attributes import clean
from toolkit.tracing.conventions import CHARS_ATTRIBUTE, CHARS_TAG, GenAi, Guardrail
from toolkit.values import NO_LABELS, CallKind, CallRecord, CallState, Decision, Labels, Verdict

__all__ = ["caller_span", "decision_attributes", "provenance_attributes", "sentences"]

# W3C Trace Context, level 2: version, trace id, parent id, flags; later versions may add parts.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_MOST_ARGUMENTS = 50

_SUBTYPES = {
    CallKind.MODEL: "llm",
    CallKind.TOOL: "tool_call",
    CallKind.DATA: "retrieval",
    # The draft has no word for these.
    CallKind.AGENT: "agent",
    CallKind.JOB: "workflow",
    CallKind.HUMAN: "human",
    CallKind.RESULT: "result",
    CallKind.VALUE: "value",
}


def sentences(texts: Iterable[str]) -> list[str] | None:
    """Return sentences fit for a span, ``None`` for no sentence."""
    return [clean(text, CHARS_ATTRIBUTE) for text in texts] or None


def caller_span(traceparent: str | None) -> tuple[int, int] | None:
    """Return ids of trace and span that a ``traceparent`` header names; ``None`` if it is no good."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    trace, span = int(found[1], 16), int(found[2], 16)
    return (trace, span) if trace and span else None


def provenance_attributes(call: CallRecord) -> dict[str, Any]:
    """Return agent, purpose and labels of a call; nothing is said about what has no labels."""
    intent = call.intent
    facts: dict[str, Any] = {
        GenAi.AGENT_NAME: intent.agent,
        "toolkit.agent": intent.agent,
        "toolkit.purpose": None
        if intent.purpose is None
        else clean(intent.purpose, CHARS_ATTRIBUTE),
    }
    given = {name: labels for name, labels in intent.labels.items() if labels}
    if given:
        facts |= _labels("arguments", _union(given.values()))
        shown = list(given.items())[:_MOST_ARGUMENTS]
        facts["toolkit.arguments.labels"] = {
            clean(name, CHARS_TAG): labels.to_json() for name, labels in shown
        }
    answer = call.outcome.labels if call.outcome else None
    if answer:
        facts |= _labels("answer", answer)
    return facts


def _union(labels: Iterable[Labels]) -> Labels:
    whole = NO_LABELS
    for each in labels:
        whole |= each
    return whole


def _labels(what: str, labels: Labels) -> dict[str, Any]:
    return {
        f"toolkit.{what}.sources": sorted(labels.sources) or None,
        f"toolkit.{what}.classes": sorted(labels.classes) or None,
        f"toolkit.{what}.tainted": labels.tainted or None,
    }


def decision_attributes(call: CallRecord) -> dict[str, Any]:
    """Return what the gateway decided, and which call it was."""
    decision, intent = call.decision, call.intent
    production = decision.production_verdict
    policies, reasons = list(decision.policies) or None, sentences(decision.reasons)
    return {
        "toolkit.verdict": decision.verdict.value,
        "toolkit.production_verdict": production.value if production else None,
        "toolkit.policies": policies,
        "toolkit.reasons": reasons,
        "toolkit.production_reasons": sentences(decision.production_reasons),
        "toolkit.policy_digest": decision.policy_digest,
        "toolkit.approver": decision.approver,
        "toolkit.shadow": sentences(decision.shadow),
        Guardrail.TARGET: _SUBTYPES[intent.kind],
        Guardrail.VERDICT: _verdict(decision),
        Guardrail.REASON: "; ".join(reasons) if reasons else None,
        Guardrail.ACTION: "block" if call.state is CallState.DENIED else "allow",
        Guardrail.POLICY: policies,
        "toolkit.kind": intent.kind.value,
        "toolkit.state": call.state.value,
        "toolkit.key": call.key,
        "toolkit.generation": call.generation,
        "toolkit.occurrence": intent.occurrence,
        "toolkit.effect": intent.effect.value,
        "toolkit.cell": intent.cell,
        "toolkit.case": intent.case_id,
    }


def _verdict(decision: Decision) -> str:
    """Return the decision in the draft's words; an allowed call with reasons was warned about."""
    if decision.approver is not None or decision.verdict is Verdict.ASK:
        return "escalate"
    if decision.verdict is Verdict.ALLOW and decision.reasons:
        return "warn"
    return decision.verdict.value
