"""``servers:`` and ``http:`` of ``registry/tools.yaml``: where tools are that others offer.

::

    servers:
      files:
        transport: stdio
        command: [python, servers/files.py]
        env_from: [FILES_TOKEN]
        tools:
          read_file: {effect: read}
      wiki:
        transport: http
        url: https://wiki.example/mcp
        token_env: WIKI_TOKEN
        tools:
          search: {effect: read, digest: "sha256:…"}
    http:
      crm:
        openapi: crm.yaml
        base_url: https://crm.example/api
        auth: {type: bearer, env: CRM_TOKEN}
        operations:
          findCustomer: {effect: read}

What a tool may do (``effect``, ``labels``, ``external`` …) is the policy room's half of an entry;
this half is how it is reached, and the digest of the description that a person has seen.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from toolkit.settings import Network, network_fault, read_model

__all__ = ["Auth", "HttpServer", "OpenApiService", "RemoteFile", "StdioServer"]

_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection", "cookie"})

EnvName = Annotated[str, Field(pattern=_ENV_NAME)]
Seconds = Annotated[float, Field(gt=0, le=600, strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Pinned(BaseModel):
    """This room's half of a tool's entry; the rest of it is policy's.

    Attributes:
        digest: Digest of the description and schemas that were approved; ``None``: any.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class _Reached(_Strict):
    """A server that is asked over HTTP.

    Attributes:
        hosts: Further ``host`` or ``host:port`` that may be asked (redirects); a host without a
            port means 80 and 443.
        allow_private: Networks inside the house that its names may point to, in CIDR notation.
            Loopback addresses only where they are written here as such.
        ca_file: PEM file of the authority that signed the server's certificate, relative to
            ``tools.yaml``; default: those that everybody trusts.
    """

    hosts: tuple[str, ...] = ()
    allow_private: tuple[str, ...] = ()
    ca_file: str | None = None

    @field_validator("hosts", "allow_private", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [ascii(host) for host in hosts if not _HOST.fullmatch(host)]:
            msg = f"{', '.join(bad)} is not a host or host:port in small letters"
            raise ValueError(msg)
        return hosts

    @field_validator("allow_private")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if faults := [fault for network in networks if (fault := network_fault(network))]:
            raise ValueError("; ".join(faults))
        return networks

    @property
    def networks(self) -> tuple[Network, ...]:
        """``allow_private``, parsed."""
        return tuple(ipaddress.ip_network(network) for network in self.allow_private)


class StdioServer(_Strict):
    """An MCP server that the gateway starts and talks to over pipes.

    Attributes:
        command: Program and arguments.
        env_from: Variables of the gateway's environment that it gets, beside ``HOME``,
            ``LOGNAME``, ``PATH``, ``SHELL``, ``TERM`` and ``USER``.
        cwd: Its working folder, relative to the workspace; default: the workspace.
        start_timeout_s: Seconds until it has to be ready.
        tools: The tools that may be called.
    """

    transport: Literal["stdio"]
    command: Annotated[list[str], Field(min_length=1)]
    env_from: list[EnvName] = []
    cwd: str | None = None
    start_timeout_s: Seconds = 30.0
    tools: dict[str, Pinned] = {}

    @field_validator("cwd")
    @classmethod
    def _inside(cls, cwd: str | None) -> str | None:
        if cwd is not None and (Path(cwd).is_absolute() or ".." in Path(cwd).parts):
            msg = "leaves the workspace"
            raise ValueError(msg)
        return cwd

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return tuple(self.env_from)


class HttpServer(_Reached):
    """An MCP server that runs elsewhere (streamable HTTP).

    Attributes:
        url: Its endpoint.
        token_env: Variable of the gateway's environment that holds the bearer token.
        start_timeout_s: Seconds until it has to be ready.
        tools: The tools that may be called.
    """

    transport: Literal["http"]
    url: str
    token_env: EnvName | None = None
    start_timeout_s: Seconds = 30.0
    tools: dict[str, Pinned] = {}

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)

    @model_validator(mode="after")
    def _keeps_its_secret(self) -> Self:
        _check_clear_text(self.url, self.token_env)
        return self

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return (self.token_env,) if self.token_env else ()


class Auth(_Strict):
    """How the gateway shows a service who it is.

    Attributes:
        type: ``bearer``: ``Authorization: Bearer VALUE``; ``basic``: the value is
            ``user:password``; ``header``: the value in a header of its own.
        env: Variable of the gateway's environment that holds the value.
        name: The header's name, for ``header``.
    """

    type: Literal["bearer", "header", "basic"]
    env: EnvName
    name: Annotated[str, Field(pattern=_HEADER)] | None = None

    @model_validator(mode="after")
    def _has_a_name_where_needed(self) -> Self:
        if (self.type == "header") != (self.name is not None):
            msg = "name is the header's name: needed for type header, and only there"
            raise ValueError(msg)
        if self.name is not None and self.name.lower() in _RESERVED:
            msg = f"name {self.name} is the protocol's own header"
            raise ValueError(msg)
        return self


class OpenApiService(_Reached):
    """An HTTP service with an OpenAPI 3 document.

    Attributes:
        openapi: The document (YAML or JSON), relative to ``tools.yaml``; it is never fetched.
        base_url: Where the service is; the document's own ``servers`` are not used.
        auth: Credentials, which the gateway adds.
        max_answer_bytes: The longest answer that is read.
        operations: The operations that may be called, by ``operationId``.
    """

    openapi: str
    base_url: str
    auth: Auth | None = None
    max_answer_bytes: Annotated[int, Field(ge=1, le=4 * 1024 * 1024)] = 1024 * 1024
    operations: dict[str, Pinned] = {}

    @field_validator("openapi")
    @classmethod
    def _is_a_file(cls, value: str) -> str:
        if "://" in value or Path(value).is_absolute() or ".." in Path(value).parts:
            msg = "is not a file beside tools.yaml; documents are kept here, never fetched"
            raise ValueError(msg)
        return value

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value).rstrip("/")

    @model_validator(mode="after")
    def _keeps_its_secret(self) -> Self:
        _check_clear_text(self.base_url, self.auth.env if self.auth else None)
        return self

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return (self.auth.env,) if self.auth else ()


class RemoteFile(BaseModel):
    """The two sections of ``tools.yaml`` that this room reads.

    Attributes:
        servers: MCP servers by name.
        http: HTTP services by name.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    servers: dict[str, Annotated[StdioServer | HttpServer, Field(discriminator="transport")]] = {}
    http: dict[str, OpenApiService] = {}

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [*self.servers, *self.http]
        if bad := [ascii(name) for name in names if not _NAME.fullmatch(name)]:
            msg = (
                f"{', '.join(bad)} cannot name a server: use letters, digits, '_' and '-', "
                "starting with a letter, at most 40 characters"
            )
            raise ValueError(msg)
        if twice := sorted(set(self.servers) & set(self.http)):
            msg = f"{', '.join(twice)} is both in servers and in http"
            raise ValueError(msg)
        return self

    @classmethod
    def load(cls, path: Path) -> RemoteFile:
        """Read ``tools.yaml``.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The two sections have faults (all are named).
        """
        missing = f"create {path} with a `tools:` mapping"
        return read_model(path, cls, "tool catalog", missing=missing).value


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = "is not an http:// or https:// address"
        raise ValueError(msg)
    if parts.username or parts.password or parts.query or parts.fragment:
        msg = "holds a user, password, query or fragment; secrets belong in the environment"
        raise ValueError(msg)
    try:
        _ = parts.port
    except ValueError:
        msg = "has a port that is no port"
        raise ValueError(msg) from None
    return value


def _check_clear_text(url: str, env: str | None) -> None:
    host = urlsplit(url).hostname or ""
    if env and url.startswith("http://") and host not in ("127.0.0.1", "::1", "localhost"):
        msg = f"would send {env} in clear text: use https"
        raise ValueError(msg)
