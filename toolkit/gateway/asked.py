"""What requests look like to others, and what becomes of a call that was decided about."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from toolkit.errors import ApprovalPending, CallDenied
from toolkit.gateway.desk import due_us, with_arguments
from toolkit.ledger import Approval, ApprovalState
from toolkit.values import CallRecord, iso_utc

__all__ = [
    "approval_reply",
    "approved_change",
    "as_approved",
    "denied",
    "pending",
    "refusal_of",
    "request_facts",
    "with_change",
]

_MOST_ARGUMENT_CHARACTERS = 64_000
_CHANGE = "change"
"""Carries a change in a record's tags, in memory only: the ledger has it with the request."""
_NOTHING = object()


def approval_reply(approval: Approval, call: CallRecord, now_us: int) -> dict[str, Any]:
    """Return a request as JSON values, for those who decide about it or wait for it."""
    arguments = call.intent.arguments
    small = len(str(arguments)) <= _MOST_ARGUMENT_CHARACTERS
    return {**request_facts(approval, now_us), "arguments": arguments if small else None}


def request_facts(approval: Approval, now_us: int) -> dict[str, Any]:
    """Return a request as JSON values, without the call's own arguments."""
    decided = approval.decided_us
    return {
        "id": approval.id,
        "state": approval.state.value,
        "waiting": approval.state.waiting and now_us < due_us(approval),
        "role": approval.decider,
        "requested_by": approval.requested_by,
        "run_id": approval.run_id,
        "digest": approval.digest,
        "requested_at": iso_utc(approval.requested_us),
        "expires_at": iso_utc(approval.expires_us),
        "decided_by": approval.decided_by,
        "decided_at": None if decided is None else iso_utc(decided),
        "reason": approval.reason,
        "changed": approval.arguments,
        "view": approval.view,
    }


def pending(approval: Approval, call: CallRecord, now_us: int) -> ApprovalPending:
    """Return the error that tells a caller to wait and send the call again."""
    return ApprovalPending(
        f"{call.intent.kind} {call.intent.name!r} waits for a person with the role "
        f"{approval.decider} (request {approval.id}, until {iso_utc(approval.expires_us)[:19]}Z)",
        where=approval.id,
        next_step=f"toolkit decide {approval.id}; then the same call goes on",
        details={"approval": approval_reply(approval, call, now_us)},
    )


def refusal_of(call: CallRecord, approval: Approval) -> CallDenied | None:
    """Return the error that a request ends a call with; ``None`` if it was approved."""
    why = f": {approval.reason}" if approval.reason else ""
    name = call.intent.name
    if approval.lets_in:
        return None
    if approval.state is ApprovalState.REJECTED:
        error = denied(call, approval, f"{approval.decided_by} rejected {name!r}{why}")
        error.next_step = "follow the reason; the same call will not be allowed"
        return error
    if approval.state is ApprovalState.STOPPED:
        error = denied(call, approval, f"{approval.decided_by} stopped the run at {name!r}{why}")
        error.next_step = "end here: every later call of this run is refused"
        error.details["stop_run"] = True
        return error
    return denied(
        call, approval, f"nobody with the role {approval.decider} decided about {name!r} in time"
    )


def denied(call: CallRecord, approval: Approval, message: str) -> CallDenied:
    """Return the error of a call that ends after a person was asked."""
    return CallDenied(
        message,
        next_step="ask the owner of the policy, or change the call",
        details={
            "policies": list(call.decision.policies),
            "reasons": [message],
            "approval": approval.id,
            "decided_by": approval.decided_by,
        },
    )


def with_change(call: CallRecord, approval: Approval) -> CallRecord:
    """Return the call with the arguments that hold, and what a person changed in them."""
    if approval.state is not ApprovalState.CHANGED:
        return call
    before, now = call.intent.arguments, approval.arguments
    change = {
        "set": {name: value for name, value in now.items() if value != before.get(name, _NOTHING)},
        "drop": sorted(set(before) - set(now)),
    }
    tags = {**call.tags, _CHANGE: json.dumps(change)}
    return replace(call, intent=with_arguments(call.intent, now), tags=tags)


def approved_change(call: CallRecord) -> dict[str, Any] | None:
    """Return what a person changed in a call: members to ``set``, names to ``drop``.

    Apart from it the caller's own arguments hold: the recorded ones may be without their secrets.
    """
    text = call.tags.get(_CHANGE)
    return None if text is None else json.loads(text)


def as_approved(arguments: Any, call: CallRecord) -> Any:
    """Return the caller's own arguments with what a person changed in them."""
    change = approved_change(call)
    if change is None:
        return arguments
    kept = {name: value for name, value in arguments.items() if name not in change["drop"]}
    return kept | change["set"]
