"""An HTTP service as a source: GET below one address, no redirects, no proxies."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import IO, cast

import httpx

from toolkit.errors import InfrastructureError, NotFound, UsageError
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
    """

    def __init__(self, name: str, settings: HttpSettings, environ: Mapping[str, str]) -> None:
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
                client.stream(
                    "GET", f"{self.settings.url}/{path}", params=query, headers=self._headers
                ) as reply,
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
