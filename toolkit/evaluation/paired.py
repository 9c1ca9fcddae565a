"""Two versions on the same cases: the difference, its bounds and its p-values.

Differences are turned so that positive is better, whichever way a scorer points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.evaluation.samples import more_cases

__all__ = ["PairedShares", "exact_mcnemar", "sign_test", "tango_score"]

_STEPS = 100


def exact_mcnemar(improved: int, regressed: int) -> float:
    """Return the two-sided exact p-value that improvements and regressions are equally likely.

    The binomial form of the test of Q. McNemar, "Note on the sampling error of the difference
    between correlated proportions or percentages", Psychometrika 12 (1947), 153-157.
    """
    n, fewer = improved + regressed, min(improved, regressed)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def sign_test(improved: int, regressed: int) -> float:
    """Return the one-sided exact p-value: so many improvements or more, were both equally likely.

    The one-sided half of :func:`exact_mcnemar`; for numbers it is the sign test.
    """
    n = improved + regressed
    return sum(math.comb(n, k) for k in range(improved, n + 1)) / (1 << n)


def tango_score(improved: float, regressed: float, n: float, difference: float) -> float:
    """Return the score statistic of a difference between two paired proportions.

    Standard normal, about, if ``difference`` is the truth; large when more was observed.  Source:
    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), 891-908.

    Args:
        improved: Pairs that are yes now and were no before.
        regressed: Pairs that are no now and were yes before.
        n: All pairs.
        difference: The assumed difference, between -1 and 1.
    """
    gap = improved - regressed - n * difference
    if abs(difference) >= 1:
        return math.copysign(math.inf, gap) if gap else 0.0
    # The share of regressions that is most likely under the assumption: root of a quadratic.
    a = 2 * n
    b = -improved - regressed + (2 * n - improved + regressed) * difference
    c = -regressed * difference * (1 - difference)
    share = max(0.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class PairedShares:
    """How much more often the new version is right, on the cases that both answered.

    Bounds and p-values are Tango's (:func:`tango_score`).  With the method ``mcnemar``, which is for
    "better at all", the exact one-sided McNemar test (:func:`sign_test`) has to agree, so that it
    never errs more than alpha: the p-value at 0 is the larger of the two, and a bound that only
    Tango's says stays at 0, so that ``lower(alpha) > 0`` exactly when ``p_above(0) <= alpha``.

    Attributes:
        improved, regressed: Cases that changed.
        n: Cases compared.
    """

    improved: float
    regressed: float
    n: int
    method: str = "tango"

    @property
    def estimate(self) -> float:
        """The difference of the two shares, positive when the new version is better."""
        return (self.improved - self.regressed) / self.n

    def p_above(self, limit: float) -> float:
        tail = _tail(tango_score(self.improved, self.regressed, self.n, limit))
        return max(tail, self._exact) if limit == 0 and self.method == "mcnemar" else tail

    def p_below(self, limit: float) -> float:
        return self._turned.p_above(-limit)

    def lower(self, alpha: float) -> float:
        low, high = -1.0, self.estimate
        for _ in range(_STEPS):
            middle = (low + high) / 2
            score = tango_score(self.improved, self.regressed, self.n, middle)
            low, high = (middle, high) if _tail(score) <= alpha else (low, middle)
        return min(low, 0.0) if self.method == "mcnemar" and self._exact > alpha else low

    def upper(self, alpha: float) -> float:
        return -self._turned.lower(alpha)

    @property
    def _exact(self) -> float:
        return sign_test(round(self.improved), round(self.regressed))

    @property
    def _turned(self) -> PairedShares:
        return PairedShares(self.regressed, self.improved, self.n, self.method)

    def more(self, limit: float, alpha: float) -> int | None:
        gap = self.estimate - limit
        if gap == 0:
            return None

        def p_at(n: int) -> float:
            times = n / self.n
            other = PairedShares(self.improved * times, self.regressed * times, n, self.method)
            return other.p_above(limit) if gap > 0 else other.p_below(limit)

        return more_cases(p_at, self.n, alpha)


def _tail(point: float) -> float:
    from scipy import special

    return float(special.ndtr(-point))
