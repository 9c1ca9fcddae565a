"""Stopping early without cheating: evidence that may be looked at after every case.

The method is a test martingale, the mixture likelihood ratio of a yes-or-no scorer against a
limit: uniform over all rates on the good side of the limit.  If the true rate is on the bad side,
the chance that it *ever* reaches ``1 / alpha`` is at most ``alpha`` (Ville's inequality), however
often one looks.  Sources: J. Ville, "Étude critique de la notion de collectif" (1939); H. Robbins,
"Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
Statistics 41 (1970), 1397-1409; A. Ramdas, P. Grünwald, V. Vovk and G. Shafer, "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 38 (2023), 576-601.

How alpha is spent: half on all looks together, half on the usual test when the whole set was
answered.  By the union bound both together err at most alpha.

The order of the cases must be by chance (:func:`shuffled`): were the easy ones first, an early
look would see an easier set.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Running", "running_evidence", "shuffled"]


@dataclass(frozen=True, slots=True)
class Running:
    """What the looks so far have shown.

    Attributes:
        above: Largest evidence so far that the rate is above the limit (1: none).
        below: The same for below.
        n: Cases looked at.
    """

    above: float
    below: float
    n: int

    @property
    def p_above(self) -> float:
        """A p-value of "the rate is below the limit" that holds at any time."""
        return min(1.0, 1 / self.above)

    @property
    def p_below(self) -> float:
        """A p-value of "the rate is above the limit" that holds at any time."""
        return min(1.0, 1 / self.below)


def running_evidence(values: Iterable[bool], limit: float) -> Running:
    """Return the largest evidence on either side of a limit, over a look after every value.

    Args:
        values: Yes or no, in the order in which the cases were answered.
        limit: A rate; one that is not strictly between 0 and 1 cannot be tested this way, and
            gives no evidence.
    """
    above = below = 0.0
    hits = n = 0
    for value in values:
        hits, n = hits + bool(value), n + 1
        if 0 < limit < 1:
            up, down = _log_evidence(hits, n, limit)
            above, below = max(above, up), max(below, down)
    return Running(_exp(above), _exp(below), n)


def shuffled(case_ids: Sequence[str], seed: str) -> list[str]:
    """Return the cases in an order that nobody chose, the same for the same seed.

    Args:
        case_ids: Of the set.
        seed: A text that is not known when the notebook is written: the evaluation's run id.
    """

    def place(case_id: str) -> bytes:
        return hashlib.sha256(f"{seed}\x00{case_id}".encode()).digest()

    return sorted(case_ids, key=place)


def _log_evidence(hits: int, n: int, limit: float) -> tuple[float, float]:
    from scipy import special

    a, b = hits + 1, n - hits + 1
    base = float(special.betaln(a, b)) - hits * math.log(limit) - (n - hits) * math.log1p(-limit)
    up = float(special.betaincc(a, b, limit)) / (1 - limit)
    down = float(special.betainc(a, b, limit)) / limit
    return base + _log(up), base + _log(down)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
