"""The tools of every server and service of ``tools.yaml``, under one name each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CallDenied, NotFound
from toolkit.settings import Resolver, system_resolver
from toolkit.tools.offers import Caller, Offer, check_arguments
from toolkit.tools.places import Places
from toolkit.tools.services import HttpService
from toolkit.tools.settings import HttpServer, OpenApiService, Pinned, RemoteFile, StdioServer

__all__ = ["Listed", "Toolbox"]

Settings = StdioServer | HttpServer | OpenApiService


@dataclass(frozen=True)
class Listed:
    """One tool that a server offers, as ``toolkit tools list`` shows it.

    Attributes:
        name: ``server.tool``.
        offer: The server's description.
        callable: Whether ``tools.yaml`` lists it.
        changed: Whether it differs from the digest that is pinned there.
    """

    name: str
    offer: Offer
    callable: bool
    changed: bool


@dataclass(frozen=True)
class _Server:
    """One entry of ``tools.yaml`` and what answers for it."""

    settings: Settings
    document: Any
    caller: Caller

    @property
    def pins(self) -> Mapping[str, Pinned]:
        """The tools that may be called."""
        if isinstance(self.settings, OpenApiService):
            return self.settings.operations
        return self.settings.tools


class Toolbox:
    """Servers and services, opened when they are needed.

    Args:
        path: ``registry/tools.yaml``.
        environ: The gateway's environment, where secrets are.
        root: The workspace.
        logs: Where servers' error output goes.
        resolver: Finds addresses.
        screen: Cuts secrets out of a line of a server's error output, before it is written.

    Raises:
        NotFound, InvalidFile: The file, or a document that it names, is missing or has faults.
    """

    def __init__(
        self,
        path: Path,
        *,
        environ: Mapping[str, str],
        root: Path,
        logs: Path,
        resolver: Resolver = system_resolver,
        screen: Callable[[str], str] = lambda line: line,
    ) -> None:
        self._path = path
        self._places = Places(environ, root, path.parent, logs, resolver, screen)
        # Replaced as a whole: other threads read it while the files are read again.
        self._servers: Mapping[str, _Server] = {}
        self._stamp: tuple[Any, ...] = ()
        self._closing: set[asyncio.Task[None]] = set()
        self.reload()

    # -- files --------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the files again if they have changed; what has not changed keeps running.

        Must be called in the event loop that the tools are used in, if there was one before.

        Raises:
            NotFound, InvalidFile: They have faults; then nothing changes here.
        """
        stamp = self._files()
        if stamp == self._stamp:
            return
        file = RemoteFile.load(self._path)
        settings: dict[str, Settings] = {**file.servers, **file.http}
        servers = {name: self._server(name, wanted) for name, wanted in settings.items()}
        kept = [server.caller for server in servers.values()]
        gone = [one.caller for one in self._servers.values() if one.caller not in kept]
        self._servers = servers
        self._stamp = self._files()
        for caller in gone:
            self._retire(caller)

    def _server(self, name: str, wanted: Settings) -> _Server:
        """Return what answers for an entry; as before, if nothing of it has changed."""
        document, known = self._document(wanted), self._servers.get(name)
        if known and (known.settings, known.document) == (wanted, document):
            return known
        caller: Caller
        if isinstance(wanted, OpenApiService):
            caller = HttpService(name, wanted, self._places)
        else:
            caller = _mcp_server(name, wanted, self._places)
        return _Server(wanted, document, caller)

    def _files(self) -> tuple[Any, ...]:
        documents = [self._document(one.settings) for one in self._servers.values()]
        return (_stamp(self._path), *documents)

    def _document(self, settings: Settings) -> Any:
        if isinstance(settings, OpenApiService):
            return _stamp(self._path.parent / settings.openapi)
        return None

    def _retire(self, caller: Caller) -> None:
        task = asyncio.get_running_loop().create_task(caller.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- tools --------------------------------------------------------------------------------

    @property
    def servers(self) -> tuple[str, ...]:
        """Names of all servers and services, sorted."""
        return tuple(sorted(self._servers))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tools that may be called, sorted."""
        return tuple(
            sorted(f"{name}.{tool}" for name, one in self._servers.items() for tool in one.pins)
        )

    def host(self, name: str) -> str | None:
        """Return the host that a tool asks, ``None`` for a process of this machine."""
        return self._listed(name).caller.host()

    def has_document(self, server: str) -> bool:
        """Whether it is an HTTP service with an OpenAPI document, not an MCP server."""
        return isinstance(self._servers[server].settings, OpenApiService)

    async def describe(self, name: str, *, fresh: bool = False) -> Offer:
        """Return a tool as its server describes it now.

        Raises:
            NotFound: It is not listed, or its server does not offer it.
            CallDenied: It is not what was approved.
            ToolFailed, ConfigurationError: Its server cannot be asked.
        """
        return await self._offer(self._listed(name), name, fresh=fresh)

    async def _offer(self, server: _Server, name: str, *, fresh: bool) -> Offer:
        caller, tool = server.caller, name.partition(".")[2]
        offers = await caller.offers(fresh=fresh and not isinstance(caller, HttpService))
        if tool not in offers:
            raise NotFound(
                f"the server {name.partition('.')[0]} does not offer {tool}",
                next_step=f"see what it offers: toolkit tools list {name.partition('.')[0]}",
            )
        offer = offers[tool]
        pinned = server.pins[tool].digest
        if pinned is not None and pinned != offer.digest:
            raise CallDenied(
                f"{name} is no longer what was approved: its server describes it differently",
                next_step=(
                    f"read the new description (toolkit tools list {name.partition('.')[0]}); if it "
                    f"is right, put the digest {offer.digest} into registry/tools.yaml"
                ),
                details={"policies": ["pinned"], "digest": offer.digest, "pinned": pinned},
            )
        return offer

    async def call(
        self,
        name: str,
        arguments: Any,
        *,
        timeout_s: float,
        repeatable: bool,
        key: str | None = None,
        trace: str | None = None,
    ) -> Any:
        """Call a tool and return its answer as a JSON value.

        Args:
            name: ``server.tool``.
            arguments: An object of JSON values, or ``None``.
            timeout_s: Seconds until the call is given up (a server's start is not counted).
            repeatable: Whether it may be done again when nobody knows how it ended.
            key: Tells the other side that two requests are one call.
            trace: Names the call's span to the other side (W3C ``traceparent``).

        Raises:
            NotFound, CallDenied: See :meth:`describe`; or an address that may not be asked.
            UsageError: The arguments do not fit.
            CallInDoubt: Nobody knows whether it happened, and it may not be repeated.
            ToolFailed, ConfigurationError: It did not succeed.
        """
        server = self._listed(name)
        offer = await self._offer(server, name, fresh=False)
        given = check_arguments(name, offer, arguments)
        return await server.caller.call(
            offer, given, timeout_s=timeout_s, repeatable=repeatable, key=key, trace=trace
        )

    async def offered(self, server: str) -> list[Listed]:
        """Return everything that a server offers, callable or not, by name.

        Raises:
            NotFound: There is no such server.
            ToolFailed, ConfigurationError, CallDenied: It cannot be asked.
        """
        found = self._servers.get(server)
        if found is None:
            known = ", ".join(self.servers) or "none"
            raise NotFound(
                f"there is no server {server!a} in {self._path.name} ({known})",
                next_step="add it under servers: or http:",
            )
        offers, pins = await found.caller.offers(fresh=True), found.pins
        return [
            Listed(
                f"{server}.{name}",
                offer,
                name in pins,
                name in pins and pins[name].digest not in (None, offer.digest),
            )
            for name, offer in sorted(offers.items())
        ]

    async def close(self) -> None:
        """End every server that was started."""
        servers, self._servers = self._servers, {}
        await asyncio.gather(
            *(one.caller.close() for one in servers.values()),
            *self._closing,
            return_exceptions=True,
        )

    def _listed(self, name: str) -> _Server:
        server, _, tool = name.partition(".")
        found = self._servers.get(server)
        if found is None or tool not in found.pins:
            raise self.unlisted(name)
        return found

    def unlisted(self, name: str) -> NotFound:
        """Return the error for a tool that may not be called, as nobody listed it."""
        server = name.partition(".")[0]
        if server in self._servers:
            step = f"list it in registry/tools.yaml; toolkit tools list {server} shows the lines"
        else:
            step = "add it to registry/tools.yaml, under servers: or http:"
        return NotFound(f"the tool {name!a} is not listed in registry/tools.yaml", next_step=step)


def _mcp_server(name: str, settings: StdioServer | HttpServer, places: Places) -> Caller:
    from toolkit.tools.servers import McpServer  # 0.6 s: the SDK loads where there is a server

    return McpServer(name, settings, places)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
