"""The paths of OpenAI's and Anthropic's APIs, each of them a call through the door."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Path

from toolkit.errors import (
    CallDenied,
    GatewayUnavailable,
    LedgerError,
    NotFound,
    ToolkitError,
    UsageError,
)
from toolkit.gateway.door import Door
from toolkit.gateway.doors.chat import ChatVoice, read_chat
from toolkit.gateway.doors.embeddings import embedding_reply, read_embeddings
from toolkit.gateway.doors.errors import Told, anthropic_error, openai_error, told
from toolkit.gateway.doors.flight import Flight, Flights, succeeded
from toolkit.gateway.doors.messages import MessagesVoice, read_messages
from toolkit.gateway.doors.models import anthropic_models, find_route, openai_models
from toolkit.gateway.doors.reading import Asked
from toolkit.gateway.doors.repeats import Claim, Repeats, Sent
from toolkit.gateway.doors.responses import ResponsesVoice, read_responses
from toolkit.gateway.doors.voice import Spoken, Voice
from toolkit.gateway.exchange import bearer_of, gone, headers_of, json_reply, log_fault, read_body
from toolkit.gateway.identity import Identity
from toolkit.gateway.modelling import OnDelta
from toolkit.providers import Route
from toolkit.values import CallKind, CallRecord, Intent, RunRecord

__all__ = ["Doors"]

# W3C Trace Context, 3.2: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
_HEADER = re.compile(r"^[\x21-\x7e]{1,200}$")
_PURPOSE_CHARS = 200
_UNCUT = {"streamed": "before-screening"}
"""The tag of a call whose client heard, piece by piece, what was cut out of the record."""
_GET = ("GET",)
_ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class _Protocol:
    """How a vendor reads requests and says answers."""

    read: Callable[[dict[str, Any]], Asked]
    voice: Callable[[Asked, Intent, str], Voice]
    error: Callable[[Told], dict[str, Any]]


_CHAT = _Protocol(read_chat, ChatVoice, openai_error)
_RESPONSES = _Protocol(read_responses, ResponsesVoice, openai_error)
_MESSAGES = _Protocol(read_messages, MessagesVoice, anthropic_error)


class _Unidentified(Exception):
    """The caller showed no valid token."""

    def __init__(self, error: ToolkitError) -> None:
        super().__init__(str(error))
        self.error = error


class Doors:
    """Answers SDKs.

    Args:
        door, identity: What decides, and who calls.
        on_request: Called at every request.
    """

    def __init__(self, door: Door, identity: Identity, on_request: Callable[[], None]) -> None:
        self._door = door
        self._identity = identity
        self._on_request = on_request
        self._flights = Flights()
        self._repeats = Repeats(door.ledger.lookup, time.time_ns() // 1000)

    def routes(self) -> list[Path]:
        """Return the paths."""
        return [
            self._path("/v1/chat/completions", self._speaking(_CHAT), openai_error),
            self._path("/v1/responses", self._speaking(_RESPONSES), openai_error),
            self._path("/v1/embeddings", self._embeddings, openai_error),
            self._path("/v1/messages", self._speaking(_MESSAGES), anthropic_error),
            self._path("/v1/models", self._models, None, methods=_GET),
            self._path("/v1/models/{model:path}", self._models, None, methods=_GET),
            self._path("/v1/{rest:path}", self._unknown, None, methods=_ANY),
        ]

    async def start_cell(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Hear that a cell of the caller's notebook begins (the toolkit's own protocol)."""
        cell = body.get("cell")
        if not isinstance(cell, str) or not _HEADER.match(cell):
            raise UsageError("the cell has no usable id")
        self._repeats.start_cell(str(run.token_digest), cell)
        return {"cell": cell}

    # -- requests -------------------------------------------------------------------------------

    def _path(
        self,
        path: str,
        answer: Callable[[Request, RunRecord], Awaitable[Response]],
        error: Callable[[Told], dict[str, Any]] | None,
        *,
        methods: tuple[str, ...] = ("POST",),
    ) -> Path:
        async def endpoint(request: Request) -> Response:
            self._on_request()
            body = error or _error_for(request)
            try:
                return await answer(request, await self._who(request))
            except _Unidentified as unknown:
                return _failed(told(unknown.error, unidentified=True), body)
            except ToolkitError as known:
                return _failed(told(known), body)
            except (asyncio.CancelledError, TimeoutError):
                # Only the end of this process cancels a request; and a call that takes longer than
                # clients wait is found again by the next request.
                return _failed(told(GatewayUnavailable("the call has not ended yet")), body)
            except Exception as surprise:  # noqa: BLE001 - a fault of ours, told without its insides
                log_fault(surprise)
                hidden = ToolkitError(f"the gateway failed: {type(surprise).__name__}")
                return _failed(told(hidden), body)

        return Path(path, endpoint, methods=list(methods))

    async def _who(self, request: Request) -> RunRecord:
        shown = bearer_of(headers_of(request))
        run = self._identity.quickly(shown)
        if run is not None:
            return run
        try:
            return await asyncio.to_thread(self._identity.who, shown)
        except CallDenied as error:
            raise _Unidentified(error) from error

    def _speaking(self, protocol: _Protocol) -> Callable[[Request, RunRecord], Awaitable[Response]]:
        async def answer(request: Request, run: RunRecord) -> Response:
            asked = protocol.read(await read_body(request))
            route = find_route(self._door.governance, asked.model)
            claim = await self._claim(request, run, route, asked.arguments)

            def ask(hear: OnDelta | None) -> Awaitable[CallRecord]:
                return self._door.model(run, claim.intent, on_delta=hear)

            voice = protocol.voice(asked, claim.intent, route.model)
            if asked.stream:
                flight = self._flights.start(claim, ask)
                return await self._stream(request, flight, voice, protocol)
            call = await self._landed(request, claim, self._flights.whole(ask))
            return json_reply(voice.whole(Spoken.of(call)), headers=_headers(call))

        return answer

    async def _embeddings(self, request: Request, run: RunRecord) -> Response:
        asked = read_embeddings(await read_body(request))
        route = find_route(self._door.governance, asked.model)
        claim = await self._claim(request, run, route, asked.arguments)
        whole = self._flights.whole(lambda _: self._door.embed(run, claim.intent))
        call = await self._landed(request, claim, whole)
        return json_reply(embedding_reply(asked, call), headers=_headers(call))

    async def _models(self, request: Request, _: RunRecord) -> Response:
        only = request.path_params.get("model")
        listed = anthropic_models if "anthropic-version" in request.headers else openai_models
        return json_reply(listed(self._door.governance, only))

    async def _unknown(self, request: Request, _: RunRecord) -> Response:
        raise NotFound(
            f"the gateway does not offer {request.method} {request.url.path[:100]}",
            next_step="see docs/sdks.md for what is offered",
        )

    # -- calls ----------------------------------------------------------------------------------

    async def _claim(
        self, request: Request, run: RunRecord, route: Route, arguments: dict[str, Any]
    ) -> Claim:
        """Return which call a request is; see ``repeats``."""
        headers, token = headers_of(request), str(run.token_digest)
        trace = headers.get("traceparent", "")
        parent = _plain(headers.get("x-toolkit-parent"), "x-toolkit-parent")
        intent = Intent(
            run_id=run.run_id,
            kind=CallKind.MODEL,
            name=route.name,
            arguments=arguments,
            parent=parent,
            agent=self._door.at_work(run.run_id) if parent is None else None,
            cell=self._repeats.cell(token),
            case_id=_plain(headers.get("x-toolkit-case"), "x-toolkit-case"),
            purpose=(headers.get("x-toolkit-purpose") or "")[:_PURPOSE_CHARS] or None,
            traceparent=trace if _TRACEPARENT.match(trace) else None,
        )
        try:
            _ = intent.arguments_digest
        except ValueError as error:
            raise UsageError(f"the request cannot be recorded: {error}") from None
        if self._repeats.must_look(token, intent, run.created_us or run.started_us or 0):
            await asyncio.to_thread(self._repeats.recover, token, intent)
        count = headers.get("x-stainless-retry-count", "0")
        key = _plain(headers.get("idempotency-key"), "idempotency-key")
        sent = Sent(int(count) if count.isdecimal() and len(count) < 6 else 0, key)
        return self._repeats.claim(token, intent, sent)

    async def _landed(
        self, request: Request, claim: Claim, ending: Awaitable[CallRecord]
    ) -> CallRecord:
        """Wait for a call; remember whether anybody was left to hear of it."""
        try:
            call = await ending
        except ToolkitError:
            claim.ended(None, heard=not gone(request))
            raise
        claim.ended(call, heard=not gone(request))
        return succeeded(call)

    async def _stream(
        self, request: Request, flight: Flight, voice: Voice, protocol: _Protocol
    ) -> Response:
        """Answer piece by piece; what fails before the first piece is an error with its status."""
        await flight.began()
        if flight.task.done():
            await self._landed(request, flight.claim, flight.record())

        async def events() -> AsyncIterator[bytes]:
            heard = False
            try:
                async for event in flight.events(
                    voice, lambda error: protocol.error(told(error)), self._note_uncut
                ):
                    yield event
                heard = True
            finally:
                done = flight.task.done() and flight.task.exception() is None
                flight.claim.ended(flight.task.result() if done else None, heard=heard)
                flight.claim.refused = flight.claim.refused and flight.task.done()

        headers = {"cache-control": "no-store", "x-toolkit-call": flight.claim.intent.key}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def _note_uncut(self, call: CallRecord) -> None:
        """Record that a client was told more than is written: a piece cannot be taken back."""
        with contextlib.suppress(LedgerError):  # the answer is recorded, and was given
            await self._door.writer.promise(lambda session: session.tag(call, _UNCUT))


def _headers(call: CallRecord) -> dict[str, str]:
    return {"x-toolkit-call": call.key, "x-request-id": call.key.rpartition(":")[2][:32]}


def _failed(what: Told, body: Callable[[Told], dict[str, Any]]) -> Response:
    return json_reply(body(what), what.status, what.headers)


def _error_for(request: Request) -> Callable[[Told], dict[str, Any]]:
    return anthropic_error if "anthropic-version" in request.headers else openai_error


def _plain(value: str | None, name: str) -> str | None:
    if value is not None and not _HEADER.match(value):
        raise UsageError(f"{name} holds characters that are not accepted", where=name)
    return value
