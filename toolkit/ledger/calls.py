"""Recording one call: intent, decision, restart, outcome, tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select, update

from toolkit.errors import CallDenied, Conflict, NotFound, UsageError
from toolkit.ledger.abandoned import settle_call
from toolkit.ledger.budgets import charge, held_of, reserve_budget
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import (
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
from toolkit.ledger.schema import calls, entries
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
    digest_bytes,
)

__all__ = [
    "begin_call",
    "decide_call",
    "finish_call",
    "mark_calls_shipped",
    "restart_call",
    "select_calls",
    "tag_call",
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
_INSERT = calls.insert().returning(calls.c.seq)
_UPDATE = update(calls).where(calls.c.seq == bindparam("one"))
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
            return Begun(call_from(tx.first(_LATEST, run=intent.run_id, key=key)), fresh=False)
        generation = before.generation + 1
    _check_not_parked(tx, intent.run_id)
    stop = active_stop(tx, switches)
    if stop is not None:
        decision = stopped(decision, stop)
    call = _record(tx, intent, decision, reserve, (digest, key, generation))
    if decision.verdict is Verdict.DENY:
        call = finish_call(tx, call, _denied(decision))
    return Begun(call, fresh=True)


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
        _check_running(tx, intent)
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


def _check_not_parked(tx: Transaction, run_id: str) -> None:
    # What still runs of it is about to be killed; it will ask again when somebody has decided.
    if tx.is_parked(run_id):
        raise Conflict(
            f"the run {run_id} waits for a person and makes no calls until then",
            where=run_id,
            next_step="decide what it waits for: toolkit inbox",
        )


def _check_running(tx: Transaction, intent: Intent) -> None:
    # What it holds was given back when the run ended; nobody would do that a second time.
    if tx.has_ended(intent.run_id):
        raise Conflict(
            f"the run {intent.run_id} has ended, and begins no calls that a budget pays for",
            where=intent.run_id,
            next_step="start another run",
        )


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
    row = _locked(tx, call)
    if row.state != CallState.STARTED:
        return _exact(tx, call)
    held = held_of(row.reserved)
    # A clock that jumps back must not make a call end before it began.
    now = max(tx.clock.now_us(), row.started_us)
    charged = charge(held, outcome, now - row.started_us)
    body = outcome_json(outcome, charged)
    n = _append(tx, call, EntryType.CALL_OUTCOME, body, now)
    tx.run(_UPDATE, {"one": row.seq, **outcome_columns(body, n=n, at_us=now)})
    if held is not None and charged is not None:
        settle_call(tx, held, charged, released=row.released_n is not None)
    if row.decision != json_text(decision_json(call.decision)) or row.tags != "{}":
        return _exact(tx, call)
    answer = json.loads(json_text(outcome.answer))
    return replace(call, seq=row.seq, ended_us=now, outcome=replace(outcome, answer=answer))


def restart_call(
    tx: Transaction, call: CallRecord, switches: Sequence[str], attempt: int | None = None
) -> CallRecord:
    """Record that a call in doubt is attempted again; see ``Ledger.restart``."""
    row = _unfinished(tx, call)
    stop = active_stop(tx, switches)
    if stop is not None:
        decision = stopped(call.decision, stop)
        raise CallDenied(
            f"the call is not repeated: {decision.reasons[0]}",
            where=call.call_id,
            next_step=f"wait until somebody starts {stop.scope} again",
            details={"policies": list(decision.policies), "reasons": list(decision.reasons)},
        )
    tags = json.loads(row.tags)
    if attempt is not None and int(tags.get("restarts", "0")) != attempt:
        raise Conflict(
            f"the call {call.call_id} was started again by somebody else",
            where=call.call_id,
            next_step="wait for its outcome",
        )
    tags["restarts"] = str(int(tags.get("restarts", "0")) + 1)
    _append(tx, call, EntryType.CALL_RESTARTED, {"restarts": tags["restarts"]})
    tx.run(_UPDATE, {"one": row.seq, "tags": json_text(tags)})
    return _exact(tx, call)


def decide_call(tx: Transaction, call: CallRecord, decision: Decision) -> CallRecord:
    """Replace the decision of a call that is not finished; see ``Ledger.decide``."""
    row = _unfinished(tx, call)
    if row.decision != json_text(decision_json(call.decision)):
        # Of two gateways that let one approved call go on, one makes it.
        raise Conflict(
            f"another decision about {call.call_id} came first",
            where=call.call_id,
            next_step="read the call again with Ledger.get_call",
        )
    body = {"decision": decision_json(decision)}
    _append(tx, call, EntryType.CALL_DECIDED, body)
    columns = {"verdict": decision.verdict.value, "decision": json_text(body["decision"])}
    tx.run(_UPDATE, {"one": row.seq, **columns})
    decided = _exact(tx, call)
    return finish_call(tx, decided, _denied(decision)) if not_allowed(decision) else decided


def not_allowed(decision: Decision) -> bool:
    """Whether a decision ends the call."""
    return decision.verdict is Verdict.DENY


def tag_call(tx: Transaction, call: CallRecord, tags: dict[str, str]) -> CallRecord:
    """Add tags to a call, which is then shipped again; see ``Ledger.tag``."""
    row = _locked(tx, call)
    if "restarts" in tags:
        raise UsageError("the tag 'restarts' is counted by the ledger", where=call.call_id)
    check_payload(tags, "tags")
    _append(tx, call, EntryType.CALL_TAGGED, {"tags": tags})
    merged = json_text(json.loads(row.tags) | tags)
    tx.run(_UPDATE, {"one": row.seq, "tags": merged, "shipped": 0})
    return _exact(tx, call)


def mark_calls_shipped(tx: Transaction, shipped: Sequence[CallRecord]) -> None:
    """Note that MLflow has these calls as they were read; a call changed since stays waiting."""
    rows = [{"one": call.seq, "seen": json_text(call.tags)} for call in shipped]
    if rows:
        tx.run(_SHIPPED, rows)


def _append(
    tx: Transaction,
    call: CallRecord,
    kind: EntryType,
    body: dict[str, Any],
    at_us: int | None = None,
) -> int:
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


def _exact(tx: Transaction, call: CallRecord) -> CallRecord:
    return call_from(tx.first(_EXACT, **_where(call)))


def _locked(tx: Transaction, call: CallRecord) -> Any:
    tx.lock_run(call.intent.run_id)
    row = tx.first(_ROW, **_where(call))
    if row is None:
        raise NotFound(
            f"the ledger has no call {call.call_id}",
            where=call.call_id,
            next_step="begin the call before finishing it",
        )
    return row


def _unfinished(tx: Transaction, call: CallRecord) -> Any:
    row = _locked(tx, call)
    if row.state != CallState.STARTED:
        raise Conflict(
            f"the call {call.call_id} has already ended ({row.state})",
            where=call.call_id,
            next_step="read its outcome with Ledger.get_call",
        )
    _check_not_parked(tx, call.intent.run_id)
    if row.released_n is not None:
        raise Conflict(
            f"the run of the call {call.call_id} has ended, and what it held was settled",
            where=call.call_id,
            next_step="start another run",
        )
    return row
