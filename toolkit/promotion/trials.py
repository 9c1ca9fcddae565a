"""Rehearse and evaluate: real runs under the production policy, or what they were before."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from toolkit.evaluation import (
    Comparison,
    Evaluation,
    EvaluationSet,
    GateVerdict,
    Ruling,
    compare,
    gate,
    regressions,
    score,
)
from toolkit.execution import Runner, RunPlan, RunReport
from toolkit.ledger import Ledger
from toolkit.promotion.asking import Answered, Asking, ask
from toolkit.promotion.before import Before
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.check import Finding, Severity
from toolkit.promotion.early import Early
from toolkit.promotion.judging import Judged, Judges, judge
from toolkit.promotion.labels import is_label_attempt, label_attempts
from toolkit.promotion.measuring import runs_of
from toolkit.promotion.recall import Memory
from toolkit.promotion.restating import restate
from toolkit.promotion.stages import Stage, check_not_stopped, finding
from toolkit.promotion.standards import SetChanges, set_changes
from toolkit.values import CallState, RunKind, RunState

__all__ = ["Evaluated", "evaluate", "rehearse"]

_NOTHING = Before()
_NAMED = 10


def rehearse(candidate: Candidate, runner: Runner, ledger: Ledger, memory: Memory) -> Stage:
    """Run the candidate as production would; every denied call is a finding.

    What was rehearsed before, with the same parameters and content, is not run again: a rehearsal
    is a real run, with real effects.
    """
    started = time.monotonic()
    key = memory.key("rehearse", parameters=candidate.parameters)
    for source in memory.find(key):
        run = source.run
        if run.kind is RunKind.REHEARSAL and not _seen(candidate, ledger, run.run_id):
            memory.note(key, [run.run_id])
            took = ((run.ended_us or 0) - (run.started_us or 0)) / 1e6
            report = RunReport(run, ledger.totals(run.run_id), {}, seconds=took)
            facts = {**_run_facts(report), "cached": source.to_json()}
            summary = f"{_rehearsed(report)}; {source.sentence}"
            return Stage("rehearse", True, summary, (), time.monotonic() - started, facts)  # noqa: FBT003
    return _rehearse_now(candidate, runner, ledger, memory)


def _rehearse_now(candidate: Candidate, runner: Runner, ledger: Ledger, memory: Memory) -> Stage:
    started = time.monotonic()
    run = candidate.run(
        RunKind.REHEARSAL, candidate.parameters, results_expected=candidate.notebook.results
    )
    report = runner.run(
        RunPlan(
            run,
            candidate.data,
            candidate.parameters,
            timeout_s=candidate.bundle.budget.seconds,
            python=candidate.surroundings.python,
        )
    )
    check_not_stopped("rehearse", report.run)
    findings = _seen(candidate, ledger, run.run_id)
    if report.run.state is not RunState.SUCCEEDED:
        findings.append(_ended("rehearse", report))
    if not findings:
        memory.note(memory.key("rehearse", parameters=candidate.parameters), [run.run_id])
    return Stage(
        "rehearse",
        not findings,
        _rehearsed(report),
        tuple(findings),
        time.monotonic() - started,
        _run_facts(report),
    )


def _rehearsed(report: RunReport) -> str:
    totals = report.totals
    return (
        f"{report.run.state.value} after {totals.calls} calls, "
        f"{totals.denied} denied, cost {totals.cost}"
    )


def _seen(candidate: Candidate, ledger: Ledger, run_id: str) -> list[Finding]:
    attempts = label_attempts(ledger, [run_id], candidate.notebook, "rehearse")
    return [*denied_calls(ledger, run_id), *attempts]


def denied_calls(ledger: Ledger, run_id: str) -> list[Finding]:
    """Return one finding per distinct denied call."""
    found: dict[tuple[str, str], Finding] = {}
    after = 0
    while calls := ledger.calls(run_id, after_seq=after, limit=1000):
        after = calls[-1].seq
        for call in calls:
            if call.state is not CallState.DENIED or is_label_attempt(call):
                continue
            what = (call.intent.kind.value, call.intent.name)
            reasons = "; ".join(call.decision.reasons) or "no policy permits it"
            found.setdefault(
                what,
                finding(
                    "rehearse.denied",
                    f"production denies {what[0]} {what[1]!r}: {reasons}",
                    fix="change the notebook, or have the production policy changed",
                ),
            )
    return list(found.values())


def _ended(stage: str, report: RunReport) -> Finding:
    run = report.run
    what = {"rehearse": "rehearsal", "evaluate": "evaluation"}[stage]
    cause = f" ({run.cause.value})" if run.cause else ""
    return finding(
        f"{stage}.state",
        f"the {what} ended {run.state.value}{cause}: {run.message or 'no message'}",
        fix=f"see the executed notebook: {report.output}",
        why="a job that does not succeed here will not succeed at night",
        cell=report.cell,
    )


@dataclass(frozen=True)
class Evaluated:
    """What came of the cases of one set.

    Attributes:
        stage: The step.
        evaluation, verdicts: Scores and gates.
        answered: The answers.
        comparison: With what the version before scored, under the scorers of now.
        changes: What of the set differs from what that version was evaluated on.
    """

    stage: Stage
    evaluation: Evaluation
    verdicts: tuple[GateVerdict, ...]
    answered: Answered
    comparison: Comparison | None = None
    changes: SetChanges | None = None


def evaluate(
    asking: Asking,
    runner: Runner,
    ledger: Ledger,
    before: Before = _NOTHING,
    judges: Judges | None = None,
) -> Evaluated:
    """Let the candidate answer the set's cases and hold the scores against the gates.

    The kernel gets inputs only; scores are computed here from what the gateway recorded, and so
    are costs and times.  ``before`` is the version in production, and how often was tried: its
    answers are compared under the scorers of now.  ``judges`` says where the set's own files and
    MLflow's judges run (default: beside the runner).
    """
    started = time.monotonic()
    candidate, chosen = asking.candidate, asking.chosen
    gates = candidate.bundle.gates.get(chosen.name, ())
    asking = replace(asking, early=Early.of(chosen, gates, before))
    answered = ask(asking, runner, ledger)
    if answered.report is not None:
        check_not_stopped("evaluate", answered.report.run)
    judges = judges or Judges(ledger, runner.gateway)
    judged = judge(asking, answered, judges)
    again = restate(asking, before.predecessor, answered, judged, judges)
    before = replace(before, evaluation=again.evaluation)
    evaluation, verdicts = _judged(asking, answered, before, judged)
    comparison = _compared(asking, before, evaluation)
    changes = _changes(asking, before, comparison)
    findings = _missed(chosen, verdicts, evaluation, before)
    findings += label_attempts(
        ledger, runs_of(chosen, ledger, answered.run_ids), candidate.notebook, "evaluate"
    )
    report = answered.report
    if report is not None and report.run.state is not RunState.SUCCEEDED:
        findings.insert(0, _ended("evaluate", report))
    else:
        asking.memory.note(asking.key, answered.run_ids)
    facts, summary = _told(asking, answered, before, (evaluation, verdicts), judged)
    if again.facts:
        facts["judged_again"] = again.facts
        summary += f"; version {before.version}'s answers judged again by {', '.join(again.facts['scorers'])}"
    stage = Stage(
        "evaluate",
        not findings,
        summary,
        (*findings, *_warned(chosen, changes)),
        time.monotonic() - started,
        facts,
    )
    return Evaluated(stage, evaluation, verdicts, answered, comparison, changes)


def _told(
    asking: Asking,
    answered: Answered,
    before: Before,
    found: tuple[Evaluation, tuple[GateVerdict, ...]],
    judged: Judged,
) -> tuple[dict[str, Any], str]:
    """Return the facts and the sentence of an evaluation."""
    chosen, report, (evaluation, verdicts) = asking.chosen, answered.report, found
    why = before.predecessor.why
    facts = {
        **(_run_facts(report) if report else {}),
        "set": chosen.name,
        "set_digest": chosen.digest,
        "cases": len(chosen.cases),
        "missing": len(evaluation.missing),
        "failed": len(evaluation.failed),
        "attempt_on_set": before.attempt,
        "compared_with": before.version,
        **({"compared_because": why} if why else {}),
        **({"scorers": judged.facts} if judged.facts else {}),
        **({"decided_after": len(answered.decided)} if answered.decided is not None else {}),
    }
    summary = "; ".join([*(v.sentence for v in verdicts), *filter(None, [judged.summary])])
    if answered.decided is not None:
        summary += f"; ended early: {len(answered.decided)} of {len(chosen.cases)} cases decided"
    if answered.sources:
        facts["cached"] = [source.to_json() for source in answered.sources]
        facts["cached_answers"] = answered.cached
        count, asked = answered.cached, len(chosen.cases) * chosen.trials
        summary += f"; {count} of {asked} answers {answered.sources[0].sentence}"
    if why:
        with_ = "nothing" if before.version is None else f"version {before.version}"
        summary += f"; compared with {with_}: {why}"
    return facts, summary


def _compared(asking: Asking, before: Before, evaluation: Evaluation) -> Comparison | None:
    if before.evaluation is None:
        return None
    chosen, whole = asking.chosen, evaluation
    if len({row.case_id for row in evaluation.rows}) < len(chosen.cases):
        whole = score(chosen, {})  # it ended early: cases that were not asked are not gone
    found = compare(evaluation, before.evaluation)
    # What became of the cases is told by what was sealed: judged again are only those still asked.
    cases = compare(whole, before.predecessor.evaluation(chosen.name) or before.evaluation)
    names = ("added", "removed", "removed_bad", "changed", "moved")
    return replace(found, **{name: getattr(cases, name) for name in names})


def _changes(asking: Asking, before: Before, comparison: Comparison | None) -> SetChanges | None:
    chosen, bundle = asking.chosen, asking.candidate.bundle
    gates = bundle.gates.get(chosen.name, ())
    return set_changes(chosen, gates, before.predecessor, comparison, bundle.digest)


def _warned(chosen: EvaluationSet, changes: SetChanges | None) -> list[Finding]:
    """Tell people what changed: it stops nothing, and whoever approves has to know."""
    if changes is None:
        return []
    fault = finding(
        "evaluate.set-changed",
        "",
        fix="nothing, if the change is meant: whoever approves the version reads it here",
        why="what is asked, how it is judged and the limits are part of what is let through",
    )
    since = f"{chosen.name} since version {changes.version}"
    return [
        replace(fault, severity=Severity.WARNING, message=f"{since}: {each}")
        for each in changes.sentences
    ]


def _judged(
    asking: Asking, answered: Answered, before: Before, judged: Judged
) -> tuple[Evaluation, tuple[GateVerdict, ...]]:
    answers, measures = answered.answers, answered.measures
    if answered.decided is not None and asking.early is not None:
        given = {case_id: answers[case_id][0] for case_id in answered.decided}
        known = {case_id: each for case_id, each in given.items() if each is not None}
        found, ruled = asking.early.judged(answered.decided, known, measures)
        return found, tuple(ruled)
    chosen = asking.chosen
    evaluation = score(chosen, answers, measures=measures, verdicts=judged.verdicts)
    verdicts = gate(
        evaluation,
        asking.candidate.bundle.gates.get(chosen.name, ()),
        baseline=before.evaluation,
        first=before.first,
        attempt=before.attempt,
    )
    return evaluation, tuple(verdicts)


_FIXES = {
    Ruling.FAIL: "look at the wrong cases in the report, improve the agent, promote again",
    Ruling.NOT_ENOUGH: "add cases to the set or improve the agent, then promote again",
}


def _missed(
    chosen: EvaluationSet,
    verdicts: tuple[GateVerdict, ...],
    evaluation: Evaluation,
    before: Before,
) -> list[Finding]:
    return [
        finding(
            f"evaluate.gate.{v.gate.scorer if v.gate else 'none'}",
            v.sentence if v.ruling is Ruling.FAIL else f"{v.ruling}: {v.sentence}",
            fix=_worse(v, evaluation, before) or _FIXES[v.ruling],
            why=f"the production policy's gate on {chosen.name}",
        )
        for v in verdicts
        if not v.passed
    ]


def _worse(verdict: GateVerdict, evaluation: Evaluation, before: Before) -> str | None:
    """Of a comparison with production, name the cases that it turns on."""
    asked = verdict.gate
    if asked is None or not (asked.non_inferior_to or asked.superior_to) or not before.evaluation:
        return None
    found = regressions(evaluation, before.evaluation)
    names = [change.case_id for change in found if change.scorer == asked.scorer]
    if not names:
        return None
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    worse = ", ".join(names[:_NAMED])
    return f"mend what got worse since version {before.version}: {worse}{more}; then promote again"


def _run_facts(report: RunReport) -> dict[str, Any]:
    totals = report.totals
    return {
        "run_id": report.run.run_id,
        "state": report.run.state.value,
        "cause": report.run.cause.value if report.run.cause else None,
        "calls": totals.calls,
        "denied": totals.denied,
        "cost_usd": str(totals.cost.usd),
        "unknown_cost_calls": totals.unknown_cost_calls,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "seconds": round(report.seconds, 3),
        "mlflow_run_id": report.run.mlflow_run_id,
    }
