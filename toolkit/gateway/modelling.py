"""A model call as work: the request that its arguments mean, and the outcome of asking."""

from __future__ import annotations

import base64
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

from toolkit.errors import ProviderError, ToolkitError, UsageError
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.providers import ModelAnswer, ModelRequest, Providers, Route, price
from toolkit.values import Attempt, CallRecord, CallState, Clock, Outcome, Usage

__all__ = ["Asking", "Embedding", "OnDelta", "embedding_work", "model_request"]

OnDelta = Callable[[Any], Awaitable[None]]
"""Told each piece of an answer as it comes."""

_ARGUMENTS = frozenset(field.name for field in fields(ModelRequest))


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks a route's provider and tells how it ended.

    Attributes:
        providers: Returns the providers of the current catalog.
        route: Where the call goes.
        on_delta: Told each piece of the answer, if anybody listens.
    """

    providers: Callable[[], Providers]
    clock: Clock
    route: Route
    on_delta: OnDelta | None = None

    async def perform(self, _: CallRecord, arguments: Any) -> Outcome:
        """Ask, and return the outcome; a provider's failure is one too."""
        started = self.clock.now_us()
        try:
            answer = await self.providers().complete(self.route, model_request(arguments))
        except ToolkitError as error:
            return self._failed(error, started)
        except Exception as error:  # noqa: BLE001 - a provider's surprise is an outcome too
            text = f"the provider {self.route.provider} failed: {type(error).__name__}"
            return self._failed(ProviderError(text, details={"kind": "unexpected"}), started)
        return self._answered(answer, started)

    def _answered(self, answer: ModelAnswer, started_us: int) -> Outcome:
        return Outcome(
            CallState.OK,
            answer={
                "text": answer.text,
                "data": answer.data,
                "tool_calls": answer.tool_calls,
                "finish_reason": answer.finish_reason,
                "response_id": answer.response_id,
            },
            usage=answer.usage,
            cost=price(answer.provider, answer.model, answer.usage, route=self.route),
            provider=answer.provider,
            model=answer.model,
            attempts=(
                Attempt(f"{answer.provider}/{answer.model}", started_us, self.clock.now_us()),
            ),
        )

    def _failed(self, error: ToolkitError, started_us: int) -> Outcome:
        route = self.route
        # An answer that did not fit was paid for all the same.
        spent = error.details.get("usage")
        usage = Usage(**spent) if isinstance(spent, dict) else None
        attempt = Attempt(route.target, started_us, self.clock.now_us(), error=error.message)
        return Outcome(
            CallState.ERROR,
            error=error.to_json(),
            usage=usage,
            cost=None if usage is None else price(route.provider, route.model, usage, route=route),
            provider=route.provider,
            model=route.model,
            attempts=(attempt,),
        )


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


@dataclass(frozen=True, slots=True)
class Embedding:
    """Asks a route's provider for the vectors of texts.

    The record holds each vector as base64 of its little-endian 32-bit floats: a quarter of the
    bytes of decimal numbers, and what OpenAI's API sends.

    Attributes:
        providers, clock, route: As in :class:`Asking`.
    """

    providers: Callable[[], Providers]
    clock: Clock
    route: Route

    async def perform(self, _: CallRecord, arguments: Any) -> Outcome:
        """Ask, and return the outcome."""
        started, route = self.clock.now_us(), self.route
        answer = await self.providers().embed(route, arguments["input"])  # type: ignore[attr-defined]
        attempt = Attempt(f"{answer.provider}/{answer.model}", started, self.clock.now_us())
        return Outcome(
            CallState.OK,
            answer={"embeddings": [_packed(vector) for vector in answer.vectors]},
            usage=answer.usage,
            cost=price(answer.provider, answer.model, answer.usage, route=route),
            provider=answer.provider,
            model=answer.model,
            attempts=(attempt,),
        )


def embedding_work(
    providers: Callable[[], Providers], clock: Clock, route: Route, arguments: dict[str, Any]
) -> Work:
    """Return the work of embedding ``arguments["input"]``, a list of texts."""
    # A token is at least a byte; the rest is what separates texts.
    tokens = sum(len(text.encode("utf-8", "replace")) + 16 for text in arguments["input"])
    cost = price(route.provider, route.model, Usage(tokens, 0), route=route)
    work = Embedding(providers, clock, route)
    return Work(work.perform, Facts(route), Worst(cost, tokens, seconds=route.timeout_s))


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
