"""What answers cost and took, and where they are drawn, wherever they were asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from toolkit.errors import NotFound
from toolkit.evaluation import EvaluationSet
from toolkit.ledger import Ledger
from toolkit.promotion.before import case_measures
from toolkit.values import CallKind, RunRecord

__all__ = ["child_name", "measures", "runs_of", "together", "traces"]


def measures(
    chosen: EvaluationSet, ledger: Ledger, asked_in: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Return costs and times by case: those of its trials together.

    Args:
        chosen: The set.
        ledger: Where the runs stand.
        asked_in: By question, the run that it was asked in.
    """
    measure = _job_measures if chosen.target == "job" else case_measures
    by_run: dict[str, dict[str, dict[str, float]]] = {}
    found: dict[str, dict[str, float]] = {}
    for case in chosen.cases:
        parts: list[dict[str, float]] = []
        for question in chosen.questions(case.id):
            run_id = asked_in.get(question)
            if run_id is None:
                continue
            if run_id not in by_run:
                by_run[run_id] = measure(ledger, run_id, list(ledger.case_inputs(run_id)))
            parts.append(by_run[run_id].get(question, {}))
        found[case.id] = together(parts)
    return found


def together(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what the trials of a case cost and took together.

    A trial without a known price leaves the case without one.
    """
    return {
        name: sum(part[name] for part in parts)
        for name in ("seconds", "usd")
        if parts and all(name in part for part in parts)
    }


def runs_of(chosen: EvaluationSet, ledger: Ledger, run_ids: Iterable[str]) -> Iterator[str]:
    """Yield the runs of an evaluation, and of whole jobs the runs that answered the questions."""
    for run_id in run_ids:
        yield run_id
        if chosen.target == "job":
            for _, child in _children(ledger, run_id, list(ledger.case_inputs(run_id))):
                yield child.run_id


def _children(
    ledger: Ledger, run_id: str, questions: Sequence[str]
) -> Iterator[tuple[str, RunRecord]]:
    for number, question in enumerate(questions, 1):
        # One whose parameters did not fit never ran.
        with suppress(NotFound):
            yield question, ledger.get_run(child_name(run_id, number))


def child_name(run_id: str, number: int) -> str:
    """Return the id of the run that answers one question of an evaluation, from 1 on."""
    return f"{run_id}-{number}"


def _job_measures(
    ledger: Ledger, run_id: str, questions: Sequence[str]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for question, child in _children(ledger, run_id, questions):
        totals = ledger.totals(child.run_id)
        found[question] = {"usd": float(totals.cost.usd)} if not totals.unknown_cost_calls else {}
        if child.started_us is not None and child.ended_us is not None:
            found[question]["seconds"] = (child.ended_us - child.started_us) / 1e6
    return found


def traces(ledger: Ledger, run_ids: Iterable[str]) -> dict[str, str]:
    """Return the trace of each case's first agent call."""
    found: dict[str, str] = {}
    for run_id in run_ids:
        after = 0
        while calls := ledger.calls(run_id, after_seq=after, limit=1000):
            after = calls[-1].seq
            for call in calls:
                if call.intent.case_id and call.intent.kind is CallKind.AGENT:
                    found.setdefault(call.intent.case_id, call.trace_key)
    return found
