"""One attempt while it is made: stages as they end, gates, links and warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.evaluation import Comparison, Evaluation, GateVerdict
from toolkit.promotion.check import Finding
from toolkit.promotion.stages import OPTIONAL, STAGES, Promotion, Stage

__all__ = ["Announce", "Attempt", "Heard"]

Announce = Callable[[Stage], None]
"""Called with each stage as it ends."""
Heard = Callable[[int, int], None]
"""Called with (answered, all) while an evaluation's answers come in."""


class Attempt:
    """Collects stages as they end."""

    def __init__(
        self,
        job: str,
        notebook: str,
        announce: Announce,
        heard: Heard = lambda _answered, _all: None,
    ) -> None:
        self.job = job
        self.notebook = notebook
        self.stages: list[Stage] = []
        self.evaluation: Evaluation | None = None
        self.evaluations: list[Evaluation] = []
        self.changes: dict[str, Comparison] = {}
        self.gates: tuple[GateVerdict, ...] = ()
        self.gates_by_set: dict[str, tuple[GateVerdict, ...]] = {}
        self.links: dict[str, str] = {}
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self.standards: dict[str, Any] = {}
        self.heard = heard
        self._announce = announce
        self._held: list[Finding] = []

    def add(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._announce(stage)

    def hold(self, fault: Finding) -> None:
        """Keep a finding of the evaluation that is known before it starts."""
        self._held.append(fault)

    def evaluated(
        self,
        stage: Stage,
        evaluation: Evaluation,
        verdicts: tuple[GateVerdict, ...],
        comparison: Comparison | None = None,
    ) -> None:
        self.evaluation = evaluation
        self.evaluations.append(evaluation)
        if comparison:
            self.changes[evaluation.set_name] = comparison
        self.gates = (*self.gates, *verdicts)
        self.gates_by_set[evaluation.set_name] = verdicts
        self.add(stage)

    def link(self, name: str, url: str | None) -> None:
        if url:
            self.links[name] = url

    def failed(self, name: str) -> bool:
        return any(stage.name == name and not stage.passed for stage in self.stages)

    def finish(self, digest: str, attempt: int) -> Promotion:
        if self._held:
            message = self._held[0].message
            self.add(Stage("evaluate", passed=False, summary=message, findings=tuple(self._held)))
        reached = {stage.name for stage in self.stages}
        missing = [name for name in STAGES[:-1] if name not in reached | OPTIONAL]
        skipped = [
            Stage(name, passed=None, summary="not reached: the steps before it failed")
            for name in missing
        ]
        order = {name: place for place, name in enumerate(STAGES)}
        stages = sorted([*self.stages, *skipped], key=lambda stage: order[stage.name])
        return Promotion(
            job=self.job,
            notebook=self.notebook,
            notebook_digest=digest,
            stages=tuple(stages),
            evaluation=self.evaluation,
            evaluations=tuple(self.evaluations),
            changes=self.changes,
            gates=self.gates,
            gates_by_set=self.gates_by_set,
            attempt=attempt,
            links=self.links,
            warnings=tuple(self.warnings),
            facts=self.facts,
            standards=self.standards,
        )
