"""The answers to a set before its outside scorers: a file of the set, or MLflow's, through the gateway.

Judges have a run of their own in the ledger: its token is all that their process holds, its calls are
decided and budgeted by the production policy like any other, and what they said is recorded as its
cases, under a digest of what they were asked.  Labels stand in a judge's prompt, and so in the ledger;
the candidate's kernels have other runs and other tokens.

What a judge said of the same content, by the same scorer on the same models and policies, counts
again (:mod:`.recall`), whatever the notebook is by now.  What a file of the set says is cheap, and is
computed anew each time.  A failure is asked again with the next promotion.  Of a promotion that was
killed, what judges had said until then counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.evaluation import (
    Asked,
    EvaluationSet,
    Judgement,
    MlflowScorer,
    Scorer,
    Workplace,
    ask_scorers,
    content_of,
    outside_rows,
)
from toolkit.execution import myself, runner_alive
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.promotion.asking import Answered, Asking
from toolkit.promotion.recall import DAYS
from toolkit.promotion.standards import judge_key
from toolkit.values import (
    Digest,
    IsolationLevel,
    RunKind,
    RunRecord,
    RunState,
    digest_bytes,
    digest_json,
)

__all__ = ["JUDGES_TAG", "Judged", "Judges", "judge"]

JUDGES_TAG = "judges"
"""Tag of a run whose calls are those of an evaluation set's judges: the set's name."""
_KEY_TAG = "judges_key"


@dataclass(frozen=True)
class Judges:
    """Where scorers outside of this process run.

    Attributes:
        ledger: Records what judges said and asked.
        gateway: Returns the socket of a living gateway.
        level: Returns how far a process can be kept from this machine.
    """

    ledger: Ledger
    gateway: Callable[[], str]
    level: Callable[[], IsolationLevel] = lambda: IsolationLevel.L1


@dataclass(frozen=True)
class Judged:
    """What came of it.

    Attributes:
        verdicts: By question, then by scorer.
        facts: For the evidence: isolation, counts, the judges' run and what it cost.
    """

    verdicts: dict[str, dict[str, Judgement]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What to say of it in one line, empty where nothing was asked."""
        facts = self.facts
        if not facts:
            return ""
        told = f"{facts['asked']} answers before scorers in processes of their own"
        told += f" ({facts['isolation']})" if facts["isolation"] else ""
        told += f", {facts['cached']} verdicts cached" if facts["cached"] else ""
        told += f", {facts['failed']} failed" if facts["failed"] else ""
        return told + (f", judges cost {facts['cost_usd']} USD" if "cost_usd" in facts else "")


def judge(asking: Asking, answered: Answered, judges: Judges) -> Judged:
    """Ask a set's outside scorers about the answers; nothing is started where it has none.

    Nothing is asked either where the run of the answers did not succeed: it is refused anyway.

    Raises:
        InfrastructureError: The judges' run could not be recorded, or no gateway could be had.
    """
    rows, verdicts = outside_rows(asking.chosen, answered.answers)
    report = answered.report
    if not rows or (report is not None and report.run.state is not RunState.SUCCEEDED):
        return Judged(verdicts)
    named = {scorer.name: scorer for scorer in asking.chosen.scorers}
    recorded = [row for row in rows if isinstance(named[row.scorer].outside, MlflowScorer)]
    known, sources = _remembered(asking, named, recorded)
    left = [row for row in rows if _id(row) not in known]
    level = judges.level() if left else None
    court = _Court(asking, judges, named, level or IsolationLevel.L1)
    said = known | court.hear(left)
    for row in rows:
        verdicts.setdefault(row.question, {})[row.scorer] = said[_id(row)]
    court.note(sources)
    facts = {
        "isolation": level.name if level is not None else None,
        "asked": len({_id(row) for row in left}),
        "cached": len(known),
        "failed": sum(said[_id(row)].failed for row in rows),
        **court.cost(),
    }
    return Judged(verdicts, facts)


def _id(row: Asked) -> str:
    """Return how a row is called in the ledger: equal contents are asked once."""
    return f"{row.scorer}/{content_of(row)}"


def _key(asking: Asking, scorer: Scorer) -> Digest:
    return judge_key(scorer, asking.memory.world)


def _remembered(
    asking: Asking, named: dict[str, Scorer], rows: Sequence[Asked]
) -> tuple[dict[str, Judgement], dict[str, list[str]]]:
    """Return what judges said before, and by scorer the runs where they did."""
    found: dict[str, Judgement] = {}
    sources: dict[str, list[str]] = {}
    for name in dict.fromkeys(row.scorer for row in rows):
        wanted = [(_id(row), _inputs(row)) for row in rows if row.scorer == name]
        answers = asking.memory.answers(_key(asking, named[name]), wanted)
        for case_id, (answer, source) in answers.items():
            if answer.error is None:
                found[case_id] = _verdict(answer)
                # Of this scorer only: the same run may hold what another scorer, since changed, said.
                sources.setdefault(name, []).append(source.run.run_id)
    return found, {name: list(dict.fromkeys(runs)) for name, runs in sources.items()}


def _verdict(answer: CaseAnswer) -> Judgement:
    return Judgement(answer.output["value"], answer.output["note"])


def _recorded(verdict: Judgement) -> dict[str, Any]:
    return {"value": verdict.value, "note": verdict.note}


def _inputs(row: Asked) -> dict[str, Any]:
    # A digest, so that labels are in the ledger only where a judge's prompt needs them.
    return {"content": content_of(row)}


class _Court:
    """The scorers of one evaluation, and the run of those that ask models."""

    def __init__(
        self, asking: Asking, judges: Judges, named: dict[str, Scorer], level: IsolationLevel
    ) -> None:
        self._asking, self._judges, self._named = asking, judges, named
        self._place = Workplace(level)
        self._run: RunRecord | None = None

    def hear(self, rows: Sequence[Asked]) -> dict[str, Judgement]:
        """Return what is said of each content, and record what judges say."""
        each = {_id(row): row for row in rows}
        judged = {n: r for n, r in each.items() if n.partition("/")[0] in self._mlflow}
        said = self._open(judged) if judged else {}
        try:
            said |= self._ask({n: r for n, r in each.items() if n not in said}, judged)
        except BaseException as error:
            with suppress(ToolkitError):  # the first error is the one to tell
                self._close(RunState.CANCELLED, str(error) or type(error).__name__)
            raise
        self._close(RunState.SUCCEEDED, None)
        return said

    def note(self, earlier: Mapping[str, Sequence[str]]) -> None:
        """Keep the runs that the verdicts stand in, for the attempt's record."""
        own = [self._run.run_id] if self._run else []
        for name in self._mlflow:
            runs = [*own, *earlier.get(name, ())]
            self._asking.memory.note(_key(self._asking, self._named[name]), runs)

    def cost(self) -> dict[str, Any]:
        """Return the judges' run and what it cost; nothing where there was none."""
        if self._run is None:
            return {}
        totals = self._judges.ledger.totals(self._run.run_id)
        return {
            "run_id": self._run.run_id,
            "calls": totals.calls,
            "denied": totals.denied,
            "cost_usd": str(totals.cost.usd),
            "unknown_cost_calls": totals.unknown_cost_calls,
        }

    @property
    def _mlflow(self) -> list[str]:
        return [n for n, s in self._named.items() if isinstance(s.outside, MlflowScorer)]

    def _ask(self, each: dict[str, Asked], judged: dict[str, Asked]) -> dict[str, Judgement]:
        said: dict[str, Judgement] = {}
        chosen: EvaluationSet = self._asking.chosen
        asked = ask_scorers(chosen.scorers, each.values(), self._place, threads=chosen.concurrency)
        for row, verdict in asked:
            name = _id(row)
            said[name] = verdict
            if name in judged and self._run is not None:
                output = _recorded(verdict)
                error = {"code": "scorer", "message": verdict.note} if verdict.failed else None
                self._judges.ledger.answer_case(
                    self._run.run_id, name, None if error else output, error
                )
        return said

    def _open(self, judged: dict[str, Asked]) -> dict[str, Judgement]:
        """Begin the judges' run; return what an attempt that was killed had heard already."""
        ledger, candidate = self._judges.ledger, self._asking.candidate
        socket, token = self._judges.gateway(), secrets.token_urlsafe(32)
        tags = {JUDGES_TAG: self._asking.chosen.name, _KEY_TAG: self._bench}
        heard = self._left_behind(judged)
        record = candidate.run(RunKind.EVALUATION, {}, tags=tags)
        self._run = ledger.create_run(
            replace(
                record,
                state=RunState.RUNNING,
                token_digest=digest_bytes(token.encode()),
                runner=myself(),
                started_us=self._asking.memory.clock.now_us(),
            )
        )
        ledger.put_cases(self._run.run_id, [(name, _inputs(row)) for name, row in judged.items()])
        for name, verdict in heard.items():
            output = _recorded(verdict)
            ledger.answer_case(self._run.run_id, name, output, None)
        self._place = replace(self._place, gateway_socket=Path(socket), token=token)
        return heard

    @property
    def _bench(self) -> Digest:
        """Digest of all judges of the set, on the models and policies of now."""
        return digest_json([_key(self._asking, self._named[name]) for name in self._mlflow])

    def _left_behind(self, judged: Mapping[str, Asked]) -> dict[str, Judgement]:
        """Return verdicts of the same judges whose run was ended before its promotion was."""
        found: dict[str, Judgement] = {}
        if not self._asking.memory.used:
            return found
        ledger = self._judges.ledger
        oldest_us = self._asking.memory.clock.now_us() - DAYS * 86_400_000_000
        for run in ledger.runs(job=self._asking.candidate.job, kind=RunKind.EVALUATION):
            if run.tags.get(_KEY_TAG) != self._bench or run.created_us < oldest_us:
                continue
            lives = not run.state.terminal and run.runner and runner_alive(run.runner)
            if lives or run.state is RunState.SUCCEEDED or ledger.verify(run.run_id):
                continue
            for name, answer in ledger.case_answers(run.run_id).items():
                if name in judged and answer.error is None:
                    found.setdefault(name, _verdict(answer))
        return found

    def _close(self, state: RunState, message: str | None) -> None:
        """End the judges' run, so that its token is worth nothing from now on."""
        if self._run is not None:
            self._judges.ledger.update_run(self._run.run_id, state=state, message=message)
