"""What a model is asked and what it answers, the same for every provider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from toolkit.errors import UsageError
from toolkit.values import Usage

__all__ = ["ModelAnswer", "ModelRequest", "Provider", "Route", "RoutePrice"]


@dataclass(frozen=True, slots=True)
class RoutePrice:
    """Prices that ``models.yaml`` states for a route; they win over the price table.

    Attributes:
        input_per_million_usd, output_per_million_usd: US dollars per million tokens.
    """

    input_per_million_usd: Decimal
    output_per_million_usd: Decimal


@dataclass(frozen=True, slots=True)
class Route:
    """A name for *which model, where, with which settings*.

    Attributes:
        name: The route's name in ``models.yaml``.
        provider: The provider's name in ``models.yaml``.
        model: The model's name as the provider knows it.
        max_tokens: Most answer tokens of one call; a request can ask for less, never for more.
        temperature, seed: Used when a request names none; ``None`` leaves them to the provider.
        timeout_s: Seconds until a call is given up, connecting and reading included.
        price: Stated prices, if any.
        price_provider: The provider's name in the price table; ``local`` costs nothing;
            ``None`` means that prices are not known.
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

    @property
    def target(self) -> str:
        """``provider/model``, for people and records."""
        return f"{self.provider}/{self.model}"


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


def _dicts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2


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
        provider: The provider's name in ``models.yaml``.
        model: The model that the provider says has answered.
        response_id: The provider's id of the answer.
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


class Provider(Protocol):
    """Somebody who answers models' requests; one object serves many concurrent calls."""

    async def complete(self, route: Route, request: ModelRequest) -> ModelAnswer:
        """Answer one request, in one attempt.

        Raises:
            ProviderError: ``details["kind"]`` says how it failed.
        """
        ...

    async def close(self) -> None:
        """Release connections and memory; calling twice does no harm."""
        ...
