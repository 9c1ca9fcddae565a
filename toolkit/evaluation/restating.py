"""An older evaluation under the scorers of now: its recorded answers are judged again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from toolkit.evaluation.scorers import Judgement, Scorer
from toolkit.evaluation.scoring import Evaluation, Row, assemble
from toolkit.evaluation.sets import Case, EvaluationSet, question_of

__all__ = ["restated"]


def restated(
    baseline: Evaluation,
    evaluation_set: EvaluationSet,
    changed: Collection[str],
    said: Mapping[str, Mapping[str, Judgement]],
    incomparable: Mapping[str, str] | None = None,
) -> Evaluation:
    """Return an older evaluation whose recorded answers are judged by scorers of now.

    Only cases that ask and expect the same as then are judged; of the others the changed scorers'
    verdicts are left out, as they are compared with nothing.

    Args:
        baseline: The older evaluation.
        evaluation_set: The set as it is now.
        changed: Its scorers that did not make the verdicts of ``baseline`` as they are now.
        said: By question, what those outside of this process say of the recorded answers.
        incomparable: Of the changed ones those that could not be asked, with the reason.
    """
    cases = {case.id: case for case in evaluation_set.cases}
    scorers = [scorer for scorer in evaluation_set.scorers if scorer.name in changed]
    rows: list[Row] = []
    for row in baseline.rows:
        case = cases.get(row.case_id)
        judged: dict[str, Judgement] = {}
        if case is not None and case.digest == row.case_digest:
            answered = said.get(question_of(case.id, row.trial), {})
            judged = {s.name: _judged_again(s, row, case, answered.get(s.name)) for s in scorers}
        rows.append(_rejudged(row, changed, judged))
    return replace(
        assemble(
            baseline.set_name,
            baseline.set_digest,
            tuple(rows),
            better={**baseline.better, **{scorer.name: scorer.better for scorer in scorers}},
            missing=baseline.missing,
            failed=baseline.failed,
            unexpected=baseline.unexpected,
            worse={**baseline.worse, **{s.name: s.worse for s in scorers if s.kind.is_outside}},
        ),
        incomparable=dict(incomparable or {}),
    )


def _judged_again(scorer: Scorer, row: Row, case: Case, said: Judgement | None) -> Judgement:
    if row.error is not None:
        return scorer.unusable(row.error)
    return said or scorer.judge(row.output, case.expected)


def _rejudged(row: Row, changed: Collection[str], judged: Mapping[str, Judgement]) -> Row:
    def kept(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name not in changed}

    good = {name: v.value for name, v in judged.items() if v.value is not None}
    notes = {name: v.note for name, v in judged.items() if v.note and not v.failed}
    unusable = [name for name in row.unusable if name not in changed]
    return replace(
        row,
        values={**kept(row.values), **good},
        notes={**kept(row.notes), **notes},
        unusable=(*unusable, *(name for name, v in judged.items() if v.unusable)),
        errors={**kept(row.errors), **{name: v.note for name, v in judged.items() if v.failed}},
    )
