"""A model call as work: the request that its arguments mean, and the outcome of asking."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from toolkit.errors import ProviderError, ToolkitError, UsageError
from toolkit.gateway.targets import Permitted, approved
from toolkit.gateway.work import Worst
from toolkit.providers import (
    CallContext,
    Charge,
    EmbeddingAnswer,
    ModelAnswer,
    ModelRequest,
    OnDelta,
    Providers,
    Route,
    attempts_of,
    charge_of,
    embedding_worst_case,
    worst_case,
)
from toolkit.values import Attempt, CallRecord, CallState, Clock, Outcome

__all__ = [
    "Asking",
    "Embedding",
    "OnDelta",
    "embedding_bounds",
    "model_bounds",
    "model_request",
    "price_missing",
]

_ARGUMENTS = frozenset(field.name for field in fields(ModelRequest))


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks a route's providers and tells how it ended.

    Attributes:
        providers: Returns the providers of the current catalog.
        route: Where the call goes.
        on_delta: Told each piece of the answer, if anybody listens.
        context: What routing may know of the call.
        among: What policy permits of its targets.
        read: The arguments that the call had when it was decided, and what they mean.
    """

    providers: Callable[[], Providers]
    clock: Clock
    route: Route
    on_delta: OnDelta | None = None
    context: CallContext = CallContext()  # noqa: RUF009 - frozen
    among: Permitted | None = None
    read: tuple[Any, ModelRequest] | None = None

    async def perform(self, call: CallRecord, arguments: Any) -> Outcome:
        """Ask, and return the outcome; a provider's failure is one too."""
        started = self.clock.now_us()
        context = _approved(self.context, call, self.among)
        try:
            same = self.read is not None and self.read[0] is arguments
            request = self.read[1] if self.read and same else model_request(arguments)
            answer = await self.providers().complete(
                self.route, request, self.on_delta, context=context
            )
        except Exception as error:  # noqa: BLE001 - a provider's surprise is an outcome too
            return _failed(error, self.route, started, self.clock.now_us())
        return self._answered(answer, started)

    def _answered(self, answer: ModelAnswer, started_us: int) -> Outcome:
        body = {
            "text": answer.text,
            "data": answer.data,
            "tool_calls": answer.tool_calls,
            "finish_reason": answer.finish_reason,
            "response_id": answer.response_id,
        }
        optional = {"refusal": answer.refusal, "logprobs": answer.logprobs}
        body |= {name: value for name, value in optional.items() if value is not None}
        return _succeeded(answer, body, started_us, self.clock.now_us())


@dataclass(frozen=True, slots=True)
class Embedding:
    """Asks a route's provider for the vectors of texts.

    The record holds each vector as base64 of its little-endian 32-bit floats: a quarter of the
    bytes of decimal numbers, and what OpenAI's API sends.

    Attributes:
        providers, clock, route, context, among: As in :class:`Asking`.
    """

    providers: Callable[[], Providers]
    clock: Clock
    route: Route
    context: CallContext = CallContext()  # noqa: RUF009 - frozen
    among: Permitted | None = None

    async def perform(self, call: CallRecord, arguments: Any) -> Outcome:
        """Ask, and return the outcome; a provider's failure is one too."""
        started = self.clock.now_us()
        context = _approved(self.context, call, self.among)
        try:
            answer = await self.providers().embed(self.route, arguments["input"], context=context)
            body = {"embeddings": [_packed(vector) for vector in answer.vectors]}
        except Exception as error:  # noqa: BLE001 - a provider's surprise is an outcome too
            return _failed(error, self.route, started, self.clock.now_us())
        return _succeeded(answer, body, started, self.clock.now_us())


def embedding_bounds(route: Route, texts: list[str], context: CallContext) -> Worst:
    """Return the most that embedding texts can cost and use.

    Raises:
        UsageError: No target takes them.
    """
    cost, tokens = embedding_worst_case(route, texts, context)
    return Worst(cost, tokens, seconds=route.timeout_s)


def model_bounds(route: Route, request: ModelRequest, context: CallContext) -> Worst:
    """Return the most that a model call can cost and use.

    Raises:
        UsageError: No target takes it.
    """
    cost, tokens = worst_case(route, request, context)
    return Worst(cost, tokens, seconds=route.timeout_s)


def model_request(arguments: Any) -> ModelRequest:
    """Read a model call's arguments.

    Raises:
        UsageError: They are not what :func:`toolkit.model` sends.
    """
    if not isinstance(arguments, dict) or not isinstance(arguments.get("messages"), list):
        raise UsageError("a model call needs a list of messages")
    if unknown := sorted(set(arguments) - _ARGUMENTS):
        raise UsageError(f"a model call has no argument {', '.join(unknown)}")
    return ModelRequest(**arguments)


def _approved(context: CallContext, call: CallRecord, among: Permitted | None) -> CallContext:
    targets = approved(call, context.targets, among)
    return context if targets is context.targets else replace(context, targets=targets)


def _succeeded(
    answer: ModelAnswer | EmbeddingAnswer, body: dict[str, Any], started_us: int, now_us: int
) -> Outcome:
    # Failed attempts before this one may have been billed too.
    charged = answer.charged or Charge(answer.usage, None)
    once = Attempt(f"{answer.provider}/{answer.model}", started_us, now_us)
    return Outcome(
        CallState.OK,
        answer=body,
        usage=charged.usage,
        cost=charged.cost,
        provider=answer.provider,
        model=answer.model,
        attempts=answer.attempts or (once,),
    )


def _failed(error: Exception, route: Route, started_us: int, now_us: int) -> Outcome:
    if not isinstance(error, ToolkitError):
        text = f"the provider {route.provider} failed: {type(error).__name__}"
        error = ProviderError(text, details={"kind": "unexpected"})
    charged = charge_of(error)
    once = Attempt(route.target, started_us, now_us, error=error.message)
    return Outcome(
        CallState.ERROR,
        error=error.to_json(),
        usage=None if charged is None else charged.usage,
        cost=None if charged is None else charged.cost,
        provider=route.provider,
        model=route.model,
        attempts=attempts_of(error) or (once,),
    )


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def price_missing(route: Route | None) -> str:
    """Return the sentence about a price that policy wants and nobody gave."""
    if route is not None and route.targets:
        target = f"a target of the route {route.name}"
    else:
        target = f"{route.provider}/{route.model}" if route else "this call"
    return (
        f"the price of {target} is unknown and the policy denies unknown prices; give it a price in "
        "registry/models.yaml"
    )
