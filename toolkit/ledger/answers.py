"""Every decision about a request, read from the run's chain: an escalation and an approval are two."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, bindparam, select

from toolkit.ledger.chain import EntryType
from toolkit.ledger.records import ApprovalState, Said
from toolkit.ledger.schema import approvals, entries

__all__ = ["answers_to"]

# The primary key of the chain finds them: between the request and its last answer.
_SAID = (
    select(entries.c.at_us, entries.c.body)
    .select_from(approvals.join(entries, entries.c.run_id == approvals.c.run_id))
    .where(
        approvals.c.approval_id == bindparam("one"),
        entries.c.n > approvals.c.ask_n,
        entries.c.n <= approvals.c.answer_n,
        entries.c.type == EntryType.CALL_ANSWERED.value,
        entries.c.call_key == approvals.c.call_key,
        entries.c.generation == approvals.c.generation,
    )
    .order_by(entries.c.n)
)


def answers_to(connection: Connection, approval_id: str) -> list[Said]:
    """Return what was decided about a request, the oldest first; nothing if nobody has yet."""
    return [_said(row) for row in connection.execute(_SAID, {"one": approval_id})]


def _said(row: Any) -> Said:
    body = json.loads(row.body)
    return Said(
        state=ApprovalState(body["state"]),
        by=body["by"],
        at_us=row.at_us,
        reason=body["reason"],
        arguments=body.get("arguments"),
        role=body.get("escalated_to"),
        signed=body.get("signed"),
    )
