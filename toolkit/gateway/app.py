"""HTTP in, the door, HTTP out.  No decision is made here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.client import wire
from toolkit.errors import (
    CallError,
    ConfigurationError,
    Conflict,
    GatewayUnavailable,
    InfrastructureError,
    NotFound,
    ToolkitError,
    UsageError,
)
from toolkit.gateway.door import Door
from toolkit.gateway.doors import Doors
from toolkit.gateway.exchange import (
    Via,
    bearer_of,
    caller_of,
    headers_of,
    json_reply,
    log_fault,
    read_body,
    via,
)
from toolkit.gateway.identity import Identity
from toolkit.gateway.replies import call_reply, call_row, run_reply
from toolkit.ledger import Session
from toolkit.values import CallKind, CallRecord, CallState, Effect, Intent, Outcome, RunRecord

__all__ = ["Extension", "Links", "build_app"]

Handler = Callable[[RunRecord, dict[str, Any]], Awaitable[dict[str, Any] | Response]]
"""What answers one path: the caller's run and the body to a reply, JSON or one of its own."""


Case = tuple[str, dict[str, Any]]
"""A case's id and its inputs."""


class Links(Protocol):
    """Where people look at what was recorded; ``None`` when no UI runs."""

    def ui(self) -> str | None:
        """Return the base address of MLflow's UI."""
        ...

    def trace(self, run: RunRecord, run_id: str, trace_key: str) -> str | None:
        """Return the address of one trace of ``run_id``, as ``run`` may see it."""
        ...


class Extension(Protocol):
    """A room above the gateway that answers paths of its own (evaluations)."""

    def handlers(self) -> dict[str, Handler]:
        """Return handlers by path."""
        ...


def build_app(
    door: Door,
    identity: Identity,
    links: Links,
    *,
    extension: Extension | None = None,
    mounts: Sequence[BaseRoute] = (),
    on_request: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Return the gateway as an ASGI application (tests may mount it in process).

    Args:
        door: What decides, executes and records.
        identity: Who calls.
        links: Where people look.
        extension: Paths of a room above; each gets the caller's run and a JSON object.
        mounts: Routes of their own, which look after identity and answers themselves.
        on_request: Called at every request.
    """
    doors = Doors(door, identity, on_request)
    routes = _Routes(door, identity, links)
    handlers: dict[str, Handler] = {
        wire.MODEL: routes.model,
        wire.BEGIN: routes.begin,
        wire.FINISH: routes.finish,
        wire.RESULT: routes.result,
        wire.STATUS: routes.status,
        wire.CALLS: routes.calls,
        wire.CELL: doors.start_cell,
        wire.NEXT_CASE: routes.next_case,
        wire.ANSWER_CASE: routes.answer_case,
        **(extension.handlers() if extension is not None else {}),
    }

    async def health(_: Request) -> Response:
        return json_reply({"ok": True})

    async def sessions(request: Request) -> Response:
        on_request()
        return await _guard(routes.open_session(request))

    paths = [
        Path(wire.HEALTH, health, methods=["GET"]),
        Path(wire.SESSIONS, sessions, methods=["POST"]),
    ]
    for path, handler in handlers.items():
        paths.append(Path(path, _endpoint(identity, handler, on_request), methods=["POST"]))
    own = [*paths, *doors.routes()]
    rest = Starlette(routes=[*paths, *mounts, *doors.routes()])
    return _straight(own, rest, door.flow.catch_up)


def _straight(routes: Sequence[Path], rest: ASGIApp, after: Callable[[], None]) -> ASGIApp:
    """Serve exact paths without a router's search and Starlette's layers: 0.2 ms of every call.

    What those layers do, the endpoints do themselves: no error leaves them.  ``after`` is called when
    an answer has been sent.
    """
    exact = {
        (method, route.path): route.endpoint
        for route in reversed(routes)  # the first of two that fit answers
        if "{" not in route.path
        for method in route.methods or ()
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http":
            endpoint = exact.get((scope["method"], scope["path"]))
        if endpoint is None:
            await rest(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
        after()

    return app


def _endpoint(
    identity: Identity, handler: Handler, on_request: Callable[[], None]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> dict[str, Any] | Response:
        shown = bearer_of(headers_of(request))
        # A thread costs more than the rest of a call's identification.
        run = identity.quickly(shown)
        if run is None:
            run = await asyncio.to_thread(identity.who, shown)
        return await handler(run, await read_body(request))

    async def endpoint(request: Request) -> Response:
        on_request()
        return await _guard(answer(request))

    return endpoint


async def _guard(answer: Awaitable[dict[str, Any] | Response]) -> Response:
    """Turn an error into its JSON form; nothing else may leave this process."""
    try:
        body = await answer
        return body if isinstance(body, Response) else json_reply(body)
    except ToolkitError as error:
        return json_reply({"error": error.to_json()}, _status(error))
    except asyncio.CancelledError:
        # Only the end of this process cancels a request; the kernel asks the next gateway.
        ending = GatewayUnavailable("the gateway is ending", next_step="ask again")
        return json_reply({"error": ending.to_json()}, _status(ending))
    except Exception as error:  # noqa: BLE001 - a fault of ours, told without its insides
        hidden = ToolkitError(
            f"the gateway failed: {type(error).__name__}",
            next_step="see .toolkit/logs/gateway.log",
        )
        log_fault(error)
        return json_reply({"error": hidden.to_json()}, 500)


def _status(error: ToolkitError) -> int:
    table: tuple[tuple[type[ToolkitError], int], ...] = (
        (NotFound, 404),
        (Conflict, 409),
        (UsageError, 422),
        (CallError, 403),
        (ConfigurationError, 424),
        (InfrastructureError, 503),
    )
    return next((status for kind, status in table if isinstance(error, kind)), 400)


class _Routes:
    """The handlers of the toolkit's own protocol."""

    def __init__(self, door: Door, identity: Identity, links: Links) -> None:
        self.door = door
        self.identity = identity
        self.links = links

    async def open_session(self, request: Request) -> dict[str, Any]:
        body = await read_body(request)
        notebook, request_id = body.get("notebook"), str(body.get("request_id") or "")
        opener = None
        if via(request) in {Via.LOOPBACK, Via.TEAM}:
            opener = await asyncio.to_thread(self.identity.opener, bearer_of(request.headers))
        process = caller_of(request) if opener is None else None
        run, token = await asyncio.to_thread(
            self.identity.open_session, notebook, request_id, opener, process
        )
        return {**run_reply(run), "token": token, "ui_url": self.links.ui()}

    async def model(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        intent = _intent(run, body, CallKind.MODEL)
        call = await self.door.model(run, intent)
        return self._reply(call, run, intent)

    async def begin(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        intent = _intent(run, body, CallKind.TOOL, CallKind.AGENT)
        call = await self.door.begin(run, intent)
        reply = self._reply(call, run, intent)
        governance = self.door.governance
        timeout_s = governance.timeout_s(run, intent) if call.outcome is None else None
        if timeout_s is not None:  # the body is about to run, and only its kernel can end it
            repeatable = governance.repeatable(run, intent)
            reply["limit"] = {"timeout_s": timeout_s, "repeatable": repeatable}
        return reply

    async def finish(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        state = CallState.OK if body.get("state") == "ok" else CallState.ERROR
        outcome = Outcome(state, answer=body.get("answer"), error=body.get("error"))
        key, generation = str(body.get("key")), int(body.get("generation") or 0)
        call = await self.door.finish(run, key, generation, outcome)
        return call_reply(call, run, self.links, replayed=False)

    async def result(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        intent = _intent(run, body, CallKind.RESULT)
        if not isinstance(intent.arguments, dict) or "value" not in intent.arguments:
            raise UsageError("a result needs a value")
        return self._reply(await self.door.result(run, intent), run, intent)

    async def status(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        ledger = self.door.ledger
        if body.get("hello"):  # a kernel begins: from here on it is known what it asks again
            await self.door.journals.of(run, hello=True)
        totals = await asyncio.to_thread(ledger.totals, run.run_id)
        return {
            **run_reply(run),
            "ui_url": self.links.ui(),
            "unshipped": await asyncio.to_thread(ledger.unshipped_count),
            "totals": {
                "calls": totals.calls,
                "by_kind": dict(totals.by_kind),
                "errors": totals.errors,
                "denied": totals.denied,
                "input_tokens": totals.input_tokens,
                "output_tokens": totals.output_tokens,
                "cost_usd": str(totals.cost.usd),
                "unknown_cost_calls": totals.unknown_cost_calls,
            },
        }

    async def calls(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        limit = max(1, min(int(body.get("limit") or 100), 1000))
        after = int(body.get("after_seq") or 0)
        rows = await asyncio.to_thread(
            self.door.ledger.calls, run.run_id, after_seq=after, limit=limit
        )
        return {"calls": [call_row(call, run, self.links) for call in rows]}

    async def next_case(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        reset = bool(body.get("reset"))
        # What was handed out is handed out again if it was not answered: no sync of the disk.
        return _case(
            await self.door.writer.promise(
                lambda session: session.next_case(run.run_id, reset=reset), synced=False
            )
        )

    async def answer_case(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        case_id, wanted = str(body.get("case_id")), bool(body.get("next"))
        output = self.door.screen.value(run.run_id, body.get("output"))
        error = self.door.screen.value(run.run_id, body.get("error"))

        def work(session: Session) -> Case | None:
            session.answer_case(run.run_id, case_id, output, error)
            return session.next_case(run.run_id) if wanted else None

        found = await self.door.writer.promise(work, alone=True)
        return {"case_id": case_id, **({"next": _case(found)} if wanted else {})}

    def _reply(self, call: CallRecord, run: RunRecord, intent: Intent) -> dict[str, Any]:
        """Reply to one call; a record that another request made is a replay."""
        replayed = call.intent.run_id != run.run_id or call.intent.request_id != intent.request_id
        return call_reply(call, run, self.links, replayed=replayed)


def _case(found: Case | None) -> dict[str, Any]:
    return {"case_id": None} if found is None else {"case_id": found[0], "inputs": found[1]}


def _intent(run: RunRecord, body: dict[str, Any], *kinds: CallKind) -> Intent:
    """Read a call's identity from the wire.

    Raises:
        UsageError: A member is missing or malformed.
    """
    try:
        kind = CallKind(str(body["kind"]))
        intent = Intent(
            run_id=run.run_id,
            kind=kind,
            name=str(body["name"]),
            arguments=body.get("arguments"),
            parent=body.get("parent"),
            occurrence=int(body.get("occurrence") or 0),
            request_id=str(body["request_id"]),
            effect=Effect(body.get("effect") or "read"),
            cell=body.get("cell"),
            case_id=body.get("case_id"),
            purpose=body.get("purpose"),
            idempotent=bool(body.get("idempotent")),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"the call is malformed: {error}") from error
    if kind not in kinds:
        raise UsageError(f"a {kind} call is not accepted here")
    return intent
