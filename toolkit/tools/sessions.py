"""The life of one MCP session: from the server's start to its death, or to our end.

The SDK's client lives in one task from beginning to end (its cancel scopes demand that); callers
only hand it requests.  Nobody who gives up waits for the server to agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED

from toolkit.errors import ToolFailed, ToolkitError

__all__ = ["EndedError", "McpSession", "Watched"]

T = TypeVar("T")
_END_S = 10.0
"""The SDK closes the pipe, waits 2 s, terminates, waits 2 s, kills."""


class EndedError(Exception):
    """The session ended under a request, or before it."""


class McpSession:
    """One life of a server.

    Args:
        name: The server's name, for messages.
        connect: Opens a client; everything it holds ends with the context.
        tell: Turns what went wrong at the start into an error of ours.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[McpSession], AbstractAsyncContextManager[Client]],
        tell: Callable[[BaseException], ToolkitError],
    ) -> None:
        self._name = name
        self._connect = connect
        self._tell = tell
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def client(self) -> Client:
        """The SDK's client, once :meth:`open` has returned."""
        return self._ready.result()

    @property
    def alive(self) -> bool:
        """Whether requests have a chance."""
        return self._task is not None and not self._task.done() and not self._stop.is_set()

    async def open(self, timeout_s: float) -> None:
        """Start, and wait until the server is ready.

        Raises:
            ToolFailed, ConfigurationError, CallDenied: It is not, within ``timeout_s``.
        """
        self._task = asyncio.create_task(self._live(), name=f"mcp {self._name}")
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            await self.close()
            raise ToolFailed(
                f"the server {self._name} was not ready within {timeout_s:g} s",
                next_step=f"see .toolkit/logs/server-{self._name}.log",
            ) from None
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def request(self, asking: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Wait for a request, or for the end of the session.

        Raises:
            EndedError: The session ended first.
        """
        if self._task is None or not self.alive:
            raise EndedError
        asked = asyncio.ensure_future(asking(self.client))
        asked.add_done_callback(_look_at)
        try:
            await asyncio.wait({asked, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        if not asked.done():
            asked.cancel()
            raise EndedError
        try:
            return asked.result()
        except asyncio.CancelledError:
            raise EndedError from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or error.message == "Session terminated":
                self.end()
                raise EndedError from error
            raise

    def end(self) -> None:
        """Tell the session to end; it does so in its own time."""
        self._stop.set()

    async def close(self) -> None:
        """End the session, and wait until its process is gone."""
        self.end()
        if self._task is None:
            return
        if not self._ready.done():
            self._task.cancel()  # still starting: nobody there waits to be told to stop
        _, late = await asyncio.wait({self._task}, timeout=_END_S)
        if late:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self) -> None:
        try:
            async with self._connect(self) as client:
                if not self._ready.done():
                    self._ready.set_result(client)
                await self._stop.wait()
        except asyncio.CancelledError as error:
            self._not_ready(error)
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits is told; later ones start again
            self._not_ready(error)
        finally:
            self._stop.set()

    def _not_ready(self, error: BaseException) -> None:
        if not self._ready.done():
            self._ready.set_exception(self._tell(error))
            self._ready.exception()  # nobody waiting is no fault


class Watched:
    """A transport that tells when the server's side of it closes.

    The SDK says so to requests that wait; a server that dies while nobody asks would be found
    out only by the next request, which then could not be known to be unsent.
    """

    def __init__(self, transport: Any, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._on_end = on_end

    async def __aenter__(self) -> tuple[Any, Any]:
        read, write = await self._transport.__aenter__()
        return _WatchedStream(read, self._on_end), write

    async def __aexit__(self, *error: object) -> Any:
        return await self._transport.__aexit__(*error)


class _WatchedStream:
    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._stream.__aexit__(*error)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of a result that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
