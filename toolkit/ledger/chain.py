"""The hash chain of a run, and the one of the stop switches.

Entry format 1: ``hash`` is the digest of the canonical JSON array
``[1, run_id, n, type, call_key, generation, at_us, prev, digest of the body's UTF-8 bytes]``;
``n`` counts from 1 and the first ``prev`` is the empty string.
"""

from __future__ import annotations

from enum import StrEnum

from toolkit.values import canonical_bytes, digest_bytes

__all__ = ["SWITCHES", "EntryType", "entry_hash"]

_FORMAT = 1

SWITCHES = "switches"
"""The chain of stops and starts; it stands where other chains have the id of a run."""


class EntryType(StrEnum):
    """What an entry says."""

    RUN_CREATED = "run.created"
    RUN_UPDATED = "run.updated"
    CALL_INTENT = "call.intent"
    CALL_DECIDED = "call.decided"
    CALL_RESTARTED = "call.restarted"
    CALL_OUTCOME = "call.outcome"
    CALL_TAGGED = "call.tagged"
    CALL_ASK = "call.ask"
    CALL_ANSWERED = "call.answered"
    CALL_RELEASED = "call.released"
    SWITCH_STOPPED = "switch.stopped"
    SWITCH_STARTED = "switch.started"
    CASES_PUT = "cases.put"
    CASE_ANSWERED = "case.answered"


def entry_hash(
    *,
    run_id: str,
    n: int,
    type: str,  # noqa: A002 -- the column's name
    call_key: str | None,
    generation: int | None,
    at_us: int,
    prev: str,
    body: str,
) -> str:
    """Return the hash of one entry; see the module for the format."""
    facts = [_FORMAT, run_id, n, type, call_key, generation, at_us, prev]
    return digest_bytes(canonical_bytes([*facts, digest_bytes(body.encode("utf-8"))]))
