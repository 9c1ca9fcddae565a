"""The stop switch: what nobody may do from now on, and who said so.

Every stop and start is an entry of a chain of its own (:data:`~toolkit.ledger.chain.SWITCHES`); the
table ``stops`` holds what is in force, a projection of that chain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from toolkit.errors import NotFound, UsageError
from toolkit.ledger.chain import SWITCHES, EntryType
from toolkit.ledger.codec import check_plain
from toolkit.ledger.records import Stop, StopChange
from toolkit.ledger.schema import entries, stops
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import Decision, Verdict, iso_utc

__all__ = [
    "active_stop",
    "list_changes",
    "list_stops",
    "start_scope",
    "stop_columns",
    "stop_scope",
    "stopped",
]

_SCOPE = re.compile(r"all|(?:agent|team|route|job|user|tool|run):[^\s\x00-\x1f\x7f].{0,199}")
_KEYS = ("scope", "stopped_by", "reason", "at_us", "n")


def _put(insert: Any) -> Any:
    statement = insert(stops).values({name: bindparam(name) for name in _KEYS})
    changes = {name: statement.excluded[name] for name in _KEYS[1:]}
    return statement.on_conflict_do_update(index_elements=["scope"], set_=changes)


_PUT = {name: _put(insert) for name, insert in INSERTS.items()}
_DROP = delete(stops).where(stops.c.scope == bindparam("one"))
_ALL = select(stops).order_by(stops.c.scope)


def stop_scope(tx: Transaction, scope: str, by: str, reason: str) -> Stop:
    """Stop a scope; see ``Ledger.stop``."""
    body = _body(scope, by, reason)
    tx.lock_switches()
    now = tx.clock.now_us()
    n = tx.append(SWITCHES, EntryType.SWITCH_STOPPED, body, at_us=now)
    tx.run(_PUT[tx.dialect], stop_columns(body, n=n, at_us=now))
    tx.may_be_stopped = True
    return Stop(scope, by, reason, now)


def start_scope(tx: Transaction, scope: str, by: str, reason: str) -> Stop:
    """Undo a stop and return it; see ``Ledger.start``."""
    body = _body(scope, by, reason)
    tx.lock_switches()
    known = {row.scope: row for row in tx.all(_ALL)}
    if scope not in known:
        others = ", ".join(known) or "nothing"
        raise NotFound(
            f"{scope} is not stopped; stopped is: {others}",
            where=scope,
            next_step="name a scope that is stopped",
        )
    tx.append(SWITCHES, EntryType.SWITCH_STARTED, body, at_us=tx.clock.now_us())
    tx.run(_DROP, {"one": scope})
    return _stop(known[scope])


def active_stop(tx: Transaction, scopes: Sequence[str]) -> Stop | None:
    """Return the first of the stops in force that matches one of the scopes."""
    if not scopes or not tx.may_be_stopped:
        return None
    # All of them: there are hardly ever any, and this is the cheapest question.
    return next((_stop(row) for row in tx.all(_ALL) if row.scope in scopes), None)


def stopped(decision: Decision, stop: Stop) -> Decision:
    """Return the decision that a stop leaves of another one."""
    reason = f": {stop.reason}" if stop.reason else ""
    sentence = f"{stop.scope} was stopped by {stop.by} at {iso_utc(stop.at_us)[:19]}Z{reason}"
    return Decision(
        Verdict.DENY,
        policies=("stop",),
        reasons=(sentence,),
        policy_digest=decision.policy_digest,
        production_verdict=decision.production_verdict,
        production_reasons=decision.production_reasons,
        shadow=decision.shadow,
    )


def list_stops(connection: Connection) -> list[Stop]:
    """Return the stops in force, by scope."""
    return [_stop(row) for row in connection.execute(_ALL)]


def list_changes(connection: Connection, limit: int) -> list[StopChange]:
    """Return stops and starts, newest first."""
    statement = (
        select(entries.c.n, entries.c.type, entries.c.at_us, entries.c.body)
        .where(entries.c.run_id == SWITCHES)
        .order_by(entries.c.n.desc())
        .limit(limit)
    )
    found: list[StopChange] = []
    for row in connection.execute(statement):
        body = json.loads(row.body)
        is_stop = row.type == EntryType.SWITCH_STOPPED
        change = StopChange(row.n, is_stop, body["scope"], body["by"], body["reason"], row.at_us)
        found.append(change)
    return found


def stop_columns(body: dict[str, Any], *, n: int, at_us: int) -> dict[str, Any]:
    """Return the columns of ``stops`` that a ``switch.stopped`` entry stands for."""
    facts = {"scope": body["scope"], "stopped_by": body["by"], "reason": body["reason"]}
    return {**facts, "at_us": at_us, "n": n}


def _stop(row: Any) -> Stop:
    return Stop(row.scope, row.stopped_by, row.reason, row.at_us)


def _body(scope: str, by: str, reason: str) -> dict[str, Any]:
    if not _SCOPE.fullmatch(scope):
        raise UsageError(
            f"{scope[:80]!a} is nothing that can be stopped",
            where="scope",
            next_step="use all, or agent:NAME, team:NAME, route:NAME, job:NAME, user:NAME, tool:NAME, run:ID",
        )
    check_plain(scope, "scope")
    check_plain(by, "name")
    check_plain(reason, "reason")
    return {"scope": scope, "by": by, "reason": reason}
