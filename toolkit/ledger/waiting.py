"""Runs that wait for people and hold nothing: no kernel, no token, no process.

A run is parked in the transaction that looks whether nothing else of it is under way, so a decision
comes before the parking (then it is not parked) or after it (then it is found by whoever looks).
What a parked run waits for is in its tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, literal, or_, select

from toolkit.errors import Conflict
from toolkit.ledger.approvals import approval_from
from toolkit.ledger.codec import run_from
from toolkit.ledger.records import Approval, ApprovalState
from toolkit.ledger.runs import SELECT_RUN, update_run
from toolkit.ledger.schema import approvals, calls, runs, stops
from toolkit.ledger.transaction import Transaction
from toolkit.values import IN_DOUBT, CallKind, CallState, Effect, RunRecord, RunState, Verdict

__all__ = [
    "WAITING_FOR",
    "WAITING_UNTIL",
    "Standing",
    "Woken",
    "awaited_runs",
    "park_run",
    "standing_of",
    "take_run",
]

WAITING_FOR = "waiting_for"
"""Tag of a parked run: ids of the requests that it waits for, separated by commas."""

WAITING_UNTIL = "waiting_until"
"""Tag of a parked run: when time changes the first of them, microseconds since the epoch."""

_OPEN_STATES = tuple(state.value for state in ApprovalState if state.waiting)
_ASKED = (
    select(approvals)
    .where(
        approvals.c.run_id == bindparam("run"),
        or_(*(approvals.c.state == state for state in _OPEN_STATES)),
    )
    .order_by(approvals.c.number)
)
_UNFINISHED = (
    select(
        calls.c.call_key,
        calls.c.generation,
        calls.c.parent,
        calls.c.effect,
        calls.c.verdict,
        calls.c.kind,
        calls.c.name,
    )
    .where(calls.c.run_id == bindparam("run"), calls.c.state == CallState.STARTED.value)
    .order_by(calls.c.seq)
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a run's unfinished calls do.

    Attributes:
        asked: Requests of the run that a person may still decide.
        busy: Whether a call is under way that does not wait for one of them.  A call in which a
            waiting one was made waits too, unless it is a write: half a write is never repeated.
            A write that a person is asked about (kind ``human``) is not being made.
    """

    asked: tuple[Approval, ...] = ()
    busy: bool = False

    @property
    def idle(self) -> bool:
        """Whether people are all that the run waits for, as far as calls tell."""
        return bool(self.asked) and not self.busy


@dataclass(frozen=True, slots=True)
class Woken:
    """A parked run that may go on.

    Attributes:
        run_id: Which.
        tags: Its tags.
        stopped: Who stopped it and why, where it was stopped.
    """

    run_id: str
    tags: dict[str, str]
    stopped: str | None = None


def standing_of(connection: Connection, run_id: str) -> Standing:
    """Return what a run's unfinished calls do; cheap where nobody was asked."""
    asked = connection.execute(_ASKED, {"run": run_id}).all()
    if not asked:
        return Standing()
    return _standing(asked, connection.execute(_UNFINISHED, {"run": run_id}).all())


def _standing(asked: Iterable[Any], unfinished: Iterable[Any]) -> Standing:
    requests = tuple(approval_from(row) for row in asked)
    rows = list(unfinished)
    parents = {row.call_key: row.parent for row in rows}
    waiting = {(each.call_key, each.generation) for each in requests}
    above: set[str] = set()
    # A write in doubt does not run: whether it is to run is what a person is asked inside of it.
    doubted = {row.parent for row in rows if (row.kind, row.name) == (CallKind.HUMAN, IN_DOUBT)}
    for key, _ in waiting:
        parent = parents.get(key)
        while parent is not None and parent not in above:
            above.add(parent)
            parent = parents.get(parent)

    def waits(row: Any) -> bool:
        if (row.call_key, row.generation) in waiting:
            return bool(row.verdict == Verdict.ASK)
        whole = row.effect != Effect.WRITE or row.call_key in doubted
        return row.call_key in above and whole

    return Standing(requests, not all(waits(row) for row in rows))


def park_run(
    tx: Transaction, run: RunRecord, asked: Iterable[str], *, message: str, runner: str | None
) -> RunRecord | None:
    """Record that a run waits for people; see ``Ledger.park``."""
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    if current.state is not RunState.RUNNING or current.token_digest != run.token_digest:
        return None
    found = _standing(tx.all(_ASKED, run=run.run_id), tx.all(_UNFINISHED, run=run.run_id))
    wanted = sorted(asked)
    if not found.idle or sorted(each.id for each in found.asked) != wanted:
        return None
    until_us = min(each.due_us for each in found.asked)
    if until_us <= tx.clock.now_us():
        return None
    tags = {WAITING_FOR: ",".join(wanted), WAITING_UNTIL: str(until_us)}
    return update_run(
        tx,
        run.run_id,
        {
            "state": RunState.WAITING,
            "message": message,
            "token_digest": None,
            "runner": runner,
            "tags": {**current.tags, **tags},
        },
    )


def take_run(tx: Transaction, run: RunRecord, changes: dict[str, Any]) -> RunRecord:
    """Change a run that nobody changed since it was read; see ``Ledger.take``."""
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    seen = (run.state, run.runner, run.token_digest)
    if (current.state, current.runner, current.token_digest) != seen:
        raise Conflict(
            f"the run {run.run_id} was taken by {current.runner or 'another process'} meanwhile",
            where=run.run_id,
            next_step=f"see how it stands: toolkit show {run.run_id}",
        )
    return update_run(tx, run.run_id, changes)


def awaited_runs(connection: Connection, now_us: int, limit: int) -> list[Woken]:
    """Return parked runs of which a request was decided or is due, or that were stopped."""
    named = runs.c.tags.like(literal("%").concat(approvals.c.approval_id).concat("%"))
    decided = approvals.c.state.not_in(_OPEN_STATES)
    # When a request escalates is a member of its view; which ones can, a look at the text says.
    escalates = (approvals.c.state == ApprovalState.PENDING.value) & approvals.c.view.like(
        '%"escalates"%'
    )
    moved = (
        select(runs.c.run_id, runs.c.tags, runs.c.number, approvals)
        .join(approvals, approvals.c.run_id == runs.c.run_id)
        .where(
            runs.c.state == RunState.WAITING.value,
            named,
            or_(decided, approvals.c.expires_us <= now_us, escalates),
        )
        .order_by(runs.c.number)
    )
    found: dict[str, Woken] = {}
    for row in connection.execute(moved):
        approval = approval_from(row)
        if approval.state.waiting and now_us < approval.due_us:
            continue
        found.setdefault(row.run_id, Woken(row.run_id, json.loads(row.tags)))
        if len(found) >= limit:
            break
    stopped = (
        select(runs.c.run_id, runs.c.tags, stops.c.stopped_by, stops.c.reason)
        .join(stops, stops.c.scope == literal("run:").concat(runs.c.run_id))
        .where(runs.c.state == RunState.WAITING.value)
    )
    for row in connection.execute(stopped):
        said = f"stopped by {row.stopped_by}: {row.reason}"
        found[row.run_id] = Woken(row.run_id, json.loads(row.tags), said)
    return list(found.values())
