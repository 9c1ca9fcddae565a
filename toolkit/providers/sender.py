"""JSON over HTTP to one provider: one client, kept-alive connections, bounded answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any

import anyio

from toolkit.errors import ProviderError
from toolkit.providers.failures import failure, from_httpx, from_status, httpx
from toolkit.providers.types import Route

__all__ = ["Sender"]

_MAX_BODY = 16 * 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024


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
        secure = base_url.startswith("https://") and transport is None
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=dict(headers),
            transport=transport,
            proxy=proxy,
            # Ambient proxies and ~/.netrc must not redirect or sign a governed call.
            trust_env=False,
            follow_redirects=False,
            verify=_trust(ca_file) if secure else False,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=32),
        )

    async def post(self, path: str, body: dict[str, Any], route: Route) -> dict[str, Any]:
        """Post one JSON object and return the JSON object of the answer.

        Raises:
            ProviderError: See :mod:`toolkit.providers.failures`.
        """
        problem: ProviderError
        try:
            # httpx's timeouts count per read; a slow drip must not outlive the route's timeout.
            with anyio.fail_after(route.timeout_s):
                return await self._post(path, body, route)
        except TimeoutError:
            problem = failure("timeout", f"no answer within {route.timeout_s:g} s", route)
        except ProviderError:
            raise
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            httpx.CookieConflict,
        ) as error:
            problem = from_httpx(error, route)
        except (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            problem = failure("connection", f"the connection broke ({type(error).__name__})", route)
        # Not chained: httpx's errors hold the request, and with it the key.
        raise problem from None

    async def _post(self, path: str, body: dict[str, Any], route: Route) -> dict[str, Any]:
        timeout = httpx.Timeout(route.timeout_s)
        try:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            cause = f"the request cannot be written as JSON ({type(error).__name__})"
            raise failure("bad_request", cause, route) from None
        async with self._client.stream("POST", path, content=content, timeout=timeout) as response:
            limit = _MAX_BODY if response.status_code == 200 else _MAX_ERROR_BODY
            data = await _read(response, limit)
        if response.status_code != 200:
            raise from_status(
                response.status_code, response.headers, data or b"", route, key=self._key
            )
        if data is None:
            raise failure("invalid_body", f"the answer is larger than {_MAX_BODY} bytes", route)
        return _parse(data, route)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


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


def _parse(data: bytes, route: Route) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
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
