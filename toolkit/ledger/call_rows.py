"""One call's row: how it is read, found, held fast, and what is checked before it changes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, select, update

from toolkit.errors import Busy, Conflict, NotFound
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import call_from
from toolkit.ledger.schema import calls, entries
from toolkit.ledger.transaction import Transaction
from toolkit.values import CallRecord, CallState, Intent

__all__ = [
    "UPDATE_CALL",
    "append_entry",
    "check_not_parked",
    "check_running",
    "exact_call",
    "locked_row",
    "select_calls",
    "unfinished_row",
]

_intents = entries.alias("intents")
_outcomes = entries.alias("outcomes")


def select_calls(*where: ColumnElement[bool]) -> Select[Any]:
    """Select rows that :func:`call_from` reads."""
    joined = calls.join(
        _intents, (_intents.c.run_id == calls.c.run_id) & (_intents.c.n == calls.c.intent_n)
    ).outerjoin(
        _outcomes, (_outcomes.c.run_id == calls.c.run_id) & (_outcomes.c.n == calls.c.outcome_n)
    )
    return (
        select(
            calls,
            _intents.c.body.label("intent_body"),
            _outcomes.c.body.label("outcome_body"),
        )
        .select_from(joined)
        .where(*where)
    )


_EXACT = select_calls(
    calls.c.run_id == bindparam("run"),
    calls.c.call_key == bindparam("key"),
    calls.c.generation == bindparam("gen"),
)
_ROW = select(
    calls.c.seq,
    calls.c.state,
    calls.c.started_us,
    calls.c.reserved,
    calls.c.decision,
    calls.c.tags,
    calls.c.released_n,
).where(
    calls.c.run_id == bindparam("run"),
    calls.c.call_key == bindparam("key"),
    calls.c.generation == bindparam("gen"),
)
UPDATE_CALL = update(calls).where(calls.c.seq == bindparam("one"))


def check_not_parked(tx: Transaction, run_id: str) -> None:
    """Refuse a call of a run that waits for a person.

    Raises:
        Conflict: It does.
    """
    # What still runs of it is about to be killed; it will ask again when somebody has decided.
    if tx.is_parked(run_id):
        raise Busy(
            f"the run {run_id} waits for a person and makes no calls until then",
            where=run_id,
            next_step="decide what it waits for: toolkit inbox",
        )


def check_running(tx: Transaction, intent: Intent) -> None:
    """Refuse a call of a run that has ended.

    Raises:
        Conflict: It has.
    """
    # What it holds was given back when the run ended; nobody would do that a second time.
    if tx.has_ended(intent.run_id):
        raise Conflict(
            f"the run {intent.run_id} has ended, and begins no calls that a budget pays for",
            where=intent.run_id,
            next_step="start another run",
        )


def append_entry(
    tx: Transaction,
    call: CallRecord,
    kind: EntryType,
    body: dict[str, Any],
    at_us: int | None = None,
) -> int:
    """Append an entry about a call to the chain of its run, and return its number."""
    return tx.append(
        call.intent.run_id,
        kind,
        body,
        at_us=tx.clock.now_us() if at_us is None else at_us,
        key=call.key,
        generation=call.generation,
    )


def _where(call: CallRecord) -> dict[str, Any]:
    return {"run": call.intent.run_id, "key": call.key, "gen": call.generation}


def exact_call(tx: Transaction, call: CallRecord) -> CallRecord:
    """Return a call as it is recorded."""
    return call_from(tx.first(_EXACT, **_where(call)))


def locked_row(tx: Transaction, call: CallRecord) -> Any:
    """Hold the row of a call until the transaction ends.

    Raises:
        NotFound: It was never begun.
    """
    tx.lock_run(call.intent.run_id)
    row = tx.first(_ROW, **_where(call))
    if row is None:
        raise NotFound(
            f"the ledger has no call {call.call_id}",
            where=call.call_id,
            next_step="begin the call before finishing it",
        )
    return row


def unfinished_row(tx: Transaction, call: CallRecord, *, released: bool = False) -> Any:
    """Hold the row of a call that has no outcome.

    Args:
        tx: The transaction.
        call: The call.
        released: Whether it may be one that the end of its run has settled.

    Raises:
        Conflict: It has ended, its run waits for a person, or the run's end has settled it.
    """
    row = locked_row(tx, call)
    if row.state != CallState.STARTED:
        raise Conflict(
            f"the call {call.call_id} has already ended ({row.state})",
            where=call.call_id,
            next_step="read its outcome with Ledger.get_call",
        )
    check_not_parked(tx, call.intent.run_id)
    if row.released_n is not None and not released:
        raise Conflict(
            f"the run of the call {call.call_id} has ended, and what it held was settled",
            where=call.call_id,
            next_step="start another run",
        )
    return row
