"""Streamed answers put together again, in the shape of answers that are not streamed.

So one reader (:mod:`openai`, :mod:`anthropic`) understands both, and what is recorded of a stream
is what the same call would have recorded without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from toolkit.errors import ProviderError
from toolkit.providers.failures import failure
from toolkit.providers.routes import Route
from toolkit.providers.types import Delta, ModelAnswer, OnDelta

__all__ = ["ChatStream", "MessagesStream", "tell_whole"]

Fault = Callable[[Any, Route], ProviderError]


async def tell_whole(answer: ModelAnswer, on_delta: OnDelta | None) -> None:
    """Pass on an answer that came in one piece."""
    if on_delta is None:
        return
    calls = tuple({"index": n, **call} for n, call in enumerate(answer.tool_calls))
    if answer.text or calls:
        await on_delta(Delta(answer.text or "", calls))


def _object(data: str, route: Route) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise failure("invalid_body", "an event of the stream is not a JSON object", route)
    return value


class ChatStream:
    """The chunks of OpenAI's chat completions.

    Args:
        route: For errors.
        on_delta: Told each piece.
        fault: Maps an error that comes as an event.
    """

    def __init__(self, route: Route, on_delta: OnDelta | None, fault: Fault) -> None:
        self._route = route
        self._on_delta = on_delta
        self._fault = fault
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[Any] = []
        self._reply: dict[str, Any] = {}
        self._finish: str | None = None

    async def take(self, _: str, data: str) -> bool:
        """Take one event; returns whether the answer is whole.

        Raises:
            ProviderError: The event is broken, or is an error.
        """
        if data.strip() == "[DONE]":
            if self._finish is None:
                raise failure("cut", "the stream ended without a finish_reason", self._route)
            return True
        chunk = _object(data, self._route)
        if chunk.get("error"):
            raise self._fault(chunk["error"], self._route)
        for name in ("id", "model", "usage"):
            if chunk.get(name):
                self._reply[name] = chunk[name]
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise failure("invalid_body", "a chunk of the stream has no choices", self._route)
        for choice in choices[:1]:
            await self._choice(choice)
        return False

    async def _choice(self, choice: Any) -> None:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            raise failure("invalid_body", "a chunk of the stream has no delta", self._route)
        text, refusal = delta.get("content") or "", delta.get("refusal") or ""
        if not isinstance(text, str) or not isinstance(refusal, str):
            raise failure("invalid_body", "a chunk's content is not text", self._route)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            self._logprobs += logprobs["content"]
        self._finish = choice.get("finish_reason") or self._finish
        given = delta.get("tool_calls")
        pieces = tuple(self._call(call) for call in (given if isinstance(given, list) else []))
        if text:
            self._texts.append(text)
        if refusal:
            self._refusals.append(refusal)
        if self._on_delta is not None and (text or pieces):
            await self._on_delta(Delta(text, pieces))

    def _call(self, piece: Any) -> dict[str, Any]:
        """Add one piece of a call of a tool, and return it as it is passed on."""
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            raise failure("invalid_body", "a chunk's tool call is not a function", self._route)
        index = piece.get("index")
        if not isinstance(index, int):  # some servers leave it out: an id begins a new call
            index = len(self._calls) if piece.get("id") else max(len(self._calls) - 1, 0)
        if not 0 <= index <= len(self._calls):
            raise failure("invalid_body", "a chunk's tool call has a wrong index", self._route)
        part: dict[str, Any] = {"index": index}
        if index == len(self._calls):
            identifier = str(piece.get("id") or f"call_{index}")
            self._calls.append({"id": identifier, "function": {"name": "", "arguments": ""}})
            part |= {"id": identifier, "type": "function"}
        texts = {n: function[n] for n in ("name", "arguments") if isinstance(function.get(n), str)}
        for name, text in texts.items():
            self._calls[index]["function"][name] += text
        return {**part, "function": texts}

    def reply(self) -> dict[str, Any]:
        """Return the answer as if it had not been streamed."""
        message: dict[str, Any] = {"content": "".join(self._texts) if self._texts else None}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        if self._calls:
            message["tool_calls"] = self._calls
        choice: dict[str, Any] = {"message": message, "finish_reason": self._finish}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        return {**self._reply, "choices": [choice]}


class MessagesStream:
    """The events of Anthropic's Messages API.

    Args:
        route, on_delta, fault: See :class:`ChatStream`.
        answer_tool: The tool whose input is the answer to a schema.  With one, no text is passed
            on, because only the whole answer tells whether it is the answer.
    """

    def __init__(
        self, route: Route, on_delta: OnDelta | None, fault: Fault, answer_tool: str | None
    ) -> None:
        self._route = route
        self._on_delta = on_delta
        self._fault = fault
        self._answer_tool = answer_tool
        self._reply: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._calls: dict[int, int] = {}

    async def take(self, _: str, data: str) -> bool:
        """Take one event; returns whether the answer is whole.

        Raises:
            ProviderError: The event is broken, or is an error.
        """
        event = _object(data, self._route)
        kind = event.get("type")
        if kind == "error":
            raise self._fault(event.get("error"), self._route)
        try:
            if kind == "message_start":
                self._reply = dict(event["message"])
            elif kind == "content_block_start":
                await self._start(event["index"], dict(event["content_block"]))
            elif kind == "content_block_delta":
                await self._delta(event["index"], event["delta"])
            elif kind == "message_delta":
                self._reply["stop_reason"] = event["delta"].get("stop_reason")
                if event.get("usage"):
                    self._reply["usage"] = {**(self._reply.get("usage") or {}), **event["usage"]}
        except (KeyError, TypeError, ValueError, AttributeError):
            cause = f"an event {str(kind)[:40]!a} of the stream is not one"
            raise failure("invalid_body", cause, self._route) from None
        return kind == "message_stop"

    async def _start(self, index: int, block: dict[str, Any]) -> None:
        self._blocks[index] = block
        if block["type"] == "text":
            await self._tell(block["text"])
        elif block["type"] == "tool_use":
            self._inputs[index] = []
            if block["name"] != self._answer_tool:
                place = self._calls[index] = len(self._calls)
                function = {"name": block["name"], "arguments": ""}
                begun = {"index": place, "id": block["id"], "type": "function"}
                await self._tell("", {**begun, "function": function})

    async def _delta(self, index: int, delta: dict[str, Any]) -> None:
        if delta["type"] == "text_delta":
            self._blocks[index]["text"] += delta["text"]
            await self._tell(delta["text"])
        elif delta["type"] == "input_json_delta":
            part = delta["partial_json"]
            self._inputs[index].append(part)
            if index in self._calls and part:
                await self._tell("", {"index": self._calls[index], "function": {"arguments": part}})

    async def _tell(self, text: str, *calls: dict[str, Any]) -> None:
        text = "" if self._answer_tool else text
        if self._on_delta is not None and (text or calls):
            await self._on_delta(Delta(text, calls))

    def reply(self) -> dict[str, Any]:
        """Return the answer as if it had not been streamed.

        Raises:
            ProviderError: The input of a tool is not JSON.
        """
        for index, parts in self._inputs.items():
            try:
                given = json.loads("".join(parts) or "{}")
            except (ValueError, RecursionError):
                if self._reply.get("stop_reason") != "max_tokens":
                    cause = "the input of a tool call is not JSON"
                    raise failure("invalid_body", cause, self._route) from None
                given = {}
            self._blocks[index]["input"] = given
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return {**self._reply, "content": blocks}
