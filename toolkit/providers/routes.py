"""What a route is: a name, its targets, and the rules that hold when a target fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from toolkit.values import DataClass, Money

__all__ = [
    "BreakerRule",
    "HedgeRule",
    "RetryRule",
    "Route",
    "RoutePrice",
    "Rules",
    "Target",
    "Validation",
    "When",
]


@dataclass(frozen=True, slots=True)
class RoutePrice:
    """Prices that ``models.yaml`` states for a target; they win over the price table.

    Attributes:
        input_per_million_usd, output_per_million_usd: US dollars per million tokens.
    """

    input_per_million_usd: Decimal
    output_per_million_usd: Decimal


@dataclass(frozen=True, slots=True)
class When:
    """Which calls a target takes; what is ``None`` does not matter.

    Attributes:
        classes: Every data class of the call has to be among these.
        max_input_tokens: Most tokens of the question, estimated at three bytes of UTF-8 each.
        task: The call has to name one of these tasks.
        max_usd: The most that one attempt may cost in the worst case; an unknown price is more.
        region: Where the target is: a call that demands a region goes to targets of that region
            only, so not to those that state none.
    """

    classes: frozenset[DataClass] | None = None
    max_input_tokens: int | None = None
    task: frozenset[str] | None = None
    max_usd: Money | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider, as a route uses it.

    Attributes:
        provider, model: See :class:`Route`.
        weight: Its part of the calls among the targets with weights; ``None``: it is asked after
            those, in the order of the list.
        when: Which calls it takes.
        price, price_provider: See :class:`Route`.
        timeout_s: Seconds until one attempt is given up; ``None``: an equal part of what is left of
            the route's time.
        first_byte_s: Seconds until the first event of the answer; ``None``: as the route says.
    """

    provider: str
    model: str
    weight: float | None = None
    when: When = When()  # noqa: RUF009 - frozen
    price: RoutePrice | None = None
    price_provider: str | None = None
    timeout_s: float | None = None
    first_byte_s: float | None = None


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often one target is asked, and how long to wait in between.

    The wait before attempt *n* + 1 is drawn between ``(1 - jitter) * d`` and ``d``, where ``d`` is
    ``base_s * 2 ** (n - 1)``, at most ``max_s``.  A longer ``Retry-After`` takes its place.

    Attributes:
        attempts: Tries at one target, the first one included.
        base_s, max_s: Seconds.
        jitter: 0: none; 1: full.
        billed: Of a call, how many tries may follow one that the provider may have billed.  Each
            makes the reservation larger by one worst case.
    """

    attempts: int = 1
    base_s: float = 0.5
    max_s: float = 8.0
    jitter: float = 1.0
    billed: int = 0


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a target is left alone.

    Attributes:
        failures: Failures in a row that open the breaker …
        window_s: … if they happen within so many seconds.
        open_s: Seconds until one call may try again.
    """

    failures: int = 5
    window_s: float = 30.0
    open_s: float = 15.0


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """When a slow call is asked a second time; the first answer counts.

    Attributes:
        after_s: Seconds without an answer (of a stream: without its first piece).
        most: More attempts than one that a call may have at the same time.
    """

    after_s: float
    most: int = 1


@dataclass(frozen=True, slots=True)
class Validation:
    """Which answers are good enough, and what happens when none is.

    Attributes:
        refusal: Whether a refusal to answer counts as a failure.
        min_logprob: The least mean of the log-probabilities of the answer's tokens.
        otherwise: ``next``: the error; ``person``: an error that asks for one;
            ``function:NAME``: see :mod:`toolkit.providers.validation`.
        value: What ``function:constant`` answers.
    """

    refusal: bool = False
    min_logprob: float | None = None
    otherwise: str = "next"
    value: Any = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds when an attempt fails, is slow, or gives a poor answer.

    Attributes:
        fallback: The kinds of failure after which the next target is asked.
    """

    retry: RetryRule = RetryRule()  # noqa: RUF009 - frozen
    fallback: frozenset[str] = frozenset()
    breaker: BreakerRule | None = None
    hedge: HedgeRule | None = None
    validation: Validation = Validation()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class Route:
    """A name for *which model, where, with which settings*.

    Attributes:
        name: The route's name in ``models.yaml``.
        provider: The provider's name in ``models.yaml``; of several targets, the first one's.
        model: The model's name as the provider knows it; likewise.
        max_tokens: Most answer tokens of one call; a request can ask for less, never for more.
        temperature, seed: Used when a request names none; ``None`` leaves them to the provider.
        timeout_s: Seconds until a call is given up, all attempts and waits included.
        price: Stated prices, if any.
        price_provider: The provider's name in the price table; ``local`` costs nothing;
            ``None`` means that prices are not known.
        first_byte_s: Seconds until the first event of the answer.  Such calls are streamed from
            the provider even if nobody listens: only a stream begins before the answer is whole.
        targets: Empty: ``provider`` and ``model`` are the only one.
        rules: What holds when an attempt fails.
    """

    name: str
    provider: str
    model: str
    max_tokens: int
    temperature: float | None = None
    seed: int | None = None
    timeout_s: float = 60.0
    price: RoutePrice | None = None
    price_provider: str | None = None
    first_byte_s: float | None = None
    targets: tuple[Target, ...] = ()
    rules: Rules = field(default=Rules())  # noqa: RUF009 - frozen

    @property
    def target(self) -> str:
        """``provider/model``, for people and records."""
        return f"{self.provider}/{self.model}"

    def legs(self) -> tuple[tuple[Target, Route], ...]:
        """Return every target, and the route as it is when it has that target only.

        Policy, prices and bounds of a route with several targets are those of its legs.
        """
        if not self.targets:
            return ((Target(self.provider, self.model), self),)
        return tuple((target, self._only(target)) for target in self.targets)

    def _only(self, target: Target) -> Route:
        first = target.first_byte_s
        return replace(
            self,
            provider=target.provider,
            model=target.model,
            timeout_s=min(target.timeout_s or self.timeout_s, self.timeout_s),
            price=target.price,
            price_provider=target.price_provider,
            first_byte_s=self.first_byte_s if first is None else first,
            targets=(),
        )
