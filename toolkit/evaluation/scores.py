"""What a scorer said over all cases: a share or a mean, never without its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.evaluation.samples import Mean

__all__ = ["Score", "score_json", "wilson_interval"]

_Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


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


def score_json(made: Score) -> dict[str, Any]:
    """Return a score as JSON values; bounds that are not finite are ``None``."""
    return {
        "mean": made.mean,
        "n": made.n,
        "lower": _finite(made.lower),
        "upper": _finite(made.upper),
        "hits": made.hits,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
