"""OpenAI's chat completions: ``POST /v1/chat/completions``.

Protocol: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.gateway.doors.reading import Asked, Body, flat_text, function_tool, refused
from toolkit.gateway.doors.voice import Piece, Spoken, Voice, sse

__all__ = ["ChatVoice", "read_chat", "read_sampling", "read_schema"]

# Bookkeeping: it changes no answer, and who asks is known better here.
_IGNORED = (
    "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "modalities",
)  # fmt: skip
_EXTRA = (
    "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs",
    "parallel_tool_calls", "n", "reasoning_effort", "verbosity", "top_k", "min_p", "store",
)  # fmt: skip


def read_chat(value: dict[str, Any]) -> Asked:
    """Translate a request body.

    Raises:
        UsageError: It cannot be translated; the message names the member.
    """
    body = Body(value, "OpenAI's chat completions")
    model = body.need("model", str)
    arguments: dict[str, Any] = {"messages": _messages(body.need("messages", list))}
    extra: dict[str, Any] = {}
    limit = body.take("max_tokens", int)
    arguments["max_tokens"] = body.take("max_completion_tokens", int, default=limit)
    read_sampling(body, arguments)
    read_schema(body.take("response_format", dict), arguments, extra)
    arguments["tools"] = _tools(body.take("tools", list)) or None
    arguments["tool_choice"] = body.take("tool_choice", str, dict) if arguments["tools"] else None
    if body.take("service_tier", str, default="auto") not in {"auto", "default"}:
        raise refused("service_tier changes the price and is not offered", "service_tier")
    stream = bool(body.take("stream", bool))
    options = body.take("stream_options", dict) or {}
    body.ignore(_IGNORED)
    body.ignore(() if arguments["tools"] else ("tool_choice", "parallel_tool_calls"))
    extra.update(body.rest(_EXTRA))
    arguments["extra"] = extra or None
    given = {name: item for name, item in arguments.items() if item is not None}
    return Asked(model, given, stream, {"usage": bool(options.get("include_usage"))})


def read_sampling(body: Body, arguments: dict[str, Any]) -> None:
    """Read temperature, seed and stop."""
    arguments["temperature"] = body.take("temperature", int, float)
    arguments["seed"] = body.take("seed", int)
    stop = body.take("stop", str, list)
    arguments["stop"] = [stop] if isinstance(stop, str) else stop or None


def read_schema(
    described: dict[str, Any] | None, arguments: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Read a ``response_format``.

    Raises:
        UsageError: It is of an unknown type, or its schema is missing.
    """
    kind = (described or {"type": "text"}).get("type")
    if described is None or kind == "text":
        return
    if kind == "json_object":
        extra["response_format"] = {"type": "json_object"}
        return
    inner = described.get("json_schema", described)
    if kind != "json_schema" or not isinstance(inner, dict):
        raise refused(f"the response format {str(kind)[:60]!a} is not offered", "response_format")
    if not isinstance(inner.get("schema"), dict):
        raise refused("response_format has no schema", "response_format.json_schema.schema")
    arguments["schema"] = inner["schema"]


def _tools(tools: list[Any] | None) -> list[dict[str, Any]]:
    found = []
    for number, tool in enumerate(tools or []):
        where = f"tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            raise refused(f"{where} is not a function: a vendor's own tools are not offered", where)
        given = tool.get("function")
        described = given if isinstance(given, dict) else {}
        found.append(
            function_tool(
                described.get("name"),
                described.get("description"),
                described.get("parameters"),
                where,
            )
        )
    return found


def _messages(messages: list[Any]) -> list[dict[str, Any]]:
    return [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, Any]:
    """One message with the members that matter, its text in one piece."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise refused(f"{where} has no role", where)
    role = "system" if message["role"] == "developer" else message["role"]
    if role == "function" or message.get("function_call"):
        raise refused(f"{where} uses function_call; use tools and tool_calls", where)
    found: dict[str, Any] = {"role": role, "content": _content(message.get("content"), where)}
    for name in ("name", "tool_calls", "tool_call_id"):
        if message.get(name):
            found[name] = message[name]
    return found


def _content(content: Any, where: str) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise refused(f"{where}.content is neither text nor a list of parts", where)
    kinds = {part.get("type") for part in content}
    if kinds <= {"text", "refusal"}:
        texts = [{"text": part.get("text", part.get("refusal"))} for part in content]
        return flat_text(texts, where)
    if not kinds <= {"text", "image_url"}:
        raise refused(f"{where}.content holds something else than text and images", where)
    return content


class ChatVoice(Voice):
    """Answers of chat completions."""

    def whole(self, spoken: Spoken) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": spoken.text,
            "refusal": spoken.refusal,
        }
        if spoken.tool_calls:
            message["tool_calls"] = spoken.tool_calls
        return {
            "id": self.name("chatcmpl-"),
            "object": "chat.completion",
            "created": spoken.created,
            "model": spoken.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": _logprobs(spoken.logprobs),
                    "finish_reason": spoken.finish_reason,
                }
            ],
            "usage": _usage(spoken),
            "system_fingerprint": None,
        }

    def opening(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def piece(self, delta: Piece) -> Iterator[bytes]:
        if delta.text:
            yield self._chunk({"content": delta.text})
        if delta.tool_calls:
            yield self._chunk({"tool_calls": list(delta.tool_calls)})

    def ending(self, spoken: Spoken, rest: Piece) -> Iterator[bytes]:
        yield from self.piece(rest)
        if spoken.refusal:
            yield self._chunk({"refusal": spoken.refusal})
        yield self._chunk({}, finish=spoken.finish_reason, logprobs=_logprobs(spoken.logprobs))
        if self.asked.options.get("usage"):
            yield sse({**self._frame(), "choices": [], "usage": _usage(spoken)})
        yield b"data: [DONE]\n\n"

    def failing(self, body: dict[str, Any]) -> Iterator[bytes]:
        yield sse(body)

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.name("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }

    def _chunk(
        self, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return sse({**self._frame(), "choices": [choice]})


def _logprobs(values: list[float] | None) -> dict[str, Any] | None:
    """The numbers in OpenAI's shape; the ledger keeps no token texts, so they are empty."""
    if values is None:
        return None
    one: dict[str, Any] = {"token": "", "bytes": None, "top_logprobs": []}
    return {"content": [{**one, "logprob": value} for value in values], "refusal": None}


def _usage(spoken: Spoken) -> dict[str, Any]:
    usage = spoken.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
