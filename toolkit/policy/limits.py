"""``policy.yaml``: the numbers of a bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from toolkit.errors import Fault
from toolkit.policy.types import BudgetPolicy, Gate, Isolation
from toolkit.settings import model_faults, parse_yaml
from toolkit.values import Environment, Money

__all__ = ["Limits", "parse_limits"]

_DOLLARS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Score = Annotated[float, Field(allow_inf_nan=False, strict=False)]


@dataclass(frozen=True, slots=True)
class Limits:
    """The values of one ``policy.yaml``; see :class:`toolkit.policy.PolicyBundle`."""

    environment: Environment
    mode: Literal["enforce", "warn"]
    budget: BudgetPolicy
    unknown_price: Literal["deny", "allow"]
    minimum_isolation: Isolation
    require_results: bool
    gates: dict[str, tuple[Gate, ...]]


class _Budget(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    # No defaults: "no limit" has to be written down as null.
    usd: Money | None
    tokens: _Count | None
    calls: _Count | None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None

    @field_validator("usd", mode="before")
    @classmethod
    def _dollars(cls, value: Any) -> Any:
        if value is None:
            return None
        # repr of a float is the shortest text that reads back as it: what the author wrote.
        text = value if isinstance(value, str) else repr(value)
        if not _DOLLARS.fullmatch(text):
            msg = 'is not an amount of dollars, like "2.50" (at most 9 digits before the point)'
            raise ValueError(msg)
        return Money.of_usd(text)


class _Gate(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    scorer: Annotated[str, Field(min_length=1, max_length=64)]
    minimum: _Score | None = None
    maximum: _Score | None = None

    @model_validator(mode="after")
    def _bounds(self) -> _Gate:
        if self.minimum is None and self.maximum is None:
            msg = "has neither minimum nor maximum, so it could never fail"
            raise ValueError(msg)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            msg = "has a minimum above its maximum, so it could never pass"
            raise ValueError(msg)
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    environment: Annotated[Environment, Field(strict=False)]
    mode: Literal["enforce", "warn"]
    budget: _Budget
    unknown_price: Literal["deny", "allow"]
    minimum_isolation: Annotated[Isolation, Field(strict=False)]
    require_results: bool
    gates: dict[str, Annotated[list[_Gate], Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _warn_is_for_the_sandbox(self) -> _File:
        if self.mode == "warn" and self.environment is not Environment.SANDBOX:
            msg = "mode: warn lets denied calls go on, which only the sandbox may do"
            raise ValueError(msg)
        return self


def parse_limits(data: bytes, name: str) -> tuple[Limits | None, list[Fault]]:
    """Read ``policy.yaml``; return its values, or ``None`` and every fault."""
    document, faults = parse_yaml(data, name)
    if faults:
        return None, faults
    try:
        file = _File.model_validate(document.value)
    except ValidationError as error:
        return None, model_faults(error, document)
    budget = file.budget
    return (
        Limits(
            environment=file.environment,
            mode=file.mode,
            budget=BudgetPolicy(budget.usd, budget.tokens, budget.calls, budget.seconds),
            unknown_price=file.unknown_price,
            minimum_isolation=file.minimum_isolation,
            require_results=file.require_results,
            gates={
                name: tuple(Gate(g.scorer, g.minimum, g.maximum) for g in gates)
                for name, gates in file.gates.items()
            },
        ),
        [],
    )
