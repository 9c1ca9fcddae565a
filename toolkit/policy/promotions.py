"""The ``promotion`` of ``policy.yaml``: who lets a version in, and what decides about a canary.

::

    promotion:
      approvals: 2
      from: [reviewer, owner]
      expires: 7d
      canary: {runs: 50, failures: 0.05, denied: 0.02, cost: 1.2, then: promote}
      jobs:
        triage: {approvals: 1}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from toolkit.policy.durations import parse_duration
from toolkit.policy.people import is_word

__all__ = ["CanaryRule", "PromotionFile", "PromotionPolicy", "PromotionRule"]

_WEEK_S = 604_800.0


@dataclass(frozen=True, slots=True)
class CanaryRule:
    """When a canary ends, and how.

    Attributes:
        runs: So many ended runs of either version it takes at least to let the candidate in.
        failures: How much higher its share of failed runs may be than the stable version's.
        denied: The same, of runs with a denied call.
        cost: How many times the stable version's mean cost of a run its own may be.
        then: ``promote`` by itself after that many runs, or ``wait`` for a person.
    """

    runs: int = 20
    failures: float | None = 0.05
    denied: float | None = None
    cost: float | None = None
    then: Literal["promote", "wait"] = "wait"


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """What a version of one job needs before an alias moves.

    Attributes:
        approvals: How many different people, the author not among them.
        roles: Roles of people that may approve; in a signed registry its root's approvers do.
        expires_s: Seconds that an approval counts.
        canary: What decides about a canary; ``None``: people do.
    """

    approvals: int = 0
    roles: tuple[str, ...] = ()
    expires_s: float = _WEEK_S
    canary: CanaryRule | None = None


@dataclass(frozen=True, slots=True)
class PromotionPolicy:
    """The rules of all jobs.

    Attributes:
        default: For jobs that are not named.
        jobs: By job.
    """

    default: PromotionRule = field(default_factory=PromotionRule)
    jobs: Mapping[str, PromotionRule] = field(default_factory=dict)

    def of(self, job: str) -> PromotionRule:
        """Return the rule of a job."""
        return self.jobs.get(job, self.default)


def _text(value: Any) -> Any:
    return parse_duration(value if isinstance(value, str) else repr(value))


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=False)]


class _Canary(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    runs: Annotated[int, Field(ge=1, le=100_000)] = 20
    failures: _Share | None = 0.05
    denied: _Share | None = None
    cost: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False, strict=False)] | None = None
    then: Literal["promote", "wait"] = "wait"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.failures is None and self.denied is None and self.cost is None:
            msg = "bounds nothing; set failures, denied or cost"
            raise ValueError(msg)
        return self


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    approvals: Annotated[int, Field(ge=0, le=20)] = 0
    roles: Annotated[list[str], Field(alias="from", max_length=20)] = []
    expires: Annotated[float, BeforeValidator(_text)] = _WEEK_S
    canary: _Canary | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        bad = [ascii(role) for role in self.roles if not is_word(role)]
        if bad:
            msg = f"is decided by {', '.join(bad)}, which cannot name a role"
            raise ValueError(msg)
        return self

    def over(self, base: PromotionRule) -> PromotionRule:
        """Return the rule, with the members of another where this one says nothing."""
        said = self.model_fields_set
        return PromotionRule(
            approvals=self.approvals if "approvals" in said else base.approvals,
            roles=tuple(self.roles) if "roles" in said else base.roles,
            expires_s=self.expires if "expires" in said else base.expires_s,
            canary=self._rule() if "canary" in said else base.canary,
        )

    def _rule(self) -> CanaryRule | None:
        return None if self.canary is None else CanaryRule(**self.canary.model_dump())


class PromotionFile(_Rule):
    """The section as it is written."""

    jobs: dict[Annotated[str, Field(min_length=1, max_length=64)], _Rule] = {}

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        policy = self.policy()
        for name, rule in {"promotion": policy.default, **policy.jobs}.items():
            if rule.approvals and not rule.roles:
                msg = f"asks for approvals ({name}) from nobody; name roles: from: [reviewer]"
                raise ValueError(msg)
        return self

    def policy(self) -> PromotionPolicy:
        """Return the rules."""
        default = self.over(PromotionRule())
        return PromotionPolicy(default, {job: one.over(default) for job, one in self.jobs.items()})
