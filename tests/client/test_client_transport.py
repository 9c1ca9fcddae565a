"""What carries requests over a unix socket: kept connections, and every way in which one is lost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from toolkit.client import Connection
from toolkit.client.transport import LostRequest, OverSocket, OverTcp, Reply, read_reply
from toolkit.errors import CallDenied, GatewayUnavailable, UsageError

HEADERS = {"content-type": "application/json", "authorization": "Bearer t"}
Script = Callable[[socket.socket, bytes], bool]
"""Answers one request; returns whether the connection stays open."""


def answer(
    body: bytes = b'{"ok": true}', *, more: bytes = b"", cut: int = 0, stay: bool = True
) -> Script:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n" + more
    whole = head + b"content-length: %d\r\n\r\n" % len(body) + body

    def script(peer: socket.socket, _: bytes) -> bool:
        peer.sendall(whole[: len(whole) - cut])
        return stay and not cut

    return script


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Script:
    def script(peer: socket.socket, _: bytes) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            peer.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        peer.sendall(end)
        return bool(end)

    return script


class Peer:
    """A server that follows a script, and remembers what came on which connection."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.script: Script = answer()
        self.requests: list[tuple[int, bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self.connections = 0
        self.hung_up = threading.Semaphore(0)
        self.talk: Callable[[socket.socket], None] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self.connections += 1
                args = (peer, self.connections)
                threading.Thread(target=self._talk, args=args, daemon=True).start()

    def _talk(self, peer: socket.socket, number: int) -> None:
        with peer, suppress(OSError):
            if self.talk is not None:
                self.talk(peer)
            else:
                self._follow(peer, number)
        self.hung_up.release()

    def _follow(self, peer: socket.socket, number: int) -> None:
        while (request := self._request(peer)) is not None:
            self.requests.append((number, request))
            if not self.script(peer, request):
                return

    @staticmethod
    def _request(peer: socket.socket) -> bytes | None:
        told = b""
        while b"\r\n\r\n" not in told:
            part = peer.recv(65536)
            if not part:
                return None
            told += part
        head, _, body = told.partition(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.lower().splitlines()
            if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += peer.recv(1 << 20)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    served = Peer(tmp_path_factory.mktemp("t") / "s")
    yield served
    served.close()


@pytest.fixture
def carrier(peer: Peer) -> Iterator[OverSocket]:
    made = OverSocket(peer.path)
    yield made
    made.close()


def ask(carrier: OverSocket, body: bytes = b"{}", timeout_s: float | None = None) -> dict:
    with carrier.post("/v1/x", body, HEADERS, timeout_s) as reply:
        return read_reply(reply)


def test_a_connection_is_kept_and_a_request_comes_whole(peer: Peer, carrier: OverSocket) -> None:
    """Two requests, one connection; head, token and body as they were given."""
    assert ask(carrier) == ask(carrier, b'{"n": 1}') == {"ok": True}
    (first, _), (second, told) = peer.requests
    assert first == second == peer.connections == 1
    assert told.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer t\r\n" in told
    assert told.endswith(b'\r\n\r\n{"n": 1}')


def test_a_large_body_comes_whole(peer: Peer, carrier: OverSocket) -> None:
    """More than any buffer of the system holds."""
    body = b'"' + b"x" * (8 << 20) + b'"'
    ask(carrier, body)
    assert peer.requests[0][1].endswith(body)


@pytest.mark.parametrize(
    "ending", [answer(stay=False), answer(more=b"connection: close\r\n", stay=False)]
)
def test_a_connection_that_ended_is_not_used_again(
    peer: Peer, carrier: OverSocket, ending: Script
) -> None:
    """The next request goes over a new one, also where the end was announced."""
    peer.script = ending
    for _ in range(3):
        assert ask(carrier) == {"ok": True}
        assert peer.hung_up.acquire(timeout=20)  # before that, nobody could know
    assert [number for number, _ in peer.requests] == [1, 2, 3]


@pytest.mark.parametrize(
    "script",
    [
        lambda *_: False,
        answer(cut=4),
        answer(cut=30),
        chunked(b'{"ok":', b" true}", end=b""),
        lambda peer, _: bool(peer.sendall(b"no HTTP at all\r\n\r\n")),
    ],
    ids=["nothing", "in the body", "in the head", "in a chunk", "nonsense"],
)
def test_an_answer_that_is_not_whole_is_lost(
    peer: Peer, carrier: OverSocket, script: Script
) -> None:
    """A gateway had the request; the next one goes through."""
    peer.script = script
    with pytest.raises((LostRequest, GatewayUnavailable)) as lost:
        ask(carrier)
    assert not isinstance(lost.value, LostRequest) or lost.value.reached
    peer.script = answer()
    assert ask(carrier) == {"ok": True}


def test_what_is_no_json_object_is_an_answer_cut_off(peer: Peer, carrier: OverSocket) -> None:
    """Whatever came in one piece is read."""
    peer.script = answer(b"[1]")
    with pytest.raises(GatewayUnavailable, match="cut off"):
        ask(carrier)


def test_nobody_listens(tmp_path: Path) -> None:
    """No gateway had the request."""
    with pytest.raises(LostRequest, match="FileNotFoundError") as lost:
        ask(OverSocket(str(tmp_path / "s")))
    assert not lost.value.reached


def test_an_answer_may_come_in_pieces(peer: Peer, carrier: OverSocket) -> None:
    """Chunks are read as they come, and the connection is kept."""
    peer.script = chunked(b"abc", b"d" * 200_000)
    for _ in range(2):
        with carrier.post("/v1/x", b"", HEADERS) as reply:
            assert (reply.status, b"".join(reply.pieces)) == (200, b"abc" + b"d" * 200_000)
    assert peer.connections == 1


def test_an_answer_that_nobody_reads_costs_its_connection(peer: Peer, carrier: OverSocket) -> None:
    """What is left of it would be taken for the next answer."""
    with carrier.post("/v1/x", b"", HEADERS) as reply:
        assert (reply.status, reply.kind) == (200, "application/json")
    assert ask(carrier) == {"ok": True}

    def interrupt(_: Reply) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), carrier.post("/v1/x", b"", HEADERS) as reply:
        interrupt(reply)
    assert ask(carrier) == {"ok": True}
    assert [number for number, _ in peer.requests] == [1, 2, 2, 3]


def test_silence_ends_when_it_was_bounded(peer: Peer, carrier: OverSocket) -> None:
    """Only where the caller says so: a model may think for minutes."""
    done = threading.Event()
    peer.script = lambda *_: done.wait(20) and False
    with pytest.raises(LostRequest, match="TimeoutError"):
        ask(carrier, timeout_s=0.05)
    done.set()
    peer.script = answer()
    assert ask(carrier) == {"ok": True}


def test_threads_do_not_share_a_connection(peer: Peer, carrier: OverSocket) -> None:
    """Each answer goes to who asked."""

    def echo(other: socket.socket, request: bytes) -> bool:
        return answer(request.partition(b"\r\n\r\n")[2])(other, request)

    peer.script = echo
    wrong: list[dict] = []

    def work(mine: int) -> None:
        for n in range(30):
            body = b'{"mine": %d, "n": %d}' % (mine, n)
            if (got := ask(carrier, body)) != {"mine": mine, "n": n}:
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(peer.requests) == 240
    assert peer.connections <= 8


def test_a_fork_connects_itself(peer: Peer, carrier: OverSocket) -> None:
    """Its parent's connection goes on as if nothing had been."""
    ask(carrier)
    child = os.fork()
    if child == 0:
        os._exit(0 if ask(carrier) == {"ok": True} else 1)
    assert os.waitpid(child, 0)[1] == 0
    ask(carrier)
    assert [number for number, _ in peer.requests] == [1, 2, 1]


@pytest.mark.parametrize("token", ["secret\r\nx: y", "secret\n", "secret\N{BULLET}"])
@pytest.mark.parametrize("address", ["a socket", "http://127.0.0.1:9"])
def test_a_token_that_no_header_can_carry_is_not_quoted(
    peer: Peer, token: str, address: str
) -> None:
    """Nor sent: a line break would begin another header."""
    connection = Connection(peer.path if address == "a socket" else address, token=token)
    with pytest.raises(UsageError, match="token") as told:
        connection.query("/v1/x")
    assert "secret" not in str(told.value.to_json())
    assert told.value.__cause__ is None
    assert peer.requests == []


def test_a_connection_that_was_bounded_is_kept_without_waiting(
    peer: Peer, carrier: OverSocket
) -> None:
    """The bound of one request is not what the next one waits for."""
    for timeout_s in (2.0, 2.0, None):
        assert ask(carrier, timeout_s=timeout_s) == {"ok": True}
    assert peer.connections == 1  # who waited would have taken it for one that ended


def test_who_is_refused_early_is_told(peer: Peer, carrier: OverSocket) -> None:
    """The refusal was written, and the connection closed, before all of the request had been sent."""
    refusal = b'{"error": {"code": "denied", "message": "another user"}}'

    def refuse(other: socket.socket) -> None:
        other.recv(10)
        head = b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n" % len(refusal)
        other.sendall(head + refusal)
        other.shutdown(socket.SHUT_RD)

    peer.talk = refuse
    with pytest.raises(CallDenied, match="another user"):
        ask(carrier, b"x" * (4 << 20))


def test_a_team_gateway_behind_a_proxy_is_asked_for_plain_bytes() -> None:
    """A compressed answer would be taken for one that was cut off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes] = []

        def serve() -> None:
            other, _ = listener.accept()
            with other:
                seen.append(other.recv(65536))
                other.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + b'{"ok": true}')

        thread = threading.Thread(target=serve)
        thread.start()
        carrier = OverTcp(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with carrier.post("/v1/x", b"{}", HEADERS) as reply:
            assert read_reply(reply) == {"ok": True}
        thread.join()
        carrier.close()
    assert b"accept-encoding: identity\r\n" in seen[0].lower()
