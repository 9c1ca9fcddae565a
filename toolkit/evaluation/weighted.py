"""The mean of numbers, with bounds that do not need them to be normal.

Each case is given a weight by chance, all weights together 1, and so is one case more: the worst
that there can be, at the end of the range.  The bound is a quantile of that weighted mean.

Source: N. Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
nonnegative variable", Mathematical Methods of Statistics 14 (2005), 451-467; E. Learned-Miller and
P. S. Thomas, "A new confidence interval for the mean of a bounded random variable",
arXiv:1905.06208 (2019).  Of numbers that are 0 or 1 it is Clopper and Pearson's bound exactly.

What holds:

* With a known end the error is at most alpha in all that was ever computed or simulated; that it is
  so for every distribution is proven for 0 and 1, and a conjecture for the rest.
* Without a known end nothing can hold for every distribution: R. R. Bahadur and L. J. Savage, "The
  nonexistence of certain statistical procedures in nonparametric problems", Annals of Mathematical
  Statistics 27 (1956), 1115-1122.  Here the end is taken from the cases: beyond the most extreme
  one by what that is from the mean, times ``1 + 20 / n``.  That is our own rule and approximate;
  ``docs/evaluation.md`` has the measured error.  It fails where something rare and large decides
  the mean and the set is too small to hold it.  So that side has no bound as long as fewer than
  :data:`FEWEST_CASES` cases, or fewer than :data:`FEWEST_UNLIKE` that differ, speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from toolkit.evaluation.samples import FEWEST_CASES, more_cases

__all__ = ["FEWEST_UNLIKE", "WeightedMean", "unlike", "weighted_share"]

FEWEST_UNLIKE = 10
"""Cases unlike the commonest number that a bound without a known end needs."""
_STEP = 0.1
_FARTHEST = 14
_AT_ONCE = 10_000
_NOTHING = -34.0  # in the exponent: below what a float of size 1 can hold
_FAR = 38.0  # normal points beyond which probabilities are 0


def unlike(values: Sequence[float]) -> int:
    """Return how many values are not the commonest one; what only rounding parts is the same."""
    counts: dict[float, int] = {}
    largest = max(map(abs, values)) or 1.0
    for value in values:
        rounded = round(value / largest, 12)
        counts[rounded] = counts.get(rounded, 0) + 1
    return len(values) - max(counts.values())


@dataclass(frozen=True)
class WeightedMean:
    """A mean of numbers with Gaffke's bounds; see the module for what holds.

    Attributes:
        values: One per case (with several trials: the case's own mean, since trials of one case
            are not independent).
        low, high: Ends of what a value can be; ``None``: not known.
        method: ``gaffke``; ``gaffke-open`` where an end had to be taken from the cases.
    """

    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None

    @property
    def method(self) -> str:
        """How bounds are made."""
        return "gaffke-open" if self.low is None or self.high is None else "gaffke"

    @property
    def n(self) -> int:
        """Cases."""
        return len(self.values)

    @cached_property
    def estimate(self) -> float:
        """The mean; of values that are all the same that value, whatever rounding makes of it."""
        low, high = min(self.values), max(self.values)
        return low if low == high else math.fsum(self.values) / self.n

    @cached_property
    def unlike(self) -> int:
        """Cases that are not the commonest number."""
        return unlike(self.values)

    @property
    def lacking(self) -> str:
        """Why a side whose end is not known has no bound; empty if it has one."""
        if self.n < FEWEST_CASES:
            return f"a bound on numbers needs {FEWEST_CASES} cases, there are {self.n}"
        if self.unlike < FEWEST_UNLIKE:
            differ = f"{self.unlike} of {self.n} cases differ from the commonest number"
            return f"a bound on numbers needs {FEWEST_UNLIKE} cases that differ, and {differ}"
        return ""

    def p_above(self, limit: float) -> float:
        return self._turned.p_below(-limit)

    def p_below(self, limit: float) -> float:
        return self._p(limit, self.n)

    def lower(self, alpha: float) -> float:
        return -self._turned.upper(alpha)

    def upper(self, alpha: float) -> float:
        end = self._end(self.n)
        if end is None:
            return math.inf
        start = (end - self.estimate) / (self.n + 1) - self._error * _probit(alpha)

        def away(limit: float) -> float:
            return _probit(self._p(limit, self.n)) - _probit(alpha)

        return _falling_root(away, min(self.values), end, self.estimate + start, self._error)

    def more(self, limit: float, alpha: float) -> int | None:
        if self.estimate == limit:
            return None
        if self.estimate > limit:
            return self._turned.more(-limit, alpha)
        # About as many as a normal mean would need, which it takes half a dozen looks to mend.
        points = _probit(alpha) * self._error / (limit - self.estimate)
        guess = math.ceil(self.n * min(1e9, points**2))
        return more_cases(lambda n: self._p(limit, n), self.n, alpha, guess=guess, near=0.02)

    def _p(self, limit: float, n: int) -> float:
        """The p-value if so many cases were like these."""
        end = self._end(n)
        if end is None:
            return 1.0
        values, counts = self._counted
        return weighted_share(values, counts * (n / self.n), end, limit)

    def _end(self, n: int) -> float | None:
        if self.high is not None:
            return self.high
        if n < FEWEST_CASES or self.unlike * n < FEWEST_UNLIKE * self.n:
            return None
        most = max(self.values)
        return most + (1 + FEWEST_CASES / n) * (most - self.estimate)

    @cached_property
    def _turned(self) -> WeightedMean:
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return WeightedMean(tuple(-value for value in self.values), low, high)

    @cached_property
    def _counted(self) -> tuple[Any, Any]:
        import numpy as np

        values, counts = np.unique(np.asarray(self.values, dtype=float), return_counts=True)
        return values, counts.astype(float)

    @cached_property
    def _error(self) -> float:
        squares = math.fsum((value - self.estimate) ** 2 for value in self.values)
        return math.sqrt(squares) / self.n


def weighted_share(values: Any, counts: Any, end: float, limit: float) -> float:
    """Return the chance that the mean under weights by chance is above ``limit``.

    The weights are uniform over all that add up to 1 (a Dirichlet distribution with ones): as those
    of independent exponential variables ``E``, so that the question is whether ``sum(E * (value -
    limit))`` is above 0.  Its moment generating function is known, and is inverted along the
    vertical line through its saddle point, where nothing cancels: H. E. Daniels, "Tail probability
    approximations", International Statistical Review 55 (1987), 37-48, with the integral itself
    instead of an approximation.  The trapezoid sum is right to about eleven digits.

    Args:
        values: Numbers, a numpy array.
        counts: How many cases have each; parts of cases are allowed.
        end: The number of the additional case.
        limit: What the mean is held against.
    """
    import numpy as np

    away, times = np.append(values, end) - limit, np.append(counts, 1.0)
    largest = float(np.abs(away).max())
    if away.max() <= 0 or away.min() >= 0:
        return 1.0 if away.max() > 0 else 0.0
    away /= largest
    # The smaller of the two chances is the one that the integral gives exactly.
    if float((away * times).sum()) > 0:
        return 1 - _tail(-away, times)
    return _tail(away, times)


def _tail(away: Any, times: Any) -> float:
    """The chance that a sum of exponential variables is above 0, where that is no likely thing."""
    import numpy as np

    point = _saddle(away, times)
    shrunk = away / (1 - point * away)
    width = 1 / math.sqrt(float((times * shrunk**2).sum()) + 1 / point**2)
    # Along the line, with distances that grow like sinh, until nothing is left.
    tries = width * np.sinh(np.arange(2, _FARTHEST))
    left = np.nonzero(_along(tries, shrunk, times)[0] < _NOTHING)[0]
    last = int(left[0]) + 2 if len(left) else _FARTHEST
    steps = np.arange(0, last + _STEP / 2, _STEP)
    beside = width * np.sinh(steps)
    real, turned = _along(beside, shrunk, times)
    real -= float((np.log1p(-point * away) * times).sum())
    parts = (np.exp(real + 1j * turned) / (point + 1j * beside)).real * width * np.cosh(steps)
    total = (float(parts.sum()) - float(parts[0]) / 2) * _STEP / math.pi
    return min(1.0, max(0.0, total))


def _along(beside: Any, shrunk: Any, times: Any) -> tuple[Any, Any]:
    """The exponent's real and imaginary part beside the saddle point, less its value there."""
    import numpy as np

    real, turned = np.zeros(len(beside)), np.zeros(len(beside))
    for start in range(0, len(shrunk), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        tilted = beside[:, None] * shrunk[part]
        real -= (np.log1p(tilted**2) * (times[part] / 2)).sum(axis=1)
        turned += (np.arctan(tilted) * times[part]).sum(axis=1)
    return real, turned


def _saddle(away: Any, times: Any) -> float:
    """Where the integrand is smallest on the positive real line: the root of a rising function."""
    low, high = 0.0, 1 / float(away.max())
    point = high / 2
    for _ in range(200):
        shrunk = away / (1 - point * away)
        slope = float((times * shrunk).sum()) - 1 / point
        low, high = (point, high) if slope < 0 else (low, point)
        guess = point - slope / (float((times * shrunk**2).sum()) + 1 / point**2)
        step = guess if low < guess < high else (low + high) / 2
        if abs(step - point) <= 1e-6 * point:
            return step
        point = step
    return point


def _falling_root(
    function: Callable[[float], float], low: float, high: float, guess: float, width: float
) -> float:
    """Find where a falling function is 0; ``low`` and ``high`` are what it cannot be beyond."""
    if not low < high:
        return high
    from scipy import optimize

    known = cache(function)
    width = max(width, (high - low) * 1e-6)
    left = right = min(max(guess, low), high)
    while left > low and known(left) < 0:
        left, right, width = max(low, left - width), left, 2 * width
    while right < high and known(right) > 0:
        left, right, width = right, min(high, right + width), 2 * width
    if known(left) <= 0 or known(right) >= 0:
        return left if known(left) <= 0 else right
    return float(optimize.brentq(known, left, right, xtol=1e-12 * (high - low) + 1e-300))


def _probit(share: float) -> float:
    from scipy import special

    return min(_FAR, max(-_FAR, float(special.ndtri(share))))
