"""MCP servers: started when a tool of theirs is needed, started again when they have died.

Protocol: https://modelcontextprotocol.io/specification (the official SDK speaks it).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    Implementation,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from toolkit.errors import CallInDoubt, ToolFailed, ToolkitError
from toolkit.settings import AddressGuard
from toolkit.tools.answers import bounded, error_text, reference
from toolkit.tools.credentials import Secrets, auth_headers, secret_of
from toolkit.tools.error_log import screened_log
from toolkit.tools.offers import Offer
from toolkit.tools.places import Places
from toolkit.tools.sessions import EndedError, McpSession, Watched
from toolkit.tools.settings import HttpServer, StdioServer
from toolkit.tools.transport import guarded_client, own_error

__all__ = ["McpServer"]

T = TypeVar("T")
Asking = Callable[[Client], Coroutine[Any, Any, T]]

_LISTING_S = 30.0
"""How long a list of tools is believed: a tool that changes is found out at a call after that."""
_MOST_TOOLS = 1_000
_US = Implementation(name="agent-toolkit", version="1")


class McpServer:
    """An MCP server of ``tools.yaml``, a :class:`~toolkit.tools.offers.Caller`.

    Args:
        name: Its name there.
        settings: How it is reached.
        places: Its surroundings.
        probe_s: Seconds in which a server has to say that it lives, after it was late.
    """

    def __init__(
        self,
        name: str,
        settings: StdioServer | HttpServer,
        places: Places,
        *,
        probe_s: float = 5.0,
    ) -> None:
        self.name = name
        self._settings = settings
        self._places = places
        self._session: McpSession | None = None
        self._starting = asyncio.Lock()
        self._offers: dict[str, Offer] = {}
        self._listed = float("-inf")
        self._secrets = Secrets(())
        self._probe_s = probe_s
        self._probes: set[asyncio.Task[None]] = set()

    def host(self) -> str | None:
        """Return the host of a server that runs elsewhere."""
        if isinstance(self._settings, HttpServer):
            return urlsplit(self._settings.url).hostname
        return None

    async def offers(self, *, fresh: bool = False) -> Mapping[str, Offer]:
        """Return what the server offers now (at most half a minute ago, unless ``fresh``).

        Raises:
            ToolFailed, ConfigurationError, CallDenied: It cannot be asked.
        """
        old = time.monotonic() - self._listed > _LISTING_S
        if fresh or old or self._session is None or not self._session.alive:
            limit = self._settings.start_timeout_s
            try:
                self._offers = await self._ask(self._list, limit, again=True)
            except (EndedError, TimeoutError) as error:
                raise self._gone("when it was asked for its tools", limit, error) from error
            self._listed = time.monotonic()
        return self._offers

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
        """Call one tool; a read whose session ended meanwhile is asked once more.

        ``key`` is sent in the request's ``_meta``, as ``toolkit/idempotencyKey``, and ``trace`` as
        ``traceparent``.

        Raises:
            CallInDoubt: The server did not answer, and the call may not be repeated.
            ToolFailed: The tool failed, or the server did not answer.
            ConfigurationError, CallDenied: The server cannot be started or reached.
        """
        tool = f"{self.name}.{offer.name}"

        async def asking(client: Client) -> CallToolResult:
            told = {"toolkit/idempotencyKey": key, "traceparent": trace}
            meta: Any = {name: value for name, value in told.items() if value is not None} or None
            return await client.call_tool(offer.name, arguments, meta=meta)

        try:
            result = await self._ask(asking, timeout_s, again=repeatable)
        except (EndedError, TimeoutError) as error:
            gone = self._gone(f"during {tool}", timeout_s, error)
            if repeatable:
                raise gone from error
            raise CallInDoubt(
                f"{gone.message}; whether it took effect is not known",
                next_step="find out what happened before it is asked again",
            ) from error
        return _answer(tool, result, self._secrets)

    async def close(self) -> None:
        """End the session, and the process with it."""
        for probe in list(self._probes):
            probe.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- asking -------------------------------------------------------------------------------

    async def _ask(self, asking: Asking[T], timeout_s: float, *, again: bool) -> T:
        """Ask on the session in force; on a fresh one if it ended meanwhile and ``again`` holds.

        Raises:
            EndedError, TimeoutError: No answer came.
            ToolFailed: The server answered with an error, or against the protocol.
        """
        session = await self._current()
        try:
            try:
                return await asyncio.wait_for(session.request(asking), timeout_s)
            except EndedError:
                if not again:
                    raise
            session = await self._current()
            return await asyncio.wait_for(session.request(asking), timeout_s)
        except TimeoutError:
            self._probe(session)
            raise
        except (EndedError, ToolkitError):
            raise
        except Exception as error:
            raise self._told(error, "failed") from error

    def _probe(self, session: McpSession) -> None:
        """Find out whether a server that was late hangs altogether; then it is started again."""

        async def probe() -> None:
            try:
                await asyncio.wait_for(session.request(self._list), self._probe_s)
            except (TimeoutError, EndedError):
                await session.close()
            except (MCPError, ToolkitError):
                return  # it talks

        task = asyncio.create_task(probe())
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _list(self, client: Client) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        cursor: str | None = None
        while len(found) <= _MOST_TOOLS:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            before = len(found)
            for tool in page.tools:
                found[tool.name] = Offer(
                    tool.name, tool.description or "", tool.input_schema, tool.output_schema
                )
            cursor = page.next_cursor
            if cursor is None or len(found) == before:
                return found
        raise ToolFailed(f"the server {self.name} offers more than {_MOST_TOOLS} tools")

    # -- session ------------------------------------------------------------------------------

    async def _current(self) -> McpSession:
        async with self._starting:
            if self._session is not None:
                if self._session.alive:
                    return self._session
                await self._session.close()
            self._session = None
            fresh = McpSession(
                self.name, self._connect, lambda error: self._told(error, "could not be started")
            )
            await fresh.open(self._settings.start_timeout_s)
            self._session = fresh
            return fresh

    @asynccontextmanager
    async def _connect(self, session: McpSession) -> AsyncIterator[Client]:
        settings = self._settings
        async with AsyncExitStack() as stack:
            if isinstance(settings, HttpServer):
                transport = await self._over_http(settings, stack)
            else:
                transport = Watched(self._over_pipes(settings, stack), session.end)
            # No callbacks: a server may not ask this process for a model, a person or its files.
            client = Client(transport, client_info=_US, cache=None)
            yield await stack.enter_async_context(client)

    async def _over_http(self, settings: HttpServer, stack: AsyncExitStack) -> Any:
        headers: dict[str, str] = {}
        if settings.token_env is not None:
            token = secret_of(self._places.environ, settings.token_env, f"the server {self.name}")
            self._secrets = Secrets((token,))
            headers = auth_headers("bearer", None, token)
        guard = AddressGuard(
            self.name, settings.url, settings.hosts, settings.networks, self._places.resolver
        )
        parts = urlsplit(settings.url)
        # The SDK makes one error of all that happens below it, so a refusal is told first; what
        # holds is the check of every connection.
        await guard.addresses(parts.hostname or "", parts.port or guard.default_port)
        authority = self._places.authority(settings.ca_file)
        http = guarded_client(guard, ca_file=authority, headers=headers)
        await stack.enter_async_context(http)
        return streamable_http_client(settings.url, http_client=http)

    def _over_pipes(self, settings: StdioServer, stack: AsyncExitStack) -> Any:
        places = self._places
        whose = f"the server {self.name}"
        env = {name: secret_of(places.environ, name, whose) for name in settings.env_from}
        self._secrets = Secrets(env.values())
        own = self._secrets
        log = stack.enter_context(
            screened_log(
                places.logs / f"server-{self.name}.log",
                lambda line: places.screen(own.conceal_text(line)),
            )
        )
        program, *arguments = settings.command
        parameters = StdioServerParameters(
            command=program,
            args=arguments,
            env=env,
            cwd=places.root / (settings.cwd or "."),
            encoding_error_handler="replace",
        )
        return stdio_client(parameters, errlog=log)

    # -- errors -------------------------------------------------------------------------------

    def _told(self, error: BaseException, what: str) -> ToolkitError:
        """Turn whatever the SDK raised into an error of ours."""
        if (own := own_error(error)) is not None:
            return own
        leaf = error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        if isinstance(leaf, FileNotFoundError | PermissionError | NotADirectoryError):
            reason = f"{leaf.filename or 'its program'}: {leaf.strerror}"
        elif isinstance(leaf, MCPError | RuntimeError):  # the SDK checks answers with the latter
            reason = error_text(str(leaf), self._secrets)
        else:
            reason = type(leaf).__name__
        return ToolFailed(
            f"the server {self.name} {what}: {reason}",
            next_step=f"see .toolkit/logs/server-{self.name}.log",
        )

    def _gone(self, when: str, limit_s: float, error: BaseException) -> ToolFailed:
        if isinstance(error, TimeoutError):
            return ToolFailed(f"the server {self.name} did not answer within {limit_s:g} s {when}")
        return ToolFailed(
            f"the server {self.name} ended {when}",
            next_step=f"see .toolkit/logs/server-{self.name}.log",
        )


def _answer(tool: str, result: CallToolResult, secrets: Secrets) -> Any:
    """Return an MCP tool's result as a JSON value.

    The structured content if there is any, else the text; with images, sounds or resources beside
    it an object of ``text``, ``data`` and ``parts``.  Of a part's bytes only type, length and
    digest are kept.

    Raises:
        ToolFailed: The tool says that it failed, or the answer is too large to be recorded.
    """
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    if result.is_error:
        raise ToolFailed(f"{tool} failed: {error_text(text or 'it gave no reason', secrets)}")
    parts = [_part(part) for part in result.content if not isinstance(part, TextContent)]
    data = result.structured_content
    if parts:
        answer: Any = {"text": text, "data": data, "parts": parts}
    else:
        answer = text if data is None else data
    return bounded(tool, secrets.conceal(answer))


def _part(part: ImageContent | AudioContent | ResourceLink | EmbeddedResource | TextContent) -> Any:
    if isinstance(part, ImageContent | AudioContent):
        return reference(part.type, part.mime_type, _decoded(part.data))
    if isinstance(part, ResourceLink):
        return {"type": "link", "uri": str(part.uri), "name": part.name}
    if isinstance(part, EmbeddedResource):
        inner = part.resource
        if isinstance(inner, TextResourceContents):
            return {"type": "resource", "uri": str(inner.uri), "text": inner.text}
        kept = reference("resource", inner.mime_type, _decoded(inner.blob))
        return {**kept, "uri": str(inner.uri)}
    return {"type": part.type, "text": part.text}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
