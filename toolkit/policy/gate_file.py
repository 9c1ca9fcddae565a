"""The ``gates`` of ``policy.yaml``: what is written, and what makes no sense."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from toolkit.policy.types import Gate

__all__ = ["GateEntry"]

_Number = Annotated[float, Field(allow_inf_nan=False, strict=False)]
_Confidence = Annotated[float, Field(ge=0.5, le=0.9999, strict=False)]
_USUAL = 0.95
"""Confidence of a comparison that names none: there is no plain form of it."""


class GateEntry(BaseModel):
    """One gate as it is written; see :class:`toolkit.policy.Gate`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scorer: Annotated[str, Field(min_length=1, max_length=64)]
    minimum: _Number | None = None
    maximum: _Number | None = None
    confidence: _Confidence | Literal["none"] | None = None
    # Policies of earlier days may say bca; what it claimed of few or skewed numbers did not hold, so
    # gaffke answers for it, as where nothing is written.
    method: Literal["clopper-pearson", "wilson", "gaffke", "bca", "t"] | None = None
    statistic: Literal["mean", "p95"] = "mean"
    slice: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    pass_hat_k: Annotated[int, Field(ge=1, le=100)] | None = None
    non_inferior_to: Literal["production"] | None = None
    superior_to: Literal["production"] | None = None
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = None
    sequential: bool = False

    @model_validator(mode="after")
    def _bounds(self) -> GateEntry:
        bounds = self.minimum is not None or self.maximum is not None
        paired = self.non_inferior_to is not None or self.superior_to is not None
        if self.non_inferior_to is not None and self.superior_to is not None:
            msg = "is both non_inferior_to and superior_to; write two gates"
            raise ValueError(msg)
        if bounds and paired:
            msg = "has a bound and a comparison with production; write two gates"
            raise ValueError(msg)
        if not bounds and not paired:
            msg = "has neither minimum nor maximum, so it could never fail"
            raise ValueError(msg)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            msg = "has a minimum above its maximum, so it could never pass"
            raise ValueError(msg)
        if (self.margin is None) == (self.non_inferior_to is not None):
            msg = "needs a margin above 0 with non_inferior_to, and none without"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _statistics(self) -> GateEntry:
        paired = self.non_inferior_to is not None or self.superior_to is not None
        plain = self.confidence in (None, "none") and not paired
        if paired and self.confidence == "none":
            msg = "compares with production without a confidence; name one, like 0.95"
            raise ValueError(msg)
        if plain and (self.method is not None or self.sequential):
            msg = "has a method or is sequential, which needs a confidence, like 0.95"
            raise ValueError(msg)
        if paired and (self.sequential or self.method or self.pass_hat_k or self._is_quantile):
            msg = "compares with production, which has no method, statistic, trials or early end"
            raise ValueError(msg)
        if self._is_quantile and (self.method or self.pass_hat_k or self.sequential):
            msg = "is about p95, which has its own method, no trials and no early end"
            raise ValueError(msg)
        if self.pass_hat_k is not None and self.sequential:
            msg = "is about pass_hat_k, which cannot end early"
            raise ValueError(msg)
        return self

    @property
    def _is_quantile(self) -> bool:
        return self.statistic != "mean"

    def gate(self) -> Gate:
        """Return the gate."""
        paired = self.non_inferior_to is not None or self.superior_to is not None
        named = self.confidence if isinstance(self.confidence, float) else None
        return Gate(
            scorer=self.scorer,
            minimum=self.minimum,
            maximum=self.maximum,
            confidence=_USUAL if paired and named is None else named,
            method=self.method,
            statistic=self.statistic,
            slice=self.slice,
            pass_hat_k=self.pass_hat_k,
            non_inferior_to=self.non_inferior_to,
            superior_to=self.superior_to,
            margin=self.margin or 0.0,
            sequential=self.sequential,
        )
