"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp.

Protocol: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import Any, Literal

from toolkit.providers.failures import failure
from toolkit.providers.prices import usage_bound
from toolkit.providers.sender import Sender
from toolkit.providers.types import ModelAnswer, ModelRequest, Route
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

    async def complete(self, route: Route, request: ModelRequest) -> ModelAnswer:
        """See :class:`toolkit.providers.Provider`."""
        reply = await self._sender.post("/chat/completions", self._body(route, request), route)
        return _read_reply(reply, route, request)

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
    response_id, model = reply.get("id"), reply.get("model")
    return ModelAnswer(
        text=text,
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
