"""What a gate asks and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["GateLike", "GateVerdict", "Ruling"]


class Ruling(StrEnum):
    """The three verdicts of a gate; only ``pass`` lets a version through."""

    PASS = "pass"  # noqa: S105 - the word, not a password
    FAIL = "fail"
    NOT_ENOUGH = "not enough evidence"


class GateLike(Protocol):
    """What a gate asks; every member is described at ``toolkit.policy.Gate``."""

    @property
    def scorer(self) -> str: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def method(self) -> str | None: ...
    @property
    def statistic(self) -> str: ...
    @property
    def slice(self) -> str | None: ...
    @property
    def pass_hat_k(self) -> int | None: ...
    @property
    def non_inferior_to(self) -> str | None: ...
    @property
    def superior_to(self) -> str | None: ...
    @property
    def margin(self) -> float: ...
    @property
    def sequential(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one gate says.

    Attributes:
        gate: The gate; ``None`` in the verdict that there is no gate at all.
        observed: The number that was held against the limit: the scorer's mean, pass^k, a
            quantile, or the difference to production (positive: better).  ``None`` if there is
            none.
        passed: Whether the gate holds.
        sentence: The verdict for a person.
        n: Cases that the number rests on.
        shortfall: Without confidence: how far the mean is from the limit (0 when the gate holds).
        cases_short: Without confidence: how many cases would have to change for the gate to hold.
        lower, upper: Without confidence the 95 % interval of the mean; otherwise the two one-sided
            bounds at ``level``.  ``None`` where a side has no bound.
        ruling: Pass, fail or not enough evidence.
        label: What it is about: scorer, statistic and slice.
        level: Error that the lower and the upper bound may each take, after all corrections.
        p_value: Of the claim that the gate holds.
        more: How many further cases would decide at the observed rate; ``None``: not known.
        method: How the bounds were made.
    """

    gate: GateLike | None
    observed: float | None
    passed: bool
    sentence: str
    n: int = 0
    shortfall: float = 0.0
    cases_short: int = 0
    lower: float | None = None
    upper: float | None = None
    ruling: Ruling = Ruling.FAIL
    label: str = ""
    level: float | None = None
    p_value: float | None = None
    more: int | None = None
    method: str | None = None

    def __bool__(self) -> bool:
        return self.passed
