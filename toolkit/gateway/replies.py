"""What the gateway tells a kernel about runs and calls, as JSON values."""

from __future__ import annotations

from typing import Any, Protocol

from toolkit.gateway.asked import approved_change
from toolkit.tracing import call_notes
from toolkit.values import CallRecord, Outcome, RunRecord, iso_utc

__all__ = ["call_reply", "call_row", "run_reply"]


class _Links(Protocol):
    def trace(self, run: RunRecord, run_id: str, trace_key: str) -> str | None: ...


def run_reply(run: RunRecord) -> dict[str, Any]:
    """Return what a kernel may know of its run; never the token's digest."""
    return {
        "run_id": run.run_id,
        "kind": run.kind.value,
        "environment": run.environment.value,
        "user": run.user,
        "team": run.team,
        "job": run.job,
        "version": run.version,
        "notebook": run.notebook,
        "state": run.state.value,
    }


def call_reply(
    call: CallRecord, run: RunRecord, links: _Links, *, replayed: bool
) -> dict[str, Any]:
    """Return the reply to one call: identity, decision, and the outcome once there is one."""
    decision = call.decision
    change = None if call.outcome is not None else approved_change(call)
    return {
        **({} if change is None else {"change": change}),
        "run_id": call.intent.run_id,
        "key": call.key,
        "generation": call.generation,
        "call_id": call.call_id,
        "replayed": replayed,
        "latency_s": call.latency_s,
        "trace_url": links.trace(run, call.intent.run_id, call.trace_key),
        "decision": {
            "verdict": decision.verdict.value,
            "policies": list(decision.policies),
            "reasons": list(decision.reasons),
            "production_verdict": (
                decision.production_verdict.value if decision.production_verdict else None
            ),
            "production_reasons": list(decision.production_reasons),
        },
        "outcome": None if call.outcome is None else _outcome(call.outcome),
        **({"notes": [list(note) for note in notes]} if (notes := call_notes(call)) else {}),
    }


def call_row(call: CallRecord, run: RunRecord, links: _Links) -> dict[str, Any]:
    """Return one line of a table of calls: facts, no payload."""
    reply = call_reply(call, run, links, replayed=False)
    outcome = reply["outcome"] or {}
    return {
        "seq": call.seq,
        "at": iso_utc(call.started_us),
        "kind": call.intent.kind.value,
        "name": call.intent.name,
        "state": call.state.value,
        "depth": 0 if call.intent.parent is None else 1,
        "generation": call.generation,
        "decision": reply["decision"],
        "latency_s": call.latency_s,
        "model": outcome.get("model"),
        "provider": outcome.get("provider"),
        "usage": outcome.get("usage"),
        "cost_usd": outcome.get("cost_usd"),
        "error": outcome.get("error"),
        "trace_url": reply["trace_url"],
        "agent": call.intent.agent,
        "notes": reply.get("notes", ()),
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    usage = outcome.usage
    return {
        "state": outcome.state.value,
        "answer": outcome.answer,
        "error": outcome.error,
        "usage": None
        if usage is None
        else {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "cost_usd": None if outcome.cost is None else str(outcome.cost.usd),
        "provider": outcome.provider,
        "model": outcome.model,
    }
