"""Gates: what a score must reach, and with what confidence, before a version may ship."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from toolkit.evaluation.claims import Claim, claim, label_of
from toolkit.evaluation.comparison import case_mean, evaluation_rows
from toolkit.evaluation.levels import attempt_alpha, holm_levels
from toolkit.evaluation.scoring import Evaluation, Score, assumed, scored_by
from toolkit.evaluation.sentences import claim_sentence
from toolkit.evaluation.sets import MEASURES
from toolkit.evaluation.verdicts import GateLike, GateVerdict, Ruling

__all__ = ["gate", "passed", "settled"]

_EVERY_SLICE = "*"


@dataclass(frozen=True, slots=True)
class _Sliced:
    """A gate on one of the slices that it was written for."""

    asked: GateLike
    slice: str | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asked, name)


def gate(
    evaluation: Evaluation,
    gates: Iterable[GateLike],
    *,
    baseline: Evaluation | None = None,
    first: str = "",
    attempt: int = 1,
    stopped: bool = False,
) -> list[GateVerdict]:
    """Hold an evaluation against its gates.

    Without any gate the only verdict is one that does not pass: nothing was promised, so nothing
    was kept.  A gate on every slice has one verdict per slice.

    Gates without a confidence compare the plain mean.  The others are claims that are tested: the
    claim that the gate holds, and the opposite.  The claims of one set that ask the same
    confidence are corrected together by Holm's method, so that with that confidence none of the
    passes is false; the attempt's number tightens them further
    (:func:`toolkit.evaluation.levels.attempt_alpha`).  Nothing tightens a fail: it is said at the
    confidence that the policy names.

    Where a scorer failed on answers, a gate passes only if it would pass with the worst for each of
    them; if it would pass without them, there is not enough evidence.

    Args:
        evaluation: The scores of the new version.
        gates: The policy's gates for the set.
        baseline: The evaluation of the version in production.
        first: Why there is no version to compare with; a comparison then holds, and says so.  Empty:
            there is one.
        attempt: How often something was tried on this set lately, this time included.
        stopped: The evaluation was ended early, see :func:`settled`.
    """
    asked = [part for each in gates for part in _per_slice(evaluation, each)]
    if not asked:
        sentence = f"no gate is set for the evaluation set {evaluation.set_name}"
        return [GateVerdict(None, None, passed=False, sentence=sentence, n=len(evaluation.rows))]

    def decide(judged: Evaluation) -> list[GateVerdict]:
        drafts = [_draft(judged, each, baseline, first=first, stopped=stopped) for each in asked]
        return _decided(drafts, attempt, stopped=stopped)

    verdicts = decide(evaluation)
    if not any(row.errors for row in evaluation.rows):
        return verdicts
    worst, best = decide(assumed(evaluation)), decide(assumed(evaluation, turned=True))
    return [_careful(evaluation, *each) for each in zip(verdicts, worst, best, strict=True)]


def passed(verdicts: Iterable[GateVerdict]) -> bool:
    """Say whether there is at least one verdict and every one passed."""
    counted = list(verdicts)
    return bool(counted) and all(verdict.passed for verdict in counted)


def settled(verdicts: Sequence[GateVerdict]) -> bool:
    """Say whether the answers so far decide: every gate passes, or one fails.

    For verdicts of :func:`gate` with ``stopped=True`` over the cases that are answered, in the
    order of :func:`toolkit.evaluation.sequential.shuffled`.  A gate that is not sequential never
    passes early, and never fails early either.
    """
    sequential = [v for v in verdicts if v.gate is not None and v.gate.sequential]
    return passed(verdicts) or any(v.ruling is Ruling.FAIL for v in sequential)


def _careful(
    evaluation: Evaluation, without: GateVerdict, worst: GateVerdict, best: GateVerdict
) -> GateVerdict:
    """Join the verdicts without the answers that the scorer failed on, and with either end for them."""
    each = worst.gate
    failures = [] if each is None else evaluation.failures(each.scorer)
    if each is not None and each.slice is not None:
        failures = [row for row in failures if row.slice == each.slice]
    if each is None or not failures:
        return worst
    reason = failures[0].errors[each.scorer]
    told = f"{each.scorer} failed on {len(failures)} answers ({failures[0].case_id}: {reason})"
    if worst.passed and best.passed and without.passed:
        return replace(worst, sentence=f"{worst.sentence}; {told}, which count as the worst")
    if without.passed:
        shown = best if worst.passed else worst
        sentence = f"{told}, and with the worst for them: {shown.sentence}"
        return replace(without, passed=False, ruling=Ruling.NOT_ENOUGH, sentence=sentence)
    return replace(without, sentence=f"{without.sentence}; {told}")


def _per_slice(evaluation: Evaluation, each: GateLike) -> list[GateLike]:
    if each.slice != _EVERY_SLICE:
        return [each]
    return [_Sliced(each, part) for part in evaluation.slices] or [_Sliced(each, None)]


def _draft(
    evaluation: Evaluation,
    each: GateLike,
    baseline: Evaluation | None,
    *,
    first: str,
    stopped: bool,
) -> GateVerdict | Claim:
    fault = _fault(evaluation, each)
    if fault:
        return _without(each, fault, Ruling.FAIL)
    evaluation = scored_by(evaluation, each.scorer)
    baseline = None if baseline is None else scored_by(baseline, each.scorer)
    if each.scorer not in MEASURES and each.scorer not in _scores(evaluation, each):
        return _without(each, f"{label_of(each)}: no answer was scored", Ruling.NOT_ENOUGH)
    if (each.non_inferior_to or each.superior_to) and first:
        sentence = f"{label_of(each)}: {first}, so there is none to compare"
        return _without(each, sentence, Ruling.PASS)
    if each.confidence is None and _is_plain_mean(each):
        return _mean(evaluation, each, stopped=stopped)
    made = claim(evaluation, each, baseline, stopped=stopped)
    if isinstance(made, str):
        return _without(each, f"{label_of(each)}: {made}", Ruling.NOT_ENOUGH)
    return made if each.confidence is not None else _plain_claim(made)


def _fault(evaluation: Evaluation, each: GateLike) -> str | None:
    if each.scorer not in {*evaluation.scores, *evaluation.better, *MEASURES}:
        known = ", ".join(sorted(evaluation.scores))
        return f"the set {evaluation.set_name} has no scorer {each.scorer!r}, only {known}"
    if each.slice is not None and each.slice not in evaluation.slices:
        known = ", ".join(evaluation.slices) or "none"
        return f"the set {evaluation.set_name} has no slice {each.slice!r} ({known})"
    if each.non_inferior_to or each.superior_to:
        return None
    if each.minimum is None and each.maximum is None:
        return f"the gate on {each.scorer} has neither a minimum nor a maximum"
    if each.minimum is not None and each.maximum is not None and each.minimum > each.maximum:
        return f"no value of {each.scorer} lies between {each.minimum} and {each.maximum}"
    return None


def _scores(evaluation: Evaluation, each: GateLike) -> dict[str, Score]:
    return evaluation.scores if each.slice is None else evaluation.slices[each.slice]


def _is_plain_mean(each: GateLike) -> bool:
    named = each.scorer not in MEASURES and each.statistic == "mean" and each.pass_hat_k is None
    return named and not (each.non_inferior_to or each.superior_to)


def _without(each: GateLike, sentence: str, ruling: Ruling) -> GateVerdict:
    """A verdict that rests on no number."""
    held = ruling is Ruling.PASS
    return GateVerdict(each, None, held, sentence, ruling=ruling, label=label_of(each))


# -- claims ------------------------------------------------------------------------------------


def _decided(
    drafts: Sequence[GateVerdict | Claim], attempt: int, *, stopped: bool
) -> list[GateVerdict]:
    verdicts: dict[int, GateVerdict] = {}
    families: dict[float, list[tuple[int, Claim]]] = {}
    for place, draft in enumerate(drafts):
        if isinstance(draft, GateVerdict):
            verdicts[place] = draft
        else:
            families.setdefault(float(draft.gate.confidence or 0), []).append((place, draft))
    for confidence, claims in families.items():
        alpha = 1 - confidence
        levels = holm_levels([c.p_pass for _, c in claims], attempt_alpha(alpha, attempt))
        for (place, made), (holds, level) in zip(claims, levels, strict=True):
            ruled = _rule(made, alpha, level, holds=holds, attempt=attempt)
            # Bounds of a fixed number of cases mean nothing where the number was not fixed.
            verdicts[place] = replace(ruled, lower=None, upper=None) if stopped else ruled
    return [verdicts[place] for place in sorted(verdicts)]


def _rule(made: Claim, alpha: float, level: float, *, holds: bool, attempt: int) -> GateVerdict:
    ruling = Ruling.NOT_ENOUGH
    if holds:
        ruling = Ruling.PASS
    elif made.p_fail <= alpha:
        ruling = Ruling.FAIL
        level = alpha
    # The looks of an early end take half of what the bounds may err.
    shown = level / 2 if made.gate.sequential else level
    lower, upper = made.sample.lower(shown), made.sample.upper(shown)
    verdict = GateVerdict(
        gate=made.gate,
        observed=made.sample.estimate,
        passed=holds,
        sentence="",
        n=made.sample.n,
        lower=lower if math.isfinite(lower) else None,
        upper=upper if math.isfinite(upper) else None,
        ruling=ruling,
        label=made.label,
        level=shown,
        p_value=made.p_pass,
        more=_more(made, shown) if ruling is Ruling.NOT_ENOUGH else None,
        method=made.sample.method,
    )
    return replace(verdict, sentence=claim_sentence(made, verdict, attempt))


def _more(made: Claim, level: float) -> int | None:
    found = [made.sample.more(limit, level) for limit in (made.low, made.high) if limit is not None]
    known = [count for count in found if count is not None]
    return max(known) if len(known) == len(found) else None


def _plain_claim(made: Claim) -> GateVerdict:
    """Compare the estimate itself, as the policy asks with ``confidence: none``."""
    value = made.sample.estimate
    low = made.low is None or value >= made.low
    high = made.high is None or value <= made.high
    limits = _limits(made.low, made.high)
    held = f"{made.label} is {value:.4g} over {made.sample.n} cases"
    sentence = f"{held}, which keeps {limits}" if low and high else f"{held}, against {limits}"
    ruling = Ruling.PASS if low and high else Ruling.FAIL
    return GateVerdict(
        made.gate,
        value,
        low and high,
        sentence,
        n=made.sample.n,
        ruling=ruling,
        label=made.label,
        method="plain",
    )


# -- plain means -------------------------------------------------------------------------------


def _mean(evaluation: Evaluation, each: GateLike, *, stopped: bool) -> GateVerdict:
    if stopped:
        sentence = f"{label_of(each)}: the evaluation ended early, and this gate needs every case"
        return _without(each, sentence, Ruling.NOT_ENOUGH)
    found = _scores(evaluation, each)[each.scorer]
    # Exact arithmetic on the limit as it is written: 17 of 20 is 0.85, whatever binary makes of it.
    share = _exact(evaluation, each, found)
    low = None if each.minimum is None else Fraction(repr(float(each.minimum)))
    high = None if each.maximum is None else Fraction(repr(float(each.maximum)))
    if low is not None and share < low:
        short = math.ceil(low * found.n) - math.floor(share * found.n)
        text = f"{label_of(each)} is {found}, below the minimum {each.minimum:g}"
        return _missed(each, found, text, gap=low - share, short=short)
    if high is not None and share > high:
        short = math.ceil(share * found.n) - math.floor(high * found.n)
        text = f"{label_of(each)} is {found}, above the maximum {each.maximum:g}"
        return _missed(each, found, text, gap=share - high, short=short)
    kept = f"{label_of(each)} is {found}, which keeps {_limits(each.minimum, each.maximum)}"
    return _verdict(each, found, kept, Ruling.PASS)


def _exact(evaluation: Evaluation, each: GateLike, found: Score) -> Fraction:
    if not found.number and found.trials == found.n:
        return Fraction(found.hits, found.n)
    cases = evaluation_rows(evaluation).values()
    means = [
        Fraction(case_mean(rows, each.scorer)).limit_denominator(10**9)
        for rows in cases
        if each.slice is None or rows[0].slice == each.slice
    ]
    return sum(means, Fraction(0)) / len(means)


def _limits(low: float | None, high: float | None) -> str:
    named = (("the minimum", low), ("the maximum", high))
    return " and ".join(f"{word} {limit:g}" for word, limit in named if limit is not None)


def _missed(each: GateLike, found: Score, text: str, *, gap: Fraction, short: int) -> GateVerdict:
    if found.number:
        return replace(_verdict(each, found, text, Ruling.FAIL), shortfall=float(gap))
    count = "1 case too many is wrong" if short == 1 else f"{short} cases too many are wrong"
    verdict = _verdict(each, found, f"{text}: {count}", Ruling.FAIL)
    return replace(verdict, shortfall=float(gap), cases_short=short)


def _verdict(each: GateLike, found: Score, sentence: str, ruling: Ruling) -> GateVerdict:
    return GateVerdict(
        gate=each,
        observed=found.mean,
        passed=ruling is Ruling.PASS,
        sentence=sentence,
        n=found.n,
        lower=found.lower if math.isfinite(found.lower) else None,
        upper=found.upper if math.isfinite(found.upper) else None,
        ruling=ruling,
        label=label_of(each),
        method="plain",
    )
