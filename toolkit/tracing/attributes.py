"""Facts of a call as span attributes: run, decision, model, usage, cost, payload."""

from __future__ import annotations

import json
from typing import Any, Final

from toolkit.tracing.conventions import (
    CHARS_ATTRIBUTE,
    CHARS_TAG,
    CONVENTIONS_VERSION,
    GenAi,
    Mlflow,
)
from toolkit.values import CallKind, CallRecord, CallState, RunRecord, Usage, digest_bytes

__all__ = [
    "PAYLOAD_BYTES",
    "chat_answer",
    "clean",
    "decision_attributes",
    "encode",
    "kind_attributes",
    "payload",
    "run_attributes",
    "to_json",
]

PAYLOAD_BYTES: Final = 64 * 1024
"""Longest inputs or outputs that are sent, bytes of JSON; longer ones are cut and digested."""


def clean(text: str, limit: int) -> str:
    """Cut text, and replace lone surrogates, which no database takes."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_json(value: Any) -> str:
    """Return JSON text that every database takes."""
    # Not ASCII-escaped: MLflow searches the stored text.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def payload(value: Any, limit: int = PAYLOAD_BYTES) -> str:
    """Return the JSON text of inputs or outputs, cut at ``limit`` bytes with its digest noted."""
    text = to_json(value)
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    return to_json(
        {
            "toolkit.cut": f"{len(data)} bytes, the first {limit} are shown; the ledger has all",
            "digest": digest_bytes(data),
            "bytes": len(data),
            "text": data[:limit].decode("utf-8", "ignore"),
        }
    )


def chat_answer(answer: Any) -> Any:
    """Return a model's answer in the shape that MLflow draws as a conversation."""
    if not isinstance(answer, dict) or "text" not in answer:
        return answer
    message: dict[str, Any] = {"role": "assistant", "content": answer.get("text")}
    if answer.get("tool_calls"):
        message["tool_calls"] = answer["tool_calls"]
    rest = {k: v for k, v in answer.items() if k not in ("text", "tool_calls", "finish_reason")}
    choice = {"index": 0, "finish_reason": answer.get("finish_reason"), "message": message}
    return {"choices": [choice], **{k: v for k, v in rest.items() if v is not None}}


def run_attributes(run: RunRecord | None, run_id: str) -> dict[str, Any]:
    """Return what a span says about its run."""
    facts: dict[str, Any] = {
        Mlflow.SESSION: clean(run_id, CHARS_TAG),
        GenAi.CONVERSATION: run_id,
        "toolkit.run": run_id,
        "toolkit.conventions": CONVENTIONS_VERSION,
    }
    if run is not None:
        facts |= {
            Mlflow.USER: clean(run.user, CHARS_TAG),
            "toolkit.user": run.user,
            "toolkit.team": run.team,
            "toolkit.job": run.job,
            "toolkit.version": run.version,
            "toolkit.notebook": run.notebook,
            "toolkit.environment": run.environment.value,
            "toolkit.run_kind": run.kind.value,
        }
    return facts


def decision_attributes(call: CallRecord) -> dict[str, Any]:
    """Return what the gateway decided, and which call it was."""
    decision, intent = call.decision, call.intent
    production = decision.production_verdict
    return {
        "toolkit.verdict": decision.verdict.value,
        "toolkit.production_verdict": production.value if production else None,
        "toolkit.policies": list(decision.policies) or None,
        "toolkit.reasons": [clean(r, CHARS_ATTRIBUTE) for r in decision.reasons] or None,
        "toolkit.production_reasons": [
            clean(r, CHARS_ATTRIBUTE) for r in decision.production_reasons
        ]
        or None,
        "toolkit.policy_digest": decision.policy_digest,
        "toolkit.kind": intent.kind.value,
        "toolkit.state": call.state.value,
        "toolkit.key": call.key,
        "toolkit.generation": call.generation,
        "toolkit.occurrence": intent.occurrence,
        "toolkit.effect": intent.effect.value,
        "toolkit.cell": intent.cell,
        "toolkit.case": intent.case_id,
    }


def _cost(call: CallRecord, usage: Usage | None) -> dict[str, Any]:
    """Return the cost attributes; see the traps at the top of this file."""
    outcome = call.outcome
    if outcome is None or outcome.cost is None:
        unknown = call.intent.kind is CallKind.MODEL and call.state is not CallState.DENIED
        return {"toolkit.cost": "unknown"} if unknown else {}
    total = float(outcome.cost.usd)
    tokens = usage.total_tokens if usage else 0
    share = usage.input_tokens / tokens if usage and tokens else 1.0
    parts = {"input_cost": total * share, "output_cost": total - total * share}
    facts: dict[str, Any] = {
        Mlflow.COST: {**parts, "total_cost": total},
        "toolkit.cost": f"{outcome.cost.usd:f}",
    }
    if total:
        facts["toolkit.cost_split"] = "estimated by tokens; only the total was recorded"
    return facts


def _model_attributes(call: CallRecord) -> dict[str, Any]:
    outcome, arguments = call.outcome, call.intent.arguments
    asked = arguments if isinstance(arguments, dict) else {}
    target = outcome.attempts[0].target if outcome and outcome.attempts else ""
    requested = target.partition("/")[2] or (outcome.model if outcome else None)
    answered = outcome.model if outcome else None
    provider = outcome.provider if outcome else None
    answer = outcome.answer if outcome and isinstance(outcome.answer, dict) else {}
    usage = outcome.usage if outcome else None
    facts: dict[str, Any] = {
        "toolkit.route": call.intent.name,
        GenAi.PROVIDER: provider,
        GenAi.REQUEST_MODEL: requested or call.intent.name,
        GenAi.RESPONSE_MODEL: answered,
        GenAi.RESPONSE_ID: answer.get("response_id"),
        GenAi.FINISH_REASONS: [answer["finish_reason"]] if answer.get("finish_reason") else None,
        GenAi.REQUEST_MAX_TOKENS: asked.get("max_tokens"),
        GenAi.REQUEST_TEMPERATURE: asked.get("temperature"),
        GenAi.REQUEST_SEED: asked.get("seed"),
        Mlflow.PROVIDER: provider,
        Mlflow.FORMAT: "openai",
    }
    facts |= _cost(call, usage)
    model = answered or requested
    if model is not None:
        known = facts.get("toolkit.cost") != "unknown"
        facts[Mlflow.MODEL] = clean(model if known else f"{model} (price unknown)", CHARS_TAG)
    if usage is not None:
        facts |= {
            GenAi.INPUT_TOKENS: usage.input_tokens,
            GenAi.OUTPUT_TOKENS: usage.output_tokens,
            GenAi.CACHED_TOKENS: usage.cached_tokens or None,
            Mlflow.USAGE: {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
            }
            | ({"cache_read_input_tokens": usage.cached_tokens} if usage.cached_tokens else {}),
        }
    return facts


def kind_attributes(call: CallRecord) -> dict[str, Any]:
    """Return the attributes that depend on the kind of call."""
    kind, name = call.intent.kind, call.intent.name
    if kind is CallKind.MODEL:
        return _model_attributes(call)
    named = {
        CallKind.TOOL: GenAi.TOOL_NAME,
        CallKind.AGENT: GenAi.AGENT_NAME,
        CallKind.DATA: GenAi.DATA_SOURCE,
        CallKind.JOB: GenAi.WORKFLOW_NAME,
        CallKind.HUMAN: "toolkit.question",
        CallKind.RESULT: "toolkit.result",
    }[kind]
    facts: dict[str, Any] = {named: name} | _cost(call, None)
    if kind is CallKind.TOOL:
        facts |= {GenAi.TOOL_TYPE: "function", GenAi.TOOL_CALL_ID: call.key}
    return facts


def encode(facts: dict[str, Any]) -> dict[str, str]:
    """Return JSON text by name, without the facts that are ``None``."""
    return {name: to_json(value) for name, value in facts.items() if value is not None}
