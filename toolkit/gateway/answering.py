"""How answers leave the gateway: the head of an answer and its body in one write.

uvicorn writes them one after the other.  Each write to a socket wakes who waits at its other end, so a
caller woke up for a head, found no body, and slept again: 0.05 ms of every call on either side.

``HttpToolsProtocol`` is uvicorn's own and named in its documentation as ``--http httptools``; that it
hands what it writes to the transport it was given, head first, is held by ``test_gateway_answering``.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Corked", "WholeProtocol"]

_HEAD = b"HTTP/1.1 "


class Corked:
    """A transport that holds the head of an answer until its body comes, for one turn of the loop at most.

    Everything else is the transport's own.

    Args:
        transport: Where it writes.
        loop: The loop that it is used in.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, or hold what begins an answer."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._let_go)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close, after what is held."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)


class WholeProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol over a corked transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        corked = Corked(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", corked))
