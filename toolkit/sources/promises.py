"""What a source promises about its rows, as ``data.yaml`` writes it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ColumnPromise", "Expect", "Freshness"]

_AGE = re.compile(r"([1-9][0-9]{0,5})\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Kind = Literal["integer", "number", "text", "boolean", "date", "timestamp"]
Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]


class ColumnPromise(BaseModel):
    """What a column holds.

    Attributes:
        type: Its type; an integer is a number too, a timestamp a date too.
        min, max: Bounds of numbers, both allowed values.
        nullable: Whether values may be missing.
        one_of: The only texts that it holds.
        required: Whether every read has to have the column.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Kind | None = None
    min: Number | None = None
    max: Number | None = None
    nullable: bool = True
    one_of: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    required: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> ColumnPromise:
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = "min is greater than max"
            raise ValueError(msg)
        bounded = self.min is not None or self.max is not None
        if bounded and self.type not in (None, "integer", "number"):
            msg = f"min and max have no meaning for type {self.type}"
            raise ValueError(msg)
        if self.one_of is not None and self.type not in (None, "text"):
            msg = f"one_of has no meaning for type {self.type}"
            raise ValueError(msg)
        return self


class Freshness(BaseModel):
    """How old the newest row may be.

    Attributes:
        column: A date or timestamp.
        max_age: ``90s``, ``30m``, ``12h``, ``2d``, ``1w``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    column: str
    max_age: str

    @field_validator("max_age")
    @classmethod
    def _is_an_age(cls, value: str) -> str:
        if _AGE.fullmatch(value) is None:
            msg = "is not an age such as 90s, 30m, 12h, 2d or 1w"
            raise ValueError(msg)
        return value

    @property
    def max_age_s(self) -> int:
        """Seconds."""
        match = _AGE.fullmatch(self.max_age)
        return int(match[1]) * _SECONDS[match[2]] if match else 0


class Expect(BaseModel):
    """What a source promises.

    Attributes:
        columns: By column: ``table.column`` of a database, else the name in the answer.
        min_rows: The fewest rows that a read gives.
        freshness: Checked where its column is in the answer.
        on_failure: ``refuse`` or ``warn``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    columns: dict[str, ColumnPromise] = Field(default_factory=dict)
    min_rows: Annotated[int, Field(ge=0)] = 0
    freshness: Freshness | None = None
    on_failure: Literal["refuse", "warn"] = "refuse"
