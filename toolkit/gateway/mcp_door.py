"""The gateway as an MCP server: the governed tools of others, for any MCP client.

Streamable HTTP at ``/mcp``, a run token as bearer; every call goes through the door as one of the
token's run.  Models' functions may not have a dot in their names, so ``crm.findCustomer`` is
offered as ``crm-findCustomer``; both are understood.  A job that the catalog names
(``job.kyc-check``) is offered like a tool, and run as a call of kind ``job``.

Which call a request is: an MCP client counts nothing, so calls are counted for it, as they are for
SDKs (see ``doors.repeats``).  A client that does not wait for a person's decision and asks again
later, with the same arguments, finds the same request.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from toolkit.client import wire
from toolkit.errors import ApprovalPending, CallDenied, NotFound, ToolkitError, error_from_json
from toolkit.gateway.doors.repeats import Claim, Repeats, Sent
from toolkit.gateway.exchange import bearer_of, json_reply
from toolkit.gateway.identity import Identity
from toolkit.gateway.jobs import JobDoor
from toolkit.gateway.remote import RemoteTools
from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallRecord, CallState, Effect, Intent, RunRecord

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult

__all__ = ["McpDoor"]

_RUN = "toolkit.run"
_ASK_AGAIN_S = 0.5
_PATIENCE_S = 50.0
"""How long a call waits for a person; many MCP clients give up after a minute."""
_MOST_WAITING = 1_000


class McpDoor:
    """Offers governed tools to MCP clients.

    Args:
        remote: Describes tools and makes calls.
        identity: Knows the run of a token.
        ledger: Where recorded calls are looked up after a restart.
        on_request: Called at every request.
        jobs: Runs jobs; ``None``: none are offered.
    """

    def __init__(
        self,
        remote: RemoteTools,
        identity: Identity,
        ledger: Ledger,
        on_request: Callable[[], None] = lambda: None,
        jobs: JobDoor | None = None,
    ) -> None:
        self._remote = remote
        self._jobs = jobs
        self._identity = identity
        self._on_request = on_request
        self._repeats = Repeats(ledger.lookup, time.time_ns() // 1000)
        self._waiting: dict[tuple[str, str, str], Claim] = {}
        self._turn = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def routes(self) -> list[BaseRoute]:
        """Return what is mounted beside the gateway's own paths."""
        return [Path("/mcp", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI)."""
        self._on_request()
        request = Request(scope, receive)
        try:
            scope[_RUN] = await self._who(request)
        except ToolkitError as error:
            unknown = isinstance(error, CallDenied)
            headers = {"www-authenticate": "Bearer"} if unknown else {}
            status = 401 if unknown else 503
            await json_reply({"error": error.to_json()}, status, headers)(scope, receive, send)
            return
        manager = await self._started()
        await manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """End what is under way; the gateway ends."""
        self._stop.set()
        if self._task is not None:
            with suppress(Exception, asyncio.CancelledError):
                await asyncio.wait_for(self._task, 5.0)

    # -- the SDK's server ---------------------------------------------------------------------

    async def _who(self, request: Request) -> RunRecord:
        shown = bearer_of(request.headers)
        run = self._identity.quickly(shown)
        return run if run is not None else await asyncio.to_thread(self._identity.who, shown)

    async def _started(self) -> StreamableHTTPSessionManager:
        """Return the SDK's session manager; it lives in a task of its own, as it has to."""
        async with self._turn:
            if self._manager is None:
                manager = await asyncio.to_thread(self._make)
                ready = asyncio.Event()

                async def live() -> None:
                    async with manager.run():
                        ready.set()
                        await self._stop.wait()

                self._task = asyncio.create_task(live(), name="mcp door")
                await ready.wait()
                self._manager = manager
            return self._manager

    def _make(self) -> StreamableHTTPSessionManager:
        # The SDK takes 0.6 s to load, so only where somebody speaks MCP.
        from mcp.server.lowlevel import Server
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        server: Server[Any] = Server(
            "agent-toolkit",
            instructions="Every call is decided by policy and recorded.",
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        # No sessions: every request shows its token, and nothing is kept for a client in between.
        return StreamableHTTPSessionManager(
            server, stateless=True, json_response=True, max_request_body_size=wire.MAX_BODY_BYTES
        )

    async def _list(self, context: ServerRequestContext[Any, Any], _: Any) -> ListToolsResult:
        from mcp_types import ListToolsResult, Tool, ToolAnnotations

        tools, _faults = await self._remote.described(_run(context))
        if self._jobs is not None:
            tools = [*tools, *await self._jobs.offered(_run(context))]
        return ListToolsResult(
            tools=[
                Tool(
                    name=tool["name"].replace(".", "-"),
                    title=tool["name"],
                    description=tool["description"],
                    input_schema={"type": "object", **tool["parameters"]},
                    annotations=ToolAnnotations(read_only_hint=tool["effect"] == Effect.READ),
                )
                for tool in tools
            ]
        )

    async def _call(
        self, context: ServerRequestContext[Any, Any], asked: CallToolRequestParams
    ) -> CallToolResult:
        from mcp_types import CallToolResult, TextContent

        run = _run(context)
        try:
            kind, name = await self._name(run, asked.name)
            call = await self._made(run, kind, name, asked.arguments or {})
            outcome = call.outcome
            if outcome is None or outcome.state is not CallState.OK:
                raise error_from_json((outcome.error if outcome else None) or {})
        except ToolkitError as error:
            text = str(error) if error.next_step is None else f"{error} ({error.next_step})"
            return CallToolResult(content=[TextContent(text=text)], is_error=True)
        answer = outcome.answer
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return CallToolResult(
            content=[TextContent(text=text)],
            structured_content=answer if isinstance(answer, dict) else None,
        )

    # -- calls --------------------------------------------------------------------------------

    async def _name(self, run: RunRecord, given: str) -> tuple[CallKind, str]:
        """Return the catalog's name of a tool or a job, as it is called there or here.

        Raises:
            NotFound: There is none.
        """
        box = await self._remote.toolbox()
        for name in box.names:
            if given in (name, name.replace(".", "-")):
                return CallKind.TOOL, name
        job = None if self._jobs is None else self._jobs.named(run, given)
        if job is not None:
            return CallKind.JOB, job
        raise NotFound(f"there is no tool {given[:100]!a}", next_step="list the tools again")

    async def _made(
        self, run: RunRecord, kind: CallKind, name: str, arguments: dict[str, Any]
    ) -> CallRecord:
        claim = await self._claim(run, kind, name, arguments)
        place = (str(run.token_digest), f"{kind}:{name}", claim.intent.arguments_digest)
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                if kind is CallKind.JOB and self._jobs is not None:
                    call = await self._jobs.invoke(run, claim.intent)
                else:
                    call = await self._remote.invoke(run, claim.intent)
            except ApprovalPending:
                if time.monotonic() < until:
                    await asyncio.sleep(_ASK_AGAIN_S)
                    continue
                if len(self._waiting) < _MOST_WAITING:
                    self._waiting[place] = claim
                raise
            except ToolkitError:
                claim.ended(None, heard=True)
                raise
            claim.ended(call, heard=True)
            return call

    async def _claim(
        self, run: RunRecord, kind: CallKind, name: str, arguments: dict[str, Any]
    ) -> Claim:
        """Return which call a request is: one that waits for a person, or a new one."""
        token = str(run.token_digest)
        intent = Intent(
            run_id=run.run_id,
            kind=kind,
            name=name,
            arguments=arguments,
            effect=Effect.WRITE if kind is CallKind.JOB else self._remote.effect(run, name),
            cell=self._repeats.cell(token),
        )
        waited = self._waiting.pop((token, f"{kind}:{name}", intent.arguments_digest), None)
        if waited is not None:
            return waited
        if self._repeats.must_look(token, intent, run.created_us or run.started_us or 0):
            await asyncio.to_thread(self._repeats.recover, token, intent)
        return self._repeats.claim(token, intent, Sent())


def _run(context: ServerRequestContext[Any, Any]) -> RunRecord:
    """Return the run that the request's token belongs to."""
    request: Request | None = context.request
    run = None if request is None else request.scope.get(_RUN)
    if not isinstance(run, RunRecord):
        raise CallDenied("the request carries no run token")
    return run
