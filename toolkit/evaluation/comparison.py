"""Two evaluations, case by case: what got worse, what got better, and whether that is chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from toolkit.evaluation.scoring import Evaluation, Row

__all__ = ["Change", "Comparison", "PairedTest", "compare", "regressions"]


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
        p_value: Two-sided exact p-value, see :func:`exact_mcnemar`.
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
    """

    regressions: tuple[Change, ...]
    improvements: tuple[Change, ...]
    tests: dict[str, PairedTest]
    compared: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scorers: tuple[str, ...] = field(default=())


def exact_mcnemar(improved: int, regressed: int) -> float:
    """Return the two-sided exact p-value that improvements and regressions are equally likely.

    The binomial form of the test of Q. McNemar, "Note on the sampling error of the difference
    between correlated proportions or percentages", Psychometrika 12 (1947), 153-157.
    """
    n, fewer = improved + regressed, min(improved, regressed)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def compare(evaluation: Evaluation, baseline: Evaluation) -> Comparison:
    """Compare two evaluations on the cases that ask and expect the same.

    Args:
        evaluation: The new one; its scorers say which answer is the good one.
        baseline: The one to hold it against.
    """
    old = {row.case_id: row for row in baseline.rows}
    new = {row.case_id: row for row in evaluation.rows}
    both = [case_id for case_id in new if case_id in old]
    same = [c for c in both if new[c].case_digest == old[c].case_digest]
    scorers = tuple(name for name in evaluation.better if name in baseline.better)
    worse: list[Change] = []
    better: list[Change] = []
    tests: dict[str, PairedTest] = {}
    for scorer in scorers:
        good = evaluation.better[scorer] == "yes"
        moved = [c for c in same if new[c].values[scorer] != old[c].values[scorer]]
        lost = [_change(scorer, old[c], new[c]) for c in moved if new[c].values[scorer] != good]
        won = [_change(scorer, old[c], new[c]) for c in moved if new[c].values[scorer] == good]
        tests[scorer] = PairedTest(len(won), len(lost), exact_mcnemar(len(won), len(lost)))
        worse += lost
        better += won
    return Comparison(
        regressions=tuple(worse),
        improvements=tuple(better),
        tests=tests,
        compared=len(same),
        added=tuple(c for c in new if c not in old),
        removed=tuple(c for c in old if c not in new),
        changed=tuple(c for c in both if new[c].case_digest != old[c].case_digest),
        scorers=scorers,
    )


def regressions(evaluation: Evaluation, baseline: Evaluation) -> tuple[Change, ...]:
    """Return the cases that were good in ``baseline`` and are bad in ``evaluation``."""
    return compare(evaluation, baseline).regressions


def _change(scorer: str, before: Row, after: Row) -> Change:
    note = after.notes.get(scorer, "")
    return Change(
        after.case_id, after.slice, scorer, before.output, after.output, note, after.error
    )
