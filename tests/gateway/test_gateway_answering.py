"""How answers leave: in one write each, in order, and never later than a turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from toolkit.gateway.answering import Corked, WholeProtocol

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
REQUEST = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


def corked(work: Callable[[Corked, Wire], Any], *, turns: int = 3) -> list[bytes]:
    """Return what reached the wire in some turns of the loop after ``work``."""

    async def play() -> list[bytes]:
        wire = Wire()
        work(Corked(wire, asyncio.get_running_loop()), wire)
        for _ in range(turns):
            await asyncio.sleep(0)
        return list(wire.written)

    return asyncio.run(play())


def test_head_and_body_are_one_write() -> None:
    """Whoever waits for an answer wakes up once."""

    def answer(transport: Corked, _: Wire) -> None:
        transport.write(HEAD)
        transport.write(b"body")

    assert corked(answer) == [HEAD + b"body"]


def test_a_head_alone_leaves_with_the_turn() -> None:
    """A stream whose first piece takes long must not hide that it has begun."""
    assert corked(lambda transport, _: transport.write(HEAD)) == [HEAD]
    assert corked(lambda transport, _: transport.write(HEAD), turns=0) == []


def test_closing_loses_nothing() -> None:
    """What is held is written before the connection ends."""

    def answer(transport: Corked, wire: Wire) -> None:
        transport.write(HEAD)
        transport.close()
        assert wire.written == [HEAD]

    assert corked(answer) == [HEAD]


def test_pieces_of_a_body_are_not_held() -> None:
    """Also a piece that reads like a head goes out, in its place."""

    def answer(transport: Corked, _: Wire) -> None:
        for piece in (HEAD, b"a", b"b", HEAD, b"c"):
            transport.write(piece)

    assert corked(answer) == [HEAD + b"a", b"b", HEAD + b"c"]


async def _app(scope: Any, _: Any, send: Any) -> None:
    length = [] if scope["path"] == "/stream" else [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"body"})


@pytest.mark.parametrize(("path", "writes"), [(b"whole", 1), (b"stream", 2)])
def test_what_uvicorn_writes_is_held_together(path: bytes, writes: int) -> None:
    """The contract with uvicorn's protocol: a head is its own write, and comes first."""

    async def play() -> list[bytes]:
        config = uvicorn.Config(_app, lifespan="off", ws="none", log_level="warning")
        config.load()
        protocol = WholeProtocol(config, ServerState(), {})
        wire = Wire()
        protocol.connection_made(wire)
        protocol.data_received(REQUEST % path)
        for _ in range(20):
            await asyncio.sleep(0)
        return wire.written

    written = asyncio.run(play())
    assert len(written) == writes
    assert written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"".join(written).count(b"body") == 1
    assert b"\r\n\r\n" in written[0]
    assert not written[0].endswith(b"\r\n\r\n")
