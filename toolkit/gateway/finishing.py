"""Which calls a kernel may end: those whose body runs in it, once they were allowed."""

from __future__ import annotations

import asyncio

from toolkit.errors import Conflict
from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallRecord, Verdict

__all__ = ["check_finish", "check_kernels_own"]

_IN_KERNEL = (CallKind.TOOL, CallKind.AGENT)
_REFUSED = "finish_refused"
"""Tag of a call that a kernel tried to end and may not."""


def check_kernels_own(call: CallRecord) -> None:
    """Refuse a kernel's word on a call that the gateway makes.

    Raises:
        Conflict: The gateway makes it.
    """
    if call.intent.kind not in _IN_KERNEL or call.intent.at_gateway:
        raise Conflict(
            f"{call.intent.kind} {call.intent.name!r} is made by the gateway, which alone can say "
            "how it ended",
            where=call.call_id,
            next_step="wait for the answer of the call",
        )


async def check_finish(ledger: Ledger, call: CallRecord) -> None:
    """Refuse to record a kernel's outcome of a call that it does not make, or may not make yet.

    The first such try is kept with the call.

    Raises:
        Conflict: The gateway makes the call, or a person has not decided about it.
    """
    try:
        _check(call)
    except Conflict as error:
        if call.outcome is None and _REFUSED not in call.tags:
            tags = {_REFUSED: error.message[:200]}
            await asyncio.to_thread(ledger.tag, call, tags)
        raise


def _check(call: CallRecord) -> None:
    check_kernels_own(call)
    if call.outcome is None and call.decision.verdict is not Verdict.ALLOW:
        raise Conflict(
            f"{call.intent.kind} {call.intent.name!r} waits for a person and has not begun",
            where=call.call_id,
            next_step="send the call again; it goes on when somebody has decided",
        )
