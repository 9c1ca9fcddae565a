"""Money as whole nano-dollars: sums are exact, comparisons are exact, nothing rounds twice.

A token of a cheap model costs some tens of nano-dollars, so cents or micros would round most
calls to zero.  64-bit integers of nano-dollars reach 9.2 billion dollars.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

__all__ = ["Money"]

_NANOS = 10**9
_SMALLEST_EXPONENT = -10  # 9.9…e-11 dollars round to nothing
_MOST_USD = (2**63 - 1) // _NANOS


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount of US dollars.  An *unknown* price is ``None`` in the caller, never zero.

    Attributes:
        nanos: Whole nano-dollars (1e-9 USD).
    """

    nanos: int = 0

    @classmethod
    def of_usd(cls, usd: Decimal | int | str) -> Money:
        """Build from dollars, rounding half to even at the ninth decimal.

        Raises:
            ValueError: The text is not a finite decimal number, or is beyond 64 bits.
        """
        try:
            value = Decimal(usd)
        except ArithmeticError as error:
            msg = f"{usd!r} is not an amount of dollars"
            raise ValueError(msg) from error
        if not value.is_finite():
            msg = f"{usd!r} is not a finite amount of dollars"
            raise ValueError(msg)
        if value.copy_abs() > _MOST_USD:
            msg = f"{usd!r} is more than {_MOST_USD:,} dollars"
            raise ValueError(msg)
        if value.adjusted() < _SMALLEST_EXPONENT:
            return cls(0)
        # Through a fraction: a decimal's context would round to 28 digits first.
        return cls(round(Fraction(value) * _NANOS))

    @property
    def usd(self) -> Decimal:
        """The exact amount in dollars."""
        return Decimal(self.nanos) / _NANOS

    def __add__(self, other: Money) -> Money:
        return Money(self.nanos + other.nanos)

    def __sub__(self, other: Money) -> Money:
        return Money(self.nanos - other.nanos)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        if self.nanos == 0:
            return "$0"
        sign = "-" if self.nanos < 0 else ""
        whole, part = divmod(abs(self.nanos), _NANOS)
        digits = f"{part:09d}".rstrip("0").ljust(2, "0")
        return f"{sign}${whole}.{digits}"
