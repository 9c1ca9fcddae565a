"""Facts of a call as span attributes: run, kind, model, usage, cost, payload."""

from __future__ import annotations

import json
from typing import Any, Final

from toolkit.tracing.conventions import (
    CHARS_QUERY,
    CHARS_TAG,
    CONVENTIONS_VERSION,
    GenAi,
    Mlflow,
)
from toolkit.values import CallKind, CallRecord, CallState, RunKind, RunRecord, Usage, digest_bytes

__all__ = [
    "PAYLOAD_BYTES",
    "clean",
    "encode",
    "has_session",
    "is_embedding",
    "kind_attributes",
    "payload",
    "run_attributes",
    "session_attributes",
    "shown_answer",
    "to_json",
]

PAYLOAD_BYTES: Final = 64 * 1024
"""Longest inputs or outputs that are sent, bytes of JSON; longer ones are cut and digested."""


# Not ASCII-escaped: MLflow searches the stored text.
_JSON = json.JSONEncoder(ensure_ascii=False, default=str)


def clean(text: str, limit: int) -> str:
    """Cut text, and replace lone surrogates, which no database takes."""
    text = _storable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_json(value: Any) -> str:
    """Return JSON text that every database takes."""
    return _storable(_JSON.encode(value))


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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


def is_embedding(call: CallRecord) -> bool:
    """Whether a model call asks for the vectors of texts, and not for a conversation."""
    arguments = call.intent.arguments
    return (
        call.intent.kind is CallKind.MODEL
        and isinstance(arguments, dict)
        and "input" in arguments
        and "messages" not in arguments
    )


def shown_answer(call: CallRecord) -> Any:
    """Return what a span shows as its output; the ledger has the answer as it came."""
    answer = call.outcome.answer if call.outcome else None
    if is_embedding(call):
        count, dimension = _vectors(answer)
        return None if count is None else {"embeddings": count, "dimension": dimension}
    return _chat_answer(answer) if call.intent.kind is CallKind.MODEL else answer


def _vectors(answer: Any) -> tuple[int | None, int | None]:
    """Return number and dimension of an answer's vectors (base64 of 32-bit floats)."""
    vectors = answer.get("embeddings") if isinstance(answer, dict) else None
    if not isinstance(vectors, list):
        return None, None
    first = vectors[0] if vectors else None
    if isinstance(first, str):
        return len(vectors), (len(first) * 3 // 4 - first[-2:].count("=")) // 4
    return len(vectors), len(first) if isinstance(first, list) else None


def _chat_answer(answer: Any) -> Any:
    """Return a model's answer in the shape that MLflow draws as a conversation."""
    if not isinstance(answer, dict) or "text" not in answer:
        return answer
    message: dict[str, Any] = {"role": "assistant", "content": answer.get("text")}
    if answer.get("tool_calls"):
        message["tool_calls"] = answer["tool_calls"]
    rest = {k: v for k, v in answer.items() if k not in ("text", "tool_calls", "finish_reason")}
    choice = {"index": 0, "finish_reason": answer.get("finish_reason"), "message": message}
    return {"choices": [choice], **{k: v for k, v in rest.items() if v is not None}}


def has_session(run: RunRecord) -> bool:
    """Whether the traces of a run are one session of MLflow; if not, the tag ``toolkit.run`` finds them."""
    return run.kind is not RunKind.EVALUATION


def session_attributes(run: RunRecord | None, run_id: str) -> dict[str, Any]:
    """Return what makes MLflow show the traces of a run as one session.

    Not for an evaluation: its cases are no conversation, and MLflow compares two evaluations case by
    case only where their traces are in no session.
    """
    if run is not None and not has_session(run):
        return {}
    return {Mlflow.SESSION: clean(run_id, CHARS_TAG), GenAi.CONVERSATION: run_id}


def run_attributes(run: RunRecord | None, run_id: str) -> dict[str, Any]:
    """Return what a span says about its run."""
    facts: dict[str, Any] = {
        **session_attributes(run, run_id),
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


def _cost(call: CallRecord, usage: Usage | None) -> dict[str, Any]:
    """Return the cost attributes; see the traps at the top of ``spans.py``."""
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
    }
    if is_embedding(call):
        facts["toolkit.embeddings"], facts[GenAi.DIMENSIONS] = _vectors(answer)
    else:
        facts[Mlflow.FORMAT] = "openai"
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
        CallKind.VALUE: "toolkit.value",
    }[kind]
    facts: dict[str, Any] = {named: name} | _cost(call, None)
    if kind is CallKind.DATA:
        facts |= _data_attributes(call)
    if kind is CallKind.TOOL:
        facts |= {GenAi.TOOL_TYPE: "function", GenAi.TOOL_CALL_ID: call.key}
    return facts


def _data_attributes(call: CallRecord) -> dict[str, Any]:
    """Return what was asked of a source and what came, by number and digest: never a row."""
    asked = call.intent.arguments if isinstance(call.intent.arguments, dict) else {}
    answer = call.outcome.answer if call.outcome else None
    got = answer if isinstance(answer, dict) else {}
    # The file that was read is the query of a source without a language.
    query = asked.get("sql") or asked.get("path")
    return {
        GenAi.QUERY_TEXT: None if query is None else clean(str(query), CHARS_QUERY),
        "toolkit.operation": asked.get("operation"),
        "toolkit.rows": got.get("rows"),
        "toolkit.bytes": got.get("bytes"),
        "toolkit.affected": got.get("affected"),
        "toolkit.columns": got.get("columns"),
        "toolkit.digest": got.get("digest"),
    }


def encode(facts: dict[str, Any]) -> dict[str, str]:
    """Return JSON text by name, without the facts that are ``None``."""
    return {name: to_json(value) for name, value in facts.items() if value is not None}
