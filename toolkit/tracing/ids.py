"""Ids of what MLflow draws beside calls: attempts, roots of traces.

As those of calls (``toolkit.values``) they are derived from the ledger's ids; the n-th attempt of a call
has ``sha256(call_id + "/attempt/" + n)``.
"""

from __future__ import annotations

from toolkit.values import number_of, span_id, trace_id

__all__ = [
    "agent_root",
    "attempt_span_id",
    "is_shard",
    "mlflow_trace_id",
    "root_span_id",
    "span_id",
    "trace_id",
]


def attempt_span_id(call_id: str, number: int) -> int:
    """Return the 64 bit id of the span of a call's attempt; the first one has the number 1."""
    return number_of(f"{call_id}/attempt/{number}", 8)


def is_shard(trace_key: str) -> bool:
    """Whether the trace has no call as its root: loose calls, or a continuation (``…#2``)."""
    return trace_key.startswith("loose:") or "#" in trace_key


def agent_root(trace_key: str) -> tuple[str, int] | None:
    """Return (key, generation) of the agent call that a trace belongs to, if any."""
    key, _, generation = trace_key.partition("#")[0].rpartition(":")
    if key in ("", "loose") or not generation.isdigit():
        return None
    return key, int(generation)


def root_span_id(run_id: str, trace_key: str) -> int:
    """Return the span id of the trace's root: the agent's call, or the shard's own span."""
    agent = agent_root(trace_key)
    if agent is None or is_shard(trace_key):
        return number_of(f"{run_id}/{trace_key}/root", 8)
    return span_id(f"{run_id}/{agent[0]}/{agent[1]}")


def mlflow_trace_id(run_id: str, trace_key: str) -> str:
    """Return MLflow's name of a trace: ``tr-`` and 32 hex digits."""
    return f"tr-{trace_id(run_id, trace_key):032x}"
