"""From an evaluation and a gate to the sample that decides it, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.evaluation.comparison import case_mean, evaluation_rows
from toolkit.evaluation.paired import PairedShares
from toolkit.evaluation.samples import Mean, Proportion, Quantile, Sample
from toolkit.evaluation.scoring import Evaluation, Row, is_upward
from toolkit.evaluation.sequential import running_evidence
from toolkit.evaluation.sets import MEASURES
from toolkit.evaluation.verdicts import GateLike
from toolkit.evaluation.weighted import WeightedMean

__all__ = ["Claim", "claim", "label_of", "pass_hat_k"]

_P95 = 0.95
_ROUNDING = 1e-12
_Ends = tuple[float | None, float | None]
_UNKNOWN: _Ends = (None, None)
_SHARE: _Ends = (0.0, 1.0)
_MEASURED: _Ends = (0.0, None)
"""Nothing costs less than nothing; how much it may cost, nobody knows."""


@dataclass(frozen=True, slots=True)
class Claim:
    """That a gate holds, with what speaks for and against it.

    Attributes:
        gate, label: Which.
        sample: The number and its uncertainty.
        low, high: The limits that it has to keep.
        p_pass: P-value of the claim; small: it holds.
        p_fail: P-value of the opposite; small: it does not.
        lacking: Why the cases can show nothing as they are; empty if they can.
    """

    gate: GateLike
    label: str
    sample: Sample
    low: float | None
    high: float | None
    p_pass: float
    p_fail: float
    lacking: str = ""


def pass_hat_k(good: int, trials: int, k: int) -> float:
    """Return the unbiased estimate that ``k`` trials of one case are all good.

    ``C(good, k) / C(trials, k)``.  Source: S. Yao, N. Shinn, P. Razavi and K. Narasimhan,
    "τ-bench: a benchmark for tool-agent-user interaction in real-world domains" (2024), section 3.

    Raises:
        ValueError: There are fewer than ``k`` trials, or the counts make no sense.
    """
    if not (0 <= good <= trials and 1 <= k <= trials):
        raise ValueError(f"{good} good of {trials} trials say nothing about {k} trials")
    return math.comb(good, k) / math.comb(trials, k)


def label_of(each: GateLike) -> str:
    """Return what a gate is about, in words."""
    name = each.scorer
    if each.pass_hat_k is not None:
        name = f"pass^{each.pass_hat_k} of {name}"
    if each.statistic != "mean":
        name = f"{each.statistic} of {name}"
    if each.non_inferior_to or each.superior_to:
        name = f"{name} against {each.non_inferior_to or each.superior_to}"
    return f"{name} in slice {each.slice}" if each.slice else name


def claim(
    evaluation: Evaluation, each: GateLike, baseline: Evaluation | None, *, stopped: bool
) -> Claim | str:
    """Return the claim of one gate, or one sentence why nothing can be said.

    Args:
        evaluation: What was scored.
        each: A gate with a confidence; its slice is a name or ``None``.
        baseline: The evaluation of the version in production, for a comparison.
        stopped: The evaluation was ended before every case was answered.
    """
    if stopped and not each.sequential:
        return "the evaluation ended early, and this gate needs every case"
    cases = {
        case_id: rows
        for case_id, rows in evaluation_rows(evaluation).items()
        if each.slice is None or rows[0].slice == each.slice
    }
    if not cases:
        return f"no case is in the slice {each.slice}"
    if each.non_inferior_to or each.superior_to:
        return _paired(evaluation, each, cases, baseline)
    sample = _sample(evaluation, each, cases)
    if isinstance(sample, str):
        return sample
    return _bounded(each, sample, cases, stopped=stopped)


def _bounded(
    each: GateLike, sample: Sample, cases: Mapping[str, list[Row]], *, stopped: bool
) -> Claim | str:
    sides = [(limit, up) for limit, up in ((each.minimum, True), (each.maximum, False))]
    tests = [_p_values(sample, limit, up=up) for limit, up in sides if limit is not None]
    if each.sequential:
        if not isinstance(sample, Proportion) or any(len(rows) > 1 for rows in cases.values()):
            return "an early end needs a scorer that answers yes or no, and one trial a case"
        looks = [bool(rows[0].values[each.scorer]) for rows in cases.values()]
        tests = [
            _with_looks(test, looks, limit, up=up, stopped=stopped)
            for test, (limit, up) in zip(tests, [s for s in sides if s[0] is not None], strict=True)
            if limit is not None
        ]
    # Both limits have to be kept, so the weaker claim counts; either one may be missed.
    p_pass, p_fail = max(p for p, _ in tests), min(1.0, len(tests) * min(p for _, p in tests))
    lacking = _beyond_showing(each, sample) or _lacking(each, sample)
    return Claim(each, label_of(each), sample, each.minimum, each.maximum, p_pass, p_fail, lacking)


def _p_values(sample: Sample, limit: float, *, up: bool) -> tuple[float, float]:
    """P-values that a limit is kept, and that it is missed; it is missed by what is beyond it only."""
    kept, missed = sample.p_above(limit), sample.p_below(limit)
    if not up:
        kept, missed = missed, kept
    holds = sample.estimate >= limit if up else sample.estimate <= limit
    # 100 of 100 do not contradict a minimum of 1, although nothing is above it.
    return kept, 1.0 if holds else missed


def _beyond_showing(each: GateLike, sample: Sample) -> str:
    """Say that a limit is the end of what there can be, which no number of cases shows."""
    low, high = _SHARE if isinstance(sample, Proportion) else _UNKNOWN
    if isinstance(sample, WeightedMean):
        low, high = sample.low, sample.high
    for word, limit, end in (("minimum", each.minimum, high), ("maximum", each.maximum, low)):
        if limit is not None and limit == end:
            return (
                f"no number of cases shows a {word} of {limit:g} with a confidence; "
                f"ask for a little less than perfect, or write the gate without a confidence"
            )
    return ""


def _lacking(each: GateLike, sample: Sample) -> str:
    if not isinstance(sample, WeightedMean) or sample.method == "gaffke" or not sample.lacking:
        return ""
    instead = "" if each.scorer in MEASURES else ", unless the set declares the scorer's range"
    return f"{sample.lacking}{instead}"


def _with_looks(
    test: tuple[float, float], looks: Sequence[bool], limit: float, *, up: bool, stopped: bool
) -> tuple[float, float]:
    """Join the looks with the usual test: each has half of alpha, so the smaller counts twice."""
    running = running_evidence(looks, limit)
    early = (running.p_above, running.p_below) if up else (running.p_below, running.p_above)
    # The usual test was planned for the whole set; at an early end it would be one more look.
    usual = (1.0, 1.0) if stopped else test
    return min(1.0, 2 * min(early[0], usual[0])), min(1.0, 2 * min(early[1], usual[1]))


def _sample(evaluation: Evaluation, each: GateLike, cases: Mapping[str, list[Row]]) -> Sample | str:
    if each.scorer in MEASURES:
        unknown = sum(each.scorer not in row.measures for rows in cases.values() for row in rows)
        if unknown:
            return f"{unknown} answers have no known {each.scorer}"
        values = [rows[0].measures[each.scorer] for rows in cases.values()]
        return _numbers(each, values, _MEASURED)
    if each.pass_hat_k is not None:
        found = _hat(each, cases, each.pass_hat_k)
        return found if isinstance(found, str) else _shares(each, found)
    means = [case_mean(rows, each.scorer) for rows in cases.values()]
    if _is_yes_or_no(cases, each.scorer):
        return _shares(each, means)
    return _numbers(each, means, _ends(evaluation, each, means))


def _ends(evaluation: Evaluation, each: GateLike, *values: Sequence[float]) -> _Ends:
    """Return the declared range of a scorer; a range that some value left says nothing."""
    low, high = evaluation.ranges.get(each.scorer, _UNKNOWN)
    if low is None or high is None:
        return _UNKNOWN
    kept = all(low <= value <= high for group in values for value in group)
    return (low, high) if kept else _UNKNOWN


def _hat(each: GateLike, cases: Mapping[str, list[Row]], k: int) -> list[float] | str:
    if not _is_yes_or_no(cases, each.scorer):
        return f"pass^{k} needs a scorer that answers yes or no"
    fewest = min(map(len, cases.values()))
    if fewest < k:
        return f"pass^{k} needs {k} trials of each case, {k - fewest} more than there are"
    return [
        pass_hat_k(sum(bool(row.values[each.scorer]) for row in rows), len(rows), k)
        for rows in cases.values()
    ]


def _shares(each: GateLike, values: Sequence[float]) -> Sample | str:
    """Cases that are all 0 or 1 are a proportion; else trials differ, and the cases are weighted."""
    if each.statistic != "mean":
        return f"{each.statistic} needs a scorer that answers with a number"
    if all(value in (0.0, 1.0) for value in values):
        method = each.method if each.method == "wilson" else "clopper-pearson"
        return Proportion(round(sum(values), 9), len(values), method)
    return _numbers(each, values, _SHARE)


def _numbers(each: GateLike, values: Sequence[float], ends: _Ends) -> Sample:
    if each.statistic == "p95":
        return Quantile(tuple(sorted(values)), _P95)
    # Of too few cases, or too few that differ, t would claim what it cannot know.
    if each.method == "t" and not WeightedMean(tuple(values)).lacking:
        return Mean(tuple(values))
    return WeightedMean(tuple(values), *ends)


def _paired(
    evaluation: Evaluation,
    each: GateLike,
    cases: Mapping[str, list[Row]],
    baseline: Evaluation | None,
) -> Claim | str:
    if baseline is None:
        return "there is no evaluation of the version in production"
    if each.scorer in baseline.incomparable:
        return baseline.incomparable[each.scorer]
    old = evaluation_rows(baseline)
    same = {
        case_id: rows
        for case_id, rows in cases.items()
        if case_id in old and old[case_id][0].case_digest == rows[0].case_digest
    }
    if not same:
        return "the version in production answered none of these cases"
    try:
        differences = _differences(evaluation, each, same, old)
    except KeyError:
        return f"the version in production has no {each.scorer} on record"
    limit = -each.margin if each.non_inferior_to else 0.0
    sample = _compared(evaluation, each, same, old, differences)
    above, below = _p_values(sample, limit, up=True)
    # The same is not better, and no confidence makes it so.
    if each.superior_to and sample.estimate <= 0:
        above = 1.0
    return Claim(each, label_of(each), sample, limit, None, above, below, _lacking(each, sample))


def _compared(
    evaluation: Evaluation,
    each: GateLike,
    cases: Mapping[str, list[Row]],
    old: Mapping[str, list[Row]],
    differences: Sequence[float],
) -> Sample:
    if each.scorer in MEASURES:
        return WeightedMean(tuple(differences))
    before = {case_id: old[case_id] for case_id in cases}
    if _is_yes_or_no(cases, each.scorer) and _is_yes_or_no(before, each.scorer):
        if all(len(rows) == len(before[case_id]) == 1 for case_id, rows in cases.items()):
            better, worse = (differences.count(turn) for turn in (1, -1))
            method = "mcnemar" if each.superior_to else "tango"
            return PairedShares(better, worse, len(cases), method)
        return WeightedMean(tuple(differences), -1.0, 1.0)
    values = [[case_mean(rows, each.scorer) for rows in part.values()] for part in (cases, before)]
    low, high = _ends(evaluation, each, *values)
    if low is None or high is None:
        return WeightedMean(tuple(differences))
    return WeightedMean(tuple(differences), low - high, high - low)


def _differences(
    evaluation: Evaluation,
    each: GateLike,
    cases: Mapping[str, list[Row]],
    old: Mapping[str, list[Row]],
) -> list[float]:
    if each.scorer in MEASURES:
        return [
            _gap(old[c][0].measures[each.scorer], rows[0].measures[each.scorer])
            for c, rows in cases.items()
        ]
    turn = 1 if is_upward(evaluation.better[each.scorer]) else -1
    return [
        turn * _gap(case_mean(rows, each.scorer), case_mean(old[c], each.scorer))
        for c, rows in cases.items()
    ]


def _gap(new: float, old: float) -> float:
    """The difference, where it is more than what floats make of equal sums."""
    gap = new - old
    return gap if abs(gap) > _ROUNDING * max(abs(new), abs(old)) else 0.0


def _is_yes_or_no(cases: Mapping[str, list[Row]], scorer: str) -> bool:
    return all(isinstance(row.values[scorer], bool) for rows in cases.values() for row in rows)
