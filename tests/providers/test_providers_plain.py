"""Requests over plain HTTP: what is a whole answer, and which connections are used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.providers.plain import Connections, Reply

LIMITS = (1_000, 100)
OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\n{}"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop of the gateway, and Python's own."""
    return "asyncio", {"use_uvloop": request.param}


@dataclass
class Server:
    """Answers request n with the bytes of reply n (the last one again and again).

    Attributes:
        replies: Pieces that are sent one by one; ``None`` hangs up.
        heard: Heads and bodies.
        connections: How many were made.
    """

    replies: list[list[bytes | None]]
    heard: list[bytes] = field(default_factory=list)
    connections: int = 0
    hearing: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.heard.append(head + await reader.readexactly(length))
                self.hearing.set()
                for piece in self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]:
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def asked(
    *replies: list[bytes | None], most: int = 8
) -> AsyncIterator[tuple[Server, Connections]]:
    """A server, and connections to it."""
    behind = Server(list(replies))
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = httpx.URL(f"http://127.0.0.1:{port}/v1/")
    connections = Connections(url, {"authorization": "Bearer k"}, most=most)
    try:
        yield behind, connections
    finally:
        connections.close()
        server.close()
        await server.wait_closed()


async def post(connections: Connections, total_s: float = 20.0) -> Reply:
    return await connections.post("/ask", b"{}", connect_s=5, total_s=total_s, limits=LIMITS)


@pytest.mark.anyio
async def test_a_request_says_where_it_goes_and_keeps_its_connection():
    """Three requests, one connection; path, host, key and length are sent."""
    async with asked([WHOLE]) as (server, connections):
        for _ in range(3):
            reply = await post(connections)
            assert (reply.status, reply.body) == (200, b"{}")
    assert server.connections == 1
    head, _, body = server.heard[-1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/ask HTTP/1.1\r\n")
    assert b"authorization: Bearer k" in head
    assert b"host: 127.0.0.1:" in head
    assert body == b"{}"


@pytest.mark.parametrize(
    ("pieces", "status", "body", "again"),
    [
        ([OK + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"], 200, b"{}", True),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + WHOLE], 200, b"{}", True),
        ([OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"], 200, b"{}", False),
        ([OK + b"\r\n{", b"}", None], 200, b"{}", False),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b"", True),
        ([WHOLE + WHOLE], 200, b"{}", False),
        ([WHOLE + b"?"], 200, b"{}", False),
        ([OK + b"content-length: 1001\r\n\r\n" + b"x" * 1001], 200, None, False),
        ([b"HTTP/1.1 500 X\r\ncontent-length: 101\r\n\r\n" + b"x" * 101], 500, None, False),
    ],
    ids=["chunked", "1xx", "closing", "until-end", "empty", "two", "more", "large", "large-error"],
)  # fmt: skip
@pytest.mark.anyio
async def test_answers_end_where_their_format_says(pieces, status, body, again):
    """And a connection is used again only if nothing is left in it."""
    async with asked(pieces, [WHOLE]) as (server, connections):
        reply = await post(connections)
        assert (reply.status, reply.body) == (status, body)
        assert not reply.header(b"link")  # of what came before the answer
        assert (await post(connections)).body == b"{}"
    assert server.connections == (1 if again else 2)


@pytest.mark.parametrize(
    "pieces",
    [
        [None],
        [OK + b"content-length: 3\r\n\r\n{}", None],
        [OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", None],
        [b"SSH-2.0-hello\r\n"],
        [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
        [OK, *[b"x: " + b"y" * 30_000 + b"\r\n"] * 5, b"\r\n"],
        [b"HTTP/1.1 100 Continue\r\nx: " + b"y" * 30_000 + b"\r\n\r\n"] * 5,
        [OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", None],
    ],
    ids=["silence", "short", "half", "ssh", "upgrade", "long-head", "long-wait", "two-lengths"],
)
@pytest.mark.anyio
async def test_what_is_no_whole_answer_is_an_error(pieces):
    """Each of them is told as a broken answer, and the next request has another connection."""
    async with asked(pieces, [WHOLE]) as (server, connections):
        with pytest.raises(httpx.RemoteProtocolError):
            await post(connections)
        assert (await post(connections)).body == b"{}"
    assert server.connections == 2


@pytest.mark.anyio
async def test_a_connection_that_the_server_closed_is_not_used():
    """The server hangs up after its answer; the next request does not meet that."""
    async with asked([WHOLE, None], [WHOLE]) as (server, connections):
        await post(connections)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert (await post(connections)).body == b"{}"
    assert server.connections == 2


@pytest.mark.anyio
async def test_time_runs_out_for_the_answer_and_for_a_place():
    """A silent server ends in `TimeoutError`; who never got a connection was never sent."""
    async with asked([b""], most=1) as (server, connections):
        first = asyncio.ensure_future(post(connections, total_s=0.4))
        await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await post(connections, total_s=0.05)
        with pytest.raises(TimeoutError):
            await first
        assert len(server.heard) == 1
        server.replies = [[WHOLE]]
        assert (await post(connections)).body == b"{}"  # the place is free again


@pytest.mark.anyio
async def test_a_request_that_nobody_waits_for_leaves_no_connection_behind():
    """After a cancelled request its late answer is nobody's."""
    async with asked([b""], [WHOLE]) as (server, connections):
        task = asyncio.ensure_future(post(connections))
        await server.hearing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(connections)).body == b"{}"
    assert server.connections == 2


@pytest.mark.anyio
async def test_many_at_once_get_their_own_answers():
    """More requests than places: each is answered, over no more connections than places."""
    async with asked([WHOLE], most=4) as (server, connections):
        replies = await asyncio.gather(*(post(connections) for _ in range(32)))
    assert [reply.body for reply in replies] == [b"{}"] * 32
    assert server.connections == 4


@given(
    body=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    chunked=st.booleans(),
)
@settings(max_examples=25)
def test_a_body_is_the_same_however_it_is_cut(body, cuts, chunked):
    """Pieces of any size, counted or chunked."""
    if chunked:
        parts = b"".join(b"%x\r\n%b\r\n" % (1, bytes([one])) for one in body)
        sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"
    else:
        sent = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    pieces: list[bytes | None] = [sent[a:b] for a, b in pairwise(places)]

    async def ask() -> Reply:
        async with asked(pieces) as (_, connections):
            return await post(connections)

    assert asyncio.run(ask()).body == body
