"""Rehearse and evaluate: real runs under the production policy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from toolkit.document import Notebook
from toolkit.evaluation import Evaluation, EvaluationSet, GateVerdict, Ruling, gate, score
from toolkit.execution import Runner, RunPlan, RunReport
from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle
from toolkit.promotion.before import Before, case_measures
from toolkit.promotion.check import Finding
from toolkit.promotion.locking import Surroundings
from toolkit.promotion.stages import Stage, finding
from toolkit.values import CallState, Environment, RunKind, RunRecord, RunState, new_id

__all__ = ["Candidate", "evaluate", "rehearse"]

_NOTHING = Before()


@dataclass(frozen=True)
class Candidate:
    """What is being promoted.

    Attributes:
        job: The job's name.
        notebook: What was read; ``data`` the bytes that will be sealed and are executed here.
        name: Workspace-relative path.
        user: Who promotes.
        bundle: The production policy.
        parameters: Values for the rehearsal (defaults fill the rest).
        surroundings: The environment that it is tried, sealed and run in.
    """

    job: str
    notebook: Notebook
    data: bytes
    name: str
    user: str
    bundle: PolicyBundle
    parameters: dict[str, Any]
    surroundings: Surroundings

    def run(self, kind: RunKind, parameters: dict[str, Any], **facts: Any) -> RunRecord:
        """Return the record of a run of this candidate under the production policy."""
        return RunRecord(
            run_id=new_id(kind.value),
            kind=kind,
            environment=Environment.PRODUCTION,
            user=self.user,
            job=self.job,
            notebook=self.name,
            parameters=parameters,
            policy_digest=self.bundle.digest,
            **facts,
        )


def rehearse(candidate: Candidate, runner: Runner, ledger: Ledger) -> Stage:
    """Run the candidate as production would; every denied call is a finding."""
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
    findings = denied_calls(ledger, run.run_id)
    if report.run.state is not RunState.SUCCEEDED:
        findings.append(_ended("rehearse", report))
    totals = report.totals
    return Stage(
        "rehearse",
        not findings,
        f"{report.run.state.value} after {totals.calls} calls, "
        f"{totals.denied} denied, cost {totals.cost}",
        tuple(findings),
        time.monotonic() - started,
        _run_facts(report),
    )


def denied_calls(ledger: Ledger, run_id: str) -> list[Finding]:
    """Return one finding per distinct denied call."""
    found: dict[tuple[str, str], Finding] = {}
    after = 0
    while calls := ledger.calls(run_id, after_seq=after, limit=1000):
        after = calls[-1].seq
        for call in calls:
            if call.state is not CallState.DENIED:
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


def evaluate(
    candidate: Candidate,
    chosen: EvaluationSet,
    runner: Runner,
    ledger: Ledger,
    before: Before = _NOTHING,
) -> tuple[Stage, Evaluation | None, tuple[GateVerdict, ...], RunReport | None]:
    """Let the candidate's agent answer the set's cases and hold the scores against the gates.

    The kernel gets inputs only; scores are computed here from what the gateway recorded, and so
    are costs and times.  ``before`` is the version in production, and how often was tried.
    """
    started = time.monotonic()
    if chosen.agent not in candidate.notebook.agents:
        return _without_agent(candidate, chosen), None, (), None
    run = candidate.run(RunKind.EVALUATION, dict(chosen.parameters))
    ledger.create_run(run)
    ledger.put_cases(run.run_id, chosen.inputs())
    plan = RunPlan(
        run,
        candidate.data,
        dict(chosen.parameters),
        extra_cells=(f"import toolkit as _toolkit\n_toolkit.serve_cases({chosen.agent})",),
        timeout_s=candidate.bundle.budget.seconds,
        python=candidate.surroundings.python,
    )
    report = runner.run(plan)
    evaluation, verdicts = _judged(candidate, chosen, ledger, run.run_id, before)
    findings = _missed(chosen, verdicts)
    if report.run.state is not RunState.SUCCEEDED:
        findings.insert(0, _ended("evaluate", report))
    facts = {
        **_run_facts(report),
        "set": chosen.name,
        "set_digest": chosen.digest,
        "cases": len(chosen.cases),
        "missing": len(evaluation.missing),
        "failed": len(evaluation.failed),
        "attempt_on_set": before.attempt,
        "compared_with": before.version,
    }
    stage = Stage(
        "evaluate",
        not findings,
        "; ".join(v.sentence for v in verdicts),
        tuple(findings),
        time.monotonic() - started,
        facts,
    )
    return stage, evaluation, verdicts, report


def _without_agent(candidate: Candidate, chosen: EvaluationSet) -> Stage:
    fault = finding(
        "evaluate.agent",
        f"the set {chosen.name!r} evaluates the agent {chosen.agent!r}, which the notebook "
        f"does not define (it defines {', '.join(candidate.notebook.agents) or 'none'})",
        fix=f"define it with @toolkit.agent, or name another in {chosen.name}/set.yaml",
    )
    return Stage("evaluate", passed=False, summary=fault.message, findings=(fault,))


def _judged(
    candidate: Candidate, chosen: EvaluationSet, ledger: Ledger, run_id: str, before: Before
) -> tuple[Evaluation, tuple[GateVerdict, ...]]:
    measures = case_measures(ledger, run_id, [case.id for case in chosen.cases])
    evaluation = score(chosen, ledger.case_answers(run_id), measures=measures)
    verdicts = gate(
        evaluation,
        candidate.bundle.gates.get(chosen.name, ()),
        baseline=before.evaluation,
        first=before.first,
        attempt=before.attempt,
    )
    return evaluation, tuple(verdicts)


_FIXES = {
    Ruling.FAIL: "look at the wrong cases in the report, improve the agent, promote again",
    Ruling.NOT_ENOUGH: "add cases to the set or improve the agent, then promote again",
}


def _missed(chosen: EvaluationSet, verdicts: tuple[GateVerdict, ...]) -> list[Finding]:
    return [
        finding(
            f"evaluate.gate.{v.gate.scorer if v.gate else 'none'}",
            v.sentence if v.ruling is Ruling.FAIL else f"{v.ruling}: {v.sentence}",
            fix=_FIXES[v.ruling],
            why=f"the production policy's gate on {chosen.name}",
        )
        for v in verdicts
        if not v.passed
    ]


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
