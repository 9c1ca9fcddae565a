"""A model provider on loopback that does what it is told: answers, streams, refuses, hangs, hangs up.

It speaks OpenAI's chat completions, embeddings, responses (text and tools) and model list, and
Anthropic's messages, streamed and not, and counts what it would have billed::

    with running_upstream() as upstream:
        upstream.tell(Say(status=429, retry_after_s=2), Say("Fine."))
        client = openai.OpenAI(base_url=upstream.openai_url, api_key="unused")

Replies are used in the order in which they were told, per model where a model is named; the last
one is used again and again.  Tokens are words: of all message texts, and of the answer.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn

__all__ = ["Call", "Heard", "OutageUpstream", "Say", "closed_port", "running_upstream"]

_FOREVER_S = 3600.0
_DIMENSIONS = 8


@dataclass(frozen=True)
class Call:
    """A call of a tool that the model asks for."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """One reply.

    Attributes:
        text: The answer; streamed by word.
        calls: Calls of tools, after the text.
        status: Anything but 200 is an error with OpenAI's or Anthropic's error body.
        retry_after_s: Sent as ``Retry-After``.
        headers: More headers.
        first_byte_s: Seconds before the first byte of the reply.
        between_s: Seconds between two events of a stream.
        cut_after: Hang up after this many events of a stream (0: right after the headers), or
            after half of a body that is not streamed.
        hang_up: Hang up without a byte.
        body: Sent as it is instead (not JSON, broken events …).
        content_type: Of ``body``.
        finish: OpenAI's ``finish_reason``; default ``stop``, or ``tool_calls``.
        refusal: OpenAI's ``message.refusal``.
        logprobs: One per token, sent when they are asked for.
        usage: Whether tokens are reported.
    """

    text: str | None = "Hello from the upstream."
    calls: tuple[Call, ...] = ()
    status: int = 200
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    first_byte_s: float = 0.0
    between_s: float = 0.0
    cut_after: int | None = None
    hang_up: bool = False
    body: bytes | None = None
    content_type: str = "application/json"
    finish: str | None = None
    refusal: str | None = None
    logprobs: tuple[float, ...] | None = None
    usage: bool = True

    @property
    def finish_reason(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")


HANG = Say(first_byte_s=_FOREVER_S)


@dataclass
class Heard:
    """One request, and whether its reply was sent to its end."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    finished: bool = False

    @property
    def model(self) -> str:
        return str(self.body.get("model"))


@dataclass
class OutageUpstream:
    """The server's memory; used from the tests' thread and the server's.

    Attributes:
        url: ``http://127.0.0.1:<port>``.
        heard: Every request that came, in order.
        billed_input, billed_output: Words of the requests that were answered with 200, whether or
            not anybody waited for the end: what a provider would write on its bill.
    """

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    billed_input: int = 0
    billed_output: int = 0
    _told: dict[str | None, list[Say]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def openai_url(self) -> str:
        """``base_url`` for OpenAI's clients."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """``base_url`` for Anthropic's clients."""
        return self.url

    def tell(self, *says: Say | str, model: str | None = None) -> None:
        """Set the coming replies, of every model or of one; a text is an answer."""
        with self._lock:
            self._told[model] = [Say(say) if isinstance(say, str) else say for say in says]

    def asked(self, model: str) -> int:
        """How many requests named this model."""
        return sum(heard.model == model for heard in self.heard)

    def next_say(self, model: str) -> Say:
        with self._lock:
            queue = self._told.get(model) or self._told.get(None) or [Say()]
            return queue.pop(0) if len(queue) > 1 else queue[0]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        raw = await _body(receive)
        body = json.loads(raw) if raw else {}
        heard = Heard(scope["path"], headers, body if isinstance(body, dict) else {})
        with self._lock:
            self.heard.append(heard)
        wire = _Wire(send)
        answer = _PATHS.get(scope["path"].removeprefix("/v1"))
        if answer is None:
            await wire.json({"error": {"message": "no such path", "type": "not_found"}}, 404)
            return
        say = self.next_say(heard.model)
        if await _outage(say, heard, wire):
            return
        with self._lock:
            self.billed_input += _words_in(heard.body)
            self.billed_output += _answer_words(say)
        heard.finished = await answer(say, heard, wire)


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _outage(say: Say, heard: Heard, wire: _Wire) -> bool:
    """Play what comes in place of an answer; returns whether something did."""
    if say.first_byte_s:
        await anyio.sleep(say.first_byte_s)
    if say.hang_up:
        wire.hang_up()
        return True
    wire.headers = dict(say.headers)
    if say.retry_after_s is not None:
        wire.headers["retry-after"] = f"{say.retry_after_s:g}"
    if say.body is not None:
        await wire.raw(say.body, say.status, say.content_type, cut=say.cut_after is not None)
        return True
    if say.status != 200:
        await wire.json(_error_body(say.status, heard.path), say.status)
        return True
    return False


def _error_body(status: int, path: str) -> dict[str, Any]:
    kind = {429: "rate_limit_error", 401: "authentication_error", 529: "overloaded_error"}
    error = {"type": kind.get(status, "api_error"), "message": f"the script says {status}"}
    if path.endswith("/messages"):
        return {"type": "error", "error": error}
    return {"error": {**error, "code": None, "param": None}}


class _Wire:
    """Sends one reply; ``stream`` stops without an end where the script says so."""

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._send = send
        self.headers: dict[str, str] = {}

    def hang_up(self) -> None:
        """Close the connection; ASGI has no word for it, so this reaches into uvicorn."""
        self._send.__self__.transport.abort()  # type: ignore[attr-defined]

    async def _start(self, status: int, content_type: str) -> None:
        named = {"content-type": content_type, **self.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def raw(self, body: bytes, status: int, content_type: str, *, cut: bool = False) -> None:
        if not cut:
            self.headers["content-length"] = str(len(body))
        await self._start(status, content_type)
        part = body[: len(body) // 2] if cut else body
        await self._send({"type": "http.response.body", "body": part, "more_body": cut})

    async def json(self, value: Any, status: int = 200) -> None:
        await self.raw(json.dumps(value).encode(), status, "application/json")

    async def answer(self, value: Any, say: Say) -> bool:
        cut = say.cut_after is not None
        await self.raw(json.dumps(value).encode(), 200, "application/json", cut=cut)
        return not cut

    async def stream(self, events: list[str], say: Say) -> bool:
        await self._start(200, "text/event-stream; charset=utf-8")
        for number, event in enumerate(events):
            if say.cut_after is not None and number >= say.cut_after:
                if number == 0:  # the headers have to leave before the cut
                    await self._send(
                        {"type": "http.response.body", "body": b": cut\n\n", "more_body": True}
                    )
                return False
            if number and say.between_s:
                await anyio.sleep(say.between_s)
            await self._send(
                {"type": "http.response.body", "body": event.encode(), "more_body": True}
            )
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part)
    elif isinstance(content, dict):
        yield from _texts(content.get("text") or content.get("content"))


def _words_in(body: dict[str, Any]) -> int:
    given = [body.get("messages"), body.get("input"), body.get("system"), body.get("instructions")]
    return sum(len(text.split()) for part in given for text in _texts(part))


def _answer_words(say: Say) -> int:
    said = [say.text or "", *(json.dumps(call.arguments) for call in say.calls)]
    return sum(len(text.split()) for text in said) or 1


def _pieces(text: str | None) -> list[str]:
    """The words with the blank after each; together they are the text."""
    if not text:
        return []
    words = text.split(" ")
    return [f"{word} " for word in words[:-1]] + [words[-1]]


# -- OpenAI: chat completions ---------------------------------------------------------------------


def _chat_usage(say: Say, heard: Heard) -> dict[str, Any]:
    prompt, answer = _words_in(heard.body), _answer_words(say)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def _chat_calls(say: Say) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for number, call in enumerate(say.calls)
    ]


def _chat_logprobs(values: tuple[float, ...]) -> dict[str, Any]:
    return {
        "content": [
            {"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in values
        ]
    }


async def _chat(say: Say, heard: Heard, wire: _Wire) -> bool:
    common = {"id": "chatcmpl-1", "created": 1, "model": heard.model}
    logprobs = say.logprobs if heard.body.get("logprobs") else None
    if heard.body.get("stream"):
        return await wire.stream(_chat_events(say, heard, common, logprobs), say)
    message: dict[str, Any] = {"role": "assistant", "content": say.text, "refusal": say.refusal}
    if say.calls:
        message["tool_calls"] = _chat_calls(say)
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": say.finish_reason,
        "logprobs": None if logprobs is None else _chat_logprobs(logprobs),
    }
    reply: dict[str, Any] = {"object": "chat.completion", **common, "choices": [choice]}
    if say.usage:
        reply["usage"] = _chat_usage(say, heard)
    return await wire.answer(reply, say)


def _chat_events(
    say: Say, heard: Heard, common: dict[str, Any], logprobs: tuple[float, ...] | None
) -> list[str]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _pieces(say.text)]
    if say.refusal:
        deltas.append({"refusal": say.refusal})
    for number, call in enumerate(_chat_calls(say)):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        half = len(arguments) // 2
        start = {**call, "index": number, "function": {"name": name, "arguments": ""}}
        parts = [start]
        parts += [
            {"index": number, "function": {"arguments": part}}
            for part in (arguments[:half], arguments[half:])
        ]
        deltas += [{"tool_calls": [part]} for part in parts]
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    if logprobs is not None:
        choices[-1]["logprobs"] = _chat_logprobs(logprobs)
    choices.append({"index": 0, "delta": {}, "finish_reason": say.finish_reason})
    chunk = {"object": "chat.completion.chunk", **common}
    chunks: list[dict[str, Any]] = [{**chunk, "choices": [choice]} for choice in choices]
    if say.usage and (heard.body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**chunk, "choices": [], "usage": _chat_usage(say, heard)})
    return [f"data: {json.dumps(one)}\n\n" for one in chunks] + ["data: [DONE]\n\n"]


# -- OpenAI: embeddings, models, responses --------------------------------------------------------


async def _embeddings(say: Say, heard: Heard, wire: _Wire) -> bool:
    given = heard.body.get("input")
    texts = [given] if isinstance(given, str) else [str(text) for text in given or []]
    data = [
        {"object": "embedding", "index": number, "embedding": _vector(text)}
        for number, text in enumerate(texts)
    ]
    words = _words_in(heard.body)
    usage = {"prompt_tokens": words, "total_tokens": words}
    reply = {"object": "list", "data": data, "model": heard.model, "usage": usage}
    return await wire.answer(reply, say)


def _vector(text: str) -> list[float]:
    raw = [float(sum(map(ord, text[place::_DIMENSIONS])) % 97 + 1) for place in range(_DIMENSIONS)]
    length = math.sqrt(sum(number * number for number in raw))
    return [number / length for number in raw]


async def _models(say: Say, heard: Heard, wire: _Wire) -> bool:
    model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "tests"}
    return await wire.answer({"object": "list", "data": [model]}, say)


def _response(say: Say, heard: Heard, status: str) -> dict[str, Any]:
    usage = _chat_usage(say, heard)
    output: list[dict[str, Any]] = []
    if say.text:
        part = {"type": "output_text", "text": say.text, "annotations": []}
        output.append(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        )
    output += [
        {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": f"call_{number}",
            "name": call.name,
            "arguments": json.dumps(call.arguments),
            "status": "completed",
        }
        for number, call in enumerate(say.calls)
    ]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": heard.model,
        "output": output if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": heard.body.get("tools") or [],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


async def _responses(say: Say, heard: Heard, wire: _Wire) -> bool:
    done = _response(say, heard, "completed")
    if not heard.body.get("stream"):
        return await wire.answer(done, say)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(say, heard, "in_progress")}
    ]
    for index, item in enumerate(done["output"]):
        started = {**item, "content": []} if "content" in item else {**item, "arguments": ""}
        place = {"output_index": index, "item_id": item["id"]}
        events.append(
            {"type": "response.output_item.added", "output_index": index, "item": started}
        )
        if item["type"] == "message":
            events += [
                {
                    "type": "response.output_text.delta",
                    **place,
                    "content_index": 0,
                    "delta": piece,
                    "logprobs": [],
                }
                for piece in _pieces(say.text)
            ]
        else:
            arguments = {"delta": item["arguments"]}
            events.append({"type": "response.function_call_arguments.delta", **place, **arguments})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": done})
    lines = [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"
        for number, event in enumerate(events)
    ]
    return await wire.stream(lines, say)


# -- Anthropic: messages --------------------------------------------------------------------------

_STOP = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use",
    "content_filter": "refusal",
}  # fmt: skip


async def _messages(say: Say, heard: Heard, wire: _Wire) -> bool:
    usage = {"input_tokens": _words_in(heard.body), "output_tokens": _answer_words(say)}
    blocks: list[dict[str, Any]] = [{"type": "text", "text": say.text}] if say.text else []
    blocks += [
        {"type": "tool_use", "id": f"toolu_{n}", "name": call.name, "input": call.arguments}
        for n, call in enumerate(say.calls)
    ]
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": heard.model,
        "content": blocks,
        "stop_reason": _STOP.get(say.finish_reason, say.finish_reason),
        "stop_sequence": None,
    }
    if say.usage:
        message["usage"] = usage
    if not heard.body.get("stream"):
        return await wire.answer(message, say)
    return await wire.stream([_anthropic_event(one) for one in _message_events(message)], say)


def _message_events(message: dict[str, Any]) -> list[dict[str, Any]]:
    usage = message.get("usage")
    begun = {**message, "content": [], "stop_reason": None}
    if usage:
        begun["usage"] = {**usage, "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            empty = {**block, "input": {}}
            written = json.dumps(block["input"])
            half = len(written) // 2
            deltas = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ("", written[:half], written[half:])
            ]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
    }
    if usage:
        ended["usage"] = {"output_tokens": usage["output_tokens"]}
    return [*events, ended, {"type": "message_stop"}]


def _anthropic_event(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


_PATHS: dict[str, Callable[[Say, Heard, _Wire], Awaitable[bool]]] = {
    "/chat/completions": _chat,
    "/embeddings": _embeddings,
    "/models": _models,
    "/responses": _responses,
    "/messages": _messages,
}


# -- running it -----------------------------------------------------------------------------------


@contextmanager
def running_upstream() -> Iterator[OutageUpstream]:
    """Serve one upstream on a free loopback port, in a thread of this process."""
    upstream = OutageUpstream()
    listener = socket.create_server(("127.0.0.1", 0))
    upstream.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        upstream, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield upstream
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()


def closed_port() -> int:
    """A loopback port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])
