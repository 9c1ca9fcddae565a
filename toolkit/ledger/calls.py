"""Recording one call: intent, decision, outcome, tags."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import bindparam, func, select, update

from toolkit.errors import Busy, Conflict, UsageError, is_infrastructure
from toolkit.ledger.abandoned import settle_call
from toolkit.ledger.budgets import charge, held_of, reserve_budget
from toolkit.ledger.call_rows import (
    UPDATE_CALL,
    append_entry,
    check_not_parked,
    check_running,
    exact_call,
    locked_row,
    select_calls,
    unfinished_row,
)
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import (
    as_recorded,
    call_from,
    check_payload,
    check_plain,
    decision_json,
    intent_columns,
    intent_json,
    json_text,
    outcome_columns,
    outcome_json,
)
from toolkit.ledger.rates import count_rates
from toolkit.ledger.records import Begun, Reservation
from toolkit.ledger.reservations import reservation_json
from toolkit.ledger.schema import calls
from toolkit.ledger.switches import active_stop, stopped
from toolkit.ledger.traces import assign_trace
from toolkit.ledger.transaction import Transaction
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Intent,
    Outcome,
    RunKind,
    Verdict,
    call_key,
    changed,
    digest_bytes,
)

__all__ = [
    "begin_call",
    "decide_call",
    "finish_call",
    "mark_calls_shipped",
    "tag_call",
]

_BY_REQUEST = select_calls(
    calls.c.run_id == bindparam("run"), calls.c.request_id == bindparam("request")
)
_LATEST = (
    select_calls(calls.c.run_id == bindparam("run"), calls.c.call_key == bindparam("key"))
    .order_by(calls.c.generation.desc())
    .limit(1)
)
# Nearly every call is new: one question, and only what is there is read.  NULL equals no id.
_BEFORE = select(
    select(calls.c.seq)
    .where(calls.c.run_id == bindparam("run"), calls.c.request_id == bindparam("request"))
    .scalar_subquery()
    .label("same"),
    select(func.max(calls.c.generation))
    .where(calls.c.run_id == bindparam("run"), calls.c.call_key == bindparam("key"))
    .scalar_subquery()
    .label("generation"),
)
_INSERT = calls.insert().returning(calls.c.seq)
_SHIPPED = (
    update(calls)
    .where(calls.c.seq == bindparam("one"), calls.c.tags == bindparam("seen"))
    .where(calls.c.outcome_n.is_not(None))
    .values(shipped=1)
)


def begin_call(
    tx: Transaction,
    intent: Intent,
    decision: Decision,
    reserve: Reservation | None,
    switches: Sequence[str],
    *,
    anew: tuple[int, int] | None = None,
) -> Begun:
    """Record an intent, or find the record of an earlier one; see ``Ledger.begin``."""
    _check_intent(intent)
    digest, key = _identity(intent)
    kind = tx.lock_run(intent.run_id)
    before = tx.first(_BEFORE, run=intent.run_id, request=intent.request_id or None, key=key)
    if before.same is not None:
        row = tx.first(_BY_REQUEST, run=intent.run_id, request=intent.request_id)
        if row is not None:  # else its entry is gone, and the insert below says what it meets
            return Begun(_same_call(call_from(row), key), fresh=False)
    generation = 0
    if before.generation is not None:
        if kind is not RunKind.SESSION:
            found = call_from(tx.first(_LATEST, run=intent.run_id, key=key))
            if not _is_no_answer(found, anew):
                return Begun(found, fresh=False)
        generation = before.generation + 1
    check_not_parked(tx, intent.run_id)
    stop = active_stop(tx, switches)
    if stop is not None:
        decision = stopped(decision, stop)
    call = _record(tx, intent, decision, reserve, (digest, key, generation))
    if decision.verdict is Verdict.DENY:
        call = finish_call(tx, call, _denied(decision))
    return Begun(call, fresh=True)


def _is_no_answer(found: CallRecord, anew: tuple[int, int] | None) -> bool:
    """Whether a record is of a failure that ended an attempt before, and that may have passed."""
    if anew is None or found.outcome is None or found.started_us is None:
        return False
    from_us, to_seq = anew
    if found.started_us < from_us or found.seq > to_seq:
        return False
    return found.outcome.state is CallState.ERROR and is_infrastructure(found.outcome.error)


def _identity(intent: Intent) -> tuple[str, str]:
    """Return the digest of a call's arguments and its key."""
    try:
        return intent.arguments_digest, intent.key
    except (ValueError, RecursionError):
        digest = digest_bytes(check_payload(intent.arguments, "arguments"))  # says what is wrong
        return digest, call_key(intent.parent, intent.kind, intent.name, digest, intent.occurrence)


def _check_intent(intent: Intent) -> None:
    check_plain(intent.name, "name")
    check_plain(intent.request_id, "request id")
    check_plain(intent.parent, "parent")
    check_plain(intent.case_id, "case id")
    check_plain(intent.agent, "agent")
    if intent.occurrence < 0:
        raise UsageError("an occurrence counts from 0", where=f"occurrence {intent.occurrence}")


def _same_call(call: CallRecord, key: str) -> CallRecord:
    if call.key != key:
        raise Conflict(
            f"request {call.intent.request_id} was recorded for another call",
            where=call.call_id,
            next_step="give each call its own request id; a resent call repeats its arguments",
        )
    return call


def _record(
    tx: Transaction,
    intent: Intent,
    decision: Decision,
    reserve: Reservation | None,
    identity: tuple[str, str, int],
) -> CallRecord:
    digest, key, generation = identity
    reserved = None
    if reserve is not None and decision.verdict is not Verdict.DENY:
        reserved = reservation_json(reserve)
        check_running(tx, intent)
        count_rates(tx, reserve)
        reserve_budget(tx, reserve)
    trace = assign_trace(tx, intent, key, generation)
    now = tx.clock.now_us()
    body = intent_json(
        intent, decision, arguments_digest=digest, trace_key=trace, reserved=reserved
    )
    n = tx.append(
        intent.run_id,
        EntryType.CALL_INTENT,
        body,
        at_us=now,
        key=key,
        generation=generation,
    )
    row = tx.first(
        _INSERT,
        run_id=intent.run_id,
        call_key=key,
        generation=generation,
        # Journaled values are for the next attempt, not for a reader: no span.
        shipped=int(intent.kind is CallKind.VALUE),
        **intent_columns(body, n=n, at_us=now),
    )
    return CallRecord(row.seq, key, generation, intent, decision, trace, started_us=now)


def _denied(decision: Decision) -> Outcome:
    reasons = "; ".join(decision.reasons) or "no policy allows it"
    error = {
        "code": "denied",
        "message": f"policy denies the call: {reasons}",
        "where": None,
        "next_step": "ask the owner of the policy, or change the call",
        "details": {"policies": list(decision.policies), "reasons": list(decision.reasons)},
    }
    return Outcome(CallState.DENIED, error=error)


def finish_call(tx: Transaction, call: CallRecord, outcome: Outcome) -> CallRecord:
    """Record how a call ended, once; see ``Ledger.finish``."""
    if outcome.state is CallState.STARTED:
        raise UsageError("an outcome is ok, error or denied, never started", where=call.call_id)
    row = locked_row(tx, call)
    if row.state != CallState.STARTED:
        return exact_call(tx, call)
    held = held_of(row.reserved)
    # A clock that jumps back must not make a call end before it began.
    now = max(tx.clock.now_us(), row.started_us)
    charged = charge(held, outcome, now - row.started_us)
    body = outcome_json(outcome, charged)
    n = append_entry(tx, call, EntryType.CALL_OUTCOME, body, now)
    tx.run(UPDATE_CALL, {"one": row.seq, **outcome_columns(body, n=n, at_us=now)})
    if held is not None and charged is not None:
        settle_call(tx, held, charged, released=row.released_n is not None)
    if row.decision != json_text(decision_json(call.decision)) or row.tags != "{}":
        return exact_call(tx, call)
    told = changed(outcome, answer=as_recorded(outcome.answer))
    return changed(call, seq=row.seq, ended_us=now, outcome=told)


def decide_call(tx: Transaction, call: CallRecord, decision: Decision) -> CallRecord:
    """Replace the decision of a call that is not finished; see ``Ledger.decide``."""
    row = unfinished_row(tx, call)
    if row.decision != json_text(decision_json(call.decision)):
        # Of two gateways that let one approved call go on, one makes it.
        raise Busy(
            f"another decision about {call.call_id} came first",
            where=call.call_id,
            next_step="read the call again with Ledger.get_call",
        )
    body = {"decision": decision_json(decision)}
    append_entry(tx, call, EntryType.CALL_DECIDED, body)
    columns = {"verdict": decision.verdict.value, "decision": json_text(body["decision"])}
    tx.run(UPDATE_CALL, {"one": row.seq, **columns})
    decided = exact_call(tx, call)
    return finish_call(tx, decided, _denied(decision)) if not_allowed(decision) else decided


def not_allowed(decision: Decision) -> bool:
    """Whether a decision ends the call."""
    return decision.verdict is Verdict.DENY


def tag_call(tx: Transaction, call: CallRecord, tags: dict[str, str]) -> CallRecord:
    """Add tags to a call, which is then shipped again; see ``Ledger.tag``."""
    row = locked_row(tx, call)
    if "restarts" in tags:
        raise UsageError("the tag 'restarts' is counted by the ledger", where=call.call_id)
    check_payload(tags, "tags")
    append_entry(tx, call, EntryType.CALL_TAGGED, {"tags": tags})
    merged = json_text(json.loads(row.tags) | tags)
    tx.run(UPDATE_CALL, {"one": row.seq, "tags": merged, "shipped": 0})
    return exact_call(tx, call)


def mark_calls_shipped(tx: Transaction, shipped: Sequence[CallRecord]) -> None:
    """Note that MLflow has these calls as they were read; a call changed since stays waiting."""
    rows = [{"one": call.seq, "seen": json_text(call.tags)} for call in shipped]
    if rows:
        tx.run(_SHIPPED, rows)
