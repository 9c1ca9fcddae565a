"""HTTP services with an OpenAPI document: one request per call, its answer as JSON.

Steps of a call: build the request from the arguments → add the credential → resolve and check the
address → connect to it → read at most ``max_answer_bytes`` → follow at most three redirects, each
checked like the first address.  URI templates: https://datatracker.ietf.org/doc/html/rfc6570.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx2

from toolkit.errors import CallDenied, CallInDoubt, ConfigurationError, ToolFailed, UsageError
from toolkit.settings import AddressGuard
from toolkit.tools.answers import bounded, error_text, reference
from toolkit.tools.credentials import Secrets, auth_headers, secret_of
from toolkit.tools.offers import Offer
from toolkit.tools.openapi import Operation, read_operations
from toolkit.tools.places import Places
from toolkit.tools.settings import OpenApiService
from toolkit.tools.transport import guarded_client, own_error
from toolkit.values import read_json, write_json

__all__ = ["HttpService"]

_MOST_REDIRECTS = 3
_SAFE = ("GET", "HEAD", "OPTIONS")
_MOST_ERROR_BYTES = 16 * 1024


@dataclass(frozen=True)
class _Asked:
    """A request that can be sent; redirects make new ones."""

    method: str
    url: httpx2.URL
    headers: dict[str, str]
    body: bytes | None = None


@dataclass(frozen=True)
class _Answered:
    status: int
    headers: httpx2.Headers
    body: bytes


class HttpService:
    """A service of ``tools.yaml``, a :class:`~toolkit.tools.offers.Caller`.

    Args:
        name: Its name there.
        settings: How it is reached.
        places: Its surroundings.

    Raises:
        NotFound, InvalidFile: The document is missing, or lacks a listed operation.
    """

    def __init__(self, name: str, settings: OpenApiService, places: Places) -> None:
        self.name = name
        self._settings = settings
        self._places = places
        self._path = places.registry / settings.openapi
        self._operations = read_operations(self._path, frozenset(settings.operations))
        self._base = httpx2.URL(settings.base_url)
        self._guard = AddressGuard(
            name, settings.base_url, settings.hosts, settings.networks, places.resolver
        )
        self._client: httpx2.AsyncClient | None = None
        self._credential: dict[str, str] = {}
        self._secrets = Secrets(())

    def host(self) -> str | None:
        """Return the host of the service."""
        return self._base.host

    async def offers(self, *, fresh: bool = False) -> Mapping[str, Offer]:
        """Return the listed operations; with ``fresh`` every one that the document describes.

        Raises:
            NotFound, InvalidFile: The document cannot be read.
        """
        described = read_operations(self._path) if fresh else self._operations
        return {name: operation.offer for name, operation in described.items()}

    async def call(
        self,
        offer: Offer,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        repeatable: bool,
        key: str | None = None,
        trace: str | None = None,
    ) -> Any:
        """Call one operation and return its JSON answer, its text, or a reference to its bytes.

        ``key`` is sent as the header ``Idempotency-Key``, and ``trace`` as ``traceparent``, unless the
        operation has such a header of its own.

        Raises:
            CallInDoubt: No answer came, and the call may not be repeated.
            CallDenied: An address that may not be asked, from the start or after a redirect.
            ToolFailed, UsageError, ConfigurationError: It did not succeed.
        """
        tool = f"{self.name}.{offer.name}"
        operation = self._operations[offer.name]
        client = self._ready()
        asked = self._request(operation, arguments)
        if key is not None:
            asked.headers.setdefault("idempotency-key", key)
        if trace is not None:
            asked.headers.setdefault("traceparent", trace)
        try:
            async with asyncio.timeout(timeout_s):
                answered = await self._send(client, tool, asked)
        except (TimeoutError, httpx2.TransportError) as error:
            raise self._no_answer(tool, error, timeout_s, repeatable=repeatable) from error
        return self._answer(tool, answered)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # -- request ------------------------------------------------------------------------------

    def _ready(self) -> httpx2.AsyncClient:
        if self._client is None:
            auth = self._settings.auth
            if auth is not None:
                value = secret_of(self._places.environ, auth.env, f"the service {self.name}")
                if auth.type == "basic" and ":" not in value:
                    raise ConfigurationError(
                        f"the environment variable {auth.env} is not user:password",
                        where="registry/tools.yaml",
                        next_step=f"set {auth.env} to both, with a colon between them",
                    )
                self._credential = auth_headers(auth.type, auth.name, value)
                self._secrets = Secrets((value, *value.split(":", 1)[1:]))
            authority = self._places.authority(self._settings.ca_file)
            self._client = guarded_client(self._guard, ca_file=authority)
        return self._client

    def _request(self, operation: Operation, arguments: dict[str, Any]) -> _Asked:
        path = operation.path
        query: list[tuple[str, str]] = []
        headers = {"accept": "application/json, */*;q=0.5"}
        for parameter in operation.parameters:
            value = arguments.get(parameter.name)
            if value is None:
                continue
            if parameter.place == "path":
                path = path.replace(f"{{{parameter.name}}}", _segment(parameter.name, value))
            elif parameter.place == "header":
                headers[parameter.name.lower()] = _header(parameter.name, value)
            elif parameter.deep and isinstance(value, dict):
                query += [(f"{parameter.name}[{key}]", _text(v)) for key, v in value.items()]
            else:
                query += _form(parameter.name, value, explode=parameter.explode)
        body = _body(operation, arguments)
        if body is not None:
            headers["content-type"] = operation.media_type
        # Last, so that no argument can stand in for the credential.
        headers |= self._credential
        target = self._base.raw_path.decode().rstrip("/") + path
        if query:
            target += "?" + urlencode(query, quote_via=quote)
        url = self._base.copy_with(raw_path=target.encode("ascii"))
        return _Asked(operation.method, url, headers, body)

    async def _send(self, client: httpx2.AsyncClient, tool: str, asked: _Asked) -> _Answered:
        for _ in range(_MOST_REDIRECTS + 1):
            answered = await self._once(client, tool, asked)
            location = answered.headers.get("location")
            if answered.status not in (301, 302, 303, 307, 308) or not location:
                return answered
            asked = self._redirected(tool, asked, answered.status, location)
        raise ToolFailed(f"{tool} was redirected more than {_MOST_REDIRECTS} times")

    async def _once(self, client: httpx2.AsyncClient, tool: str, asked: _Asked) -> _Answered:
        # Also where a kept connection would be used, which the transport does not open again.
        self._guard.check_host(asked.url.host, asked.url.port or _port(asked.url.scheme))
        request = client.build_request(
            asked.method, asked.url, headers=asked.headers, content=asked.body
        )
        most = self._settings.max_answer_bytes
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                # Nobody asked for it, and a small body could become a very large one.
                raise ToolFailed(f"{tool} answered in a compressed form that was not asked for")
            parts, size = [], 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > most:
                    raise ToolFailed(
                        f"{tool} answered more than the {most} bytes allowed",
                        next_step="ask for less at a time, or raise max_answer_bytes",
                    )
                parts.append(part)
        finally:
            await response.aclose()
        return _Answered(response.status_code, response.headers, b"".join(parts))

    def _redirected(self, tool: str, asked: _Asked, status: int, location: str) -> _Asked:
        """Return the request that a redirect asks for, if it may be made."""
        try:
            url = asked.url.join(location)
        except httpx2.InvalidURL:
            raise ToolFailed(f"{tool} was redirected to something that is no address") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise _forbidden(f"{tool} was redirected to {url.scheme[:20]!a}, which is not the web")
        if asked.url.scheme == "https" and url.scheme != "https":
            raise _forbidden(f"{tool} was redirected from https to http")
        self._guard.check_host(url.host, url.port or _port(url.scheme))
        method, body, headers = asked.method, asked.body, dict(asked.headers)
        elsewhere = _origin(url) != _origin(asked.url)
        if status == 303 and method != "HEAD":
            method, body = "GET", None
            headers.pop("content-type", None)
        elif method not in _SAFE and (elsewhere or status in (301, 302)):
            raise ToolFailed(
                f"{tool} was redirected ({status}) with a {method}, which is not sent on"
            )
        if elsewhere:
            headers = {n: v for n, v in headers.items() if n in ("accept", "content-type")}
        return _Asked(method, url.copy_with(userinfo=b"", fragment=None), headers, body)

    # -- answer -------------------------------------------------------------------------------

    def _answer(self, tool: str, answered: _Answered) -> Any:
        kind = answered.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not 200 <= answered.status < 300:
            said = answered.body[:_MOST_ERROR_BYTES].decode("utf-8", "replace")
            readable = kind.startswith("text/") or kind.endswith("json")
            reason = f": {error_text(said, self._secrets)}" if readable and said else ""
            wait = answered.headers.get("retry-after", "")
            details: dict[str, Any] = {"status": answered.status}
            if wait.isascii() and wait.isdigit():
                details["retry_after_s"] = int(wait[:9])
            raise ToolFailed(f"{tool} answered {answered.status}{reason}", details=details)
        if not answered.body:
            return None
        most = self._settings.max_answer_bytes
        if kind == "application/json" or kind.endswith("+json"):
            try:
                value = read_json(answered.body)
            except ValueError as error:
                raise ToolFailed(f"{tool} answered JSON that is none: {error}") from error
            return bounded(tool, self._secrets.conceal(value), most * 2)
        if kind.startswith("text/") or kind == "application/xml":
            text = answered.body.decode(_charset(answered.headers), "replace")
            return self._secrets.conceal_text(text)
        return reference("bytes", kind or None, answered.body)

    def _no_answer(
        self, tool: str, error: Exception, limit_s: float, *, repeatable: bool
    ) -> Exception:
        if (own := own_error(error)) is not None:
            return own
        if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
            return UsageError(f"the arguments of {tool} cannot be sent: {type(error).__name__}")
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return ToolFailed(f"{tool}: {self.name} cannot be reached ({_plain(error)})")
        late = isinstance(error, TimeoutError)
        what = f"did not answer within {limit_s:g} s" if late else "broke off the connection"
        if repeatable:
            return ToolFailed(f"{tool}: {self.name} {what}")
        return CallInDoubt(
            f"{tool}: {self.name} {what}; whether it took effect is not known",
            next_step="find out what happened before it is asked again",
        )


def _body(operation: Operation, arguments: dict[str, Any]) -> bytes | None:
    if operation.body is None:
        return None
    if operation.whole_body:
        return write_json(arguments["body"]) if "body" in arguments else None
    return write_json({n: v for n, v in arguments.items() if n in operation.body})


def _segment(name: str, value: Any) -> str:
    """Return a path parameter as exactly one segment, which never leads anywhere else."""
    text = _list(value)
    parts = text.replace("\\", "/").split("/")
    if not text or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"the argument {name} cannot stand in a path: it is empty or leads away")
    return quote(text, safe="")


def _header(name: str, value: Any) -> str:
    text = _list(value)
    if not text.isprintable() or not text.isascii():
        raise UsageError(f"the argument {name} cannot stand in a header")
    return text


def _form(name: str, value: Any, *, explode: bool) -> list[tuple[str, str]]:
    """Return query parameters in the style ``form``."""
    if isinstance(value, list):
        return [(name, _text(v)) for v in value] if explode else [(name, _list(value))]
    if isinstance(value, dict):
        if explode:
            return [(str(key), _text(v)) for key, v in value.items()]
        return [(name, ",".join(f"{key},{_text(v)}" for key, v in value.items()))]
    return [(name, _text(value))]


def _list(value: Any) -> str:
    return ",".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return write_json(value).decode()


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or _port(url.scheme)


def _forbidden(message: str) -> CallDenied:
    return CallDenied(message, details={"policies": ["redirects"]})


def _plain(error: Exception) -> str:
    return "it took too long" if isinstance(error, httpx2.ConnectTimeout) else "no connection"


def _charset(headers: httpx2.Headers) -> str:
    """Return the text's encoding; whatever is not known is read as UTF-8."""
    import codecs

    _, _, named = headers.get("content-type", "").lower().partition("charset=")
    try:
        return codecs.lookup(named.strip(" \"'").partition(";")[0]).name
    except LookupError:
        return "utf-8"
