"""Addresses of pages in MLflow's interface.

Source: the route table of the JavaScript that MLflow 3.17 serves (hash routes); the tests look
for each route in it.  Every value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

__all__ = [
    "artifact_url",
    "compare_evaluations_url",
    "compare_runs_url",
    "experiment_url",
    "model_url",
    "model_version_url",
    "run_url",
    "session_url",
    "trace_url",
    "traces_url",
]


def _page(base: str, *parts: str) -> str:
    return f"{base.rstrip('/')}/#/" + "/".join(quote(part, safe="") for part in parts)


def experiment_url(base: str, experiment_id: str) -> str:
    """Return the address of an experiment's list of runs."""
    return _page(base, "experiments", experiment_id, "runs")


def traces_url(base: str, experiment_id: str) -> str:
    """Return the address of an experiment's list of traces."""
    return _page(base, "experiments", experiment_id, "traces")


def run_url(base: str, mlflow_run_id: str, experiment_id: str | None = None) -> str:
    """Return the address of a run; MLflow finds the experiment itself if it is not given."""
    if experiment_id is None:
        return _page(base, "runs", mlflow_run_id)
    return _page(base, "experiments", experiment_id, "runs", mlflow_run_id)


def artifact_url(base: str, experiment_id: str, mlflow_run_id: str, path: str) -> str:
    """Return the address of a file among a run's artifacts, by its path there."""
    page = run_url(base, mlflow_run_id, experiment_id)
    return f"{page}/artifacts/{quote(path)}"


def trace_url(base: str, experiment_id: str, trace_id: str) -> str:
    """Return the address of a trace, opened over its experiment's list.

    Args:
        base: Address of the server.
        experiment_id: MLflow's id of the experiment.
        trace_id: ``tr-…``, see :func:`toolkit.tracing.mlflow_trace_id`.
    """
    query = urlencode({"selectedEvaluationId": trace_id, "traceId": trace_id})
    return f"{traces_url(base, experiment_id)}?{query}"


def session_url(base: str, experiment_id: str, run_id: str) -> str:
    """Return the address of all traces of one of *our* runs (MLflow calls it a chat session)."""
    return _page(base, "experiments", experiment_id, "chat-sessions", run_id)


def compare_runs_url(
    base: str, experiment_ids: Sequence[str], mlflow_run_ids: Sequence[str]
) -> str:
    """Return the address of the page that compares runs side by side."""
    query = urlencode(
        {
            "runs": json.dumps(list(mlflow_run_ids), separators=(",", ":")),
            "experiments": json.dumps(sorted(set(experiment_ids)), separators=(",", ":")),
        },
        quote_via=quote,
    )
    return f"{_page(base, 'compare-runs')}?{query}"


def compare_evaluations_url(
    base: str, experiment_id: str, mlflow_run_id: str, other_mlflow_run_id: str
) -> str:
    """Return the address of the page that compares two evaluation runs case by case."""
    query = urlencode({"selectedRunUuid": mlflow_run_id, "compareToRunUuid": other_mlflow_run_id})
    return f"{_page(base, 'experiments', experiment_id, 'evaluation-runs')}?{query}"


def model_url(base: str, job: str) -> str:
    """Return the address of the list of versions of a job."""
    return _page(base, "models", job)


def model_version_url(base: str, job: str, model_version: int) -> str:
    """Return the address of a job's version; the number is MLflow's, see ``mirror_version``."""
    return _page(base, "models", job, "versions", str(model_version))
