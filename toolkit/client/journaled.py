"""The time, randomness and new ids for notebooks that may start again: made once, then recorded.

A run that resumes, and a replay, get the values that the first attempt got; a new run gets new
ones.  The gateway makes the values and records them like calls (kind ``value``); they are always
permitted, count against no budget, and are not drawn as spans.

Of two calls of the same helper in the same place, the first one asked gets the first value.  Where
parts of a notebook run at once that is a race, so ask before they begin, or inside a tool or agent:
each of their calls counts for itself.

Outside of a toolkit kernel (a plain script, a unit test) the helpers work without a record.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from random import Random
from uuid import UUID, uuid4

from toolkit.client import approvals, wire
from toolkit.client import connection as connections
from toolkit.client.frames import CURRENT
from toolkit.errors import UsageError, error_from_json
from toolkit.values import CallKind

__all__ = ["idempotency_key", "now", "random", "uuid"]

_SEED_BYTES = 16


def now() -> datetime:
    """Return the time in UTC (aware), to the microsecond, as it was when the run first asked.

    Raises:
        CallDenied: A stop is in force.
        GatewayUnavailable, LedgerError: It cannot be recorded.
    """
    told = _value("now")
    return datetime.now(UTC) if told is None else datetime.fromisoformat(told)


def random() -> Random:
    """Return a new generator with a recorded seed of 128 bits: the same numbers on resume.

    Its numbers follow from the seed by Python's ``random.Random``, so a replay under another
    version of Python may draw others.  Never use it for secrets: the seed stands in the ledger.

    Raises:
        CallDenied, GatewayUnavailable, LedgerError: See :func:`now`.
    """
    told = _value("random")
    return Random(secrets.token_hex(_SEED_BYTES) if told is None else told)  # noqa: S311 - said so


def uuid() -> UUID:
    """Return a new random UUID (version 4 of RFC 9562), the same one on resume.

    Raises:
        CallDenied, GatewayUnavailable, LedgerError: See :func:`now`.
    """
    told = _value("uuid")
    return uuid4() if told is None else UUID(told)


def idempotency_key() -> str:
    """Return the key of the tool call whose body is running: the same at every attempt.

    Hand it to the service that the body asks (for HTTP: the header ``Idempotency-Key``), so that a
    repetition is recognised there.  A tool that does so may be declared ``idempotent``.

    Raises:
        UsageError: No tool's body is running.
    """
    frame = CURRENT.get()
    if frame is None or frame.idempotency_key is None:
        raise UsageError(
            "an idempotency key belongs to a tool's call, and none is running",
            next_step="ask for it inside of a function with @toolkit.tool",
        )
    return frame.idempotency_key


def _value(name: str) -> str | None:
    """Return a recorded value; ``None`` outside of a toolkit kernel."""
    opened = connections._connection is not None  # noqa: SLF001 - the same room
    if not opened and wire.ENV_SOCKET not in os.environ:
        return None
    connection = connections.current()
    request = connection.identify(CallKind.VALUE, name, {})
    reply = approvals.call(connection, wire.VALUE, request)
    outcome = reply["outcome"]
    if outcome["state"] != "ok":
        raise error_from_json(outcome["error"] or {})
    return str(outcome["answer"])
