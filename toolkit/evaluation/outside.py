"""Scorers that run in processes of their own: which answers they are asked, and what they may say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from toolkit.evaluation.judges import MlflowScorer
from toolkit.evaluation.processes import Asked, Reply, ScorerProcess, Workplace
from toolkit.evaluation.programs import Program
from toolkit.evaluation.scorers import Judgement, Scorer, is_number, look_up
from toolkit.evaluation.scoring import CaseAnswerLike
from toolkit.evaluation.sets import EvaluationSet
from toolkit.values import Digest, digest_json

__all__ = ["ask_scorers", "content_of", "judged_reply", "outside_rows"]

_LONGEST_REASON = 400
Verdicts = dict[str, dict[str, Judgement]]
"""By question, then by scorer."""


def outside_rows(
    evaluation_set: EvaluationSet,
    answers: Mapping[str, CaseAnswerLike | Sequence[CaseAnswerLike | None]],
) -> tuple[list[Asked], Verdicts]:
    """Return what the set's outside scorers are to be asked, and what needs no asking.

    A missing or failed answer is not asked about: :func:`toolkit.evaluation.score` counts it as the
    worse.  So does an answer without the scorer's field.
    """
    rows: list[Asked] = []
    known: Verdicts = {}
    for case in evaluation_set.cases:
        given = answers.get(case.id)
        trials = list(given) if isinstance(given, Sequence) else [given]
        for question, answer in zip(evaluation_set.questions(case.id), trials, strict=False):
            if answer is None or answer.error is not None:
                continue
            for scorer in evaluation_set.scorers:
                if scorer.outside is None:
                    continue
                found, value = look_up(answer.output, scorer.field)
                if not found:
                    judged = scorer.unusable(f"the answer has no field {scorer.field!r}")
                    known.setdefault(question, {})[scorer.name] = judged
                    continue
                label = look_up(case.expected, scorer.expected_field)[1]
                rows.append(Asked(question, scorer.name, value, label, case.inputs))
    return rows, known


def content_of(row: Asked) -> Digest:
    """Return the digest of what a scorer is asked: equal contents need one answer."""
    return digest_json({"answer": row.answer, "label": row.label, "inputs": row.inputs})


def ask_scorers(
    scorers: Iterable[Scorer], rows: Iterable[Asked], workplace: Workplace, *, threads: int = 1
) -> Iterator[tuple[Asked, Judgement]]:
    """Yield what scorers outside of this process say of each row, in the order in which they answer.

    A file of the set has a process of its own and is asked one row at a time.  MLflow's scorers share
    one, in which ``threads`` rows are under way.

    Args:
        scorers: The scorers of the rows.
        rows: From :func:`outside_rows`.
        workplace: Where the processes run.
        threads: For judges.
    """
    named = {scorer.name: scorer for scorer in scorers if scorer.outside is not None}
    groups: dict[str, list[Asked]] = {}
    for row in rows:
        own = isinstance(named[row.scorer].outside, Program)
        groups.setdefault(f"program {row.scorer}" if own else "mlflow", []).append(row)
    for group in groups.values():
        members = [named[name] for name in dict.fromkeys(row.scorer for row in group)]
        with closing(_process(members, workplace, threads)) as process:
            for row, reply in process.ask(group):
                yield row, judged_reply(named[row.scorer], reply)


def _process(scorers: Sequence[Scorer], workplace: Workplace, threads: int) -> ScorerProcess:
    timeouts = {each.name: each.outside.timeout_s for each in scorers if each.outside is not None}
    memory = max(each.outside.memory_bytes for each in scorers if each.outside is not None)
    one = scorers[0].outside
    if isinstance(one, Program):
        given = {"file": one.file, "function": one.function, "source": one.source}
        return ScorerProcess({"program": given}, timeouts, workplace, memory_bytes=memory)
    judges = {
        each.name: {
            "mlflow": each.outside.mlflow,
            "route": each.outside.route,
            "arguments": each.outside.arguments,
            "number": each.is_number,
        }
        for each in scorers
        if isinstance(each.outside, MlflowScorer)
    }
    config = {"judges": judges}
    return ScorerProcess(config, timeouts, workplace, memory_bytes=memory, threads=threads)


def judged_reply(scorer: Scorer, reply: Reply) -> Judgement:
    """Return what a reply is worth; one of another type than the scorer's is a failure, never a pass."""
    reason = reply.reason[:_LONGEST_REASON]
    if reply.error is not None:
        return Judgement(None, reply.error[:_LONGEST_REASON], failed=True)
    value = reply.value
    if value is None:
        return Judgement(None, reason)
    if scorer.is_number and is_number(value):
        if fault := scorer.out_of_range(float(value)):
            return Judgement(None, f"it answered {fault}", failed=True)
        return Judgement(float(value), reason)
    if not scorer.is_number and isinstance(value, bool):
        return Judgement(value, reason)
    wanted = "a number" if scorer.is_number else "yes or no"
    return Judgement(None, f"it answered {str(value)[:80]!r}, which is not {wanted}", failed=True)
