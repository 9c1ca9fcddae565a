"""Runs as JSON, for `--json` and for other programs."""

from __future__ import annotations

from typing import Any

from toolkit.app.workbench import Workbench
from toolkit.values import RunRecord, RunState, iso_utc

__all__ = ["run_json", "run_report_json", "totals_json", "wall_s"]


def run_report_json(bench: Workbench, report: Any) -> dict[str, Any]:
    """Return a run report as JSON values."""
    return {
        **run_json(report.run),
        "seconds": report.seconds,
        "cell": report.cell,
        "totals": totals_json(report.totals),
        "results": report.results,
        "notebook_output": str(report.output) if report.output else None,
        "report": str(report.report) if report.report else None,
        "url": bench.pages.run(report.run),
        "warnings": list(report.warnings),
        "repeated": report.repeated,
    }


def run_json(record: RunRecord) -> dict[str, Any]:
    """Return a run's record as JSON values."""
    return {
        "run_id": record.run_id,
        "kind": record.kind.value,
        "job": record.job,
        "version": record.version,
        "notebook": record.notebook,
        "environment": record.environment.value,
        "user": record.user,
        "state": record.state.value,
        "cause": record.cause.value if record.cause else None,
        "message": record.message,
        "waiting": _waiting_json(record),
        "parameters": record.parameters,
        "started": iso_utc(record.started_us) if record.started_us else None,
        "ended": iso_utc(record.ended_us) if record.ended_us else None,
        "policy_digest": record.policy_digest,
        "mlflow_run_id": record.mlflow_run_id,
        "tags": record.tags,
    }


def _waiting_json(record: RunRecord) -> dict[str, Any] | None:
    if record.state is not RunState.WAITING:
        return None
    from toolkit.execution import requests_of, until_us

    until = until_us(record)
    return {
        "requests": requests_of(record),
        "until": iso_utc(until) if until is not None else None,
    }


def totals_json(totals: Any) -> dict[str, Any]:
    """Return what a run's calls came to as JSON values."""
    return {
        "calls": totals.calls,
        "by_kind": dict(totals.by_kind),
        "errors": totals.errors,
        "denied": totals.denied,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cost_usd": str(totals.cost.usd),
        "unknown_cost_calls": totals.unknown_cost_calls,
        "latency_p50_s": totals.latency_p50_s,
        "latency_p95_s": totals.latency_p95_s,
    }


def wall_s(record: RunRecord) -> float | None:
    """Return how long a run took from start to end, in seconds, with what it waited."""
    if record.started_us is None or record.ended_us is None:
        return None
    return (record.ended_us - record.started_us) / 1e6
