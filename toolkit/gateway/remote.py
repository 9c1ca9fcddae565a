"""Calls of tools that others offer: decided and recorded by the door, made from this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from toolkit.client import wire
from toolkit.errors import CallInDoubt, NotFound, ToolkitError, UsageError
from toolkit.gateway.app import Handler, Links
from toolkit.gateway.divergence import REPLAYS
from toolkit.gateway.door import Door
from toolkit.gateway.replies import call_reply
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.policy import ToolEntry
from toolkit.tools import Toolbox
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Effect,
    Intent,
    Outcome,
    RunRecord,
    traceparent,
)

__all__ = ["RemoteTools"]

_LOOK_AGAIN_S = 0.5
_TIMEOUT_S = 30.0
"""Of a tool whose entry names no ``timeout_s``."""
_MOST_NAMES = 200
_PURPOSE_CHARS = 500


class RemoteTools:
    """The servers and services of ``tools.yaml``, behind the door.

    Args:
        door: Decides, records, and calls :meth:`Toolbox.call`.
        links: Where people look at what was recorded.
        make: Builds the toolbox; called once, in a thread, when a tool is first asked for.
    """

    def __init__(self, door: Door, links: Links, make: Callable[[], Toolbox]) -> None:
        self._door = door
        self._links = links
        self._make = make
        self._box: Toolbox | None = None
        self._looked = 0.0
        self._turn = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """Return handlers by path of the toolkit's own protocol."""
        return {wire.TOOL: self._call, wire.TOOLS: self._list}

    async def invoke(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Make one call through the door and return its record.

        Effect, time limit and whether it may be repeated are the catalog's, whatever the caller
        says.

        Raises:
            NotFound: The tool is not listed (a reproduction answers from its journal first).
            CallDenied, BudgetExceeded, CallInDoubt: See ``Door.perform``.
        """
        if run.kind in REPLAYS:  # whatever the catalog lists today
            return (await self._door.replayed(run, intent)).call
        entry = self._entry(run, intent.name)
        if entry is None and run.source_run_id is None:
            raise (await self.toolbox()).unlisted(intent.name)
        limit = _TIMEOUT_S if entry is None or entry.timeout_s is None else entry.timeout_s
        repeatable = entry is not None and entry.repeatable

        async def perform(call: CallRecord, arguments: Any) -> Outcome:
            box = await self.toolbox()
            try:
                answer = await box.call(
                    intent.name,
                    arguments,
                    timeout_s=limit,
                    repeatable=repeatable,
                    key=call.idempotency_key if call.intent.effect is Effect.WRITE else None,
                    trace=traceparent(call),
                )
            except CallInDoubt as error:
                return await self._door.doubts.broke_off(run, call, error)
            return Outcome(CallState.OK, answer=answer)

        work = Work(perform, await self._facts(intent.name), Worst(seconds=limit), repeatable)
        return await self._door.perform(run, intent, work)

    def effect(self, run: RunRecord, name: str) -> Effect:
        """Return a tool's effect; one that is not listed counts as a write."""
        entry = self._entry(run, name)
        return Effect.WRITE if entry is None else entry.effect

    async def described(
        self, run: RunRecord, names: Sequence[str] | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return tools as a model needs them, and the errors of those that cannot be described.

        Args:
            run: The caller.
            names: Which ones; ``None``: every listed tool of every server.
        """
        box = await self.toolbox()
        wanted = box.names if names is None else names
        found = await asyncio.gather(*(self._describe(box, run, name) for name in wanted))
        tools = [tool for tool in found if isinstance(tool, dict)]
        faults = [
            {"name": name, "error": error.to_json()}
            for name, error in zip(wanted, found, strict=True)
            if isinstance(error, ToolkitError)
        ]
        return tools, faults

    async def toolbox(self) -> Toolbox:
        """Return the toolbox of the files as they are now.

        Raises:
            NotFound, InvalidFile: They have faults; no tool is called until they are mended.
        """
        async with self._turn:
            now = time.monotonic()
            if self._box is None:
                self._box = await asyncio.to_thread(self._make)
            elif now - self._looked > _LOOK_AGAIN_S:
                self._box.reload()
            self._looked = now
            return self._box

    async def close(self) -> None:
        """End every server; the gateway ends."""
        box, self._box = self._box, None
        if box is not None:
            await box.close()

    # -- the toolkit's own protocol -----------------------------------------------------------

    async def _call(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        intent = _intent(run, body, self.effect(run, str(body.get("name"))))
        call = await self.invoke(run, intent)
        again = call.intent.request_id != intent.request_id or call.intent.run_id != run.run_id
        return call_reply(call, run, self._links, replayed=again)

    async def _list(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        names = body.get("names")
        if names is not None and (
            not isinstance(names, list)
            or len(names) > _MOST_NAMES
            or not all(isinstance(name, str) for name in names)
        ):
            raise UsageError(f"names is no list of at most {_MOST_NAMES} tools")
        tools, faults = await self.described(run, names)
        return {"tools": tools, "faults": faults}

    # -- parts --------------------------------------------------------------------------------

    async def _describe(
        self, box: Toolbox, run: RunRecord, name: str
    ) -> dict[str, Any] | ToolkitError:
        try:
            entry = self._entry(run, name)
            if entry is None:
                return box.unlisted(name)
            offer = await box.describe(name, fresh=True)
        except ToolkitError as error:
            return error
        return {
            "name": name,
            "description": entry.description or offer.description,
            "parameters": offer.parameters,
            "effect": entry.effect.value,
            "digest": offer.digest,
        }

    async def _facts(self, name: str) -> Facts:
        """Return what the gateway knows of a call: the host that it goes to, if it leaves."""
        try:
            host = (await self.toolbox()).host(name)
        except NotFound:
            host = None
        return Facts(values={} if host is None else {"host": host})

    def _entry(self, run: RunRecord, name: str) -> ToolEntry | None:
        return self._door.governance.bundle(run.environment).tools.get(name)


def _intent(run: RunRecord, body: dict[str, Any], effect: Effect) -> Intent:
    """Read a call's identity from the wire.

    Raises:
        UsageError: A member is missing or malformed.
    """
    purpose = body.get("purpose")
    try:
        return Intent(
            run_id=run.run_id,
            kind=CallKind.TOOL,
            name=str(body["name"]),
            arguments=body.get("arguments"),
            parent=body.get("parent"),
            occurrence=int(body.get("occurrence") or 0),
            request_id=str(body["request_id"]),
            effect=effect,
            cell=body.get("cell"),
            case_id=body.get("case_id"),
            purpose=None if purpose is None else str(purpose)[:_PURPOSE_CHARS],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"the call is malformed: {error}") from error
