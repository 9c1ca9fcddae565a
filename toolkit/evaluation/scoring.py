"""Scores: what the answers to a set amount to, with the uncertainty of so few cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from toolkit.errors import ConfigurationError, UsageError
from toolkit.evaluation.scorers import Judgement, Scorer
from toolkit.evaluation.scores import Score, score_json, wilson_interval
from toolkit.evaluation.sets import Case, EvaluationSet, question_of
from toolkit.values import Digest

__all__ = [
    "CaseAnswerLike",
    "Evaluation",
    "Row",
    "Score",
    "assemble",
    "assumed",
    "is_upward",
    "score",
    "scored_by",
    "wilson_interval",
]

_SCHEMAS = ("evaluation-result/1", "evaluation-result/2")
"""The second has numbers, trials and measures; everything of the first is read as it was."""


class CaseAnswerLike(Protocol):
    """What an agent answered to one case (the ledger's ``CaseAnswer``).

    Attributes:
        output: The answer, a JSON value.
        error: ``ToolkitError.to_json()`` if the agent failed.
    """

    @property
    def output(self) -> Any: ...
    @property
    def error(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One case, its answer and what each scorer said.

    Attributes:
        case_id, slice, case_digest: The case.
        output: The agent's answer, ``None`` if it failed or is missing.
        error: Why there is no answer, one sentence; ``None`` if there is one.
        values: What each scorer said; without those that failed or do not score this answer.
        notes: Why, for scorers that had something to add.
        unusable: Scorers that could not judge the answer and counted it with the worse value.
        trial: 1, 2 … where a case was asked several times.
        measures: What the gateway measured: ``usd`` and ``seconds``; without ``usd`` where a price
            is not known.
        errors: Scorers that failed, with the reason: neither good nor bad.
    """

    case_id: str
    slice: str
    case_digest: Digest
    output: Any
    error: str | None
    values: dict[str, bool | float]
    notes: dict[str, str] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    trial: int = 1
    measures: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answers to one set, judged.

    Attributes:
        set_name, set_digest: Which set.
        rows: One per case and trial, in the order in which ``score`` was given the cases.
        scores: By scorer; without one that scored no answer.
        slices: By slice, then by scorer; empty if the set has no slices.
        better: By scorer, which answer is the good one: ``yes``, ``no``, ``more`` or ``less``.
        missing: Cases without any answer.
        failed: Cases whose agent failed.
        unexpected: Answered case ids that the set does not have.
        worse: What a scorer's failure counts where the worst has to be assumed; of scorers that
            can fail only.
        incomparable: Of an older evaluation: scorers whose verdicts cannot be held against those of
            now, each with the reason.  Not stored: it depends on what it is held against.
        ranges: By scorer, the least and the most that its numbers can be, where that is known.
    """

    set_name: str
    set_digest: Digest
    rows: tuple[Row, ...]
    scores: dict[str, Score]
    slices: dict[str, dict[str, Score]] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    worse: dict[str, bool | float] = field(default_factory=dict)
    incomparable: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def failures(self, scorer: str) -> list[Row]:
        """Return the rows that a scorer failed on."""
        return [row for row in self.rows if scorer in row.errors]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; :meth:`from_json` is its inverse."""
        return {
            "schema": _SCHEMAS[-1],
            "set_name": self.set_name,
            "set_digest": self.set_digest,
            "scores": {name: score_json(made) for name, made in self.scores.items()},
            "slices": {
                part: {name: score_json(made) for name, made in scores.items()}
                for part, scores in self.slices.items()
            },
            "better": dict(self.better),
            "missing": list(self.missing),
            "failed": list(self.failed),
            "unexpected": list(self.unexpected),
            "rows": [
                {
                    "case_id": row.case_id,
                    "slice": row.slice,
                    "case_digest": row.case_digest,
                    "output": row.output,
                    "error": row.error,
                    "values": dict(row.values),
                    "notes": dict(row.notes),
                    "unusable": list(row.unusable),
                    "trial": row.trial,
                    "measures": dict(row.measures),
                    **({"errors": dict(row.errors)} if row.errors else {}),
                }
                for row in self.rows
            ],
            **({"worse": dict(self.worse)} if self.worse else {}),
            **({"ranges": {n: list(r) for n, r in self.ranges.items()}} if self.ranges else {}),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Evaluation:
        """Rebuild an evaluation; its scores are counted again from its rows.

        Raises:
            ConfigurationError: The value was not made by :meth:`to_json`.
        """
        if body.get("schema") not in _SCHEMAS:
            raise ConfigurationError(
                f"this is not a stored evaluation: its schema is {body.get('schema')!r}",
                next_step="evaluate the version again",
            )
        try:
            better = dict(body["better"])
            rows = tuple(Row(**{**row, "unusable": tuple(row["unusable"])}) for row in body["rows"])
            return assemble(
                str(body["set_name"]),
                str(body["set_digest"]),
                rows,
                better=better,
                missing=tuple(body["missing"]),
                failed=tuple(body["failed"]),
                unexpected=tuple(body["unexpected"]),
                worse=dict(body.get("worse") or {}),
                ranges={n: (low, high) for n, (low, high) in (body.get("ranges") or {}).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"this is not a stored evaluation: {error}",
                next_step="evaluate the version again",
            ) from error


def scored_by(evaluation: Evaluation, scorer: str) -> Evaluation:
    """Return an evaluation with only the rows that a scorer has a value for."""
    if scorer not in evaluation.better or all(scorer in row.values for row in evaluation.rows):
        return evaluation
    return replace(evaluation, rows=tuple(r for r in evaluation.rows if scorer in r.values))


def assumed(evaluation: Evaluation, *, turned: bool = False) -> Evaluation:
    """Return an evaluation in which every failure of a scorer counts as the worse answer.

    Args:
        evaluation: What was scored.
        turned: A scorer that answers yes or no counts as the better answer instead: a gate with a
            maximum may fear that one.
    """
    worse = {
        name: not value if turned and isinstance(value, bool) else value
        for name, value in evaluation.worse.items()
    }
    rows = tuple(
        replace(row, values={**row.values, **{name: worse[name] for name in row.errors}})
        for row in evaluation.rows
    )
    return assemble(
        evaluation.set_name,
        evaluation.set_digest,
        rows,
        better=evaluation.better,
        missing=evaluation.missing,
        failed=evaluation.failed,
        unexpected=evaluation.unexpected,
        worse=evaluation.worse,
        ranges=evaluation.ranges,
    )


def is_upward(better: str) -> bool:
    """Say whether more of a scorer is better."""
    return better in ("yes", "more")


def score(
    evaluation_set: EvaluationSet,
    answers: Mapping[str, CaseAnswerLike | Sequence[CaseAnswerLike | None]],
    *,
    measures: Mapping[str, Mapping[str, float]] | None = None,
    verdicts: Mapping[str, Mapping[str, Judgement]] | None = None,
) -> Evaluation:
    """Judge the answers to a set.

    Args:
        evaluation_set: The cases with their labels.
        answers: By case id, as the ledger recorded them.  A case without an entry counts as wrong
            and is named in ``missing``; one whose agent failed counts as wrong with its error.
            A sequence holds the answers of several trials of one case, ``None`` where one is missing.
        measures: By case id, ``usd`` and ``seconds`` of all its trials together, from the ledger.
        verdicts: By question (:meth:`EvaluationSet.questions`) and scorer, what scorers outside of
            this process said (:func:`toolkit.evaluation.outside.ask_scorers`).  One that has no
            verdict on an answer has failed on it.

    Raises:
        UsageError: The set holds no case, so there is nothing to score.
    """
    if not evaluation_set.cases:
        raise UsageError(
            f"no case of {evaluation_set.name} is left to score",
            next_step="answer at least one case",
        )
    trials = {case.id: _trials(answers.get(case.id)) for case in evaluation_set.cases}
    said = verdicts or {}
    rows = tuple(
        replace(
            _row(case, evaluation_set.scorers, answer, said.get(question_of(case.id, number), {})),
            trial=number,
            measures=measured,
        )
        for case in evaluation_set.cases
        for number, (answer, measured) in enumerate(
            _measured(trials[case.id], (measures or {}).get(case.id, {})), 1
        )
    )
    known = {case.id for case in evaluation_set.cases}
    return assemble(
        evaluation_set.name,
        evaluation_set.digest,
        rows,
        better={scorer.name: scorer.better for scorer in evaluation_set.scorers},
        missing=tuple(case for case, given in trials.items() if None in given),
        failed=tuple(
            case
            for case, given in trials.items()
            if any(answer is not None and answer.error is not None for answer in given)
        ),
        unexpected=tuple(sorted(set(answers) - known)),
        worse={s.name: s.worse for s in evaluation_set.scorers if s.kind.is_outside},
        ranges={s.name: s.range for s in evaluation_set.scorers if s.range is not None},
    )


def assemble(
    name: str, digest: Digest, rows: tuple[Row, ...], *, better: dict[str, str], **named: Any
) -> Evaluation:
    """Count the scores of rows, over all and by slice."""
    parts = sorted({row.slice for row in rows if row.slice})
    return Evaluation(
        name,
        digest,
        rows,
        _count(rows, better),
        {part: _count([row for row in rows if row.slice == part], better) for part in parts},
        better,
        **named,
    )


def _count(rows: Iterable[Row], scorers: Iterable[str]) -> dict[str, Score]:
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row.case_id, []).append(row)
    found: dict[str, Score] = {}
    for name in scorers:
        given = [
            [row.values[name] for row in rows if name in row.values] for rows in cases.values()
        ]
        if any(given):
            found[name] = Score.of_cases(values for values in given if values)
    return found


def _trials(
    given: CaseAnswerLike | Sequence[CaseAnswerLike | None] | None,
) -> list[CaseAnswerLike | None]:
    if isinstance(given, Sequence):
        return list(given) or [None]
    return [given]


def _measured(
    answers: list[CaseAnswerLike | None], measured: Mapping[str, float]
) -> Iterable[tuple[CaseAnswerLike | None, dict[str, float]]]:
    # The ledger tells what a case cost, not which trial did: each trial gets its share.
    shares = {name: value / len(answers) for name, value in measured.items()}
    return [(answer, shares) for answer in answers]


def _row(
    case: Case,
    scorers: tuple[Scorer, ...],
    answer: CaseAnswerLike | None,
    said: Mapping[str, Judgement],
) -> Row:
    error = _failure(answer)
    output = answer.output if answer is not None and error is None else None
    judged: dict[str, Judgement] = {
        scorer.name: said.get(scorer.name) or scorer.judge(output, case.expected)
        if error is None
        else scorer.unusable(error)
        for scorer in scorers
    }
    return Row(
        case_id=case.id,
        slice=case.slice,
        case_digest=case.digest,
        output=output,
        error=error,
        values={name: v.value for name, v in judged.items() if v.value is not None},
        notes={name: v.note for name, v in judged.items() if v.note and not v.failed},
        unusable=tuple(name for name, v in judged.items() if v.unusable),
        errors={name: v.note for name, v in judged.items() if v.failed},
    )


def _failure(answer: CaseAnswerLike | None) -> str | None:
    if answer is None:
        return "no answer was recorded"
    if answer.error is None:
        return None
    return str(answer.error.get("message") or "the agent failed")
