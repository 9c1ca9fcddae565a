"""``policy.yaml``: the numbers of a bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from toolkit.errors import Fault
from toolkit.policy.durations import parse_duration
from toolkit.policy.gate_file import GateEntry
from toolkit.policy.isolation import IsolationFile, IsolationPolicy, isolation_policy
from toolkit.policy.people import is_word
from toolkit.policy.promotions import PromotionFile, PromotionPolicy
from toolkit.policy.rules import (
    ApprovalPolicy,
    BudgetRule,
    ConcurrencyRule,
    Per,
    Period,
    PrivacyPolicy,
    RateRule,
    Scope,
    Webhook,
)
from toolkit.policy.types import BudgetPolicy, Gate, Isolation
from toolkit.settings import model_faults, parse_yaml
from toolkit.values import Environment, Money

__all__ = ["Limits", "parse_duration", "parse_limits"]

RETRIES_PER_RUN = 100
"""Where ``policy.yaml`` does not say ``retries_per_run``."""

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_ADDRESS = re.compile(
    r"https://[^\s/@]+(?:/\S*)?|http://(?:127\.0\.0\.1|localhost)(?::\d+)?(?:/\S*)?"
)

_DOLLARS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_Count = Annotated[int, Field(ge=0, lt=2**53)]


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
    budgets: tuple[BudgetRule, ...] = ()
    rates: tuple[RateRule, ...] = ()
    concurrency: tuple[ConcurrencyRule, ...] = ()
    retries_per_run: int = RETRIES_PER_RUN
    privacy: PrivacyPolicy = field(default_factory=PrivacyPolicy)
    approvals: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    isolation: IsolationPolicy = field(default_factory=IsolationPolicy)
    promotion: PromotionPolicy = field(default_factory=PromotionPolicy)
    region: str | None = None


def _dollars(value: Any) -> Any:
    if value is None:
        return None
    # repr of a float is the shortest text that reads back as it: what the author wrote.
    text = value if isinstance(value, str) else repr(value)
    if not _DOLLARS.fullmatch(text):
        msg = 'is not an amount of dollars, like "2.50" (at most 9 digits before the point)'
        raise ValueError(msg)
    return Money.of_usd(text)


_Usd = Annotated[Money, BeforeValidator(_dollars)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]


class _Budget(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    # No defaults: "no limit" has to be written down as null.
    usd: _Usd | None
    tokens: _Count | None
    calls: _Count | None
    seconds: _Seconds | None


class _Scoped(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    scope: Annotated[Scope, Field(strict=False)]
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.name is not None and self.scope in (Scope.CALL, Scope.RUN):
            msg = f"names one {self.scope}, which nobody can know beforehand; remove the name"
            raise ValueError(msg)
        return self


class _BudgetRule(_Scoped):
    period: Annotated[Period, Field(strict=False)] = Period.TOTAL
    usd: _Usd | None = None
    tokens: _Count | None = None
    calls: _Count | None = None
    seconds: _Seconds | None = None

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if all(v is None for v in (self.usd, self.tokens, self.calls, self.seconds)):
            msg = "limits nothing; set usd, tokens, calls or seconds"
            raise ValueError(msg)
        if self.scope in (Scope.CALL, Scope.RUN) and self.period is not Period.TOTAL:
            msg = f"a {self.scope} has no period; remove it, or choose another scope"
            raise ValueError(msg)
        if self.scope not in (Scope.CALL, Scope.RUN) and "period" not in self.model_fields_set:
            msg = "says no period: hour, day, week, month, or total (never refilled)"
            raise ValueError(msg)
        if self.scope is Scope.CALL and self.calls is not None:
            msg = "limits the calls of one call; choose another scope"
            raise ValueError(msg)
        return self

    def rule(self) -> BudgetRule:
        return BudgetRule(
            self.scope, self.name, self.period, self.usd, self.tokens, self.calls, self.seconds
        )


class _RateRule(_Scoped):
    # The ledger keeps that many times for each scope: MOST_RATE_CALLS there.
    calls: Annotated[int, Field(ge=1, le=100_000)]
    per: Annotated[Per, Field(strict=False)]

    @model_validator(mode="after")
    def _many(self) -> Self:
        if self.scope is Scope.CALL:
            msg = "limits the rate of one call; choose another scope"
            raise ValueError(msg)
        return self


class _ConcurrencyRule(_Scoped):
    calls: Annotated[int, Field(ge=1, lt=2**31)]

    @model_validator(mode="after")
    def _many(self) -> Self:
        if self.scope is Scope.CALL:
            msg = "limits how many one call is; choose another scope"
            raise ValueError(msg)
        return self


class _Privacy(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    secrets: Literal["redact"] = "redact"
    pii: Literal["label", "redact"] = "label"


class _Webhook(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[str, Field(max_length=500)]
    secret_env: str

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not _ADDRESS.fullmatch(self.url):
            msg = "has a url that is not https://HOST/… (http only to 127.0.0.1), without a login"
            raise ValueError(msg)
        if not _VARIABLE.fullmatch(self.secret_env):
            msg = "has a secret_env that is not the name of an environment variable (A-Z, 0-9, _)"
            raise ValueError(msg)
        return self


class _Approvals(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    expires: Annotated[float, BeforeValidator(parse_duration)] = 86_400.0
    escalate_to: str | None = None
    on_expiry: Literal["deny", "escalate"] = "deny"
    webhook: _Webhook | None = None
    in_doubt: str = "approver"
    answers: str = "approver"
    hold: Annotated[float, BeforeValidator(parse_duration)] = 10.0

    @field_validator("expires", "hold", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value if isinstance(value, str) else repr(value)

    @model_validator(mode="after")
    def _roles(self) -> Self:
        if self.escalate_to is not None and not is_word(self.escalate_to):
            msg = f"escalates to {self.escalate_to!a}, which cannot name a role"
            raise ValueError(msg)
        if not is_word(self.answers):
            msg = f"lets {self.answers!a} answer model calls, which cannot name a role"
            raise ValueError(msg)
        if not is_word(self.in_doubt):
            msg = f"asks {self.in_doubt!a} about calls in doubt, which cannot name a role"
            raise ValueError(msg)
        if self.on_expiry == "escalate" and self.escalate_to is None:
            msg = "escalates on expiry without escalate_to"
            raise ValueError(msg)
        return self

    def policy(self) -> ApprovalPolicy:
        hook = self.webhook
        return ApprovalPolicy(
            self.expires,
            self.escalate_to,
            self.on_expiry,
            None if hook is None else Webhook(hook.url, hook.secret_env),
            in_doubt=self.in_doubt,
            answers=self.answers,
            hold_s=self.hold,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    environment: Annotated[Environment, Field(strict=False)]
    mode: Literal["enforce", "warn"]
    budget: _Budget
    unknown_price: Literal["deny", "allow"]
    minimum_isolation: Annotated[Isolation, Field(strict=False)] | None = None
    isolation: IsolationFile = IsolationFile()
    require_results: bool
    gates: dict[str, Annotated[list[GateEntry], Field(min_length=1)]] = {}
    budgets: Annotated[list[_BudgetRule], Field(max_length=50)] = []
    rates: Annotated[list[_RateRule], Field(max_length=50)] = []
    concurrency: Annotated[list[_ConcurrencyRule], Field(max_length=50)] = []
    retries_per_run: Annotated[int, Field(ge=0, le=1_000_000)] = RETRIES_PER_RUN
    privacy: _Privacy = _Privacy()
    approvals: _Approvals = _Approvals()
    promotion: PromotionFile = PromotionFile()
    region: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _warn_is_for_the_sandbox(self) -> _File:
        if self.mode == "warn" and self.environment is not Environment.SANDBOX:
            msg = "mode: warn lets denied calls go on, which only the sandbox may do"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _isolated(self) -> Self:
        isolation_policy(self.minimum_isolation, self.isolation)
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        seen: set[tuple[Any, ...]] = set()
        rules: list[tuple[str, _Scoped, str | None]] = [
            *(("budgets", rule, rule.period) for rule in self.budgets),
            *(("rates", rule, rule.per) for rule in self.rates),
            *(("concurrency", rule, None) for rule in self.concurrency),
        ]
        for kind, rule, period in rules:
            if (kind, rule.scope, rule.name, period) in seen:
                named = f" {rule.name}" if rule.name else ""
                msg = f"{kind} has two rules for {rule.scope}{named} and one period; keep one"
                raise ValueError(msg)
            seen.add((kind, rule.scope, rule.name, period))
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
    isolation = isolation_policy(file.minimum_isolation, file.isolation)
    return (
        Limits(
            environment=file.environment,
            mode=file.mode,
            budget=BudgetPolicy(budget.usd, budget.tokens, budget.calls, budget.seconds),
            unknown_price=file.unknown_price,
            minimum_isolation=list(Isolation)[isolation.minimum],
            isolation=isolation,
            require_results=file.require_results,
            gates={
                name: tuple(entry.gate() for entry in gates) for name, gates in file.gates.items()
            },
            budgets=tuple(rule.rule() for rule in file.budgets),
            rates=tuple(RateRule(r.scope, r.calls, r.per, r.name) for r in file.rates),
            concurrency=tuple(ConcurrencyRule(r.scope, r.calls, r.name) for r in file.concurrency),
            retries_per_run=file.retries_per_run,
            privacy=PrivacyPolicy(file.privacy.secrets, file.privacy.pii),
            approvals=file.approvals.policy(),
            promotion=file.promotion.policy(),
            region=file.region,
        ),
        [],
    )
