"""Two evaluations, case by case: what got worse, what got better, and whether that is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.evaluation.paired import exact_mcnemar
from toolkit.evaluation.scoring import Evaluation, Row, is_upward

__all__ = [
    "Change",
    "Comparison",
    "PairedTest",
    "case_mean",
    "compare",
    "evaluation_rows",
    "regressions",
]


@dataclass(frozen=True, slots=True)
class Change:
    """One case that one scorer judges differently now.

    Attributes:
        case_id, slice, scorer: Which.
        before, after: The two answers of the agent, ``None`` where it failed.
        note: Why the new answer is judged as it is.
        error: The agent's error in the new evaluation, if it failed.
    """

    case_id: str
    slice: str
    scorer: str
    before: Any
    after: Any
    note: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether the changes of one scorer look like more than chance.

    Attributes:
        improved, regressed: Cases that changed.
        p_value: Two-sided exact p-value, see :func:`toolkit.evaluation.paired.exact_mcnemar`; for
            numbers it is the sign test.
    """

    improved: int
    regressed: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A new evaluation against the one of the version in use.

    Attributes:
        regressions: Good before, bad now.
        improvements: Bad before, good now.
        tests: By scorer that both have.
        compared: Cases that both asked in the same words.
        added, removed: Cases that only the new one, or only the old one, has.
        changed: Cases of both whose inputs or expectation differ, so that they are not compared.
        moved: Cases of both that are in another slice now.
        removed_bad: Those of ``removed`` that a scorer judged as the worse in the old evaluation:
            a set that loses them has become easier for it.
        scorers: Those that both have, and whose verdicts can be compared.
    """

    regressions: tuple[Change, ...]
    improvements: tuple[Change, ...]
    tests: dict[str, PairedTest]
    compared: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scorers: tuple[str, ...] = field(default=())
    moved: tuple[str, ...] = ()
    removed_bad: tuple[str, ...] = ()


def compare(evaluation: Evaluation, baseline: Evaluation) -> Comparison:
    """Compare two evaluations on the cases that ask and expect the same.

    Both have to be judged by the same scorers: an older one whose scorers were others is judged
    again first (:func:`toolkit.evaluation.restated`).

    Args:
        evaluation: The new one; its scorers say which answer is the good one.
        baseline: The one to hold it against.
    """
    old, new = evaluation_rows(baseline), evaluation_rows(evaluation)
    both = [case_id for case_id in new if case_id in old]
    same = [c for c in both if new[c][0].case_digest == old[c][0].case_digest]
    scorers = tuple(
        name
        for name in evaluation.better
        if name in baseline.better and name not in baseline.incomparable
    )
    removed = tuple(c for c in old if c not in new)
    worse: list[Change] = []
    better: list[Change] = []
    tests: dict[str, PairedTest] = {}
    for scorer in scorers:
        turn = 1 if is_upward(evaluation.better[scorer]) else -1
        judged = [c for c in same if _has(old[c], scorer) and _has(new[c], scorer)]
        moves = {c: turn * (case_mean(new[c], scorer) - case_mean(old[c], scorer)) for c in judged}
        lost = [_change(scorer, old[c], new[c]) for c, move in moves.items() if move < 0]
        won = [_change(scorer, old[c], new[c]) for c, move in moves.items() if move > 0]
        tests[scorer] = PairedTest(len(won), len(lost), exact_mcnemar(len(won), len(lost)))
        worse += lost
        better += won
    return Comparison(
        regressions=tuple(worse),
        improvements=tuple(better),
        tests=tests,
        compared=len(same),
        added=tuple(c for c in new if c not in old),
        removed=removed,
        changed=tuple(c for c in both if new[c][0].case_digest != old[c][0].case_digest),
        scorers=scorers,
        moved=tuple(c for c in both if new[c][0].slice != old[c][0].slice),
        removed_bad=tuple(c for c in removed if _is_bad(old[c], baseline)),
    )


def regressions(evaluation: Evaluation, baseline: Evaluation) -> tuple[Change, ...]:
    """Return the cases that were good in ``baseline`` and are bad in ``evaluation``."""
    return compare(evaluation, baseline).regressions


def evaluation_rows(evaluation: Evaluation) -> dict[str, list[Row]]:
    """Return the trials of each case."""
    found: dict[str, list[Row]] = {}
    for row in evaluation.rows:
        found.setdefault(row.case_id, []).append(row)
    return found


def case_mean(rows: Sequence[Row], scorer: str) -> float:
    """Return a scorer's mean over the trials of one case that it has a value for.

    Raises:
        KeyError: There is none.
    """
    values = [float(row.values[scorer]) for row in rows if scorer in row.values]
    if not values:
        raise KeyError(scorer)
    return sum(values) / len(values)


def _is_bad(rows: Sequence[Row], evaluation: Evaluation) -> bool:
    """Say whether a trial has no answer, or a yes-or-no scorer judges it as the worse."""
    return any(
        row.error is not None
        or any(
            isinstance(value, bool) and value != is_upward(evaluation.better.get(name, "yes"))
            for name, value in row.values.items()
        )
        for row in rows
    )


def _has(rows: Sequence[Row], scorer: str) -> bool:
    return any(scorer in row.values for row in rows)


def _change(scorer: str, before: list[Row], after: list[Row]) -> Change:
    # Of several trials the first that says why stands for the case.
    now = next((row for row in after if scorer in row.notes), after[0])
    note = now.notes.get(scorer, "")
    return Change(now.case_id, now.slice, scorer, before[0].output, now.output, note, now.error)
