"""Production's recorded answers before the scorers of now, where these are not what judged them then.

A comparison is of answers, not of yardsticks: a scorer that was loosened in the same change would let
the new answers look better than the old ones, which a stricter one had judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.evaluation import (
    Case,
    Evaluation,
    EvaluationSet,
    Judgement,
    Scorer,
    content_of,
    outside_rows,
    restated,
)
from toolkit.execution import RunReport
from toolkit.ledger import CaseAnswer
from toolkit.promotion.asking import Answered, Asking
from toolkit.promotion.judging import Judged, Judges, judge
from toolkit.promotion.production import Predecessor
from toolkit.promotion.standards import changed_scorers
from toolkit.values import Digest, RunState

__all__ = ["Restated", "restate"]

_Answers = dict[str, list[CaseAnswer | None]]
_Verdicts = dict[str, dict[str, Judgement]]


@dataclass(frozen=True)
class Restated:
    """The evaluation of the version before, as it is compared with.

    Attributes:
        evaluation: ``None``: there is none on record.
        facts: For the evidence: which scorers judged again, and what was asked for that.
    """

    evaluation: Evaluation | None
    facts: dict[str, Any] = field(default_factory=dict)


def restate(
    asking: Asking, before: Predecessor, answered: Answered, judged: Judged, judges: Judges
) -> Restated:
    """Return what the version before scored on a set, judged by the set's scorers of now.

    Scorers of this process judge its sealed outputs again.  Those outside are asked about them, but
    not about what they were asked of the candidate, or before.  Where they cannot be asked, or fail
    on every answer, the comparison is told that there is none.

    Raises:
        InfrastructureError: See :func:`.judging.judge`.
    """
    chosen, baseline = asking.chosen, before.evaluation(asking.chosen.name)
    if baseline is None:
        return Restated(None)
    changed = changed_scorers(chosen, asking.memory.world, before)
    if not changed:
        return Restated(baseline)
    outside = [s for s in chosen.scorers if s.name in changed and s.outside is not None]
    answers, cases = _recorded(chosen, baseline)
    said: _Verdicts = {}
    facts: dict[str, Any] = {"scorers": sorted(changed)}
    refused: dict[str, str] = {}
    heard = _heard(asking, answered, judged)
    for scorer in outside:
        if not _succeeded(answered.report):
            # The candidate is refused anyway, and nobody is asked about it either.
            refused[scorer.name] = _why(scorer, before, "nobody was asked about its answers")
            continue
        found = _asked(replace(asking, chosen=_part(chosen, scorer, cases, answers)), answers, heard, judges)  # fmt: skip
        facts.setdefault("asked", {})[scorer.name] = found.facts
        for question, verdicts in found.verdicts.items():
            said.setdefault(question, {}).update(verdicts)
        if not any(not v[scorer.name].failed for v in found.verdicts.values() if scorer.name in v):
            refused[scorer.name] = _why(scorer, before, "it could not judge any of its answers")
    return Restated(restated(baseline, chosen, changed, said, refused), facts)


def _why(scorer: Scorer, before: Predecessor, reason: str) -> str:
    return (
        f"the scorer {scorer.name} is another than the one that judged version {before.version}, "
        f"and {reason}"
    )


def _succeeded(report: RunReport | None) -> bool:
    return report is None or report.run.state is RunState.SUCCEEDED


def _recorded(chosen: EvaluationSet, baseline: Evaluation) -> tuple[_Answers, tuple[Case, ...]]:
    """Return the recorded answers to cases that ask and expect the same, and these cases."""
    cases = {case.id: case for case in chosen.cases}
    answers: _Answers = {}
    for row in sorted(baseline.rows, key=lambda row: row.trial):
        case = cases.get(row.case_id)
        if case is not None and case.digest == row.case_digest:
            given = CaseAnswer(row.output, None, None) if row.error is None else None
            answers.setdefault(case.id, []).append(given)
    return answers, tuple(cases[case_id] for case_id in answers)


def _part(
    chosen: EvaluationSet, scorer: Scorer, cases: tuple[Case, ...], answers: _Answers
) -> EvaluationSet:
    trials = max(map(len, answers.values()), default=1)
    return replace(chosen, scorers=(scorer,), cases=cases, trials=trials)


def _heard(
    asking: Asking, answered: Answered, judged: Judged
) -> dict[tuple[str, Digest], Judgement]:
    """Return what scorers said of the candidate's answers, by scorer and content."""
    rows, _ = outside_rows(asking.chosen, answered.answers)
    found = {(r.scorer, content_of(r)): judged.verdicts.get(r.question, {}).get(r.scorer) for r in rows}  # fmt: skip
    return {content: verdict for content, verdict in found.items() if verdict is not None}


def _asked(
    asking: Asking,
    answers: _Answers,
    heard: Mapping[tuple[str, Digest], Judgement],
    judges: Judges,
) -> Judged:
    """Ask one scorer about recorded answers, but for contents that it was just asked about."""
    rows, known = outside_rows(asking.chosen, answers)
    for row in rows:
        verdict = heard.get((row.scorer, content_of(row)))
        if verdict is not None:
            known.setdefault(row.question, {})[row.scorer] = verdict
    left = {
        case_id: [
            None if question in known else answer
            for question, answer in zip(asking.chosen.questions(case_id), given, strict=False)
        ]
        for case_id, given in answers.items()
    }
    found = judge(asking, Answered(left, {}), judges)
    return Judged({**known, **found.verdicts}, found.facts)
