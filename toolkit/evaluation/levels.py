"""How much error each of several claims may take: Holm's correction, and repeated attempts."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ATTEMPT_DAYS", "attempt_alpha", "holm_levels"]

ATTEMPT_DAYS = 30
"""For so long an attempt at a set is counted."""


def holm_levels(p_values: Sequence[float], alpha: float) -> list[tuple[bool, float]]:
    """Return for each claim whether it holds, and the level that its p-value was held against.

    The chance that any claim holds wrongly is at most ``alpha``, whatever their dependence.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6 (1979), 65-70.  Once a claim is not kept, none with a larger p-value
    is; those get the level of the first that was not kept.
    """
    count = len(p_values)
    found = [(False, alpha)] * count
    kept, level = True, alpha
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__)):
        if kept:
            level = alpha / (count - rank)
            kept = p_values[place] <= level
        found[place] = (kept, level)
    return found


def attempt_alpha(alpha: float, attempt: int) -> float:
    """Return the error that the ``attempt``-th try at a set may take: ``alpha / attempt``.

    The first try has the confidence that the policy names, the second half the error, and so on.
    Over ``k`` tries without any real improvement the chance of one false pass is at most
    ``alpha * (1 + 1/2 + … + 1/k)``: 5 % become at most 11.4 % in 5 tries and 18 % in 20, where
    an uncorrected gate would let through 23 % and 64 %.  It is *not* held at alpha; that would
    need a weaker first try, or fresh cases.

    Raises:
        ValueError: ``attempt`` is below 1.
    """
    if attempt < 1:
        raise ValueError(f"there is no attempt {attempt}")
    return alpha / attempt
