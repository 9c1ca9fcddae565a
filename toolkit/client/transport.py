"""What carries requests to a gateway, and how long it is tried.

The gateway of this machine is asked over its unix socket by the standard library's ``http.client``: a
tool call is two requests, and one costs 0.2 ms of processor time that way, 0.7 ms with httpx
(decisions/0013).  A team's gateway is asked with httpx: TLS, proxies that stand in the way, pools.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from toolkit.client import wire
from toolkit.errors import GatewayUnavailable, UsageError, error_from_json

__all__ = [
    "Carrier",
    "LostRequest",
    "OverSocket",
    "OverTcp",
    "Patience",
    "Reply",
    "bearer",
    "read_reply",
]

_RESEND_FOR_S = 40.0
_MOST_DEATHS = 10
_CONNECT_S = 5.0
_MOST_IDLE = 16
_PIECE = 1 << 16


class LostRequest(Exception):
    """A request that has no whole answer; it may be sent again.

    Attributes:
        reached: Whether a gateway had taken it.
    """

    def __init__(self, why: BaseException, *, reached: bool) -> None:
        super().__init__(f"{type(why).__name__}: {why}")
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of which the body has only begun to arrive.

    Attributes:
        status: HTTP's.
        kind: Its content type, without parameters.
        pieces: The body; raises :class:`LostRequest` where it is cut off.
    """

    status: int
    kind: str
    pieces: Iterator[bytes]


class Carrier(Protocol):
    """Sends requests; safe to use from several threads."""

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> AbstractContextManager[Reply]:
        """Send a request; inside of the context its answer can be read.

        Args:
            path: One of :mod:`toolkit.client.wire`.
            body: What is sent.
            headers: Beside those that HTTP itself needs.
            timeout_s: Longest silence; without it only the gateway's death ends a wait, which bounds
                every call by its route.

        Raises:
            LostRequest: There was no whole answer.
        """
        ...

    def close(self) -> None:
        """Close connections that nobody uses."""
        ...


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, a request in one piece: the gateway wakes up once for it."""

    def __init__(self, path: str) -> None:
        super().__init__("gateway")
        self._path = path
        self._parts: list[bytes] = []

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        self.sock.connect(self._path)

    def send(self, data: Any) -> None:
        self._parts.append(data)

    def ask(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float | None
    ) -> http.client.HTTPResponse:
        """Send a request and return what has come of its answer."""
        self.sock.settimeout(timeout_s)
        self.request("POST", path, body, dict(headers))
        parts, self._parts = self._parts, []
        # Who is refused may be told so before everything is sent: the answer is read all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(b"".join(parts))
        return self.getresponse()

    def usable(self) -> bool:
        """Whether it is open; the gateway says nothing unasked, so anything to read is its end."""
        try:
            self.sock.setblocking(False)  # noqa: FBT003 - the socket module's own shape
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class OverSocket:
    """Carries requests over a unix socket; connections are kept.

    Args:
        path: The socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[_UnixConnection] = []
        self._process = os.getpid()

    @contextlib.contextmanager
    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> Iterator[Reply]:
        """See :class:`Carrier`."""
        connection = self._connected()
        done = False
        try:
            try:
                answer = connection.ask(path, body, headers, timeout_s)
            except (OSError, http.client.HTTPException) as error:
                raise LostRequest(error, reached=True) from error
            kind = (answer.headers.get("content-type") or "").partition(";")[0]
            yield Reply(answer.status, kind, _pieces(answer))
            done = answer.isclosed()  # read to its end: the next request may follow
        finally:
            if done:
                self._keep(connection)
            else:
                connection.close()

    def _connected(self) -> _UnixConnection:
        with self._lock:
            if self._process != os.getpid():
                # A fork has its parent's sockets: who closes one here ends it for nobody else.
                self._process, idle, self._idle = os.getpid(), self._idle, []
                for one in idle:
                    one.close()
            while self._idle:
                connection = self._idle.pop()
                if connection.usable():
                    return connection
                connection.close()
        connection = _UnixConnection(self._path)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise LostRequest(error, reached=False) from error
        return connection

    def _keep(self, connection: _UnixConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """See :class:`Carrier`."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read(_PIECE):
            yield piece
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
    except (OSError, http.client.HTTPException) as error:
        raise LostRequest(error, reached=True) from error


class OverTcp:
    """Carries requests to a team's gateway.

    Args:
        address: ``http(s)://host:port``.
    """

    def __init__(self, address: str) -> None:
        self._httpx = httpx = _import_httpx()
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(verify=_authorities(), trust_env=False),
            base_url=address,
            trust_env=False,
        )

    @contextlib.contextmanager
    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> Iterator[Reply]:
        """See :class:`Carrier`."""
        times = self._httpx.Timeout(timeout_s, connect=_CONNECT_S)
        # Pieces are passed on as they come: a proxy in front shall not compress them.
        plain = {"accept-encoding": "identity", **headers}
        try:
            with self._client.stream(
                "POST", path, content=body, headers=plain, timeout=times
            ) as answer:
                kind = answer.headers.get("content-type", "").partition(";")[0]
                yield Reply(answer.status_code, kind, answer.iter_raw())
        except (self._httpx.TransportError, RuntimeError) as error:
            reached = not isinstance(error, self._httpx.ConnectError)
            raise LostRequest(error, reached=reached) from error

    def close(self) -> None:
        """See :class:`Carrier`."""
        self._client.close()


def _import_httpx() -> Any:
    """Import httpx without its command line, which pulls rich and click (0.2 s)."""
    if "httpx" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # httpx treats it as "extra not installed"
        import httpx

        del sys.modules["httpx._main"]
        return httpx
    return sys.modules["httpx"]


def _authorities() -> Any:
    """Return what certificates are checked against: the machine's, and those of ``SSL_CERT_FILE``."""
    import ssl

    context = ssl.create_default_context()
    if extra := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(extra)
    return context


class Patience:
    """When to stop sending a request again.

    The time counts from when the gateway was last at work on the request, which may take minutes;
    the deaths are counted too, or a request that kills the gateway would do so for ever.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._deaths = 0

    def ends(self, *, reached: bool) -> bool:
        """Tell of a failed attempt; ``reached`` says that a gateway had taken the request."""
        now = time.monotonic()
        if reached:
            self._deaths += 1
            self._since = now
        return self._deaths > _MOST_DEATHS or now - self._since > _RESEND_FOR_S


def bearer(token: str) -> str:
    """Return the header that shows a token.

    Raises:
        UsageError: No header can carry it; the error of a library would quote it.
    """
    if not (token.isascii() and token.isprintable()):
        raise UsageError(
            "the token holds characters that no request can carry",
            where=f"{wire.ENV_TOKEN}, {wire.ENV_TEAM_TOKEN}",
            next_step="give it without line breaks",
        )
    return f"Bearer {token}"


def read_reply(reply: Reply) -> dict[str, Any]:
    """Return a reply's JSON object.

    Raises:
        ToolkitError: What the gateway answered, rebuilt as its own class.
        GatewayUnavailable: The gateway ended in the middle of it, and says so or says nothing.
        LostRequest: The body was cut off.
    """
    try:
        answer = json.loads(b"".join(reply.pieces))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise GatewayUnavailable("the gateway's answer was cut off")
    if reply.status >= 400:
        raise error_from_json(answer.get("error") or {})
    return answer
