"""``%%evaluate`` in the sandbox: the gateway hands out inputs and scores what it recorded.

Labels are read here, in the gateway's process; the kernel gets inputs, and afterwards the scores
with the expected values of the cases it got wrong (this is the sandbox: a person is learning).
A set's own files and MLflow's judges run in processes of their own; judges call back as a run under
the session, whose budget pays for them.  Nothing of theirs is remembered: asking again asks again.
Case ids in the ledger are ``<set>/<evaluation>.<cases>/<case>``, so that nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import NotFound, UsageError
from toolkit.evaluation import (
    Evaluation,
    EvaluationSet,
    Judgement,
    MlflowScorer,
    Workplace,
    ask_scorers,
    gate,
    outside_rows,
    score,
)
from toolkit.gateway import Governance
from toolkit.gateway.app import Handler
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.values import (
    Environment,
    IsolationLevel,
    RunKind,
    RunRecord,
    RunState,
    check_name,
    digest_bytes,
    new_id,
)

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
        socket: The gateway's own socket, for judges; ``None``: judges cannot ask.
        level: Returns how far scorers can be kept from this machine.
    """

    registry: Path
    ledger: Ledger
    governance: Governance
    socket: Path | None = None
    level: Callable[[], IsolationLevel] = lambda: IsolationLevel.L1
    # Scoring may wait for judges, whose calls this same process answers: threads must be left.
    _few: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        return {START: self.start, SCORE: self.score}

    async def start(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Queue the inputs of a set's cases for the caller's kernel."""
        return await asyncio.to_thread(self._start, run, body)

    async def score(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Score the recorded answers and compare them with the production gates."""
        async with self._few:
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
        chosen = replace(chosen, cases=asked)
        result = score(chosen, answers, verdicts=self._verdicts(run, chosen, answers))
        return self._told(chosen, result)

    def _told(self, chosen: EvaluationSet, result: Evaluation) -> dict[str, Any]:
        name = chosen.name
        expected = {case.id: case.expected for case in chosen.cases}
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
                    **({"failures": dict(row.errors)} if row.errors else {}),
                }
                for row in result.rows
            ],
        }

    def _verdicts(
        self, run: RunRecord, chosen: EvaluationSet, answers: dict[str, CaseAnswer]
    ) -> dict[str, dict[str, Judgement]]:
        """Return what the set's scorers outside of this process say."""
        rows, verdicts = outside_rows(chosen, answers)
        if not rows:
            return verdicts
        with self._workplace(run, chosen) as place:
            for row, said in ask_scorers(chosen.scorers, rows, place, threads=chosen.concurrency):
                verdicts.setdefault(row.question, {})[row.scorer] = said
        return verdicts

    @contextmanager
    def _workplace(self, run: RunRecord, chosen: EvaluationSet) -> Iterator[Workplace]:
        """Where scorers run; judges have a run of their own, whose token ends with them."""
        place = Workplace(self.level())
        if not any(isinstance(scorer.outside, MlflowScorer) for scorer in chosen.scorers):
            yield place
            return
        from toolkit.execution import myself

        token = secrets.token_urlsafe(32)
        judges = self.ledger.create_run(
            RunRecord(
                run_id=new_id("evaluation"),
                kind=RunKind.EVALUATION,
                environment=run.environment,
                user=run.user,
                team=run.team,
                state=RunState.RUNNING,
                parent_run_id=run.run_id,
                token_digest=digest_bytes(token.encode()),
                tags={"judges": chosen.name},
                runner=myself(),
            )
        )
        state = RunState.CANCELLED
        try:
            yield replace(place, gateway_socket=self.socket, token=token)
            state = RunState.SUCCEEDED
        finally:
            self.ledger.update_run(judges.run_id, state=state)

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
