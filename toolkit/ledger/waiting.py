"""Runs that wait for people, or for runs that do: no kernel, no token, no process is held.

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

from toolkit.errors import Busy
from toolkit.ledger.approvals import approval_from
from toolkit.ledger.codec import run_from
from toolkit.ledger.records import Approval, ApprovalState
from toolkit.ledger.runs import SELECT_RUN, update_run
from toolkit.ledger.schema import approvals, calls, runs, stops
from toolkit.ledger.transaction import Transaction
from toolkit.values import (
    IN_DOUBT,
    CallKind,
    CallState,
    Effect,
    RunRecord,
    RunState,
    Verdict,
    child_run_id,
)

__all__ = [
    "WAITING_FOR",
    "WAITING_JOBS",
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

WAITING_JOBS = "waiting_jobs"
"""Tag of a parked run: ids of the runs that it started and waits for, separated by commas."""

_QUEUED = "queued"
"""Tag of runs that the queue owns: one that has not begun needs no process of its parent's."""

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
        jobs: Runs that it started and waits for, which wait themselves: for people, or for a place
            in the queue.
        busy: Whether a call is under way that does not wait for one of them.  A call in which a
            waiting one was made waits too, unless it is a write: half a write is never repeated.
            A write that a person is asked about (kind ``human``) is not being made.
    """

    asked: tuple[Approval, ...] = ()
    jobs: tuple[str, ...] = ()
    busy: bool = False

    @property
    def idle(self) -> bool:
        """Whether it waits, and for nothing that is being done, as far as calls tell."""
        return bool(self.asked or self.jobs) and not self.busy

    @property
    def names(self) -> tuple[str, ...]:
        """What it waits for: ids of requests and of runs."""
        return (*(each.id for each in self.asked), *self.jobs)


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
    """Return what a run's unfinished calls do."""
    asked = connection.execute(_ASKED, {"run": run_id}).all()
    rows = connection.execute(_UNFINISHED, {"run": run_id}).all()
    idle = [id_ for id_ in _started(run_id, rows) if _idle(_run(connection, id_))]
    return _standing(run_id, asked, rows, idle)


def _started(run_id: str, rows: Iterable[Any]) -> list[str]:
    """Return the runs that unfinished calls of a run have started."""
    return [_child(run_id, row) for row in rows if row.kind == CallKind.JOB]


def _child(run_id: str, row: Any) -> str:
    return child_run_id(f"{run_id}/{row.call_key}/{row.generation}")


def _run(connection: Connection, run_id: str) -> RunRecord | None:
    row = connection.execute(SELECT_RUN, {"run": run_id}).first()
    return None if row is None else run_from(row)


def _idle(run: RunRecord | None) -> bool:
    """Whether a run does nothing now, and needs nobody above it to begin or to go on."""
    if run is None:
        return False
    return run.state is RunState.WAITING or (run.state is RunState.QUEUED and _QUEUED in run.tags)


def _standing(
    run_id: str, asked: Iterable[Any], unfinished: Iterable[Any], idle: Iterable[str]
) -> Standing:
    requests = tuple(approval_from(row) for row in asked)
    rows = list(unfinished)
    jobs = set(idle)
    resting = {row.call_key for row in rows if row.kind == CallKind.JOB}
    resting = {r.call_key for r in rows if r.call_key in resting and _child(run_id, r) in jobs}
    parents = {row.call_key: row.parent for row in rows}
    waiting = {(each.call_key, each.generation) for each in requests}
    above: set[str] = set()
    # A write in doubt does not run: whether it is to run is what a person is asked inside of it.
    doubted = {row.parent for row in rows if (row.kind, row.name) == (CallKind.HUMAN, IN_DOUBT)}
    for key in (*(key for key, _ in waiting), *resting):
        parent = parents.get(key)
        while parent is not None and parent not in above:
            above.add(parent)
            parent = parents.get(parent)

    def waits(row: Any) -> bool:
        if row.call_key in resting:
            return True
        if (row.call_key, row.generation) in waiting:
            return bool(row.verdict == Verdict.ASK)
        whole = row.effect != Effect.WRITE or row.call_key in doubted
        return row.call_key in above and whole

    return Standing(requests, tuple(sorted(jobs)), not all(waits(row) for row in rows))


def park_run(
    tx: Transaction, run: RunRecord, asked: Iterable[str], *, message: str, runner: str | None
) -> RunRecord | None:
    """Record that a run waits for people; see ``Ledger.park``."""
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    if current.state is not RunState.RUNNING or current.token_digest != run.token_digest:
        return None
    rows = tx.all(_UNFINISHED, run=run.run_id)
    known = [(one, tx.first(SELECT_RUN, run=one)) for one in _started(run.run_id, rows)]
    idle = [one for one, row in known if row is not None and _idle(run_from(row))]
    found = _standing(run.run_id, tx.all(_ASKED, run=run.run_id), rows, idle)
    if not found.idle or sorted(found.names) != sorted(asked):
        return None
    until_us = min((each.due_us for each in found.asked), default=None)
    if until_us is not None and until_us <= tx.clock.now_us():
        return None
    tags = _waiting_tags(found, until_us)
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


def _waiting_tags(standing: Standing, until_us: int | None) -> dict[str, str]:
    tags = {
        WAITING_FOR: ",".join(sorted(each.id for each in standing.asked)),
        WAITING_UNTIL: "" if until_us is None else str(until_us),
        WAITING_JOBS: ",".join(standing.jobs),
    }
    return {name: text for name, text in tags.items() if text}


def take_run(tx: Transaction, run: RunRecord, changes: dict[str, Any]) -> RunRecord:
    """Change a run that nobody changed since it was read; see ``Ledger.take``."""
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    seen = (run.state, run.runner, run.token_digest)
    if (current.state, current.runner, current.token_digest) != seen:
        raise Busy(
            f"the run {run.run_id} was taken by {current.runner or 'another process'} meanwhile",
            where=run.run_id,
            next_step=f"see how it stands: toolkit show {run.run_id}",
        )
    return update_run(tx, run.run_id, changes)


_ON_JOBS = (
    select(runs.c.run_id, runs.c.tags)
    .where(runs.c.state == RunState.WAITING.value, runs.c.tags.like(f'%"{WAITING_JOBS}"%'))
    .order_by(runs.c.number)
)


def _one_ended(connection: Connection, tags: dict[str, str]) -> bool:
    """Whether a run that a parked one waits for has ended: the other one may use its answer."""
    named = [one for one in tags.get(WAITING_JOBS, "").split(",") if one]
    found = [_run(connection, one) for one in named]
    return any(run is None or run.state.terminal for run in found)


def awaited_runs(connection: Connection, now_us: int, limit: int) -> list[Woken]:
    """Return parked runs that may go on or were stopped.

    One may go on when a request was decided or is due, or when a run that it started has ended.
    """
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
    for row in connection.execute(_ON_JOBS):
        tags = json.loads(row.tags)
        if len(found) < limit and row.run_id not in found and _one_ended(connection, tags):
            found[row.run_id] = Woken(row.run_id, tags)
    stopped = (
        select(runs.c.run_id, runs.c.tags, stops.c.stopped_by, stops.c.reason)
        .join(stops, stops.c.scope == literal("run:").concat(runs.c.run_id))
        .where(runs.c.state == RunState.WAITING.value)
    )
    for row in connection.execute(stopped):
        said = f"stopped by {row.stopped_by}: {row.reason}"
        found[row.run_id] = Woken(row.run_id, json.loads(row.tags), said)
    return list(found.values())
