"""What every path of the gateway does with HTTP: read a JSON body, answer JSON, tell who connects."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import psutil
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.client import wire
from toolkit.errors import UsageError
from toolkit.ledger import process_name
from toolkit.values import read_json, write_json

__all__ = [
    "Via",
    "bearer_of",
    "caller_of",
    "gone",
    "headers_of",
    "json_reply",
    "log_fault",
    "reached_by",
    "read_body",
    "via",
]

_SCOPE_KEY = "toolkit.via"
_HEADERS_KEY = "toolkit.headers"


class Via(StrEnum):
    """How a request came in."""

    PROCESS = "process"  # the application is mounted in this process
    UNIX = "unix"  # the private socket, whose peer was checked
    LOOPBACK = "loopback"  # 127.0.0.1: any user of this machine can connect
    TEAM = "team"  # an address that other machines can reach


def reached_by(app: ASGIApp, how: Via) -> ASGIApp:
    """Return ``app`` for a listener; its requests say how they came in."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[_SCOPE_KEY] = how
        await app(scope, receive, send)

    return told


def via(request: Request) -> Via:
    """Return how a request came in."""
    return Via(request.scope.get(_SCOPE_KEY, Via.PROCESS))


def caller_of(request: Request) -> str | None:
    """Return ``host:pid:start`` of the process that connected; unknown over TCP."""
    pid = request.client.port if request.client and not request.client.host else 0
    try:
        return process_name(pid) if pid else None
    except psutil.Error:
        return None


def headers_of(request: Request) -> dict[str, str]:
    """Return a request's headers by name (lower case); of several with one name the first."""
    found: dict[str, str] | None = request.scope.get(_HEADERS_KEY)
    if found is None:
        found = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(request.scope["headers"])
        }
        request.scope[_HEADERS_KEY] = found
    return found


def gone(request: Request) -> bool:
    """Whether the client has hung up; its body has been read."""
    told = request.receive().__await__()
    try:
        next(told)  # the server answers at once if it is so, and else waits for news
    except StopIteration as answer:
        return bool(answer.value["type"] == "http.disconnect")
    told.close()
    return False


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """Return the ``Authorization`` value of a request; Anthropic's ``x-api-key`` counts as one."""
    shown = headers.get("authorization")
    key = headers.get("x-api-key")
    return f"Bearer {key}" if key and not shown else shown


async def read_body(request: Request) -> dict[str, Any]:
    """Return a request's JSON object; no body is an empty one.

    Raises:
        UsageError: It is too large, not JSON, or not an object.
    """
    too_large = f"the request is larger than the {wire.MAX_BODY_BYTES:,} bytes that are accepted"
    declared = headers_of(request).get("content-length") or "0"
    if not declared.isdecimal() or int(declared) > wire.MAX_BODY_BYTES:
        raise UsageError(too_large)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > wire.MAX_BODY_BYTES:
            raise UsageError(too_large)
        parts.append(part)
    try:
        body = read_json(b"".join(parts) or b"{}")
    except ValueError as error:
        raise UsageError(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError("the request is not a JSON object")
    return body


def log_fault(fault: BaseException) -> None:
    """Write where a fault of ours happened to the log; never its words, which may quote a secret."""
    places = "".join(traceback.format_tb(fault.__traceback__))
    print(f"a fault of the gateway: {type(fault).__name__}\n{places}", end="", file=sys.stderr)


class _Json(Response):
    """A response that has nothing to find out: its kind and length are known."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))


def json_reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response; ``headers`` say neither its kind nor its length."""
    return _Json(write_json(body), status, headers)
