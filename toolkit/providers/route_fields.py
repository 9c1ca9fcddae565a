"""A route as ``models.yaml`` writes it: one provider and model, or a list of targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from toolkit.providers.routes import (
    BreakerRule,
    HedgeRule,
    RetryRule,
    Route,
    RoutePrice,
    Rules,
    Target,
    Validation,
    When,
)
from toolkit.values import DataClass, Money

__all__ = ["RouteFields"]

Seconds = Annotated[float, Field(gt=0, le=3600, strict=False)]
Part = Annotated[float, Field(ge=0, le=1, strict=False)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
FailedAs = Literal[
    "connection", "cut", "timeout", "rate_limited", "auth", "bad_request", "server",
    "invalid_body", "missing_model", "invalid_answer", "refusal", "low_confidence",
]  # fmt: skip
_USUAL_FALLBACK: frozenset[str] = frozenset(
    {
        "connection", "cut", "timeout", "rate_limited", "server", "invalid_body",
        "invalid_answer", "refusal", "low_confidence",
    }
)  # fmt: skip
_FUNCTIONS = ("constant", "first_enum")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Price(_Fields):
    input_per_million_usd: Decimal
    output_per_million_usd: Decimal

    @field_validator("*", mode="before")
    @classmethod
    def _exact(cls, value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
            msg = "is not an amount between 0 and 1000000"
            raise ValueError(msg)
        # repr of a float is the shortest text that reads back as it: what the author wrote.
        return Decimal(repr(value))

    def build(self) -> RoutePrice:
        return RoutePrice(self.input_per_million_usd, self.output_per_million_usd)


class _When(_Fields):
    classes: list[Literal["public", "internal", "confidential", "pii"]] | None = None
    max_input_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    task: list[Word] | None = None
    max_usd: str | None = None
    region: Word | None = None

    @field_validator("max_usd")
    @classmethod
    def _is_money(cls, value: str | None) -> str | None:
        if value is not None and Money.of_usd(value) < Money(0):
            msg = "is below 0"
            raise ValueError(msg)
        return value

    def build(self) -> When:
        return When(
            None if self.classes is None else frozenset(map(DataClass, self.classes)),
            self.max_input_tokens,
            None if self.task is None else frozenset(self.task),
            None if self.max_usd is None else Money.of_usd(self.max_usd),
            self.region,
        )


class _Target(_Fields):
    provider: str
    model: Word
    weight: Annotated[float, Field(gt=0, le=1_000_000, strict=False)] | None = None
    when: _When = _When()
    price: _Price | None = None
    timeout_s: Seconds | None = None
    first_byte_s: Seconds | None = None

    def build(self, price_providers: Mapping[str, str | None]) -> Target:
        return Target(
            self.provider,
            self.model,
            self.weight,
            self.when.build(),
            self.price.build() if self.price else None,
            price_providers[self.provider],
            self.timeout_s,
            self.first_byte_s,
        )


class _Retry(_Fields):
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    base_s: Seconds = 0.5
    max_s: Seconds = 8.0
    jitter: Part = 1.0
    billed: Annotated[int, Field(ge=0, le=10)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> _Retry:
        if self.billed >= self.attempts:
            msg = "billed has to be less than attempts"
            raise ValueError(msg)
        if self.base_s > self.max_s:
            msg = "base_s has to be at most max_s"
            raise ValueError(msg)
        return self


class _Breaker(_Fields):
    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    window_s: Seconds = 30.0
    open_s: Seconds = 15.0


class _Hedge(_Fields):
    after_s: Seconds
    most: Annotated[int, Field(ge=1, le=3)] = 1


class _Validate(_Fields):
    # An answer to a schema is always checked; the member exists so that a file may say so.
    schema_: Literal[True] = Field(default=True, alias="schema")
    refusal: bool = False
    min_logprob: Annotated[float, Field(ge=-100, le=0, strict=False)] | None = None
    otherwise: str = "next"
    value: Any = None

    @model_validator(mode="after")
    def _names_a_way(self) -> _Validate:
        ways = ("next", "person", *(f"function:{name}" for name in _FUNCTIONS))
        if self.otherwise not in ways:
            msg = f"otherwise has to be one of {', '.join(ways)}"
            raise ValueError(msg)
        if ("value" in self.model_fields_set) != (self.otherwise == "function:constant"):
            msg = "value is what function:constant answers: give both or none"
            raise ValueError(msg)
        return self


class RouteFields(_Fields):
    """One route of ``models.yaml``; :class:`toolkit.providers.Route` describes the members."""

    provider: str | None = None
    model: Word | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    temperature: Annotated[float, Field(ge=0, le=2, strict=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    timeout_s: Seconds = 60.0
    first_byte_s: Seconds | None = None
    price: _Price | None = None
    targets: Annotated[list[_Target], Field(min_length=1, max_length=16)] | None = None
    retry: _Retry | None = None
    fallback: list[FailedAs] | None = None
    breaker: _Breaker | None = None
    hedge: _Hedge | None = None
    checks: _Validate = Field(_Validate(), alias="validate")

    @model_validator(mode="after")
    def _has_one_form(self) -> RouteFields:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.targets is None:
            yield from (f"{n} is missing" for n in ("provider", "model") if not getattr(self, n))
        else:
            for name in ("provider", "model", "price"):
                if name in self.model_fields_set:
                    yield f"{name} belongs into each of the targets"
            names = [(target.provider, target.model) for target in self.targets]
            if len(set(names)) < len(names):
                yield "two targets are the same"
        if len(self.targets or [0]) == 1 and self.fallback:
            yield "fallback needs a second target"

    def providers(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the path inside the route, and the provider that is named there."""
        if self.targets is None:
            yield (), self.provider or ""
        else:
            yield from ((("targets", n), t.provider) for n, t in enumerate(self.targets))

    def build(self, name: str, price_providers: Mapping[str, str | None]) -> Route:
        """Return the route.

        Args:
            name: Its name.
            price_providers: Of each provider, its name in the price table.
        """
        targets = tuple(target.build(price_providers) for target in self.targets or ())
        first = targets[0] if targets else None
        provider = first.provider if first else self.provider or ""
        return Route(
            name=name,
            provider=provider,
            model=first.model if first else self.model or "",
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            timeout_s=self.timeout_s,
            price=first.price if first else self.price.build() if self.price else None,
            price_provider=price_providers[provider],
            first_byte_s=self.first_byte_s,
            targets=targets,
            rules=self._rules(),
        )

    def _rules(self) -> Rules:
        several = len(self.targets or ()) > 1
        named = _USUAL_FALLBACK if self.fallback is None else frozenset[str](self.fallback)
        checks = self.checks
        return Rules(
            RetryRule(**self.retry.model_dump()) if self.retry else RetryRule(),
            named if several else frozenset(),
            BreakerRule(**self.breaker.model_dump()) if self.breaker else None,
            HedgeRule(**self.hedge.model_dump()) if self.hedge else None,
            Validation(checks.refusal, checks.min_logprob, checks.otherwise, checks.value),
        )
