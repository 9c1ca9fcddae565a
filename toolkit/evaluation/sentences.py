"""Verdicts in words: the number, its bound, the limit, and what would decide."""

from __future__ import annotations

from toolkit.evaluation.claims import Claim
from toolkit.evaluation.paired import PairedShares
from toolkit.evaluation.samples import Proportion
from toolkit.evaluation.verdicts import GateVerdict, Ruling

__all__ = ["claim_sentence"]

_METHODS = {
    "clopper-pearson": "Clopper-Pearson",
    "wilson": "Wilson",
    "t": "Student's t",
    "gaffke": "Gaffke's bound over cases",
    "gaffke-open": "Gaffke's bound over cases, the end taken from them",
    "order statistics": "order statistics",
    "tango": "Tango's score interval",
    "mcnemar": "exact McNemar test",
}


def claim_sentence(made: Claim, verdict: GateVerdict, attempt: int) -> str:
    """Return the verdict of a gate that has a confidence.

    Args:
        made: What was claimed.
        verdict: What came of it; its own sentence is not read.
        attempt: The number of the try, told from the second on.
    """
    how = _METHODS.get(made.sample.method, made.sample.method)
    if made.gate.sequential:
        how += ", after looks at every case"
    if attempt > 1:
        how += f", attempt {attempt} on this set"
    confidence = f"{100 * (1 - (verdict.level or 0)):.4g} % confidence"
    said = f"{made.label} is {_observed(made)}; with {confidence} {_bounds(made, verdict)}"
    return f"{said} ({how})"


def _observed(made: Claim) -> str:
    sample = made.sample
    if isinstance(sample, Proportion):
        return f"{sample.estimate:.3f} ({sample.hits:g} of {sample.n})"
    if isinstance(sample, PairedShares):
        changed = f"{sample.improved:g} cases better, {sample.regressed:g} worse of {sample.n}"
        return f"{sample.estimate:+.3f} ({changed})"
    return f"{sample.estimate:.4g} (over {sample.n} cases)"


def _bounds(made: Claim, verdict: GateVerdict) -> str:
    limits = _limits(made)
    match verdict.ruling:
        case Ruling.PASS:
            return f"{_sides(made, verdict)}, which keeps {limits}"
        case Ruling.FAIL:
            return f"{_range(verdict)}, which misses {limits}"
        case Ruling.NOT_ENOUGH:
            return f"{_range(verdict)}, which does not decide on {limits}{_further(made, verdict)}"


def _sides(made: Claim, verdict: GateVerdict) -> str:
    sides = []
    if made.low is not None and verdict.lower is not None and _reached(made, verdict.lower):
        sides.append(f"at least {verdict.lower:.4g}")
    if made.high is not None and verdict.upper is not None and verdict.upper <= made.high:
        sides.append(f"at most {verdict.upper:.4g}")
    # Looks, and the exact test of "better at all", can prove what this bound alone does not.
    return " and ".join(sides) or f"proven with p = {verdict.p_value or 0:.2g}"


def _reached(made: Claim, lower: float) -> bool:
    low = made.low or 0.0
    return lower > low if made.gate.superior_to else lower >= low


def _range(verdict: GateVerdict) -> str:
    sides = []
    if verdict.lower is not None:
        sides.append(f"at least {verdict.lower:.4g}")
    if verdict.upper is not None:
        sides.append(f"at most {verdict.upper:.4g}")
    return " and ".join(sides) or "without any bound"


def _limits(made: Claim) -> str:
    if made.gate.superior_to:
        return f"being better than {made.gate.superior_to}"
    if made.gate.non_inferior_to:
        return f"the margin {-made.gate.margin:g} to {made.gate.non_inferior_to}"
    named = (("the minimum", made.low), ("the maximum", made.high))
    return " and ".join(f"{word} {limit:g}" for word, limit in named if limit is not None)


def _further(made: Claim, verdict: GateVerdict) -> str:
    if made.lacking:
        return f"; {made.lacking}"
    if verdict.more is None:
        return "; no number of further cases would, at this rate"
    return f"; about {verdict.more} further cases would, at this rate"
