"""An HTTP service as a source: GET below one address, no redirects, no proxies.

The name is resolved once for each read, every address is checked, and the connection goes to one of
those: a name server that answers differently the second time is not asked a second time.  TLS still
names and verifies the host, not the address (httpcore's ``sni_hostname``).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import IO, cast

import httpx

from toolkit.errors import InfrastructureError, NotFound, ToolFailed, UsageError
from toolkit.settings import Resolver, system_resolver
from toolkit.sources.caps import Gauge
from toolkit.sources.catalog import HttpSettings
from toolkit.sources.files import given, options_of
from toolkit.sources.formats import checked_path, decode, format_of
from toolkit.sources.types import Ask, Check, Plan, Reading

__all__ = ["HttpSource"]

_TYPES = {
    "text/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "json",
    "application/vnd.apache.parquet": "parquet",
    "text/plain": "text",
}


class HttpSource:
    """An HTTP service of ``registry/data.yaml``.

    Args:
        name: Of the source.
        settings: Its entry.
        environ: Holds the token.
        resolver: Finds addresses.
    """

    def __init__(
        self,
        name: str,
        settings: HttpSettings,
        environ: Mapping[str, str],
        resolver: Resolver = system_resolver,
    ) -> None:
        self._guard = settings.guard(name, resolver)
        self.name = name
        self.settings = settings
        named = {"token": settings.token_env} if settings.token_env else {}
        token = options_of(name, named, environ).get("token")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def plan(self, ask: Ask) -> Plan:
        """Say what is fetched; its columns are known when it is here."""
        if ask.operation != "read":
            raise UsageError(
                f"{self.name!r} is an HTTP service; it has files to read only",
                next_step='ask .read("path")',
            )
        path = checked_path(ask.path)
        if ask.format is not None:
            format_of(path, ask.format, self.settings.formats)
        columns = tuple(sorted(set(ask.columns)))
        return Plan((path,), columns, write=False, fetch=lambda check: self._read(path, ask, check))

    def _read(self, path: str, ask: Ask, check: Check) -> Reading:
        gauge = Gauge(self.settings.caps(self.name))
        query = {name: _plain(name, value) for name, value in ask.parameters.items()}
        try:
            with (
                httpx.Client(
                    trust_env=False, follow_redirects=False, timeout=gauge.caps.timeout_s
                ) as client,
                closing(self._asked(client, path, query)) as reply,
            ):
                self._check(reply, path)
                told = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
                format_ = format_of(
                    path, ask.format, self.settings.formats, default=_TYPES.get(told, "")
                )
                data = b"".join(_bounded(reply, gauge))
        except httpx.TimeoutException:
            raise gauge.late() from None
        except httpx.HTTPError as error:
            raise InfrastructureError(
                f"the service of {self.name!r} cannot be reached ({type(error).__name__})",
                where=f"registry/data.yaml: sources.{self.name}.url",
            ) from None
        file = cast("IO[bytes]", io.BytesIO(data))
        table, content = decode(file, format_, ask.columns, gauge, path)
        return given(self.name, self.settings, table, content, check)

    def _asked(self, client: httpx.Client, path: str, query: Mapping[str, str]) -> httpx.Response:
        """Ask the service at its first checked address that answers.

        Raises:
            CallDenied: One of its addresses may not be asked.
            httpx.HTTPError: None of them answers.
        """
        url = httpx.URL(f"{self.settings.url}/{path}", params=query)
        port = url.port or self._guard.default_port
        headers = {**self._headers, "host": url.netloc.decode("ascii")}
        last: httpx.HTTPError | None = None
        for address in self._addresses(url.host, port):
            request = client.build_request(
                "GET",
                url.copy_with(host=address),
                headers=headers,
                extensions={"sni_hostname": url.raw_host.decode("ascii").strip("[]")},
            )
            try:
                return client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                last = error
        raise last or httpx.ConnectError("it has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return asyncio.run(self._guard.addresses(host, port))  # this is a thread of its own
        except ToolFailed as error:
            raise InfrastructureError(
                f"the service of {self.name!r} cannot be reached: {error.message}",
                where=f"registry/data.yaml: sources.{self.name}.url",
            ) from None

    def _check(self, reply: httpx.Response, path: str) -> None:
        if reply.status_code == 404:
            raise NotFound(f"{self.name!r} has no {path!a}")
        if reply.is_redirect:
            raise InfrastructureError(
                f"{self.name!r} answered with a redirect, which is not followed",
                where=f"registry/data.yaml: sources.{self.name}.url",
                next_step="write the address that it leads to into registry/data.yaml",
            )
        if reply.status_code != 200:
            raise InfrastructureError(f"{self.name!r} answered with status {reply.status_code}")


def _bounded(reply: httpx.Response, gauge: Gauge) -> Iterator[bytes]:
    caps, size = gauge.caps, 0
    for chunk in reply.iter_bytes(1 << 16):
        size += len(chunk)
        if size > caps.max_bytes:
            raise caps.too_many(f"it has more than {caps.max_bytes:,} bytes", "max_bytes")
        gauge.tick()
        yield chunk


def _plain(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"the parameter {name} is a {type(value).__name__}; a number or text is taken")
