"""Records to JSON text and back, and the columns that a body stands for.

The text of a body is hashed as it is stored.  It keeps member order and number spelling (``1.0``
stays ``1.0``), because a replay must give back what was given first.  Every payload must
nevertheless have a canonical form, which refuses NaN, other types, and nesting beyond 64 levels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from toolkit.errors import UsageError
from toolkit.values import (
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    Cause,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Usage,
    Verdict,
    canonical_bytes,
    read_json,
    write_json,
)

__all__ = [
    "as_recorded",
    "call_from",
    "check_amount",
    "check_payload",
    "check_plain",
    "decision_from",
    "decision_json",
    "intent_columns",
    "intent_json",
    "json_text",
    "outcome_columns",
    "outcome_from",
    "outcome_json",
    "run_columns",
    "run_from",
    "run_json",
]

_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = 2**63


def json_text(value: Any) -> str:
    """Return compact JSON that both databases can store.

    A lone surrogate (half an emoji, cut by a provider) has no UTF-8 form; it is written as the
    JSON escape, which reads back as the same string.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_recorded(value: Any) -> Any:
    """Return a JSON value as whoever reads it from the ledger gets it: another object, tuples as lists."""
    try:
        return read_json(write_json(value))
    except (TypeError, ValueError):  # half a surrogate pair
        return json.loads(json_text(value))


def check_payload(value: Any, what: str) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        UsageError: The value is not JSON; the message says where.
    """
    try:
        return canonical_bytes(value)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} cannot be recorded: {error}",
            where=what,
            next_step="pass JSON values only: text, finite numbers, booleans, null, lists, objects",
        ) from error


def check_plain(value: str | None, what: str) -> None:
    """Refuse text that a database column cannot hold.

    Raises:
        UsageError: The text holds a NUL or half a surrogate pair.
    """
    if value is not None and ("\0" in value or not _storable(value)):
        raise UsageError(
            f"{what} {value[:80]!a} holds characters that cannot be stored",
            where=what,
            next_step=f"remove NUL characters and lone surrogates from the {what}",
        )


def _storable(text: str) -> bool:
    return text.isascii() or _SURROGATE.search(text) is None


def check_amount(value: int | None, what: str) -> int | None:
    """Refuse a negative amount, and one that 64 bits cannot hold.

    Raises:
        UsageError: The amount is out of range.
    """
    if value is not None and not 0 <= value < _INT64:
        raise UsageError(
            f"{what} is {value}, outside of 0 … 2^63-1",
            where=what,
            next_step=f"give a {what} that is not negative",
        )
    return value


# -- decisions -----------------------------------------------------------------------------------


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON values."""
    production = decision.production_verdict
    return {
        "verdict": decision.verdict.value,
        "policies": list(decision.policies),
        "reasons": list(decision.reasons),
        "policy_digest": decision.policy_digest,
        "production_verdict": None if production is None else production.value,
        "production_reasons": list(decision.production_reasons),
        **_given(
            approver=decision.approver,
            expires_s=decision.expires_s,
            shadow=list(decision.shadow),
            targets=list(decision.targets),
        ),
    }


def _given(**members: Any) -> dict[str, Any]:
    """Keep the members that say something: entries of older ledgers do not have them."""
    return {name: value for name, value in members.items() if value not in (None, [], {})}


def decision_from(body: dict[str, Any]) -> Decision:
    """Inverse of :func:`decision_json`."""
    production = body["production_verdict"]
    return Decision(
        verdict=Verdict(body["verdict"]),
        policies=tuple(body["policies"]),
        reasons=tuple(body["reasons"]),
        policy_digest=body["policy_digest"],
        production_verdict=None if production is None else Verdict(production),
        production_reasons=tuple(body["production_reasons"]),
        approver=body.get("approver"),
        expires_s=body.get("expires_s"),
        shadow=tuple(body.get("shadow", ())),
        targets=tuple(body.get("targets", ())),
    )


# -- calls ---------------------------------------------------------------------------------------


def intent_json(
    intent: Intent,
    decision: Decision,
    *,
    arguments_digest: str,
    trace_key: str,
    reserved: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the body of a ``call.intent`` entry."""
    return {
        "kind": intent.kind.value,
        "name": intent.name,
        "parent": intent.parent,
        "occurrence": intent.occurrence,
        "request_id": intent.request_id,
        "effect": intent.effect.value,
        "cell": intent.cell,
        "case_id": intent.case_id,
        "trace_key": trace_key,
        "decision": decision_json(decision),
        "reserved": reserved,
        "arguments_digest": arguments_digest,
        **_given(
            agent=intent.agent,
            purpose=intent.purpose,
            labels={name: labels.to_json() for name, labels in intent.labels.items()},
            traceparent=intent.traceparent,
            idempotent=intent.idempotent,
            at_gateway=intent.at_gateway or None,
        ),
        "arguments": intent.arguments,
    }


def intent_columns(body: dict[str, Any], *, n: int, at_us: int) -> dict[str, Any]:
    """Return the columns of ``calls`` that a ``call.intent`` entry stands for."""
    reserved = body["reserved"]
    return {
        "request_id": body["request_id"] or None,
        "kind": body["kind"],
        "name": body["name"],
        "parent": body["parent"],
        "effect": body["effect"],
        "case_id": body["case_id"],
        "trace_key": body["trace_key"],
        "verdict": body["decision"]["verdict"],
        "decision": json_text(body["decision"]),
        "reserved": None if reserved is None else json_text(reserved),
        "intent_n": n,
        "started_us": at_us,
        "state": CallState.STARTED.value,
        "outcome_n": None,
        "ended_us": None,
        "cost_nanos": None,
        "input_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
        "provider": None,
        "model": None,
        "tags": "{}",
        "agent": body.get("agent"),
        "released_n": None,
    }


def outcome_json(outcome: Outcome, charged: Mapping[str, int] | None) -> dict[str, Any]:
    """Return the body of a ``call.outcome`` entry.

    Raises:
        UsageError: An amount is negative, or a payload is not JSON.
    """
    usage, cost = outcome.usage, outcome.cost
    check_payload(outcome.answer, "answer")
    check_payload(outcome.error, "error")
    check_plain(outcome.provider, "provider")
    check_plain(outcome.model, "model")
    return {
        "state": outcome.state.value,
        "error": outcome.error,
        "usage": None
        if usage is None
        else {
            "input_tokens": check_amount(usage.input_tokens, "input tokens"),
            "output_tokens": check_amount(usage.output_tokens, "output tokens"),
            "cached_tokens": check_amount(usage.cached_tokens, "cached tokens"),
        },
        "cost_nanos": check_amount(None if cost is None else cost.nanos, "cost"),
        "provider": outcome.provider,
        "model": outcome.model,
        "attempts": [_attempt_json(attempt) for attempt in outcome.attempts],
        "charged": charged,
        **_given(
            labels=None if outcome.labels is None else outcome.labels.to_json(),
            seconds=outcome.seconds,
        ),
        "answer": outcome.answer,
    }


def _attempt_json(attempt: Attempt) -> list[Any]:
    known = [attempt.target, attempt.started_us, attempt.ended_us, attempt.error]
    return known if attempt.reason is None else [*known, attempt.reason]


def outcome_columns(body: dict[str, Any], *, n: int, at_us: int) -> dict[str, Any]:
    """Return the columns of ``calls`` that a ``call.outcome`` entry stands for."""
    usage = body["usage"] or {}
    return {
        "state": body["state"],
        "outcome_n": n,
        "ended_us": at_us,
        "cost_nanos": body["cost_nanos"],
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cached_tokens": usage.get("cached_tokens"),
        "provider": body["provider"],
        "model": body["model"],
    }


def outcome_from(body: dict[str, Any]) -> Outcome:
    """Inverse of :func:`outcome_json`."""
    usage, cost = body["usage"], body["cost_nanos"]
    return Outcome(
        state=CallState(body["state"]),
        answer=body["answer"],
        error=body["error"],
        usage=None if usage is None else Usage(**usage),
        cost=None if cost is None else Money(cost),
        provider=body["provider"],
        model=body["model"],
        attempts=tuple(Attempt(*attempt) for attempt in body["attempts"]),
        labels=Labels.from_json(body["labels"]) if "labels" in body else None,
        seconds=body.get("seconds"),
    )


def call_from(row: Any) -> CallRecord:
    """Build a call from its row joined with the bodies of its intent and its outcome."""
    body = json.loads(row.intent_body)
    return CallRecord(
        seq=row.seq,
        key=row.call_key,
        generation=row.generation,
        intent=Intent(
            run_id=row.run_id,
            kind=CallKind(body["kind"]),
            name=body["name"],
            arguments=body["arguments"],
            parent=body["parent"],
            occurrence=body["occurrence"],
            request_id=body["request_id"],
            effect=Effect(body["effect"]),
            cell=body["cell"],
            case_id=body["case_id"],
            agent=body.get("agent"),
            purpose=body.get("purpose"),
            labels={n: Labels.from_json(v) for n, v in body.get("labels", {}).items()},
            traceparent=body.get("traceparent"),
            idempotent=bool(body.get("idempotent", False)),
            at_gateway=bool(body.get("at_gateway", False)),
        ),
        decision=decision_from(json.loads(row.decision)),
        trace_key=row.trace_key,
        started_us=row.started_us,
        ended_us=row.ended_us,
        outcome=None if row.outcome_body is None else outcome_from(json.loads(row.outcome_body)),
        tags=json.loads(row.tags),
    )


# -- runs ----------------------------------------------------------------------------------------

_RUN_JSON = ("parameters", "results_expected", "tags")
_RUN_PLAIN = (
    *("run_id", "kind", "environment", "user", "state", "cause", "message", "team", "job"),
    *("version", "notebook", "source_run_id", "parent_run_id", "policy_digest"),
    *("token_digest", "created_us", "started_us", "ended_us", "mlflow_run_id", "runner"),
)


def run_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a run as JSON values.

    Raises:
        UsageError: A value cannot be stored.
    """
    for name, value in fields.items():
        if isinstance(value, str):
            check_plain(value, name)
    body = {name: fields[name] for name in fields}
    if "results_expected" in body:
        body["results_expected"] = list(body["results_expected"])
    check_payload(body, "run")
    return body


def run_columns(body: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ``runs`` for (some) fields of a run; ``user`` is a reserved word."""
    columns = {n: json_text(v) if n in _RUN_JSON else v for n, v in body.items()}
    if "user" in columns:
        columns["user_name"] = columns.pop("user")
    return columns


def run_from(row: Any) -> RunRecord:
    """Build a run from its row."""
    plain = {name: getattr(row, "user_name" if name == "user" else name) for name in _RUN_PLAIN}
    plain |= {
        "kind": RunKind(row.kind),
        "environment": Environment(row.environment),
        "state": RunState(row.state),
        "cause": None if row.cause is None else Cause(row.cause),
    }
    return RunRecord(
        **plain,
        parameters=json.loads(row.parameters),
        results_expected=tuple(json.loads(row.results_expected)),
        tags=json.loads(row.tags),
    )
