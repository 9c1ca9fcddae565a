"""Facts of a run as MLflow's params, metrics and tags: plain data, no vendor."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from toolkit.tracing.attributes import clean
from toolkit.tracing.outbox import RunTotals
from toolkit.values import CallKind, RunKind, RunRecord, RunState

__all__ = ["STATUS", "run_metrics", "run_name", "run_params", "run_tags", "table_csv"]

_CHARS_PARAM = 500
_CHARS_TAG = 5_000
_CHARS_KEY = 200

STATUS: Final[dict[RunState, str]] = {
    RunState.QUEUED: "SCHEDULED",
    RunState.RUNNING: "RUNNING",
    RunState.WAITING: "RUNNING",
    RunState.SUCCEEDED: "FINISHED",
    RunState.SKIPPED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.DENIED: "FAILED",
    RunState.TIMED_OUT: "FAILED",
    RunState.LOST: "FAILED",
    RunState.KILLED: "KILLED",
    RunState.CANCELLED: "KILLED",
}
"""MLflow's status of each of our states; the state itself is the tag ``toolkit.state``."""

_GIT = {
    "git_commit": "mlflow.source.git.commit",
    "git_branch": "mlflow.source.git.branch",
    "git_url": "mlflow.source.git.repoURL",
}


def _key(text: str) -> str:
    """Return a name that MLflow takes as a key of a metric, param or tag."""
    return re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII).strip("./ ")[:_CHARS_KEY] or "_"


def run_name(run: RunRecord) -> str:
    """Return what a person sees in the list of runs: what ran, and the end of its id."""
    what = PurePosixPath(run.notebook).name if run.notebook else run.kind.value
    if run.job:
        what = run.job if run.version is None else f"{run.job}@{run.version}"
    if run.kind not in (RunKind.RUN, RunKind.SESSION):
        what = f"{what} {run.kind.value}"
    return clean(f"{what} {run.run_id[-8:]}", _CHARS_KEY)


def run_params(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as text: strings as they are, everything else as JSON."""
    return {
        _key(name): clean(
            value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False),
            _CHARS_PARAM,
        )
        for name, value in parameters.items()
    }


def run_tags(run: RunRecord) -> dict[str, str]:
    """Return the tags of a run, without empty ones."""
    facts: dict[str, Any] = {
        "mlflow.user": run.user,
        "mlflow.source.name": run.notebook or run.job,
        "mlflow.source.type": "JOB" if run.kind is RunKind.RUN else "NOTEBOOK",
        "toolkit.run": run.run_id,
        "toolkit.kind": run.kind.value,
        "toolkit.environment": run.environment.value,
        "toolkit.team": run.team,
        "toolkit.job": run.job,
        "toolkit.version": run.version,
        "toolkit.notebook": run.notebook,
        "toolkit.state": run.state.value,
        "toolkit.cause": run.cause.value if run.cause else None,
        "toolkit.policy_digest": run.policy_digest,
        "toolkit.source_run": run.source_run_id,
        "toolkit.parent_run": run.parent_run_id,
        "toolkit.runner": run.runner,
    }
    if run.state.terminal and (run.cause or run.message):
        # Shown as the description on the run's page.
        why = " - ".join(filter(None, (run.cause.value if run.cause else None, run.message)))
        facts["mlflow.note.content"] = f"{run.state.value}: {why}"
    for name, value in run.tags.items():
        facts[_GIT.get(name, f"toolkit.tag.{_key(name)}")] = value
    return {
        name: clean(str(value), _CHARS_TAG)
        for name, value in facts.items()
        if value is not None and value != ""
    }


def _finite(value: Any) -> float | None:
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def run_metrics(run: RunRecord, totals: RunTotals, results: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a finished run.

    ``cost_usd`` is absent while the cost of any call is unknown: a sum that leaves calls out
    would read as their total.  ``known_cost_usd`` and ``unknown_cost_calls`` say what there is.
    """
    known = float(totals.cost.usd)
    facts: dict[str, Any] = {
        "cost_usd": None if totals.unknown_cost_calls else known,
        "known_cost_usd": known if totals.unknown_cost_calls else None,
        "unknown_cost_calls": totals.unknown_cost_calls,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "total_tokens": totals.input_tokens + totals.output_tokens,
        "calls": totals.calls,
        "model_calls": totals.by_kind.get(CallKind.MODEL, 0),
        "tool_calls": totals.by_kind.get(CallKind.TOOL, 0),
        "errors": totals.errors,
        "denied": totals.denied,
        "latency_p50_s": totals.latency_p50_s,
        "latency_p95_s": totals.latency_p95_s,
    }
    if run.started_us is not None and run.ended_us is not None:
        facts["seconds"] = max(0.0, (run.ended_us - run.started_us) / 1e6)
    for name, value in results.items():
        facts[f"result.{_key(name)}"] = value
        if isinstance(value, dict):  # counts by class are numbers to compare, too
            facts |= {f"result.{_key(f'{name}.{part}')}": each for part, each in value.items()}
    numbers = {name: _finite(value) for name, value in facts.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def table_csv(value: Any) -> str | None:
    """Return a result as CSV if it is a table, else ``None``.

    Tables are a list of objects, or what a published DataFrame becomes: ``{"type": "table",
    "columns": […], "rows": [[…], …]}``.
    """
    if isinstance(value, dict) and value.get("type") == "table":
        value = [dict(zip(value["columns"], row, strict=True)) for row in value["rows"]]
    if not isinstance(value, list) or not value or not all(isinstance(r, dict) for r in value):
        return None
    names = list(dict.fromkeys(str(name) for row in value for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in value:
        writer.writerow(
            {
                str(name): json.dumps(cell, ensure_ascii=False, default=str)
                if isinstance(cell, dict | list)
                else cell
                for name, cell in row.items()
            }
        )
    return out.getvalue()
