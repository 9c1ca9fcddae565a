"""Anthropic's messages: ``POST /v1/messages``.

Protocol: https://docs.anthropic.com/en/api/messages (version 2023-06-01)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from toolkit.gateway.doors.reading import Asked, Body, flat_text, function_tool, refused
from toolkit.gateway.doors.voice import Piece, Spoken, Voice, sse

__all__ = ["MessagesVoice", "read_messages"]

# Bookkeeping; a thought's signature is of no use to another provider.
_IGNORED = ("metadata", "cache_control", "inference_geo")
_EXTRA = ("top_p", "top_k", "thinking")
_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def read_messages(value: dict[str, Any]) -> Asked:
    """Translate a request body.

    Raises:
        UsageError: It cannot be translated; the message names the member.
    """
    body = Body(value, "Anthropic's messages")
    model = body.need("model", str)
    arguments: dict[str, Any] = {"max_tokens": body.need("max_tokens", int)}
    system = flat_text(body.take("system", str, list), "system")
    messages = [{"role": "system", "content": system}] if system else []
    for number, message in enumerate(body.need("messages", list)):
        messages += _turn(message, f"messages[{number}]")
    arguments["messages"] = messages
    arguments["temperature"] = body.take("temperature", int, float)
    arguments["stop"] = body.take("stop_sequences", list) or None
    extra: dict[str, Any] = {}
    arguments["tools"] = _tools(body.take("tools", list)) or None
    choice = body.take("tool_choice", dict)
    if arguments["tools"]:
        arguments["tool_choice"] = _choice(choice, extra)
    arguments["schema"] = _schema(body)
    if body.take("service_tier", str, default="auto") not in {"auto", "standard_only"}:
        raise refused("service_tier changes the price and is not offered", "service_tier")
    stream = bool(body.take("stream", bool))
    body.ignore(_IGNORED)
    extra.update(body.rest(_EXTRA))
    if extra.get("thinking") == {"type": "disabled"}:
        extra.pop("thinking")
    arguments["extra"] = extra or None
    return Asked(model, {k: item for k, item in arguments.items() if item is not None}, stream)


def _schema(body: Body) -> dict[str, Any] | None:
    config = body.take("output_config", dict) or {}
    described = config.get("format") or body.take("output_format", dict)
    if described is None:
        return None
    if described.get("type") != "json_schema" or not isinstance(described.get("schema"), dict):
        raise refused("the output format is not a JSON Schema", "output_config.format")
    schema: dict[str, Any] = described["schema"]
    return schema


def _turn(message: Any, where: str) -> list[dict[str, Any]]:
    """One message of theirs as messages of chat completions: results of tools come first."""
    if not isinstance(message, dict) or message.get("role") not in {"user", "assistant", "system"}:
        raise refused(f"{where} has none of the roles user, assistant and system", where)
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise refused(f"{where}.content is neither text nor a list of blocks", where)
    if message["role"] == "assistant":
        return [_assistant(blocks, where)]
    results = [_result(block, where) for block in blocks if block.get("type") == "tool_result"]
    others = [block for block in blocks if block.get("type") != "tool_result"]
    if not others:
        return results
    return [*results, {"role": message["role"], "content": _content(others, where)}]


def _assistant(blocks: list[dict[str, Any]], where: str) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(str(block.get("text") or ""))
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind not in {"thinking", "redacted_thinking"}:
            raise refused(f"{where} has a block {str(kind)[:60]!a}, which is not offered", where)
    found: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    return found | ({"tool_calls": calls} if calls else {})


def _result(block: dict[str, Any], where: str) -> dict[str, Any]:
    text = flat_text(block.get("content"), f"{where}.content")
    if block.get("is_error"):
        text = json.dumps({"error": text}, ensure_ascii=False)
    return {"role": "tool", "content": text, "tool_call_id": block.get("tool_use_id")}


def _content(blocks: list[dict[str, Any]], where: str) -> Any:
    if all(block.get("type") == "text" for block in blocks):
        return flat_text(blocks, where)
    return [_part(block, where) for block in blocks]


def _part(block: dict[str, Any], where: str) -> dict[str, Any]:
    kind, source = block.get("type"), block.get("source")
    if kind == "text":
        return {"type": "text", "text": flat_text(block, where)}
    if kind == "image" and isinstance(source, dict):
        url = source.get("url")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        if isinstance(url, str):
            return {"type": "image_url", "image_url": {"url": url}}
    raise refused(f"{where} has a block {str(kind)[:60]!a}, which is not offered", where)


def _tools(tools: list[Any] | None) -> list[dict[str, Any]]:
    found = []
    for number, tool in enumerate(tools or []):
        where = f"tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type", "custom") not in {"custom", None}:
            raise refused(f"{where} is a tool of the vendor's own, which is not offered", where)
        found.append(
            function_tool(
                tool.get("name"), tool.get("description"), tool.get("input_schema"), where
            )
        )
    return found


def _choice(choice: dict[str, Any] | None, extra: dict[str, Any]) -> Any:
    if choice is None:
        return None
    if choice.get("disable_parallel_tool_use"):
        extra["parallel_tool_calls"] = False
    kinds = {"auto": "auto", "any": "required", "none": "none"}
    kind = choice.get("type")
    if kind == "tool" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    if kind not in kinds:
        raise refused("tool_choice is none of auto, any, none and a tool's name", "tool_choice")
    return kinds[kind]


class MessagesVoice(Voice):
    """Answers of the messages API."""

    keep_alive = sse({"type": "ping"}, "ping")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._blocks = 0
        self._open: str | None = None

    def whole(self, spoken: Spoken) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if text := spoken.text or spoken.refusal:
            content.append({"type": "text", "text": text})
        for number, call in enumerate(spoken.tool_calls):
            content.append({**self._tool_use(number, call), "input": _input(call)})
        return {
            **self._message(spoken.model),
            "content": content,
            "stop_reason": _stop_reason(spoken),
            "usage": _usage(spoken),
        }

    def opening(self) -> Iterator[bytes]:
        yield self._event("message_start", message=self._message(self.model))

    def piece(self, delta: Piece) -> Iterator[bytes]:
        if delta.text:
            yield from self._block("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": delta.text})
        for number, call in enumerate(delta.tool_calls):
            index = int(call.get("index", number))
            block = {**self._tool_use(index, call), "input": {}}
            yield from self._block(f"tool {index}", block)
            if more := (call.get("function") or {}).get("arguments"):
                yield self._delta({"type": "input_json_delta", "partial_json": more})

    def ending(self, spoken: Spoken, rest: Piece) -> Iterator[bytes]:
        yield from self.piece(rest)
        if spoken.refusal:
            yield from self.piece(Piece(spoken.refusal))
        yield from self._block(None, {})
        yield self._event(
            "message_delta",
            delta={"stop_reason": _stop_reason(spoken), "stop_sequence": None},
            usage=_usage(spoken),
        )
        yield self._event("message_stop")

    def failing(self, body: dict[str, Any]) -> Iterator[bytes]:
        yield sse(body, "error")

    def _block(self, name: str | None, block: dict[str, Any]) -> Iterator[bytes]:
        """Begin a block, unless it is the open one; end the one before."""
        if name == self._open:
            return
        if self._open is not None:
            yield self._event("content_block_stop", index=self._blocks - 1)
        self._open = name
        if name is not None:
            yield self._event("content_block_start", index=self._blocks, content_block=block)
            self._blocks += 1

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", index=self._blocks - 1, delta=delta)

    def _event(self, kind: str, **members: Any) -> bytes:
        return sse({"type": kind, **members}, kind)

    def _message(self, model: str) -> dict[str, Any]:
        return {
            "id": self.name("msg_"),
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The provider counts the input when it has answered; message_delta tells it.
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def _tool_use(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function") or {}
        identifier = call.get("id") or self.name("toolu_", index)
        return {"type": "tool_use", "id": identifier, "name": function.get("name") or ""}


def _input(call: dict[str, Any]) -> Any:
    """The arguments as an object; what a model wrote as broken JSON is given as it is."""
    text = (call.get("function") or {}).get("arguments") or "{}"
    try:
        return json.loads(text)
    except ValueError:
        return {"invalid_json": text}


def _stop_reason(spoken: Spoken) -> str:
    return "refusal" if spoken.refusal else _STOP.get(spoken.finish_reason, "end_turn")


def _usage(spoken: Spoken) -> dict[str, Any]:
    usage = spoken.usage
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
    }
