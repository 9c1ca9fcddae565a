"""A run's calls for people and for programs: who, what was decided and by whom, what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from toolkit.app.answers import Seal, seal_of
from toolkit.cli import show
from toolkit.ledger import Approval, ApprovalState, Ledger
from toolkit.tracing import Note, call_notes
from toolkit.values import CallRecord, RunRecord, Verdict, iso_utc

__all__ = ["call_json", "print_calls"]

_SUBJECT = 10
_STYLES = {
    **dict.fromkeys(("policy", "production", "data", "answer"), "yellow"),
    "error": "red",
    "approval": "cyan",
}
_NO = (ApprovalState.REJECTED, ApprovalState.STOPPED, ApprovalState.EXPIRED)
_SAID = {
    ApprovalState.APPROVED: "approved",
    ApprovalState.CHANGED: "approved with other arguments",
    ApprovalState.REJECTED: "rejected",
    ApprovalState.STOPPED: "rejected, and the run stopped,",
}


def print_calls(ledger: Ledger, run: RunRecord, calls: Sequence[CallRecord], total: int) -> None:
    """Print a table of calls, and below it what is remarkable about each of them.

    Args:
        ledger: Knows who was asked about a call.
        run: Whose calls.
        calls: The first ones of the run.
        total: How many the run has.
    """
    depths = _depths(calls)
    agents = any(call.intent.agent for call in calls)
    columns = [">#", "call", "agent", "state", "verdict", "model", ">tokens", ">cost", ">took"]
    rows = [
        [number, "  " * depths[call.call_id] + _name(call), *_row(call, run)]
        for number, call in enumerate(calls, 1)
    ]
    if not agents:
        columns.pop(2)
        for row in rows:
            row.pop(2)
    show.out.print(show.table(f"calls (first {len(calls)} of {total})", columns, rows))
    remarks = [
        (number, call, notes)
        for number, call in enumerate(calls, 1)
        if (notes := list(_notes(ledger, call)))
    ]
    if remarks:
        show.out.print("[italic]about these calls[/]")
    for number, call, notes in remarks:
        show.out.print(f"[bold]{number}[/] {show.safe(_name(call))}")
        show.out.print(_remarks(notes))


def _remarks(notes: list[Note]) -> Table:
    made = Table.grid(padding=(0, 1), pad_edge=True)
    made.add_column(width=_SUBJECT, no_wrap=True)
    made.add_column(overflow="fold")
    before = None
    for subject, text in notes:
        style = _STYLES.get(subject, "dim")
        # One subject, several lines: said once.
        shown = "" if subject == before else f"[{style}]{show.safe(subject)}[/]"
        made.add_row(shown, show.safe(text))
        before = subject
    return made


def _name(call: CallRecord) -> str:
    return f"{call.intent.kind} {call.intent.name}"


def _depths(calls: Sequence[CallRecord]) -> dict[str, int]:
    """Return how deep each call is inside others; a parent that is not listed counts as one."""
    by_key: dict[str, int] = {}
    found: dict[str, int] = {}
    for call in calls:
        parent = call.intent.parent
        depth = 0 if parent is None else by_key.get(parent, 0) + 1
        by_key[call.key] = found[call.call_id] = depth
    return found


def _row(call: CallRecord, run: RunRecord) -> tuple[object, ...]:
    outcome = call.outcome
    usage = outcome.usage if outcome else None
    paid = outcome is not None and (usage is not None or outcome.cost is not None)
    would = call.decision.production_verdict
    verdict = call.decision.verdict.value
    if would is not None and would != call.decision.verdict:
        verdict += f" (production: {would.value})"
    return (
        call.intent.agent or "",
        _state(call, run),
        verdict,
        (outcome.model if outcome else None) or "",
        "" if usage is None else f"{usage.total_tokens:,}",
        show.money(outcome.cost) if outcome and paid else "",
        show.seconds(call.latency_s),
    )


def _state(call: CallRecord, run: RunRecord) -> str:
    asked = call.outcome is None and call.decision.verdict is Verdict.ASK
    if asked and not run.state.terminal:
        return "waiting"
    return show.call_state(call, run.state)


def _notes(ledger: Ledger, call: CallRecord) -> Iterator[Note]:
    """Yield a call's notes; who was asked is told from the request itself."""
    asked = None if call.decision.approver is None else ledger.approval_of(call)
    for note in call_notes(call):
        if asked is None or note.subject not in ("approval", "error"):
            yield note
        elif note.subject == "approval":
            yield Note(note.subject, _told(asked, _seal(ledger, asked)))
        elif asked.state not in _NO:  # else the error repeats what the person said
            yield note


def _seal(ledger: Ledger, approval: Approval) -> Seal | None:
    said = ledger.answers(approval.id)
    return seal_of(said[-1].signed) if said else None


def _told(approval: Approval, seal: Seal | None) -> str:
    role = approval.decider
    if approval.state is ApprovalState.EXPIRED:
        return f"nobody with the role {role} decided by {iso_utc(approval.expires_us)[:19]}Z"
    said = _SAID.get(approval.state)
    if said is None:
        until = iso_utc(approval.expires_us)[:19]
        return f"waits for the role {role} until {until}Z: toolkit decide {approval.id}"
    took = ""
    if approval.decided_us is not None:
        took = f" after {show.seconds((approval.decided_us - approval.requested_us) / 1e6)}"
    why = f": {approval.reason}" if approval.reason else ""
    signed = f", signed with the key {seal.short}" if seal else ""
    return f"{said} by {approval.decided_by} ({role}){signed}{took}{why}"


def call_json(ledger: Ledger, call: CallRecord, run: RunRecord) -> dict[str, Any]:
    """Return one call as JSON values."""
    intent, decision, outcome = call.intent, call.decision, call.outcome
    would = decision.production_verdict
    return {
        "call_id": call.call_id,
        "kind": intent.kind.value,
        "name": intent.name,
        "parent": intent.parent,
        "agent": intent.agent,
        "purpose": intent.purpose,
        "state": _state(call, run),
        "verdict": decision.verdict.value,
        "production_verdict": would.value if would else None,
        "policies": list(decision.policies),
        "reasons": list(decision.reasons),
        "shadow": list(decision.shadow),
        "approval": _approval_json(ledger, call),
        "labels": {name: labels.to_json() for name, labels in intent.labels.items() if labels},
        "answer_labels": outcome.labels.to_json() if outcome and outcome.labels else None,
        "started": iso_utc(call.started_us),
        "latency_s": call.latency_s,
        "provider": outcome.provider if outcome else None,
        "model": outcome.model if outcome else None,
        "attempts": [
            {
                "target": attempt.target,
                "started": iso_utc(attempt.started_us),
                "seconds": (attempt.ended_us - attempt.started_us) / 1e6,
                "reason": attempt.reason,
                "error": attempt.error,
            }
            for attempt in (outcome.attempts if outcome else ())
        ],
        "cost_usd": None if outcome is None or outcome.cost is None else str(outcome.cost.usd),
        "error": outcome.error if outcome else None,
    }


def _approval_json(ledger: Ledger, call: CallRecord) -> dict[str, Any] | None:
    if call.decision.approver is None:
        return None
    approval = ledger.approval_of(call)
    if approval is None:
        return {"role": call.decision.approver, "state": None, "id": None, "decided_by": None}
    seal = _seal(ledger, approval)
    return {
        "id": approval.id,
        "role": approval.decider,
        "state": approval.state.value,
        "decided_by": approval.decided_by,
        "decided_at": None if approval.decided_us is None else iso_utc(approval.decided_us),
        "reason": approval.reason,
        "signed": None if seal is None else seal.to_json(),
    }
