"""A person's decision about one call, bound to the digest of what was asked.

The request is the entry ``call.ask`` of the run's chain, each decision an entry ``call.answered``;
the table ``approvals`` is a projection of both.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, update

from toolkit.errors import CallDenied, Conflict, NotFound, UsageError
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import check_payload, check_plain, json_text
from toolkit.ledger.records import Approval, ApprovalState
from toolkit.ledger.schema import approvals, calls, entries, runs
from toolkit.ledger.transaction import Refusal, Transaction
from toolkit.values import CallRecord, CallState, Environment, digest_json

__all__ = [
    "answer_approval",
    "answer_columns",
    "approval_from",
    "approval_of_call",
    "ask_approval",
    "ask_columns",
    "expire_approval",
    "list_approvals",
    "overdue_approvals",
    "read_approval",
    "waiting_in_run",
]

_WAITING = tuple(state.value for state in ApprovalState if state.waiting)
# Not IN: the statements of transactions have a fixed number of values (`Link`).
_OPEN = or_(*(approvals.c.state == state for state in _WAITING))
_BY_ID = select(approvals).where(approvals.c.approval_id == bindparam("one"))
_OF_CALL = select(approvals).where(
    approvals.c.run_id == bindparam("run"),
    approvals.c.call_key == bindparam("key"),
    approvals.c.generation == bindparam("gen"),
)
_OF_RUN = (
    select(approvals.c.approval_id)
    .where(approvals.c.run_id == bindparam("run"), _OPEN)
    .order_by(approvals.c.number)
)
_FACTS = (
    select(calls.c.state, calls.c.decision, runs.c.user_name, runs.c.environment, entries.c.body)
    .select_from(
        calls.join(runs, runs.c.run_id == calls.c.run_id).join(
            entries, (entries.c.run_id == calls.c.run_id) & (entries.c.n == calls.c.intent_n)
        )
    )
    .where(
        calls.c.run_id == bindparam("run"),
        calls.c.call_key == bindparam("key"),
        calls.c.generation == bindparam("gen"),
    )
)
_INSERT = approvals.insert()
_UPDATE = update(approvals).where(approvals.c.approval_id == bindparam("one"))


# -- writing -------------------------------------------------------------------------------------


def ask_approval(
    tx: Transaction, call: CallRecord, *, role: str, view: Any, expires_us: int
) -> Approval:
    """Record that a person is asked; see ``Ledger.ask``."""
    run_id = call.intent.run_id
    tx.lock_run(run_id)
    place = {"run": run_id, "key": call.key, "gen": call.generation}
    known = tx.first(_OF_CALL, **place)
    if known is not None:
        return approval_from(known)
    facts = tx.first(_FACTS, **place)
    if facts is None:
        raise NotFound(
            f"the ledger has no call {call.call_id}",
            where=call.call_id,
            next_step="begin the call before asking about it",
        )
    _check_started(facts.state, call.call_id)
    now = tx.clock.now_us()
    _check_request(role, view, expires_us, now)
    body = {
        "id": f"ask-{digest_json(call.call_id).partition(':')[2][:16]}",
        "digest": _digest(facts, expires_us),
        "role": role,
        "requested_by": facts.user_name,
        "expires_us": expires_us,
        "view": view,
    }
    n = tx.append(
        run_id, EntryType.CALL_ASK, body, at_us=now, key=call.key, generation=call.generation
    )
    tx.run(
        _INSERT,
        {
            "run_id": run_id,
            "call_key": call.key,
            "generation": call.generation,
            **ask_columns(body, n=n, at_us=now),
        },
    )
    return approval_from(tx.first(_OF_CALL, **place))


def _digest(facts: Any, expires_us: int) -> str:
    # What is recorded counts, not what the caller holds in its hands.
    call, decision = json.loads(facts.body), json.loads(facts.decision)
    what = [facts.user_name, call["kind"], call["name"], call["arguments_digest"]]
    return digest_json([*what, decision["policy_digest"], expires_us])


def _check_request(role: str, view: Any, expires_us: int, now: int) -> None:
    check_plain(role, "role")
    check_payload(view, "view")
    if not role:
        raise UsageError("nobody is named who may decide", where="role", next_step="name a role")
    if expires_us <= now:
        raise UsageError(
            "the request would have expired before it is made",
            where="expires_us",
            next_step="give a time in the future",
        )


def _check_started(state: str, call_id: str) -> None:
    if state != CallState.STARTED:
        raise Conflict(
            f"the call {call_id} has already ended ({state})",
            where=call_id,
            next_step="read its outcome with Ledger.get_call",
        )


def answer_approval(
    tx: Transaction,
    approval_id: str,
    *,
    by: str,
    verdict: str,
    digest: str,
    reason: str | None,
    arguments: Any,
    role: str | None,
    signed: str | None,
) -> Approval:
    """Record a decision; see ``Ledger.answer``."""
    verdict = _decision(verdict, approval_id)
    given = ((by, "name"), (reason, "reason"), (role, "role"), (signed, "signature"))
    for value, what in given:
        check_plain(value, what)
    check_payload(arguments, "arguments")
    if wrong := _misfit(verdict, by, arguments, role):
        raise UsageError(wrong, where=approval_id, next_step="see `toolkit decide --help`")
    row = _locked(tx, approval_id)
    _check_open(row)
    if digest != row.digest:
        raise Conflict(
            f"the decision is about another request than {approval_id}",
            where=approval_id,
            next_step="look at the request again, then decide about what it shows now",
        )
    facts = tx.first(_FACTS, run=row.run_id, key=row.call_key, gen=row.generation)
    if facts.state != CallState.STARTED:
        error = Conflict(
            f"the call that {approval_id} is about has ended ({facts.state})",
            where=approval_id,
            next_step="nothing is left to decide",
        )
        raise Refusal(error, partial(_expire, approval_id, "the call has ended"))
    if tx.clock.now_us() >= row.expires_us:
        error = Conflict(
            f"the request {approval_id} has expired",
            where=approval_id,
            next_step="let the run ask again",
        )
        raise Refusal(error, partial(_expire, approval_id, None))
    if verdict in (ApprovalState.APPROVED, ApprovalState.CHANGED):
        _check_author(row, facts.environment, by)
    body = {"id": approval_id, "state": verdict.value, "by": by, "reason": reason}
    if verdict is ApprovalState.CHANGED:
        body["arguments"] = arguments
    if verdict is ApprovalState.ESCALATED:
        body["escalated_to"] = role
    if signed is not None:
        body["signed"] = signed
    return _record(tx, row, body)


def _decision(verdict: str, approval_id: str) -> ApprovalState:
    decisions = [s.value for s in ApprovalState if s.value not in ("pending", "expired")]
    if verdict not in decisions:
        raise UsageError(
            f"{str(verdict)[:40]!a} is not a decision",
            where=approval_id,
            next_step=f"use {', '.join(decisions)}",
        )
    return ApprovalState(verdict)


def _misfit(verdict: ApprovalState, by: str, arguments: Any, role: str | None) -> str | None:
    if not by:
        return "a decision names who made it"
    if (arguments is not None) != (verdict is ApprovalState.CHANGED):
        return "arguments belong to the decision 'changed', and to no other one"
    if bool(role) != (verdict is ApprovalState.ESCALATED):
        return "a role belongs to the decision 'escalated', and to no other one"
    return None


def _check_open(row: Any) -> None:
    if row.state not in _WAITING:
        by = f" by {row.decided_by}" if row.decided_by else ""
        raise Conflict(
            f"the request {row.approval_id} was decided before: {row.state}{by}",
            where=row.approval_id,
            next_step="the first decision counts",
        )


def _check_author(row: Any, environment: str, by: str) -> None:
    if environment == Environment.PRODUCTION and by == row.requested_by:
        raise CallDenied(
            f"{by} made the request {row.approval_id} and cannot approve it",
            where=row.approval_id,
            next_step=f"ask somebody else with the role {row.escalated_to or row.role}",
            details={"policies": ["own-request"]},
        )


def expire_approval(tx: Transaction, approval_id: str, reason: str | None = None) -> Approval:
    """Close a request that nobody decided, if that is still so."""
    row = _locked(tx, approval_id)
    if row.state not in _WAITING:
        return approval_from(row)
    state = ApprovalState.EXPIRED.value
    return _record(tx, row, {"id": approval_id, "state": state, "by": None, "reason": reason})


def _expire(approval_id: str, reason: str | None, tx: Transaction) -> None:
    expire_approval(tx, approval_id, reason)


def waiting_in_run(tx: Transaction, run_id: str) -> list[str]:
    """Return the ids of a run's requests that still wait."""
    return [row.approval_id for row in tx.all(_OF_RUN, run=run_id)]


def _record(tx: Transaction, row: Any, body: dict[str, Any]) -> Approval:
    # A clock that jumps back must not make a decision come before its request.
    now = max(tx.clock.now_us(), row.requested_us)
    entry = {"key": row.call_key, "generation": row.generation}
    n = tx.append(row.run_id, EntryType.CALL_ANSWERED, body, at_us=now, **entry)
    tx.run(_UPDATE, {"one": row.approval_id, **answer_columns(body, n=n, at_us=now)})
    return approval_from(tx.first(_BY_ID, one=row.approval_id))


def _locked(tx: Transaction, approval_id: str) -> Any:
    row = tx.first(_BY_ID, one=approval_id)
    if row is None:
        raise _unknown(approval_id)
    tx.lock_run(row.run_id)
    return tx.first(_BY_ID, one=approval_id)


# -- reading -------------------------------------------------------------------------------------


def read_approval(connection: Connection, approval_id: str) -> Approval:
    """Return a request; raises NotFound."""
    row = connection.execute(_BY_ID, {"one": approval_id}).first()
    if row is None:
        raise _unknown(approval_id)
    return approval_from(row)


def approval_of_call(
    connection: Connection, run_id: str, key: str, generation: int
) -> Approval | None:
    """Return the request about a call, if there is one."""
    row = connection.execute(_OF_CALL, {"run": run_id, "key": key, "gen": generation}).first()
    return None if row is None else approval_from(row)


def list_approvals(
    connection: Connection,
    *,
    state: ApprovalState | None,
    role: str | None,
    waiting: bool,
    limit: int,
) -> list[Approval]:
    """Return requests, the oldest first where they wait, else the newest first."""
    statement = select(approvals).limit(limit)
    statement = statement.order_by(approvals.c.number if waiting else approvals.c.number.desc())
    if waiting:
        statement = statement.where(_OPEN)
    if state is not None:
        statement = statement.where(approvals.c.state == state.value)
    if role is not None:
        decider = func.coalesce(approvals.c.escalated_to, approvals.c.role)
        statement = statement.where(decider == role)
    return [approval_from(row) for row in connection.execute(statement)]


def overdue_approvals(connection: Connection, now_us: int) -> list[str]:
    """Return the ids of requests that wait, and have expired or whose calls have ended."""
    place = (
        (calls.c.run_id == approvals.c.run_id)
        & (calls.c.call_key == approvals.c.call_key)
        & (calls.c.generation == approvals.c.generation)
    )
    statement = (
        select(approvals.c.approval_id)
        .join(calls, place)
        .where(_OPEN, or_(approvals.c.expires_us <= now_us, calls.c.outcome_n.is_not(None)))
        .order_by(approvals.c.number)
    )
    return list(connection.execute(statement).scalars())


def ask_columns(body: dict[str, Any], *, n: int, at_us: int) -> dict[str, Any]:
    """Return the columns of ``approvals`` that a ``call.ask`` entry stands for."""
    return {
        "approval_id": body["id"],
        "digest": body["digest"],
        "role": body["role"],
        "requested_by": body["requested_by"],
        "view": json_text(body["view"]),
        "state": ApprovalState.PENDING.value,
        "requested_us": at_us,
        "expires_us": body["expires_us"],
        "decided_by": None,
        "decided_us": None,
        "reason": None,
        "arguments": None,
        "escalated_to": None,
        "ask_n": n,
        "answer_n": None,
    }


def answer_columns(body: dict[str, Any], *, n: int, at_us: int) -> dict[str, Any]:
    """Return the columns of ``approvals`` that a ``call.answered`` entry changes."""
    changed: dict[str, Any] = {
        "state": ApprovalState(body["state"]).value,
        "decided_by": body["by"],
        "decided_us": at_us,
        "reason": body["reason"],
        "answer_n": n,
    }
    if "arguments" in body:
        changed["arguments"] = json_text(body["arguments"])
    if "escalated_to" in body:
        changed["escalated_to"] = body["escalated_to"]
    return changed


def approval_from(row: Any) -> Approval:
    """Build a request from its row."""
    return Approval(
        id=row.approval_id,
        run_id=row.run_id,
        call_key=row.call_key,
        generation=row.generation,
        digest=row.digest,
        role=row.role,
        requested_by=row.requested_by,
        view=json.loads(row.view),
        state=ApprovalState(row.state),
        requested_us=row.requested_us,
        expires_us=row.expires_us,
        decided_by=row.decided_by,
        decided_us=row.decided_us,
        reason=row.reason,
        arguments=None if row.arguments is None else json.loads(row.arguments),
        escalated_to=row.escalated_to,
    )


def _unknown(approval_id: str) -> NotFound:
    return NotFound(
        f"there is no request {approval_id[:80]!a}",
        where=approval_id[:80],
        next_step="list requests with `toolkit inbox`",
    )
