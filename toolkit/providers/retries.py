"""How many retries a run has left, and how long to wait for the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from toolkit.providers.routes import RetryRule

__all__ = ["MOST_RETRY_AFTER_S", "RetryBudget", "backoff_s"]

MOST_RETRY_AFTER_S = 60.0
"""A longer ``Retry-After`` is not waited for."""


@dataclass
class RetryBudget:
    """The retries and hedges that one run may make; nested retries cannot multiply beyond it.

    It starts full.  An attempt takes 1, an answer gives ``earned`` back: a provider that fails
    now and then is asked again each time, one that is down is soon asked once per call.

    Args:
        most: Retries in a row.
        earned: What each answer gives back.
    """

    most: int = 20
    earned: float = 0.1
    _left: float = field(init=False)

    def __post_init__(self) -> None:
        self._left = float(self.most)

    @property
    def left(self) -> int:
        """Whole retries that may be made now."""
        return int(self._left)

    def take(self) -> bool:
        """Use one retry; ``False`` if there is none."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self) -> None:
        """Tell of an answer."""
        self._left = min(self._left + self.earned, float(self.most))


def backoff_s(
    rule: RetryRule, failed: int, retry_after_s: float | None, chance: random.Random
) -> float:
    """Return the seconds to wait after ``failed`` failures in a row (from 1).

    See :class:`toolkit.providers.routes.RetryRule`; full jitter as in
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    whole = min(rule.base_s * 2.0 ** min(failed - 1, 60), rule.max_s)
    wait = whole * (1 - rule.jitter * chance.random())
    return max(wait, retry_after_s or 0.0)
