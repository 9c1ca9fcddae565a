"""What a promotion is made of: stages with findings, and the whole with its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import Interrupted, ToolkitError
from toolkit.evaluation import Comparison, Evaluation, GateVerdict
from toolkit.promotion.check import Finding, Severity
from toolkit.values import Cause, RunRecord, RunState

__all__ = ["Promotion", "Stage", "check_not_stopped", "finding", "refused_stage"]

STAGES = ("check", "lock", "reproduce", "rehearse", "evaluate", "simulate", "seal")
OPTIONAL = frozenset({"lock"})
"""Stages that only some notebooks have: one that declares no dependencies is not locked."""


@dataclass(frozen=True)
class Stage:
    """One step of the gate.

    Attributes:
        name: One of :data:`STAGES`.
        passed: ``None`` when it was not reached.
        summary: One sentence for a person.
        findings: What is wrong, each with rule, place and fix.
        seconds: How long it took.
        facts: JSON values for the evidence (digests, run ids, counts).
    """

    name: str
    passed: bool | None
    summary: str
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Promotion:
    """One attempt to take a notebook to production.

    Attributes:
        job: The job's name.
        notebook: Workspace-relative path of what was promoted.
        notebook_digest: Digest of its normalised form.
        stages: In order.
        evaluation, gates: Scores and verdicts, once evaluated.
        attempt: How often this notebook digest was offered, this time included.
        version: The number that was sealed, ``None`` when refused.
        folder: Where the sealed version is.
        report: The HTML report.
        links: Names and addresses of MLflow's pages about it.
        warnings: What failed without changing the verdict.
        facts: Further JSON values for the record (MLflow's id of the evaluation …).
        evaluations: One per set, in the order of their evaluation.
        gates_by_set: The verdicts of ``gates`` by set.
        changes: By set: case by case against the version in production, where it has a record.
        unchanged: ``version`` was there before, promoted from the same content: nothing was sealed.
        standards: By set: what it asked, for the evidence (:mod:`.standards`).
        waiting: Which approvals the sealed version waits for, in a sentence.
    """

    job: str
    notebook: str
    notebook_digest: str
    stages: tuple[Stage, ...]
    evaluation: Evaluation | None = None
    gates: tuple[GateVerdict, ...] = ()
    attempt: int = 1
    version: int | None = None
    folder: Path | None = None
    report: Path | None = None
    links: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    changes: dict[str, Comparison] = field(default_factory=dict)
    gates_by_set: dict[str, tuple[GateVerdict, ...]] = field(default_factory=dict)
    unchanged: bool = False
    standards: dict[str, Any] = field(default_factory=dict)
    waiting: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether a version was sealed, or stands already."""
        return self.version is not None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all stages."""
        return tuple(f for stage in self.stages for f in stage.findings)


def finding(
    rule: str,
    message: str,
    *,
    fix: str,
    why: str = "",
    cell: int | None = None,
    line: int | None = None,
    severity: Severity = Severity.ERROR,
) -> Finding:
    """Build a finding of a stage that executed the notebook, or looked at what it did before."""
    return Finding(
        rule=rule,
        severity=severity,
        message=message,
        fix=fix,
        why=why,
        cell=cell,
        line=line,
    )


def refused_stage(name: str, rule: str, error: ToolkitError) -> Stage:
    """Return a stage that ended with an error before it had begun."""
    fault = finding(rule, error.message, fix=error.next_step or "see the message")
    return Stage(name, passed=False, summary=error.message, findings=(fault,))


def check_not_stopped(stage: str, run: RunRecord) -> None:
    """Go no further where a signal ended a run of the gate: it was meant for the whole promotion.

    Args:
        stage: The step that the run belongs to.
        run: As it ended.

    Raises:
        Interrupted: A signal ended it.
    """
    if (run.state, run.cause) == (RunState.CANCELLED, Cause.SIGNAL):
        raise Interrupted(
            f"the promotion was stopped in the step {stage}: {run.message or 'a signal came'}",
            where=run.run_id,
            next_step="promote it again; what was measured is not measured anew",
        )
