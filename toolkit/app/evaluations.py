"""``%%evaluate`` in the sandbox: the gateway hands out inputs and scores what it recorded.

Labels are read here, in the gateway's process; the kernel gets inputs, and afterwards the scores
with the expected values of the cases it got wrong (this is the sandbox: a person is learning).
A set's own files and MLflow's judges run in processes of their own; judges call back as a run under
the session, whose budget pays for them.  Nothing of theirs is remembered: asking again asks again.
Case ids in the ledger are ``<set>/<evaluation>.<cases>.<trials>.<after>/<case>``, so that nothing is kept
in memory; ``after`` is the number of the session's last call before the first case, from where costs count.
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
_MOST_TRIALS = 100
_NUMBERS = 3
_Answers = dict[str, list[CaseAnswer | None]]
"""By case, the answers of its trials; ``None`` where one is missing."""


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
        trials = int(body.get("trials") or 0) or chosen.trials
        if not 1 <= trials <= _MOST_TRIALS:
            raise UsageError(
                f"a case cannot be asked {trials} times",
                next_step=f"ask each case 1 to {_MOST_TRIALS} times",
            )
        chosen = replace(chosen, cases=chosen.cases[:limit], trials=trials)
        _check_arguments(chosen, str(body.get("agent") or chosen.agent), body.get("takes"))
        # How much is asked is part of the name: what gets no answer still counts, as wrong.
        after = self.ledger.last_seq(run.run_id)
        evaluation = f"{new_id('eval')}.{len(chosen.cases)}.{trials}.{after}"
        self.ledger.put_cases(
            run.run_id,
            [(f"{chosen.name}/{evaluation}/{asked}", inputs) for asked, inputs in chosen.inputs()],
        )
        return {
            "evaluation_run_id": f"{chosen.name}/{evaluation}",
            "cases": len(chosen.cases),
            "trials": trials,
            "agent": body.get("agent") or chosen.agent,
            "set_digest": chosen.digest,
        }

    def _score(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        identity = str(body.get("evaluation_run_id") or "")
        name, count, trials, after = _read(identity)
        chosen = self._load(name)
        chosen = replace(chosen, cases=chosen.cases[:count], trials=trials)
        recorded = _of(self.ledger.case_answers(run.run_id), identity)
        answers = {
            case.id: [recorded.get(question) for question in chosen.questions(case.id)]
            for case in chosen.cases
        }
        result = score(
            chosen,
            answers,
            measures=self._measures(run, chosen, identity, after),
            verdicts=self._verdicts(run, chosen, answers),
        )
        return self._told(chosen, result)

    def _measures(
        self, run: RunRecord, chosen: EvaluationSet, identity: str, after: int
    ) -> dict[str, dict[str, float]]:
        """Return what each case cost and took, all its trials together."""
        # Loads much that a gateway does not need for anything else.
        from toolkit.promotion import case_measures, together

        asked = [f"{identity}/{question}" for question, _ in chosen.inputs()]
        found = case_measures(self.ledger, run.run_id, asked, after_seq=after)
        return {
            case.id: together([found[f"{identity}/{each}"] for each in chosen.questions(case.id)])
            for case in chosen.cases
        }

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
                    "trial": row.trial,
                    "measures": dict(row.measures),
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
        self, run: RunRecord, chosen: EvaluationSet, answers: _Answers
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


def _read(identity: str) -> tuple[str, int, int, int]:
    """Return the set, how many cases and trials were asked, and the last call before them."""
    name, _, evaluation = identity.partition("/")
    numbers = evaluation.split(".")[1:]
    if len(numbers) != _NUMBERS or not all(number.isdigit() for number in numbers):
        raise UsageError(
            "the request names no evaluation", next_step="start one: %evaluate SET in a notebook"
        )
    count, trials, after = map(int, numbers)
    return name, count, trials, after


def _of(answers: dict[str, CaseAnswer], identity: str) -> dict[str, CaseAnswer]:
    prefix = f"{identity}/"
    return {
        case.removeprefix(prefix): answer
        for case, answer in answers.items()
        if case.startswith(prefix)
    }


def _check_arguments(chosen: EvaluationSet, agent: str, takes: Any) -> None:
    """Refuse an agent that could answer no case, before one is handed out.

    Raises:
        UsageError: A case gives it what it does not take, or not what it needs.
    """
    if not isinstance(takes, dict):
        return
    known, required = set(takes.get("known") or ()), set(takes.get("required") or ())
    for case in chosen.cases:
        given = set(case.inputs)
        if given - known or required - given:
            raise UsageError(
                f"the cases of {chosen.name} do not fit the agent {agent}: {case.id} gives "
                f"{', '.join(sorted(given)) or 'nothing'}, and it takes "
                f"{', '.join(takes.get('known') or ()) or 'nothing'}",
                where=f"{chosen.name}: {case.id}",
                next_step="name another agent with --agent, or give it the arguments of the cases",
            )
