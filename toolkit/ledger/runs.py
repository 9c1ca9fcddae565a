"""Recording runs and their states."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from toolkit.errors import Busy, UsageError
from toolkit.ledger.abandoned import release_run
from toolkit.ledger.chain import SWITCHES, EntryType
from toolkit.ledger.codec import run_columns, run_from, run_json
from toolkit.ledger.schema import leases, runs
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import Cause, RunRecord, RunState

__all__ = ["SELECT_RUN", "create_run", "update_run"]

SELECT_RUN = select(runs).where(runs.c.run_id == bindparam("run"))
_CREATE = {
    name: insert(runs).on_conflict_do_nothing(index_elements=["run_id"]).returning(runs.c.number)
    for name, insert in INSERTS.items()
}
_UPDATE = update(runs).where(runs.c.run_id == bindparam("one"))
_DROP_LEASE = delete(leases).where(leases.c.run_id == bindparam("one"))
_FIXED = {"run_id", "kind", "environment", "user", "created_us"}
_MUTABLE = {name for name in RunRecord.__dataclass_fields__ if name not in _FIXED}


def create_run(tx: Transaction, run: RunRecord) -> RunRecord:
    """Record a run once; see ``Ledger.create_run``."""
    if run.run_id == SWITCHES:
        raise UsageError(
            f"the name {SWITCHES!r} is taken by the stop switches",
            where="run_id",
            next_step="give the run another id",
        )
    known = tx.first(SELECT_RUN, run=run.run_id)
    if known is None:
        now = tx.clock.now_us()
        body = run_json(_plain(asdict(replace(run, created_us=now))))
        # Another process may have been first since the look above.
        if tx.first(_CREATE[tx.dialect], **run_columns(body)) is not None:
            tx.append(run.run_id, EntryType.RUN_CREATED, body, at_us=now)
        known = tx.first(SELECT_RUN, run=run.run_id)
    return run_from(known)


def update_run(tx: Transaction, run_id: str, changes: dict[str, Any]) -> RunRecord:
    """Record changed fields of a run; see ``Ledger.update_run``."""
    unknown = sorted(set(changes) - _MUTABLE)
    if unknown:
        raise UsageError(
            f"a run has no field {', '.join(unknown)} that may change",
            where=run_id,
            next_step=f"use {', '.join(sorted(_MUTABLE))}",
        )
    tx.lock_run(run_id)
    current = run_from(tx.first(SELECT_RUN, run=run_id))
    now = tx.clock.now_us()
    wanted = _with_times(current, changes, now)
    _check_transition(current, wanted)
    changed = {name: v for name, v in wanted.items() if getattr(current, name) != v}
    if changed:
        body = run_json(_plain(changed))
        tx.append(run_id, EntryType.RUN_UPDATED, body, at_us=now)
        tx.run(_UPDATE, {"one": run_id, **run_columns(body)})
        if "runner" in changed or _is_over(changed):
            tx.run(_DROP_LEASE, {"one": run_id})
        if "state" in changed:
            tx.note_state(run_id, wanted["state"])
            if wanted["state"].terminal:
                release_run(tx, run_id)
    return run_from(tx.first(SELECT_RUN, run=run_id))


def _is_over(changed: dict[str, Any]) -> bool:
    return "state" in changed and bool(changed["state"].terminal)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    # StrEnum members are strings, but JSON text and drivers should see plain ones.
    return {
        name: str(v) if isinstance(v, str) else list(v) if isinstance(v, tuple) else v
        for name, v in fields.items()
    }


def _with_times(current: RunRecord, changes: dict[str, Any], now: int) -> dict[str, Any]:
    wanted = dict(changes)
    if "state" in wanted:
        wanted["state"] = RunState(wanted["state"])
        if wanted["state"] is RunState.RUNNING and current.started_us is None:
            wanted.setdefault("started_us", now)
        if wanted["state"].terminal and not current.state.terminal:
            wanted.setdefault("ended_us", max(now, current.started_us or 0))
    if wanted.get("cause") is not None:
        wanted["cause"] = Cause(wanted["cause"])
    if "results_expected" in wanted:
        wanted["results_expected"] = tuple(wanted["results_expected"])
    return wanted


def _check_transition(current: RunRecord, wanted: dict[str, Any]) -> None:
    if not current.state.terminal:
        return
    if current.repeatable and wanted.get("state") is RunState.RUNNING:
        return  # it goes on from its journal; how it had ended stays in the chain
    for name in ("state", "cause", "message", "started_us", "ended_us"):
        value = getattr(current, name)
        if wanted.get(name, value) != value:
            raise Busy(
                f"the run {current.run_id} has already ended as {current.state}, "
                f"its {name} cannot become {wanted[name]}",
                where=current.run_id,
                next_step=f"see how it ended with `toolkit show {current.run_id}`",
            )
