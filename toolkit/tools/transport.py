"""HTTP that only reaches checked addresses: the guard under httpx2's connection pool.

The check sits where a connection is opened, below redirects, retries and the MCP SDK, so that no
way around it is left.  TLS still names and verifies the host, not the address.  No proxy of the
environment is used, no ``.netrc`` is read.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from toolkit.errors import ConfigurationError, ToolkitError
from toolkit.settings import AddressGuard

__all__ = ["guarded_client", "own_error"]

_CONNECT_S = 10.0
_KEEPALIVE_S = 60.0


def guarded_client(
    guard: AddressGuard, *, ca_file: Path | None = None, headers: dict[str, str] | None = None
) -> httpx2.AsyncClient:
    """Return a client that reaches what the guard allows; it follows no redirects.

    Args:
        guard: What may be reached.
        ca_file: PEM file of the authority to trust instead of the usual ones.
        headers: Sent with every request.

    Raises:
        ConfigurationError: The file of the authority cannot be read.
    """
    return httpx2.AsyncClient(
        transport=_GuardedTransport(guard, _tls(ca_file)),
        headers={"user-agent": "agent-toolkit", "accept-encoding": "identity", **(headers or {})},
        follow_redirects=False,
        trust_env=False,
        timeout=httpx2.Timeout(None, connect=_CONNECT_S),
    )


def own_error(error: BaseException) -> ToolkitError | None:
    """Return the error of ours that a vendor wrapped into its own, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ToolkitError):
            return seen
        if isinstance(seen, BaseExceptionGroup):
            found = [own for inner in seen.exceptions if (own := own_error(inner)) is not None]
            if found:
                return found[0]
        seen = seen.__cause__ or seen.__context__
    return None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigurationError(
            f"the certificate authority {ca_file.name} cannot be read",
            where="registry/tools.yaml: ca_file",
            next_step="give a PEM file, relative to tools.yaml",
        ) from error


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the vendor's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        last: Exception | None = None
        for address in await self._guard.addresses(host, port):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last or httpcore2.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the vendor's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        del path, timeout, socket_options
        raise httpcore2.ConnectError("unix sockets are not reached")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


_KINDS: tuple[tuple[type[Exception], type[httpx2.TransportError]], ...] = (
    (httpcore2.ConnectTimeout, httpx2.ConnectTimeout),
    (httpcore2.PoolTimeout, httpx2.PoolTimeout),
    (httpcore2.WriteTimeout, httpx2.WriteTimeout),
    (httpcore2.TimeoutException, httpx2.ReadTimeout),
    (httpcore2.ConnectError, httpx2.ConnectError),
    (httpcore2.WriteError, httpx2.WriteError),
    (httpcore2.NetworkError, httpx2.ReadError),
    (httpcore2.LocalProtocolError, httpx2.LocalProtocolError),
    (httpcore2.ProtocolError, httpx2.RemoteProtocolError),
    (httpcore2.UnsupportedProtocol, httpx2.UnsupportedProtocol),
)


@contextmanager
def _told_as_httpx() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        for core, told in _KINDS:
            if isinstance(error, core):
                raise told(str(error)) from error
        raise


class _Body(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        with _told_as_httpx():
            await self._stream.aclose()


class _GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2's requests over a pool of httpcore2 that opens its connections with the guard.

    A transport of our own, as httpx2's does not take a network backend.
    """

    def __init__(self, guard: AddressGuard, tls: ssl.SSLContext) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            network_backend=_GuardedBackend(guard),
            keepalive_expiry=_KEEPALIVE_S,
            max_connections=64,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        core = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _told_as_httpx():
            answer = await self._pool.handle_async_request(core)
        return httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
