"""Ledger → MLflow: what people look at.  The only room that knows MLflow.

Rules
-----
* The ledger is the truth, MLflow a view of it.  MLflow fails open: a call never waits for it and
  never fails because of it; the shipper warns once, counts, and catches up.
* Ids are derived from the ledger's ids.  Everything may be sent again, and changes nothing.
* What is shipped is marked only after MLflow has committed it.  One process ships at a time, and a
  burst of calls goes before its spans, but not a whole evaluation before its own.
* An unknown cost is unknown in MLflow too; it is never shown as zero, nor as MLflow's own guess.
* One call that MLflow refuses never holds up the others, and still has a span.
* One call is one span.  Its attempts are spans below it that count as no call and carry no cost:
  at most 200 calls share a trace, and of each call at most eight attempts are drawn on top.
* How far the audit log got is kept here too (:mod:`.anchors`), for a reader who trusts MLflow's disk
  and not the registry's.
* No vector and no row of data is on a span: numbers, dimensions and digests are.
* No secret and no traceback leaves this room; MLflow's errors become
  :class:`~toolkit.errors.TrackingError` in ``vendor.py`` and nowhere else.
* MLflow is imported on first use (1.1 s, 160 MB): importing this room, or making a link, is cheap.
* No telemetry: ``vendor.QUIET`` is the environment of every process that loads MLflow.

Processes: ``python -m toolkit.tracing.shipper ROOT [--parent PID]`` and
``python -m toolkit.tracing.counts ROOT``.
"""

from __future__ import annotations

from toolkit.tracing.anchors import ANCHOR_EXPERIMENT, Anchor, Anchors
from toolkit.tracing.conventions import CONVENTIONS_VERSION
from toolkit.tracing.counting import RunCount, compare_counts
from toolkit.tracing.datasets import DatasetRecord, read_dataset
from toolkit.tracing.evaluations import EvaluatedCase, EvaluationLog
from toolkit.tracing.ids import mlflow_trace_id
from toolkit.tracing.links import (
    artifact_url,
    compare_evaluations_url,
    compare_runs_url,
    experiment_url,
    model_url,
    model_version_url,
    run_url,
    session_url,
    trace_url,
    traces_url,
)
from toolkit.tracing.notes import Note, call_notes
from toolkit.tracing.outbox import MemoryOutbox, Outbox, RunTotals
from toolkit.tracing.server import MlflowServer, ServerState
from toolkit.tracing.shipping import Shipper, ShipperStats, experiment_of
from toolkit.tracing.store import MlflowStore, TraceStore
from toolkit.tracing.tracking import Tracking
from toolkit.tracing.turns import TURN, Turn
from toolkit.tracing.vendor import QUIET, warm_up

__all__ = [
    "ANCHOR_EXPERIMENT",
    "CONVENTIONS_VERSION",
    "QUIET",
    "TURN",
    "Anchor",
    "Anchors",
    "DatasetRecord",
    "EvaluatedCase",
    "EvaluationLog",
    "MemoryOutbox",
    "MlflowServer",
    "MlflowStore",
    "Note",
    "Outbox",
    "RunCount",
    "RunTotals",
    "ServerState",
    "Shipper",
    "ShipperStats",
    "TraceStore",
    "Tracking",
    "Turn",
    "artifact_url",
    "call_notes",
    "compare_counts",
    "compare_evaluations_url",
    "compare_runs_url",
    "experiment_of",
    "experiment_url",
    "mlflow_trace_id",
    "model_url",
    "model_version_url",
    "read_dataset",
    "run_url",
    "session_url",
    "trace_url",
    "traces_url",
    "warm_up",
]
