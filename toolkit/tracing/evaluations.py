"""An evaluation in the form that MLflow's evaluation pages read.

MLflow 3.17 shows a run as an evaluation when it has the tag ``mlflow.runType=genai_evaluate``, and
takes the cases from the traces that are linked to it: feedback per scorer, an expectation for what
was expected, ``<scorer>/mean`` as metrics.  ``mlflow.genai.evaluate`` writes the same at 63 to
125 ms per case and calls the function under test once more than needed; this takes about 1 ms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.tracing.attributes import clean
from toolkit.tracing.bulk import TraceStanding
from toolkit.tracing.ids import mlflow_trace_id
from toolkit.tracing.spans import case_span
from toolkit.tracing.store import MlflowStore
from toolkit.tracing.vendor import tracking_errors
from toolkit.values import RunRecord

__all__ = ["EvaluatedCase", "EvaluationLog", "write_evaluation"]

_SPANS_PER_REQUEST = 900
_CHARS_DIGEST = 36
_CHARS_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class EvaluatedCase:
    """One case and what its scorers said.

    Attributes:
        case_id: Unique in the evaluation set.
        inputs: JSON value that the agent got.
        output: JSON value that it answered.
        expected: JSON value of the set, ``None`` if there is none.
        scores: Number, truth value or text by scorer; ``None`` means that the scorer failed.
        rationales: Why, by scorer.
        error: Why there is no output.
        trace_key: Trace of the case's calls in the evaluation run (``CallRecord.trace_key``);
            ``None`` if it made none.
        slice: Name of the slice that the case belongs to.
    """

    case_id: str
    inputs: Any
    output: Any = None
    expected: Any = None
    scores: Mapping[str, float | bool | str | None] = field(default_factory=dict)
    rationales: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    trace_key: str | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationLog:
    """One evaluation.

    Attributes:
        name: Name of the evaluation set.
        digest: Digest of the set's files.
        rows: One per case.
        means: Mean by scorer, as the gate saw it.
        tags: More facts for the run (gate verdicts, baseline …).
    """

    name: str
    digest: str
    rows: Sequence[EvaluatedCase]
    means: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def _assessment_id(run_id: str, case_id: str, name: str) -> str:
    """Return an id that is the same each time: MLflow replaces by id, and appends otherwise."""
    text = f"{run_id}\0{case_id}\0{name}".encode("utf-8", "surrogatepass")
    return f"a-{hashlib.sha256(text).hexdigest()[:32]}"


def _assessments(run: RunRecord, mlflow_run_id: str, row: EvaluatedCase) -> list[Any]:
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    at_ms = (run.ended_us or run.started_us or run.created_us) // 1000
    when = {"create_time_ms": at_ms, "last_update_time_ms": at_ms}
    found: list[Any] = []
    for scorer, value in row.scores.items():
        feedback = Feedback(
            name=scorer,
            value=value,
            error=ValueError("the scorer failed") if value is None else None,
            source=AssessmentSource(source_type="CODE", source_id=scorer),
            rationale=row.rationales.get(scorer),
            metadata={"mlflow.assessment.sourceRunId": mlflow_run_id},
            **when,
        )
        feedback.assessment_id = _assessment_id(run.run_id, row.case_id, f"score:{scorer}")
        found.append(feedback)
    if row.expected is not None:
        expectation = Expectation(
            name="expected",
            value=row.expected,
            source=AssessmentSource(source_type="HUMAN", source_id="evaluation set"),
            metadata={"mlflow.assessment.sourceRunId": mlflow_run_id},
            **when,
        )
        expectation.assessment_id = _assessment_id(run.run_id, row.case_id, "expected")
        found.append(expectation)
    return found


def _trace_of(run: RunRecord, row: EvaluatedCase) -> str:
    return mlflow_trace_id(run.run_id, row.trace_key or f"case:{row.case_id}")


def _draw_missing(
    store: MlflowStore, experiment_id: str, run: RunRecord, rows: Sequence[EvaluatedCase]
) -> dict[str, tuple[EvaluatedCase, TraceStanding]]:
    """Return MLflow's trace of each case, drawing those that have no calls in MLflow."""
    at_us = run.started_us or run.created_us
    there = store.standing(_trace_of(run, row) for row in rows)
    names: dict[str, EvaluatedCase] = {}
    spans = []
    for row in rows:
        name = _trace_of(run, row)
        if name not in there:
            span = case_span(
                run,
                row.case_id,
                inputs=row.inputs,
                output=row.output,
                error=row.error,
                at_us=at_us,
            )
            spans.append(span)
            name = span.mlflow_trace_id
        names[name] = row
    for at in range(0, len(spans), _SPANS_PER_REQUEST):
        store.log_spans(experiment_id, spans[at : at + _SPANS_PER_REQUEST])
    there |= store.standing(span.mlflow_trace_id for span in spans)
    return {name: (row, there[name]) for name, row in names.items() if name in there}


def _describe_run(
    store: MlflowStore, mlflow_run_id: str, run: RunRecord, log: EvaluationLog
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

    at_ms = (run.ended_us or run.started_us or run.created_us) // 1000
    tags = {
        "mlflow.runType": "genai_evaluate",
        "toolkit.evaluation": log.name,
        "toolkit.evaluation_digest": log.digest,
    } | dict(log.tags)
    digest = log.digest.rpartition(":")[2][:_CHARS_DIGEST] or "none"
    dataset = Dataset(
        name=log.name,
        digest=digest,
        source_type="toolkit",
        source=f"evaluations/{log.name}",
        profile=f'{{"num_rows": {len(log.rows)}}}',
    )
    with tracking_errors(f"describe the evaluation {log.name}", store.uri):
        store.client.log_batch(
            mlflow_run_id,
            metrics=[Metric(f"{name}/mean", mean, at_ms, 0) for name, mean in log.means.items()],
            tags=[RunTag(name, clean(str(value), _CHARS_TEXT)) for name, value in tags.items()],
        )
        store.client.log_inputs(
            mlflow_run_id,
            datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "eval")])],
        )


def write_evaluation(
    store: MlflowStore,
    experiment_id: str,
    mlflow_run_id: str,
    run: RunRecord,
    log: EvaluationLog,
) -> None:
    """Write tags, means, data set and the assessments of every case; may be repeated.

    Raises:
        TrackingError: MLflow failed; calling again completes what is missing.
    """
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    _describe_run(store, mlflow_run_id, run, log)
    drawn = _draw_missing(store, experiment_id, run, log.rows)
    infos = []
    for name, (row, trace) in drawn.items():
        tags = {"toolkit.case": clean(row.case_id, _CHARS_TEXT)}
        if row.slice is not None:
            tags["toolkit.slice"] = clean(row.slice, _CHARS_TEXT)
        infos.append(
            TraceInfo(
                trace_id=name,
                trace_location=TraceLocation.from_experiment_id(experiment_id),
                # What MLflow has already is said again: this call replaces it.
                request_time=trace.start_ms,
                execution_duration=trace.took_ms,
                state=TraceState(trace.state),
                trace_metadata={"mlflow.sourceRun": mlflow_run_id},
                tags=tags,
                assessments=_assessments(run, mlflow_run_id, row),
            )
        )
    store.complete(infos)
    store.link(sorted(drawn), mlflow_run_id)
