"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp.

Protocol: https://platform.openai.com/docs/api-reference/chat, …/chat-streaming and …/embeddings
"""

from __future__ import annotations

import math
from typing import Any, Literal

from toolkit.providers.extras import openai_extra
from toolkit.providers.failures import failure
from toolkit.providers.prices import text_bound, usage_bound
from toolkit.providers.sender import Sender
from toolkit.providers.streams import ChatStream, tell_whole
from toolkit.providers.types import EmbeddingAnswer, ModelAnswer, ModelRequest, OnDelta, Route
from toolkit.values import Usage

__all__ = ["OpenAIProvider"]


class OpenAIProvider:
    """A provider behind ``POST {base_url}/chat/completions``.

    Args:
        sender: Carries the base URL and the key.
        max_tokens_field: How the server calls the limit of answer tokens.
        strict_schema: Ask for OpenAI's strict schema mode.
        extra: More members for every request body (llama.cpp's ``cache_prompt``).
    """

    def __init__(
        self,
        sender: Sender,
        *,
        max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        strict_schema: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._sender = sender
        self._max_tokens_field = max_tokens_field
        self._strict = strict_schema
        self._extra = dict(extra or {})

    async def complete(
        self, route: Route, request: ModelRequest, on_delta: OnDelta | None = None
    ) -> ModelAnswer:
        """See :class:`toolkit.providers.Provider`."""
        body = self._body(route, request)
        if on_delta is None and route.first_byte_s is None:
            reply = await self._sender.post("/chat/completions", body, route)
            return _read_reply(reply, route, request)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        stream = ChatStream(route, on_delta, self._sender.fault)
        whole = await self._sender.stream("/chat/completions", body, route, stream.take)
        answer = _read_reply(stream.reply() if whole is None else whole, route, request)
        if whole is not None:
            await tell_whole(answer, on_delta)
        return answer

    async def embed(self, route: Route, texts: list[str]) -> EmbeddingAnswer:
        """See :class:`toolkit.providers.Provider`."""
        body = {"model": route.model, "input": texts, "encoding_format": "float"}
        reply = await self._sender.post("/embeddings", body, route)
        return _read_embeddings(reply, route, texts)

    async def close(self) -> None:
        """See :class:`toolkit.providers.Provider`."""
        await self._sender.close()

    def _body(self, route: Route, request: ModelRequest) -> dict[str, Any]:
        temperature = route.temperature if request.temperature is None else request.temperature
        optional: dict[str, Any] = {
            "temperature": temperature,
            "seed": route.seed if request.seed is None else request.seed,
            "stop": request.stop or None,
            "tools": request.tools or None,
            "tool_choice": request.tool_choice if request.tools else None,
        }
        if request.schema is not None:
            described = {"name": "answer", "schema": request.schema, "strict": self._strict}
            optional["response_format"] = {"type": "json_schema", "json_schema": described}
        return {
            **openai_extra(request.extra),
            "model": route.model,
            "messages": request.messages,
            self._max_tokens_field: request.answer_tokens(route),
            **{name: value for name, value in optional.items() if value is not None},
            **self._extra,
        }


def _read_reply(reply: dict[str, Any], route: Route, request: ModelRequest) -> ModelAnswer:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise failure("invalid_body", "the answer has no choices[0].message", route)
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise failure("invalid_body", "choices[0].message.content is not text", route)
    usage = _usage(reply.get("usage"))
    response_id, model, refusal = reply.get("id"), reply.get("model"), message.get("refusal")
    return ModelAnswer(
        text=text,
        refusal=refusal if isinstance(refusal, str) and refusal else None,
        logprobs=_logprobs(choice.get("logprobs")),
        usage=usage or usage_bound(route, request),
        usage_estimated=usage is None,
        provider=route.provider,
        model=model if isinstance(model, str) and model else route.model,
        tool_calls=_tool_calls(message.get("tool_calls"), route),
        finish_reason=str(choice.get("finish_reason") or "stop"),
        response_id=response_id if isinstance(response_id, str) else None,
    )


def _tool_calls(calls: Any, route: Route) -> list[dict[str, Any]]:
    found = []
    for number, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        given = function if isinstance(function, dict) else {}
        name, arguments = given.get("name"), given.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise failure("invalid_body", f"tool_calls[{number}] is not a function call", route)
        found.append(
            {
                "id": str(call.get("id") or f"call_{number}"),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
    return found


def _logprobs(given: Any) -> list[float] | None:
    """The log-probabilities of the tokens, if every one has one."""
    tokens = given.get("content") if isinstance(given, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    values = [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
    numbers = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return [float(v) for v in numbers] if len(numbers) == len(values) else None


def _read_embeddings(reply: dict[str, Any], route: Route, texts: list[str]) -> EmbeddingAnswer:
    data = reply.get("data")
    rows = data if isinstance(data, list) else []
    vectors: dict[Any, list[float]] = {}
    for place, row in enumerate(rows):
        vector = row.get("embedding") if isinstance(row, dict) else None
        if isinstance(vector, list) and all(_finite(v) for v in vector) and vector:
            vectors[row.get("index", place)] = [float(v) for v in vector]
    if set(vectors) != set(range(len(texts))):
        raise failure("invalid_body", f"the answer has no {len(texts)} embeddings", route)
    given = reply.get("usage")
    counted = {**given, "completion_tokens": 0} if isinstance(given, dict) else None
    usage, model = _usage(counted), reply.get("model")
    return EmbeddingAnswer(
        [vectors[place] for place in range(len(texts))],
        usage or Usage(text_bound(texts)),
        route.provider,
        model if isinstance(model, str) and model else route.model,
        usage_estimated=usage is None,
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _usage(usage: Any) -> Usage | None:
    """The reported tokens; ``None`` when they are missing or make no sense."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts: list[Any] = [usage.get("prompt_tokens"), usage.get("completion_tokens"), cached or 0]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    prompt, answer, cached = counts
    return Usage(prompt, answer, min(cached, prompt))
