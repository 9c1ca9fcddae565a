"""Anthropic's Messages API, spoken and heard in OpenAI's shapes.

Protocol: https://docs.anthropic.com/en/api/messages (version 2023-06-01).  Differences that this
module bridges: system messages are a field, tool calls and their results are content blocks,
turns alternate, a schema is asked for with a tool that the model has to call, and the input
count leaves cached tokens out.  ``seed`` has no counterpart and is not sent.  In a stream, an
answer to a schema comes in one piece at its end.
"""

from __future__ import annotations

import json
from typing import Any

from toolkit.errors import UsageError
from toolkit.providers.extras import anthropic_extra
from toolkit.providers.failures import failure
from toolkit.providers.prices import usage_bound
from toolkit.providers.sender import Sender
from toolkit.providers.streams import MessagesStream, tell_whole
from toolkit.providers.types import (
    Delta,
    EmbeddingAnswer,
    ModelAnswer,
    ModelRequest,
    OnDelta,
    Route,
)
from toolkit.values import Usage

__all__ = ["VERSION", "AnthropicProvider"]

VERSION = "2023-06-01"
_ANSWER_TOOL = "toolkit_answer"
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicProvider:
    """A provider behind ``POST {base_url}/v1/messages``.

    Args:
        sender: Carries the base URL, the key and the version header.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def complete(
        self, route: Route, request: ModelRequest, on_delta: OnDelta | None = None
    ) -> ModelAnswer:
        """See :class:`toolkit.providers.Provider`.

        Raises:
            UsageError: A message, tool or option has no counterpart in the Messages API.
        """
        body = _body(route, request)
        if on_delta is None and route.first_byte_s is None:
            reply = await self._sender.post("/v1/messages", body, route)
            return _read_reply(reply, route, request)
        own = None if request.schema is None else _ANSWER_TOOL
        stream = MessagesStream(route, on_delta, self._sender.fault, own)
        body["stream"] = True
        whole = await self._sender.stream("/v1/messages", body, route, stream.take)
        reply = stream.reply() if whole is None else whole
        answer = _read_reply(reply, route, request)
        if whole is not None:
            await tell_whole(answer, on_delta)
        elif on_delta is not None and own and answer.text:
            await on_delta(Delta(answer.text))
        return answer

    async def embed(self, route: Route, texts: list[str]) -> EmbeddingAnswer:  # noqa: ARG002
        """Refuse: Anthropic has no embeddings.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{route.target} has no embeddings: Anthropic does not offer any",
            where=f"registry/models.yaml: routes.{route.name}",
            next_step="use a route to an OpenAI-compatible embedding model",
        )

    async def close(self) -> None:
        """See :class:`toolkit.providers.Provider`."""
        await self._sender.close()


def _body(route: Route, request: ModelRequest) -> dict[str, Any]:
    extra = anthropic_extra(request.extra)
    system, messages = _messages(request.messages)
    tools = [_tool(tool) for tool in request.tools or []]
    choice = _choice(request.tool_choice) if tools else None
    if request.schema is not None:
        # With real tools beside it the model may work first; alone the answer tool is forced.
        choice = {"type": "any"} if tools else {"type": "tool", "name": _ANSWER_TOOL}
        tools.append(_answer_tool(request.schema))
    if extra.pop("parallel_tool_calls", True) is False and tools:
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    user = extra.pop("user", None)
    optional = {
        **extra,
        "metadata": {"user_id": user} if user else None,
        "system": system or None,
        "temperature": route.temperature if request.temperature is None else request.temperature,
        "stop_sequences": request.stop or None,
        "tools": tools or None,
        "tool_choice": choice,
    }
    return {
        "model": route.model,
        "max_tokens": request.answer_tokens(route),
        "messages": messages,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _answer_tool(schema: dict[str, Any]) -> dict[str, Any]:
    wrapped = schema if _is_object(schema) else _wrap(schema)
    return {
        "name": _ANSWER_TOOL,
        "description": "Gives the final answer in the form that was asked for.",
        "input_schema": wrapped,
    }


def _is_object(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "object"


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's input has to be an object; definitions stay where references look for them."""
    inner = {name: value for name, value in schema.items() if name not in ("$defs", "$schema")}
    wrapped: dict[str, Any] = {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
    }
    if "$defs" in schema:
        wrapped["$defs"] = schema["$defs"]
    return wrapped


def _messages(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Split off the system text and merge neighbours of one role."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        role = message["role"]
        if role in ("system", "developer"):
            system.append(_text(message.get("content"), number))
            continue
        if role not in ("user", "assistant", "tool"):
            raise _unusable(f"messages[{number}] has the role {role!a}")
        blocks = _blocks(message, number)
        speaker = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == speaker:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": speaker, "content": blocks})
    return "\n\n".join(system), turns


def _blocks(message: dict[str, Any], number: int) -> list[dict[str, Any]]:
    text = _text(message.get("content"), number)
    if message["role"] == "tool":
        identifier = message.get("tool_call_id")
        return [{"type": "tool_result", "tool_use_id": identifier, "content": text}]
    # Empty text blocks are refused.
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for call in message.get("tool_calls") or []:
        try:
            function = call["function"]
            arguments = json.loads(function["arguments"] or "{}")
            use = {"type": "tool_use", "id": call["id"], "name": function["name"]}
        except (KeyError, TypeError, ValueError, RecursionError):
            raise _unusable(f"messages[{number}] has a tool call that is not one") from None
        blocks.append({**use, "input": arguments})
    return blocks


def _text(content: Any, number: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
        raise _unusable(f"messages[{number}] has content that is not text")
    return "".join(part["text"] for part in parts)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _unusable("a tool is not a function description")
    return {
        "name": function["name"],
        "description": str(function.get("description") or ""),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }


def _choice(choice: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, dict):
        function = choice.get("function")
        if not isinstance(function, dict) or "name" not in function:
            raise _unusable("tool_choice names no function")
        return {"type": "tool", "name": function["name"]}
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    if choice not in kinds:
        raise _unusable(f"tool_choice is {choice!a}")
    return {"type": kinds[choice]}


def _unusable(cause: str) -> UsageError:
    return UsageError(
        f"the call cannot be put to Anthropic: {cause}",
        where="the arguments of the model call",
        next_step="use text messages of the roles system, user, assistant and tool",
    )


def _read_reply(reply: dict[str, Any], route: Route, request: ModelRequest) -> ModelAnswer:
    blocks = reply.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise failure("invalid_body", "the answer has no content blocks", route)
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    texts = [str(block.get("text") or "") for block in blocks if block.get("type") == "text"]
    text: str | None = "".join(texts) if texts else None
    finish = _FINISH.get(str(reply.get("stop_reason")), str(reply.get("stop_reason") or "stop"))
    answers = [call for call in calls if call.get("name") == _ANSWER_TOOL]
    if request.schema is not None and answers:
        given = answers[0].get("input")
        if not _is_object(request.schema):
            given = given.get("value") if isinstance(given, dict) else None
        text, calls = json.dumps(given, ensure_ascii=False), []
        finish = "length" if finish == "length" else "stop"
    usage = _usage(reply.get("usage"))
    model, response_id = reply.get("model"), reply.get("id")
    return ModelAnswer(
        text=text,
        usage=usage or usage_bound(route, request),
        usage_estimated=usage is None,
        provider=route.provider,
        model=model if isinstance(model, str) and model else route.model,
        tool_calls=[_tool_call(call, route) for call in calls],
        finish_reason=finish,
        response_id=response_id if isinstance(response_id, str) else None,
    )


def _tool_call(block: dict[str, Any], route: Route) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("id"), str):
        raise failure("invalid_body", "a tool_use block has no name or id", route)
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": arguments},
    }


def _usage(usage: Any) -> Usage | None:
    """The reported tokens; cached and cache-writing input is part of the input."""
    if not isinstance(usage, dict):
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    fresh, written, read = (usage.get(name) or 0 for name in names)
    output = usage.get("output_tokens")
    counts = (fresh, written, read, output)
    if "input_tokens" not in usage or not all(isinstance(c, int) and c >= 0 for c in counts):
        return None
    return Usage(fresh + written + read, int(usage["output_tokens"]), read)
