"""What a gate's number rests on: an estimate, its one-sided bounds and its p-values.

Every class here, :class:`toolkit.evaluation.weighted.WeightedMean` and
:class:`toolkit.evaluation.paired.PairedShares` answer the same five questions (:class:`Sample`).  A
bound and a p-value are two views of one test: ``lower(alpha) >= limit`` exactly when
``p_above(limit) <= alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "FEWEST_CASES",
    "MOST_CASES",
    "Mean",
    "Proportion",
    "Quantile",
    "Sample",
    "more_cases",
]

FEWEST_CASES = 20
"""Cases that a bound on numbers needs where their range is not known."""
MOST_CASES = 1_000_000
"""Where the search for "how many more cases" ends."""


class Sample(Protocol):
    """An estimate with its uncertainty.

    Attributes:
        estimate: The number that is held against a limit.
        n: Independent cases that it rests on.
        method: How bounds are made, for people.
    """

    @property
    def estimate(self) -> float: ...
    @property
    def n(self) -> int: ...
    @property
    def method(self) -> str: ...
    def p_above(self, limit: float) -> float:
        """Return the p-value of "the truth is below ``limit``": small means at least ``limit``."""
        ...

    def p_below(self, limit: float) -> float:
        """Return the p-value of "the truth is above ``limit``": small means at most ``limit``."""
        ...

    def lower(self, alpha: float) -> float:
        """Return the one-sided lower bound with confidence ``1 - alpha``."""
        ...

    def upper(self, alpha: float) -> float:
        """Return the one-sided upper bound with confidence ``1 - alpha``."""
        ...

    def more(self, limit: float, alpha: float) -> int | None:
        """Return how many further cases would decide at the observed rate; ``None``: no number."""
        ...


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of yes.

    ``clopper-pearson`` inverts the binomial test, so its error is never above alpha: C. J. Clopper
    and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26 (1934), 404-413.  ``wilson`` inverts the score test (Wilson 1927, see
    :func:`toolkit.evaluation.wilson_interval`): shorter, and its error is alpha only about.

    Attributes:
        hits: Cases with yes, ``0 <= hits <= n``.
        n: Cases, at least 1.
        method: ``clopper-pearson`` or ``wilson``.
    """

    hits: float
    n: int
    method: str = "clopper-pearson"

    @property
    def estimate(self) -> float:
        """The share."""
        return self.hits / self.n

    def p_above(self, limit: float) -> float:
        if limit <= 0 or limit >= 1 or self.hits <= 0:
            return 0.0 if limit <= 0 else 1.0
        if self.method == "wilson":
            return _normal_tail((self.estimate - limit) / math.sqrt(limit * (1 - limit) / self.n))
        return float(_special().betainc(self.hits, self.n - self.hits + 1, limit))

    def p_below(self, limit: float) -> float:
        return Proportion(self.n - self.hits, self.n, self.method).p_above(1 - limit)

    def lower(self, alpha: float) -> float:
        if self.hits <= 0:
            return 0.0
        if self.method == "wilson":
            return self._wilson(alpha)
        return float(_special().betaincinv(self.hits, self.n - self.hits + 1, alpha))

    def upper(self, alpha: float) -> float:
        return 1 - Proportion(self.n - self.hits, self.n, self.method).lower(alpha)

    def _wilson(self, alpha: float) -> float:
        z, share, n = _normal_point(1 - alpha), self.estimate, self.n
        scale = 1 + z * z / n
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, (share + z * z / (2 * n) - half) / scale)

    def more(self, limit: float, alpha: float) -> int | None:
        share, above = self.estimate, self.estimate > limit
        if share == limit:
            return None

        def p_at(n: int) -> float:
            hits = math.floor(share * n) if above else math.ceil(share * n)
            other = Proportion(hits, n, self.method)
            return other.p_above(limit) if above else other.p_below(limit)

        return more_cases(p_at, self.n, alpha)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of numbers with Student's t.

    Source: "Student", "The probable error of a mean", Biometrika 6 (1908), 1-25.  Right for numbers
    that are about normal, or many.  Of skewed ones (costs, seconds) its error is far above alpha:
    12 to 16 % instead of 5 % for a lognormal cost of 86 and of 20 cases (``docs/evaluation.md``).

    Attributes:
        values: One per case.
    """

    values: tuple[float, ...]
    method: str = "t"

    @property
    def n(self) -> int:
        """Cases."""
        return len(self.values)

    @property
    def estimate(self) -> float:
        """The mean."""
        return math.fsum(self.values) / self.n

    @property
    def error(self) -> float:
        """The standard error; infinite with a single case."""
        return _deviation(self.values) / math.sqrt(self.n)

    def p_above(self, limit: float) -> float:
        return self._p(self.estimate - limit)

    def p_below(self, limit: float) -> float:
        return self._p(limit - self.estimate)

    def _p(self, gap: float) -> float:
        if self.n < 2:
            return 1.0
        if self.error == 0:
            return 0.0 if gap >= 0 else 1.0
        return float(_special().stdtr(self.n - 1, -gap / self.error))

    def lower(self, alpha: float) -> float:
        return self.estimate - self._half(alpha)

    def upper(self, alpha: float) -> float:
        return self.estimate + self._half(alpha)

    def _half(self, alpha: float) -> float:
        if self.n < 2:
            return math.inf
        return float(_special().stdtrit(self.n - 1, 1 - alpha)) * self.error

    def more(self, limit: float, alpha: float) -> int | None:
        return _more_by_normal(self.estimate - limit, _deviation(self.values), self.n, alpha)


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of numbers, from their order alone: no distribution is assumed.

    A bound is one of the observed values, chosen by the binomial distribution: W. J. Conover,
    "Practical Nonparametric Statistics", 3rd edition (1999), 3.2; ``scipy.stats.quantile_test`` has
    the same test.  The 95th percentile has an upper bound at 95 % from 59 cases on.

    Attributes:
        values: One per case, in rising order.
        share: Which quantile, between 0 and 1.
    """

    values: tuple[float, ...]
    share: float = 0.95
    method: str = "order statistics"

    @property
    def n(self) -> int:
        """Cases."""
        return len(self.values)

    @property
    def estimate(self) -> float:
        """The smallest value that has at least ``share`` of all values at or below it."""
        return self.values[min(self.n, math.ceil(self.share * self.n - 1e-9)) - 1]

    def p_above(self, limit: float) -> float:
        under = sum(value < limit for value in self.values)
        return Proportion(under, self.n).p_below(self.share)

    def p_below(self, limit: float) -> float:
        return Proportion(self._at_most(limit), self.n).p_above(self.share)

    def _at_most(self, limit: float) -> int:
        return sum(value <= limit for value in self.values)

    def lower(self, alpha: float) -> float:
        held = [v for v in self.values if self.p_above(v) <= alpha]
        return held[-1] if held else -math.inf

    def upper(self, alpha: float) -> float:
        return next((v for v in self.values if self.p_below(v) <= alpha), math.inf)

    def more(self, limit: float, alpha: float) -> int | None:
        return Proportion(self._at_most(limit), self.n).more(self.share, alpha)


def more_cases(
    p_at: Callable[[int], float], n: int, alpha: float, *, guess: int = 0, near: float = 0.0
) -> int | None:
    """Return how many cases beyond ``n`` bring a p-value down to ``alpha``.

    Args:
        p_at: The p-value at a number of cases, if what was observed went on.
        n: Cases so far.
        alpha: What is needed.
        guess: Where to begin to look, all cases counted.
        near: By what share of all cases the number may be too large.

    Returns:
        The number, at least 1; ``None`` where a million cases would not do.
    """
    low, high = n, min(max(n + 1, guess), MOST_CASES)
    while p_at(high) > alpha:
        low, high = high, high * 2
        if high > MOST_CASES:
            return None
    while high - low > max(1, near * high):
        middle = (low + high) // 2
        low, high = (low, middle) if p_at(middle) <= alpha else (middle, high)
    return high - n


def _more_by_normal(gap: float, deviation: float, n: int, alpha: float) -> int | None:
    if gap == 0 or not math.isfinite(deviation):
        return None
    if deviation == 0:
        return max(1, FEWEST_CASES - n)
    found = more_cases(lambda m: _normal_tail(abs(gap) / deviation * math.sqrt(m)), n, alpha)
    return None if found is None else max(found, FEWEST_CASES - n)


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.inf
    mean = math.fsum(values) / len(values)
    # Values that are all the same have none, whatever rounding makes of their mean.
    if min(values) == max(values):
        return 0.0
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _special() -> Any:
    # scipy takes a third of a second to load; who only reads a set need not wait for it.
    from scipy import special

    return special


def _normal_point(share: float) -> float:
    return float(_special().ndtri(share))


def _normal_tail(point: float) -> float:
    return float(_special().ndtr(-point))
