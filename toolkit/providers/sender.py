"""JSON over HTTP to one provider: one client, kept-alive connections, bounded answers."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from toolkit.errors import ProviderError
from toolkit.providers.failures import failure, from_event, from_httpx, from_status, httpx
from toolkit.providers.plain import Connections, Reply
from toolkit.providers.routes import Route
from toolkit.providers.sse import EventParser
from toolkit.values import read_json

if TYPE_CHECKING:
    from toolkit.providers.wire import AiohttpTransport

__all__ = ["Sender", "Take"]

_MAX_BODY = 16 * 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024
_CONNECT_S = 10.0
_CONNECTIONS = 64
_DRAIN_S = 0.5
_PIECE = 64 * 1024

Take = Callable[[str, str], Awaitable[bool]]
"""Takes an event's name and data; returns whether the answer is whole."""


class Sender:
    """Posts JSON and maps every failure to :class:`ProviderError`.

    Args:
        base_url: Without a slash at the end.
        headers: Sent with every request; the key is one of them.
        key: The key, to keep it out of errors.
        proxy: URL of an HTTP proxy, or ``None``.
        ca_file: Extra certificate authorities (``SSL_CERT_FILE``), or ``None``.
        transport: Takes the place of the network, for tests.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        key: str | None = None,
        proxy: str | None = None,
        ca_file: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._key = key
        self._base = httpx.URL(base_url)
        # A URL is parsed once for each path, and headers are put together once for each kind.
        self._urls: dict[str, httpx.URL] = {}
        self._headers = {"accept-encoding": "gzip, deflate", **headers}
        secure = base_url.startswith("https://") and transport is None
        verify = _trust(ca_file) if secure else None
        if transport is None and proxy is not None:
            transport = httpx.AsyncHTTPTransport(
                verify=verify or False, proxy=proxy, trust_env=False
            )
        # The transport without httpx's client: redirects, cookies, ambient proxies and ~/.netrc
        # must not change a governed call.
        self._plain: Connections | None = None
        if transport is None and Connections.fit(self._base):
            self._plain = Connections(self._base, headers, most=_CONNECTIONS)
        self._transport: httpx.AsyncBaseTransport
        self._quick: AiohttpTransport | None = None
        if transport is None:
            # Loads aiohttp, which nobody needs who only reads the catalog.
            from toolkit.providers.wire import AiohttpTransport

            self._transport = self._quick = AiohttpTransport(verify, connections=_CONNECTIONS)
        else:
            self._transport = transport

    async def post(self, path: str, body: dict[str, Any], route: Route) -> dict[str, Any]:
        """Post one JSON object and return the JSON object of the answer.

        Raises:
            ProviderError: See :mod:`toolkit.providers.failures`.
        """
        with _mapped(route):
            if self._plain is not None:
                reply = await self._plain.post(
                    path,
                    _written(body, route),
                    connect_s=min(_CONNECT_S, route.timeout_s),
                    total_s=route.timeout_s,
                    limits=(_MAX_BODY, _MAX_ERROR_BODY),
                )
                return await self._told(reply, route)
            # httpx's timeouts count per read; a slow drip must not outlive the route's timeout.
            with anyio.fail_after(route.timeout_s):
                async with self._open(path, body, route) as response:
                    return await self._whole(response, route)

    async def stream(
        self, path: str, body: dict[str, Any], route: Route, take: Take
    ) -> dict[str, Any] | None:
        """Post one JSON object and pass on each event of the answer as it comes.

        The first event has to come within the route's ``first_byte_s``; comments do not count.

        Returns:
            ``None`` after the last event, or the JSON object of a server that does not stream.

        Raises:
            ProviderError: See :mod:`toolkit.providers.failures`; ``cut`` if the stream ended
                before ``take`` said that the answer is whole.
        """
        first = route.first_byte_s
        with _mapped(route):
            scope = anyio.CancelScope()
            if first is not None:
                scope.deadline = anyio.current_time() + first
            with anyio.fail_after(route.timeout_s), scope:
                async with self._open(path, body, route, accept="text/event-stream") as response:
                    kind = response.headers.get("content-type", "")
                    if response.status_code != 200 or kind.startswith("application/json"):
                        return await self._whole(response, route)
                    await self._events(response, route, take, scope)
                    return None
            cause = f"no first byte within {round(first or 0, 2):g} s"
            raise failure("timeout", cause, route, phase="first_byte")

    async def _events(
        self, response: httpx.Response, route: Route, take: Take, first: anyio.CancelScope
    ) -> None:
        whole = False
        with anyio.CancelScope() as drain:
            async for name, data in _parsed(response, route):
                first.deadline = math.inf
                if not whole and await take(name, data):
                    # What follows is the end of the body; reading it keeps the connection.
                    whole, drain.deadline = True, anyio.current_time() + _DRAIN_S
        if not whole:
            raise failure("cut", "the stream ended before the answer was whole", route)

    def fault(self, error: Any, route: Route) -> ProviderError:
        """Return what an error event of a stream means."""
        return from_event(error, route, key=self._key)

    @asynccontextmanager
    async def _open(
        self, path: str, body: dict[str, Any], route: Route, accept: str = "application/json"
    ) -> AsyncIterator[httpx.Response]:
        content = _written(body, route)
        connect = min(_CONNECT_S, route.timeout_s)
        response = await self._sent(path, content, accept, (connect, route.timeout_s))
        try:
            yield response
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _sent(
        self, path: str, content: bytes, accept: str, times: tuple[float, float]
    ) -> httpx.Response:
        headers, url = {**self._headers, "accept": accept}, self._url(path)
        if self._quick is not None:
            return await self._quick.send("POST", str(url), headers, content, times)
        timeout = httpx.Timeout(times[1], connect=times[0])
        request = httpx.Request(
            "POST", url, content=content, headers=headers, extensions={"timeout": timeout.as_dict()}
        )
        return await self._transport.handle_async_request(request)

    def _url(self, path: str) -> httpx.URL:
        if path not in self._urls:
            self._urls[path] = httpx.URL(f"{str(self._base).rstrip('/')}{path}")
        return self._urls[path]

    async def _told(self, reply: Reply, route: Route) -> dict[str, Any]:
        """As :meth:`_whole`, for an answer that is here."""
        if reply.status != 200 or reply.header(b"content-encoding"):
            held = _Held(reply.body or b"")
            return await self._whole(
                httpx.Response(reply.status, headers=reply.headers, stream=held), route
            )
        if reply.body is None:
            raise _too_large(route)
        return _parse(reply.body, route)

    async def _whole(self, response: httpx.Response, route: Route) -> dict[str, Any]:
        """Read a JSON answer, or raise what its status means."""
        limit = _MAX_BODY if response.status_code == 200 else _MAX_ERROR_BODY
        data = await _read(response, limit)
        if response.status_code != 200:
            raise from_status(
                response.status_code, response.headers, data or b"", route, key=self._key
            )
        if data is None:
            raise _too_large(route)
        return _parse(data, route)

    async def close(self) -> None:
        """Close the connections."""
        if self._plain is not None:
            self._plain.close()
        await self._transport.aclose()


class _Held(httpx.AsyncByteStream):
    """A body that is here, in pieces: what is compressed may not be unpacked in one step."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), _PIECE):
            yield self._body[start : start + _PIECE]


def _too_large(route: Route) -> ProviderError:
    return failure("invalid_body", f"the answer is larger than {_MAX_BODY} bytes", route)


def _written(body: dict[str, Any], route: Route) -> bytes:
    """A request as JSON."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        cause = f"the request cannot be written as JSON ({type(error).__name__})"
        raise failure("bad_request", cause, route) from None


@contextmanager
def _mapped(route: Route) -> Iterator[None]:
    """Turn what the network raises into :class:`ProviderError`."""
    problem: ProviderError
    try:
        yield
    except TimeoutError:
        # What was left of the route's time: some milliseconds less than the number in the file.
        limit = f"{round(route.timeout_s, 2):g} s"
        problem = failure("timeout", f"no answer within {limit}", route, phase="total")
    except (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        httpx.CookieConflict,
    ) as error:
        problem = from_httpx(error, route)
    except (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
        problem = failure("cut", f"the connection broke ({type(error).__name__})", route)
    else:
        return
    # Not chained: httpx's errors hold the request, and with it the key.
    raise problem from None


async def _parsed(response: httpx.Response, route: Route) -> AsyncIterator[tuple[str, str]]:
    """The events of an answer, bounded in size like every other answer."""
    parser, size = EventParser(), 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > _MAX_BODY:
            raise _too_large(route)
        try:
            events = list(parser.feed(part))
        except ValueError as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise failure("invalid_body", f"the stream is broken: {reason}", route) from None
        for event in events:
            yield event


async def _read(response: httpx.Response, limit: int) -> bytes | None:
    """The body, or ``None`` when it is larger than the limit."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def _value(data: bytes) -> Any:
    try:
        return read_json(data)
    except ValueError:  # half a surrogate pair, cut by a provider, is no JSON there
        return json.loads(data)


def _parse(data: bytes, route: Route) -> dict[str, Any]:
    try:
        parsed = _value(data)
    except (ValueError, RecursionError):
        raise failure("invalid_body", "the answer is not JSON", route) from None
    if not isinstance(parsed, dict):
        raise failure("invalid_body", "the answer is not a JSON object", route)
    return parsed


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
