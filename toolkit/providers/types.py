"""What a model is asked and what it answers, the same for every provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolkit.errors import ToolkitError, UsageError
from toolkit.providers.extras import extra_problems
from toolkit.providers.retries import RetryBudget
from toolkit.providers.routes import Route, RoutePrice
from toolkit.values import Attempt, DataClass, Money, Usage

__all__ = [
    "CallContext",
    "Charge",
    "Delta",
    "EmbeddingAnswer",
    "ModelAnswer",
    "ModelRequest",
    "OnDelta",
    "Provider",
    "Route",
    "RoutePrice",
]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a model.  ``None`` means: as the route says.

    Attributes:
        messages: In the shape of OpenAI's chat completions.
        max_tokens: Most answer tokens; capped by the route.
        temperature, seed, stop: Sampling.
        schema: JSON Schema that the answer has to fit.
        tools: Functions that the model may ask for, in OpenAI's shape.
        tool_choice: ``auto``, ``none``, ``required``, or OpenAI's ``{"type": "function", …}``.
        extra: Further members of OpenAI's request by their names there
            (:mod:`toolkit.providers.extras` lists them); a provider that has no counterpart for
            one refuses the call.

    Raises:
        UsageError: An argument has the wrong type or value (all are named).
    """

    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stop: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise UsageError(
                f"this is not a model call: {'; '.join(problems)}",
                where="the arguments of the model call",
                next_step="see the docstring of toolkit.model for the arguments and their types",
            )

    def answer_tokens(self, route: Route) -> int:
        """The most answer tokens that this call may produce."""
        return (
            route.max_tokens if self.max_tokens is None else min(self.max_tokens, route.max_tokens)
        )


def _problems(given: ModelRequest) -> Iterator[str]:
    """What is wrong with a request; it comes from a notebook, so its types are not believed."""
    request: Any = given
    if not _dicts(request.messages) or not request.messages:
        yield "messages has to be a list of at least one message"
    elif not all(isinstance(message.get("role"), str) for message in request.messages):
        yield "every message needs a role"
    if not (request.max_tokens is None or (_whole(request.max_tokens) and request.max_tokens > 0)):
        yield "max_tokens has to be a whole number above 0"
    if not (request.seed is None or _whole(request.seed)):
        yield "seed has to be a whole number"
    if not (request.temperature is None or _number(request.temperature)):
        yield "temperature has to be a number from 0 to 2"
    if not (request.schema is None or isinstance(request.schema, dict)):
        yield "schema has to be a JSON Schema object"
    if not (request.tools is None or _dicts(request.tools)):
        yield "tools has to be a list of function descriptions"
    if not (request.tool_choice is None or isinstance(request.tool_choice, str | dict)):
        yield "tool_choice has to be text or an object"
    if not (request.stop is None or _texts(request.stop)):
        yield "stop has to be a list of texts"
    yield from extra_problems(request.extra)


def _dicts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of an answer that is being streamed.

    Attributes:
        text: More text.
        tool_calls: Pieces of calls in the shape of OpenAI's chunks: ``index`` says which call,
            ``function.arguments`` is more of its JSON text.
    """

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()


OnDelta = Callable[[Delta], Awaitable[None]]
"""Told each piece of an answer as it comes."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call used in all its attempts: what a budget is charged.

    Attributes:
        usage: Tokens.
        cost: ``None`` if the price of any billed attempt is not known.
    """

    usage: Usage = Usage()  # noqa: RUF009 - frozen
    cost: Money | None = Money(0)  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model answered.

    Attributes:
        text: The text, ``None`` if there is none.
        data: The parsed JSON when a schema was given; it fits the schema.
        tool_calls: In OpenAI's shape; ``function.arguments`` is JSON text.
        finish_reason: ``stop``, ``length``, ``tool_calls``, ``content_filter`` …
        usage: Tokens; when the provider reports none, the upper bound of :func:`worst_case`.
        usage_estimated: Whether ``usage`` is that bound.
        provider: The provider's name in ``models.yaml``; ``function`` for an answer of the route's
            deterministic function.
        model: The model that the provider says has answered.
        response_id: The provider's id of the answer.
        refusal: What the model said instead of answering, where the provider tells it apart.
        logprobs: Log-probability of each token, where it was asked for and given.
        attempts: Every try of the call, in the order in which they ended.
        charged: What all tries used together; ``None`` before :class:`Providers` has seen it.
    """

    text: str | None
    usage: Usage
    provider: str
    model: str
    data: Any = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = "stop"
    response_id: str | None = None
    usage_estimated: bool = False
    refusal: str | None = None
    logprobs: list[float] | None = None
    attempts: tuple[Attempt, ...] = ()
    charged: Charge | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingAnswer:
    """Vectors, one for each text in its order.

    Attributes:
        vectors, usage, provider, model, usage_estimated, attempts, charged: As in
            :class:`ModelAnswer`.
    """

    vectors: list[list[float]]
    usage: Usage
    provider: str
    model: str
    usage_estimated: bool = False
    attempts: tuple[Attempt, ...] = ()
    charged: Charge | None = None


@dataclass(frozen=True, slots=True)
class CallContext:
    """What routing needs to know of a call beside the request.

    Attributes:
        run_id: The run that asks.
        classes: Data classes of everything in the request.
        task: What the call is for, in the words of ``models.yaml``.
        max_usd: The most that one attempt may cost in the worst case.
        region: The only region that the data may go to.
        retries: What is left of the run's retries; ``None``: as many as the route says.
        targets: The targets (``provider/model``) that policy permits; ``None``: all.
        halted: Says why no further attempt is made; asked before each but the first one.
    """

    run_id: str = ""
    classes: frozenset[DataClass] = frozenset()
    task: str | None = None
    max_usd: Money | None = None
    region: str | None = None
    retries: RetryBudget | None = None
    targets: frozenset[str] | None = None
    halted: Callable[[], Awaitable[ToolkitError | None]] | None = None


class Provider(Protocol):
    """Somebody who answers models' requests; one object serves many concurrent calls."""

    async def complete(
        self, route: Route, request: ModelRequest, on_delta: OnDelta | None = None
    ) -> ModelAnswer:
        """Answer one request, in one attempt.

        Args:
            route: One target of a route.
            request: The question.
            on_delta: Told each piece of the answer as it comes; together they are the answer.

        Raises:
            ProviderError: ``details["kind"]`` says how it failed.
            UsageError: The provider has no counterpart for something in the request; nothing
                was sent.
        """
        ...

    async def embed(self, route: Route, texts: list[str]) -> EmbeddingAnswer:
        """Return a vector for each text, in one attempt.

        Raises:
            ProviderError: ``details["kind"]`` says how it failed.
            UsageError: The provider has no embeddings.
        """
        ...

    async def close(self) -> None:
        """Release connections and memory; calling twice does no harm."""
        ...
