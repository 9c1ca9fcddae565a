"""Calls answered = calls in the ledger = spans in MLflow: is it so?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.tracing.attributes import has_session
from toolkit.tracing.outbox import Outbox
from toolkit.tracing.shipping import experiment_of
from toolkit.tracing.store import MlflowStore
from toolkit.values import RunRecord

__all__ = ["RunCount", "compare_counts"]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class RunCount:
    """The two counts of one run.

    Attributes:
        run_id: The run.
        calls: Finished calls in the ledger (a call under way has no span yet).
        spans: Spans in MLflow that stand for calls.
    """

    run_id: str
    calls: int
    spans: int

    def __bool__(self) -> bool:
        return self.calls == self.spans


def _finished(ledger: Outbox, run_id: str) -> int:
    count, seq = 0, 0
    while page := ledger.calls(run_id, after_seq=seq, limit=_PAGE):
        count += sum(call.outcome is not None for call in page)
        seq = max(call.seq for call in page)
    return count


def compare_counts(
    ledger: Outbox,
    store: MlflowStore,
    *,
    experiment: str,
    runs: Iterable[RunRecord] | None = None,
) -> list[RunCount]:
    """Count the calls of runs in the ledger and in MLflow.

    Args:
        ledger: The truth.
        store: What people look at.
        experiment: Name of the experiment of runs that belong to no job.
        runs: Which runs; the newest 10,000 if not given.

    Raises:
        TrackingError: MLflow failed.
        LedgerError: The ledger failed.
    """
    found = []
    for run in ledger.runs(limit=10_000) if runs is None else runs:
        calls = _finished(ledger, run.run_id)
        place = store.experiment(experiment_of(run, experiment))
        spans = store.count_calls(place, run.run_id, session=has_session(run))
        found.append(RunCount(run.run_id, calls, spans))
    return found
