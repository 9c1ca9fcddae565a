"""Values that differ each time they are made, and must not when a run starts again.

The gateway makes them, so no kernel can pass something else off as the time, and nothing but a
name comes in.
"""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from toolkit.client import wire
from toolkit.errors import UsageError
from toolkit.gateway.app import Handler, Links
from toolkit.gateway.door import Door
from toolkit.gateway.replies import call_reply
from toolkit.gateway.work import Work
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Clock,
    Intent,
    Outcome,
    RunRecord,
    iso_utc,
)

__all__ = ["JournalDoor", "make_value"]

_SEED_BYTES = 16


def make_value(name: str, clock: Clock) -> str:
    """Return a fresh value.

    Args:
        name: ``now`` (ISO 8601, UTC, microseconds), ``random`` (a seed, 32 hex digits) or ``uuid``
            (version 4 of RFC 9562).
        clock: Tells the time.

    Raises:
        UsageError: There is no such value.
    """
    if name == "now":
        return iso_utc(clock.now_us())
    if name == "random":
        return secrets.token_hex(_SEED_BYTES)
    if name == "uuid":
        return str(uuid.uuid4())
    raise UsageError(f"there is no journaled value {name[:40]!a}", next_step="now, random or uuid")


class JournalDoor:
    """What a kernel asks about its journal, and the values that it keeps there.

    Args:
        door: Records.
        links: Where people look at what was recorded.
    """

    def __init__(self, door: Door, links: Links) -> None:
        self._door = door
        self._links = links

    def handlers(self) -> dict[str, Handler]:
        """Return handlers by path of the toolkit's own protocol."""
        return {wire.VALUE: self.value, wire.JOURNAL: self.report}

    async def value(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Make a value, or answer with the one that an earlier attempt was given."""
        try:
            intent = Intent(
                run_id=run.run_id,
                kind=CallKind.VALUE,
                name=str(body["name"]),
                arguments={},
                parent=body.get("parent"),
                occurrence=int(body.get("occurrence") or 0),
                request_id=str(body["request_id"]),
                cell=body.get("cell"),
                case_id=body.get("case_id"),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise UsageError(f"the call is malformed: {error}") from error
        made = make_value(intent.name, self._door.clock)  # an unknown name is recorded nowhere

        async def perform(_: CallRecord, __: Any) -> Outcome:
            return Outcome(CallState.OK, answer=made)

        call = await self._door.perform(run, intent, Work(perform))
        again = call.intent.request_id != intent.request_id or call.intent.run_id != run.run_id
        return call_reply(call, run, self._links, replayed=again)

    async def report(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Tell how far the caller's attempt has come; with ``hello`` note that it begins."""
        await self._door.journals.of(run, hello=bool(body.get("hello")))
        return await self._door.journals.report(run)
