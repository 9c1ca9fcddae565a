"""``%%evaluate`` in the sandbox: the gateway hands out inputs and scores what it recorded.

Labels are read here, in the gateway's process; the kernel gets inputs, and afterwards the scores
with the expected values of the cases it got wrong (this is the sandbox: a person is learning).
Case ids in the ledger are ``<set>/<evaluation>.<cases>/<case>``, so that nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.errors import NotFound, UsageError
from toolkit.evaluation import EvaluationSet, gate, score
from toolkit.gateway import Governance
from toolkit.gateway.app import Handler
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.values import Environment, RunRecord, check_name, new_id

__all__ = ["SandboxEvaluations"]

START = "/toolkit/v1/evaluations/start"
SCORE = "/toolkit/v1/evaluations/score"


@dataclass(frozen=True)
class SandboxEvaluations:
    """Answers the two evaluation paths of the gateway.

    Attributes:
        registry: The registry folder, which holds ``evaluations/<name>``.
        ledger: Where cases and answers are recorded.
        governance: For the gates of the production policy.
    """

    registry: Path
    ledger: Ledger
    governance: Governance

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        return {START: self.start, SCORE: self.score}

    async def start(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Queue the inputs of a set's cases for the caller's kernel."""
        return await asyncio.to_thread(self._start, run, body)

    async def score(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Score the recorded answers and compare them with the production gates."""
        return await asyncio.to_thread(self._score, run, body)

    def _start(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        chosen = self._load(str(body.get("set") or ""))
        limit = int(body.get("limit") or 0) or len(chosen.cases)
        cases = chosen.cases[:limit]
        # The number of cases is part of the name: one that gets no answer still counts, as wrong.
        evaluation = f"{new_id('eval')}.{len(cases)}"
        self.ledger.put_cases(
            run.run_id,
            [(f"{chosen.name}/{evaluation}/{case.id}", dict(case.inputs)) for case in cases],
        )
        return {
            "evaluation_run_id": f"{chosen.name}/{evaluation}",
            "cases": len(cases),
            "agent": body.get("agent") or chosen.agent,
            "set_digest": chosen.digest,
        }

    def _score(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        identity = str(body.get("evaluation_run_id") or "")
        name, _, evaluation = identity.partition("/")
        if not evaluation:
            raise UsageError("the request names no evaluation")
        chosen = self._load(name)
        answers = _of(self.ledger.case_answers(run.run_id), identity)
        count = evaluation.rpartition(".")[2]
        asked = chosen.cases[: int(count) if count.isdigit() else None]
        result = score(replace(chosen, cases=asked), answers)
        expected = {case.id: case.expected for case in asked}
        gates = self.governance.bundle(Environment.PRODUCTION).gates.get(name, ())
        return {
            "set": name,
            "better": dict(result.better),
            "scores": {
                key: {"mean": s.mean, "n": s.n, "lower": s.lower, "upper": s.upper}
                for key, s in result.scores.items()
            },
            "gates": [
                {"sentence": v.sentence, "passed": v.passed, "observed": v.observed}
                for v in gate(result, gates)
            ],
            "rows": [
                {
                    "case_id": row.case_id,
                    "output": row.output,
                    "expected": expected.get(row.case_id),
                    "error": row.error,
                    "scores": dict(row.values),
                }
                for row in result.rows
            ],
        }

    def _load(self, name: str) -> EvaluationSet:
        folder = self.registry / "evaluations" / check_name(name, "evaluation set")
        if not folder.is_dir():
            known = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise NotFound(
                f"there is no evaluation set {name!r}",
                where=str(folder.parent),
                next_step=f"known sets: {', '.join(known) or 'none'}",
            )
        return EvaluationSet.load(folder)


def _of(answers: dict[str, CaseAnswer], identity: str) -> dict[str, CaseAnswer]:
    prefix = f"{identity}/"
    return {
        case.removeprefix(prefix): answer
        for case, answer in answers.items()
        if case.startswith(prefix)
    }
