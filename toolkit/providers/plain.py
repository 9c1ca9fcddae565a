"""One JSON answer over plain HTTP/1.1, with kept-alive connections: the shortest way there.

A gateway asks the servers of its own network (vLLM, llama.cpp, Ollama) without TLS, and there aiohttp
and httpx together cost a quarter of the gateway's part of a call.  This asks once and reads one body of
bounded size.  Streams, TLS and proxies stay with :mod:`toolkit.providers.wire` and httpx.

The format is RFC 9112, read by llhttp (``httptools``).  Errors are httpx's, told apart as in ``wire``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from toolkit.providers.failures import httpx

__all__ = ["Connections", "Reply"]

_MAX_HEAD = 64 * 1024
_IDLE_S = 15.0
"""Servers close what is silent for longer, and a request sent meanwhile would be lost."""


@dataclass(slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: Of the answer itself, not of what came before it (1xx).
        headers: As they came.
        body: ``None`` if it is larger than was allowed.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes | None = b""

    def header(self, name: bytes) -> bytes:
        """Return the first header of a name (lower case), or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), b"")


class Connections:
    """Connections to one server.

    Args:
        url: ``http://…``; its path is what the paths of requests follow.
        headers: Sent with every request; no names or values of strangers.
        most: Most connections at a time.
    """

    def __init__(self, url: httpx.URL, headers: Mapping[str, str], *, most: int) -> None:
        self._host, self._port = url.host, url.port or 80
        self._prefix = url.raw_path.rstrip(b"/")
        lines = {**headers, "host": url.netloc.decode("ascii"), "accept-encoding": "identity"}
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._idle: list[_Connection] = []
        self._seats = asyncio.Semaphore(most)

    @staticmethod
    def fit(url: httpx.URL) -> bool:
        """Whether an address is one that this can ask."""
        return url.scheme == "http" and bool(url.host) and not (url.userinfo or url.query)

    async def post(
        self,
        path: str,
        content: bytes,
        *,
        connect_s: float,
        total_s: float,
        limits: tuple[int, int],
    ) -> Reply:
        """Send a body and return the answer.

        Args:
            path: After the path of the server's own address.
            content: The body.
            connect_s: Seconds until a connection stands.
            total_s: Seconds until the last byte.
            limits: The most bytes of the body of a 200, and of any other.

        Raises:
            httpx.TransportError: No connection, or no whole answer.
            TimeoutError: The answer was not whole in time.
        """
        head = b"POST %b%b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (
            self._prefix, path.encode("ascii"), self._lines, len(content),
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        until = loop.time() + total_s
        await self._seat(until)
        try:
            connection = self._free(loop.time()) or await self._connect(loop, connect_s)
            reply = await connection.ask(head + content, until, limits)
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()
        finally:
            self._seats.release()
        return reply

    async def _seat(self, until: float) -> None:
        if not self._seats.locked():  # then it does not wait
            await self._seats.acquire()
            return
        try:
            async with asyncio.timeout_at(until):
                await self._seats.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use") from None

    def _free(self, now: float) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.since < _IDLE_S:
                return connection
            connection.close()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, within_s: float) -> _Connection:
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), self._host, self._port
                )
        except TimeoutError:
            raise httpx.ConnectTimeout("no answer in time") from None
        except OSError as error:
            raise httpx.ConnectError(type(error).__name__) from None
        return connection

    def close(self) -> None:
        """Close what is not in use; what is, closes after its answer."""
        while self._idle:
            self._idle.pop().close()


class _Connection(asyncio.Protocol):
    """One connection, which asks one thing at a time.

    Attributes:
        reusable: Whether another request may follow.
        since: When the last answer was whole, by the loop's clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._reply = Reply()
        self._parts: list[bytes] = []
        self._size = self._head = 0
        self._limits = (0, 0)
        self._reading_body = False
        self.reusable = False
        self.since = 0.0

    async def ask(self, request: bytes, until: float, limits: tuple[int, int]) -> Reply:
        """Send one request and return its answer; see :meth:`Connections.post`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise httpx.RemoteProtocolError("the provider hung up")
        self._waiter = self._loop.create_future()
        self._limits, self.reusable, self._head = limits, False, 0
        # One parser for each answer: it keeps nothing of the last one.
        self._parser = httptools.HttpResponseParser(self)
        self._begin()
        transport.write(request)
        timer = self._loop.call_at(until, self._fail, TimeoutError())
        try:
            return await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Hang up."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # -- what the loop tells ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self._waiter is None or self._waiter.done():  # nobody asked for this
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx.RemoteProtocolError("the answer is not HTTP"))
            return
        self._head += 0 if self._reading_body else len(data)
        if self._head > _MAX_HEAD:
            self._fail(httpx.RemoteProtocolError("the head of the answer is too long"))

    def eof_received(self) -> bool:
        """See :class:`asyncio.Protocol`."""
        self.reusable = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self.reusable, self._transport = False, None
        # Without a length the end of the connection is the end of the body (RFC 9112, 6.3).
        told = self._reply.header(b"content-length") or self._reply.header(b"transfer-encoding")
        if self._reading_body and exc is None and not told:
            self._end()
        started = self._head or self._reading_body
        cause = "the answer was cut off" if started else "the provider hung up"
        self._fail(httpx.RemoteProtocolError(cause))

    # -- what the parser tells ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Take the beginning of an answer; nobody has asked for a second one."""
        if self._waiter is None or self._waiter.done():
            self.reusable = False
            self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._reply.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the end of the head."""
        self._reply.status = self._parser.get_status_code()
        self._reading_body = self._reply.status >= 200  # noqa: PLR2004 - below: not the answer yet

    def on_body(self, part: bytes) -> None:
        """Take a part of the body, as long as it fits."""
        self._size += len(part)
        limit = self._limits[0 if self._reply.status == 200 else 1]  # noqa: PLR2004
        if self._size > limit:
            self._parts, self._reply.body = [], None
            self._end()
        else:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        """Take the end of the answer, or of one that only says that it is coming."""
        if not self._reading_body:
            self._begin()
        elif self._waiter is not None and not self._waiter.done():
            self.reusable = bool(self._parser.should_keep_alive())
            self._end()

    # -- ends ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._reply, self._parts, self._size = Reply(), [], 0
        self._reading_body = False

    def _end(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            if self._reply.body is not None:
                self._reply.body = b"".join(self._parts)
            self.since = self._loop.time()
            self._waiter.set_result(self._reply)

    def _fail(self, error: Exception) -> None:
        self.reusable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
