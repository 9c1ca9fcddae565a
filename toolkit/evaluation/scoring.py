"""Scores: what the answers to a set amount to, with the uncertainty of so few cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from toolkit.errors import ConfigurationError, UsageError
from toolkit.evaluation.samples import Mean
from toolkit.evaluation.scorers import Judgement, Scorer
from toolkit.evaluation.sets import Case, EvaluationSet
from toolkit.values import Digest

__all__ = [
    "CaseAnswerLike",
    "Evaluation",
    "Row",
    "Score",
    "is_upward",
    "score",
    "wilson_interval",
]

_SCHEMAS = ("evaluation-result/1", "evaluation-result/2")
"""The second has numbers, trials and measures; everything of the first is read as it was."""

_Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


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


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    The interval holds its coverage for small ``n`` and for proportions near 0 and 1, where the
    textbook interval (mean ± 1.96 standard errors) collapses.  Source: E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212, without continuity correction.

    Args:
        hits: Cases with *yes*, ``0 <= hits <= n``.
        n: Cases; with none the interval is the whole of 0 to 1.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is not a proportion")
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, _Z95 * _Z95
    scale = 1 + square / n
    centre = (share + square / (2 * n)) / scale
    half = _Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / scale
    # At the ends the exact bound is the proportion itself; rounding must not step over it.
    lower = 0.0 if hits == 0 else max(0.0, centre - half)
    upper = 1.0 if hits == n else min(1.0, centre + half)
    return lower, upper


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer said over the cases.

    Attributes:
        mean: Share of *yes*, or mean of the numbers; every case counts alike, whatever the number
            of its trials.
        n: Cases.
        lower, upper: 95 % interval: of a share with one trial a case see :func:`wilson_interval`;
            otherwise Student's t over the cases' own means, infinite for a single case.
        hits: Trials with *yes*; 0 for numbers.
        trials: All answers.
        number: Whether it is about numbers.
    """

    mean: float
    n: int
    lower: float
    upper: float
    hits: int = 0
    trials: int = 0
    number: bool = False

    @classmethod
    def of(cls, values: Iterable[bool | float]) -> Score:
        """Count the values, one per case.

        Raises:
            ValueError: There are none.
        """
        return cls.of_cases([value] for value in values)

    @classmethod
    def of_cases(cls, cases: Iterable[Sequence[bool | float]]) -> Score:
        """Count the values of each case's trials.

        Raises:
            ValueError: There is no case.
        """
        counted = [list(values) for values in cases]
        if not counted:
            raise ValueError("a score needs at least one case")
        n, trials = len(counted), sum(map(len, counted))
        number = any(not isinstance(value, bool) for values in counted for value in values)
        hits = 0 if number else sum(sum(values) for values in counted)
        if not number and trials == n:
            return cls(hits / n, n, *wilson_interval(int(hits), n), int(hits), trials)
        made = Mean(tuple(math.fsum(values) / len(values) for values in counted))
        lower, upper = made.lower(0.025), made.upper(0.025)
        if not number:
            lower, upper = max(0.0, lower), min(1.0, upper)
        return cls(made.estimate, n, lower, upper, int(hits), trials, number)

    def __str__(self) -> str:
        if self.number:
            counted = f"mean of {self.n} cases"
        elif self.trials > self.n:
            counted = f"{self.hits} of {self.trials} trials of {self.n} cases"
        else:
            counted = f"{self.hits} of {self.n}"
        return f"{self.mean:.3f} ({counted}, 95 % interval {self.lower:.3f} to {self.upper:.3f})"


@dataclass(frozen=True, slots=True)
class Row:
    """One case, its answer and what each scorer said.

    Attributes:
        case_id, slice, case_digest: The case.
        output: The agent's answer, ``None`` if it failed or is missing.
        error: Why there is no answer, one sentence; ``None`` if there is one.
        values: What each scorer said.
        notes: Why, for scorers that had something to add.
        unusable: Scorers that could not judge the answer and counted it with the worse value.
        trial: 1, 2 … where a case was asked several times.
        measures: What the gateway measured: ``usd`` and ``seconds``; without ``usd`` where a price
            is not known.
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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answers to one set, judged.

    Attributes:
        set_name, set_digest: Which set.
        rows: One per case and trial, in the order in which ``score`` was given the cases.
        scores: By scorer.
        slices: By slice, then by scorer; empty if the set has no slices.
        better: By scorer, which answer is the good one: ``yes``, ``no``, ``more`` or ``less``.
        missing: Cases without any answer.
        failed: Cases whose agent failed.
        unexpected: Answered case ids that the set does not have.
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

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; :meth:`from_json` is its inverse."""
        return {
            "schema": _SCHEMAS[-1],
            "set_name": self.set_name,
            "set_digest": self.set_digest,
            "scores": {name: _score_json(made) for name, made in self.scores.items()},
            "slices": {
                part: {name: _score_json(made) for name, made in scores.items()}
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
                }
                for row in self.rows
            ],
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
            return _assemble(
                str(body["set_name"]),
                str(body["set_digest"]),
                rows,
                better=better,
                missing=tuple(body["missing"]),
                failed=tuple(body["failed"]),
                unexpected=tuple(body["unexpected"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"this is not a stored evaluation: {error}",
                next_step="evaluate the version again",
            ) from error


def is_upward(better: str) -> bool:
    """Say whether more of a scorer is better."""
    return better in ("yes", "more")


def score(
    evaluation_set: EvaluationSet,
    answers: Mapping[str, CaseAnswerLike | Sequence[CaseAnswerLike | None]],
    *,
    measures: Mapping[str, Mapping[str, float]] | None = None,
) -> Evaluation:
    """Judge the answers to a set.

    Args:
        evaluation_set: The cases with their labels.
        answers: By case id, as the ledger recorded them.  A case without an entry counts as wrong
            and is named in ``missing``; one whose agent failed counts as wrong with its error.
            A sequence holds the answers of several trials of one case, ``None`` where one is missing.
        measures: By case id, ``usd`` and ``seconds`` of all its trials together, from the ledger.

    Raises:
        UsageError: The set holds no case, so there is nothing to score.
    """
    if not evaluation_set.cases:
        raise UsageError(
            f"no case of {evaluation_set.name} is left to score",
            next_step="answer at least one case",
        )
    trials = {case.id: _trials(answers.get(case.id)) for case in evaluation_set.cases}
    rows = tuple(
        replace(_row(case, evaluation_set.scorers, answer), trial=number, measures=measured)
        for case in evaluation_set.cases
        for number, (answer, measured) in enumerate(
            _measured(trials[case.id], (measures or {}).get(case.id, {})), 1
        )
    )
    known = {case.id for case in evaluation_set.cases}
    return _assemble(
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
    )


def _assemble(
    name: str, digest: Digest, rows: tuple[Row, ...], *, better: dict[str, str], **named: Any
) -> Evaluation:
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
    return {
        name: Score.of_cases([row.values[name] for row in trials] for trials in cases.values())
        for name in scorers
    }


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


def _row(case: Case, scorers: tuple[Scorer, ...], answer: CaseAnswerLike | None) -> Row:
    error = _failure(answer)
    output = answer.output if answer is not None and error is None else None
    judged: dict[str, Judgement] = {
        scorer.name: scorer.judge(output, case.expected)
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
        values={name: verdict.value for name, verdict in judged.items()},
        notes={name: verdict.note for name, verdict in judged.items() if verdict.note},
        unusable=tuple(name for name, verdict in judged.items() if verdict.unusable),
    )


def _failure(answer: CaseAnswerLike | None) -> str | None:
    if answer is None:
        return "no answer was recorded"
    if answer.error is None:
        return None
    return str(answer.error.get("message") or "the agent failed")


def _score_json(made: Score) -> dict[str, Any]:
    return {
        "mean": made.mean,
        "n": made.n,
        "lower": _finite(made.lower),
        "upper": _finite(made.upper),
        "hits": made.hits,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
