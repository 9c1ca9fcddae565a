"""OpenAI's responses: ``POST /v1/responses``, without server-side state.

Protocol: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.gateway.doors.chat import read_sampling, read_schema
from toolkit.gateway.doors.reading import Asked, Body, flat_text, function_tool, refused
from toolkit.gateway.doors.voice import Piece, Spoken, Voice, sse

__all__ = ["ResponsesVoice", "read_responses"]

# Bookkeeping.  ``include`` asks for more of what there is not; ``store``: nothing is kept here but
# the ledger's record, whatever it says.
_IGNORED = (
    "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "include", "store", "stream_options", "max_tool_calls",
)  # fmt: skip
_EXTRA = ("top_p", "parallel_tool_calls", "top_logprobs")


def read_responses(value: dict[str, Any]) -> Asked:
    """Translate a request body.

    Raises:
        UsageError: It cannot be translated; the message names the member.
    """
    body = Body(value, "OpenAI's responses")
    model = body.need("model", str)
    instructions = body.take("instructions", str)
    messages = [{"role": "system", "content": instructions}] if instructions else []
    arguments: dict[str, Any] = {"messages": messages + _messages(body.need("input", str, list))}
    extra: dict[str, Any] = {}
    arguments["max_tokens"] = body.take("max_output_tokens", int)
    read_sampling(body, arguments)
    text = body.take("text", dict) or {}
    read_schema(text.get("format"), arguments, extra)
    reasoning = body.take("reasoning", dict) or {}
    for name, item in (("verbosity", text), ("reasoning_effort", reasoning)):
        if (found := item.get(name.removeprefix("reasoning_"))) is not None:
            extra[name] = found
    arguments["tools"] = _tools(body.take("tools", list)) or None
    choice = body.take("tool_choice", str, dict)
    arguments["tool_choice"] = _choice(choice) if arguments["tools"] else None
    if body.take("truncation", str, default="disabled") != "disabled":
        raise refused("truncation is not offered: the gateway keeps no conversation", "truncation")
    if body.take("service_tier", str, default="auto") not in {"auto", "default"}:
        raise refused("service_tier changes the price and is not offered", "service_tier")
    if body.take("background", bool):
        raise refused("background is not offered: an answer belongs to its request", "background")
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.take(name):
            raise refused(f"{name} is not offered: send the whole conversation as input", name)
    stream = bool(body.take("stream", bool))
    body.ignore(_IGNORED)
    body.ignore(() if arguments["tools"] else ("parallel_tool_calls",))
    extra.update(body.rest(_EXTRA))
    arguments["extra"] = extra or None
    shown = {"instructions": instructions, "tools": value.get("tools") or [], "text": text}
    shown |= {name: value.get(name) for name in ("temperature", "top_p", "max_output_tokens")}
    shown |= {"tool_choice": choice or "auto", "metadata": value.get("metadata") or {}}
    given = {name: item for name, item in arguments.items() if item is not None}
    return Asked(model, given, stream, shown)


def _tools(tools: list[Any] | None) -> list[dict[str, Any]]:
    found = []
    for number, tool in enumerate(tools or []):
        where = f"tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise refused(f"{where} is not a function: a vendor's own tools are not offered", where)
        found.append(
            function_tool(tool.get("name"), tool.get("description"), tool.get("parameters"), where)
        )
    return found


def _choice(choice: Any) -> Any:
    if choice is None or isinstance(choice, str):
        return choice
    if choice.get("type") != "function" or not isinstance(choice.get("name"), str):
        raise refused("tool_choice names no function", "tool_choice")
    return {"type": "function", "function": {"name": choice["name"]}}


def _messages(given: str | list[Any]) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    found: list[dict[str, Any]] = []
    for number, item in enumerate(given):
        where = f"input[{number}]"
        if not isinstance(item, dict):
            raise refused(f"{where} is not an object", where)
        kind = item.get("type", "message")
        if kind == "message":
            found.append(_message(item, where))
        elif kind == "function_call":
            _add_call(found, item, where)
        elif kind == "function_call_output":
            text = flat_text(item.get("output"), f"{where}.output")
            found.append({"role": "tool", "content": text, "tool_call_id": item.get("call_id")})
        elif kind != "reasoning":  # a model's thoughts are no part of a conversation here
            raise refused(f"{where} is a {str(kind)[:60]}, which is not offered", where)
    return found


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role = item.get("role")
    if not isinstance(role, str):
        raise refused(f"{where} has no role", where)
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    if any(isinstance(part, dict) and part.get("type") == "input_image" for part in parts):
        content = [_part(part, where) for part in parts]
    else:
        content = flat_text(content, f"{where}.content")
    return {"role": "system" if role == "developer" else role, "content": content}


def _part(part: Any, where: str) -> dict[str, Any]:
    if isinstance(part, dict) and part.get("type") == "input_image" and part.get("image_url"):
        image = {"url": part["image_url"], "detail": part.get("detail") or "auto"}
        return {"type": "image_url", "image_url": image}
    return {"type": "text", "text": flat_text(part, where)}


def _add_call(found: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    """Calls of tools belong to the assistant's message before them."""
    name, arguments = item.get("name"), item.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise refused(f"{where} is not a function call", where)
    call = {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": None})
    found[-1].setdefault("tool_calls", []).append(call)


class ResponsesVoice(Voice):
    """Answers of the responses API."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = 0
        self._items: list[dict[str, Any]] = []

    def whole(self, spoken: Spoken) -> dict[str, Any]:
        items = [self._text_item(spoken.text or "")] if spoken.text or spoken.refusal else []
        if spoken.refusal and items:
            refusal = {"type": "refusal", "refusal": spoken.refusal}
            items[0]["content"] = [refusal]
        items += [self._call_item(n, call) for n, call in enumerate(spoken.tool_calls)]
        return self._response(_status(spoken), items, spoken)

    def opening(self) -> Iterator[bytes]:
        started = self._response("in_progress", [], None)
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)

    def piece(self, delta: Piece) -> Iterator[bytes]:
        if delta.text:
            if not (self._items and self._items[-1]["type"] == "message"):
                yield from self._close()
                yield from self._open(self._text_item(""))
            self._items[-1]["content"][0]["text"] += delta.text
            yield self._event(
                "response.output_text.delta",
                **self._place(),
                content_index=0,
                delta=delta.text,
                logprobs=[],
            )
        for number, call in enumerate(delta.tool_calls):
            yield from self._call_piece(int(call.get("index", number)), call)

    def ending(self, spoken: Spoken, rest: Piece) -> Iterator[bytes]:
        yield from self.piece(rest)
        yield from self._close()
        status = _status(spoken)
        response = self._response(status, self._items, spoken)
        yield self._event(f"response.{status}", response=response)

    def failing(self, body: dict[str, Any]) -> Iterator[bytes]:
        error = body["error"]
        yield self._event("error", code=error["code"], message=error["message"], param=None)

    # -- items ----------------------------------------------------------------------------------

    def _call_piece(self, index: int, call: dict[str, Any]) -> Iterator[bytes]:
        function = call.get("function") or {}
        wanted = self._call_item(index, call)
        if not (self._items and self._items[-1]["id"] == wanted["id"]):
            yield from self._close()
            yield from self._open({**wanted, "arguments": ""})
        more = function.get("arguments") or ""
        if more:
            self._items[-1]["arguments"] += more
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=more)

    def _open(self, item: dict[str, Any]) -> Iterator[bytes]:
        self._items.append(item)
        shown = {**item, "status": "in_progress"}
        if item["type"] == "message":
            shown["content"] = []
        place = self._place()
        yield self._event(
            "response.output_item.added", output_index=place["output_index"], item=shown
        )
        if item["type"] == "message":
            yield self._event(
                "response.content_part.added", **place, content_index=0, part=item["content"][0]
            )

    def _close(self) -> Iterator[bytes]:
        if not self._items:
            return
        item, place = self._items[-1], self._place()
        if item["type"] == "message":
            part = item["content"][0]
            yield self._event(
                "response.output_text.done",
                **place,
                content_index=0,
                text=part["text"],
                logprobs=[],
            )
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        else:
            yield self._event(
                "response.function_call_arguments.done",
                **place,
                name=item["name"],
                arguments=item["arguments"],
            )
        yield self._event(
            "response.output_item.done", output_index=place["output_index"], item=item
        )

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _text_item(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {
            "id": self.name("msg_", len(self._items)),
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }

    def _call_item(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function") or {}
        return {
            "id": self.name("fc_", index),
            "type": "function_call",
            "status": "completed",
            "call_id": call.get("id") or self.name("call_", index),
            "name": function.get("name") or "",
            "arguments": function.get("arguments") or "",
        }

    # -- envelopes ------------------------------------------------------------------------------

    def _event(self, kind: str, **members: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return sse(body, kind)

    def _response(
        self, status: str, items: list[dict[str, Any]], spoken: Spoken | None
    ) -> dict[str, Any]:
        options = self.asked.options
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        if cut and spoken is not None and spoken.finish_reason == "content_filter":
            cut = {"reason": "content_filter"}
        return {
            "id": self.name("resp_"),
            "object": "response",
            "created_at": self.created if spoken is None else spoken.created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self.model if spoken is None else spoken.model,
            "output": items,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "reasoning": None,
            "usage": None if spoken is None else _usage(spoken),
            **options,
        }


def _status(spoken: Spoken) -> str:
    return "incomplete" if spoken.finish_reason in {"length", "content_filter"} else "completed"


def _usage(spoken: Spoken) -> dict[str, Any]:
    usage = spoken.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
