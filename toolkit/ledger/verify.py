"""Recompute the chains and everything that is projected from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, union

from toolkit.ledger.approvals import answer_columns, ask_columns
from toolkit.ledger.budgets import held_of
from toolkit.ledger.chain import SWITCHES, EntryType, entry_hash
from toolkit.ledger.codec import intent_columns, json_text, outcome_columns, run_columns
from toolkit.ledger.records import ApprovalState, ChainFault, ChainHead, FaultKind
from toolkit.ledger.reservations import UNITS
from toolkit.ledger.schema import approvals, budgets, calls, cases, entries, runs, stops
from toolkit.ledger.switches import stop_columns
from toolkit.ledger.transaction import unknown_run
from toolkit.values import CallState, digest_json

__all__ = ["verify_chains"]

_CallId = tuple[str, int]
_BATCH = 500
# Numbered by the database, and a note of the outbox: neither is evidence.
_NOT_PROJECTED = ("seq", "shipped", "run_id", "call_key", "generation")


def verify_chains(
    connection: Connection, run_id: str | None, expected: Sequence[ChainHead]
) -> list[ChainFault]:
    """See ``Ledger.verify``."""
    known = _run_ids(connection, run_id)
    if run_id is not None and not known and not expected:
        raise unknown_run(run_id)
    anchored = [h.run_id for h in expected if run_id is None or h.run_id == run_id]
    faults: list[ChainFault] = []
    sums: dict[str, dict[str, int]] = {}
    for one in dict.fromkeys([*known, *anchored]):
        check = _RunCheck(connection, one, sums)
        check.links([head for head in expected if head.run_id == one])
        check.run_row()
        check.call_rows()
        check.case_rows()
        check.approval_rows()
        check.stop_rows()
        faults += check.faults
    if run_id is None:
        faults += _budget_faults(connection, sums)
    return faults


def _run_ids(connection: Connection, run_id: str | None) -> list[str]:
    tables = (runs, entries, calls, cases, approvals)
    parts = [
        select(t.c.run_id).where(*([] if run_id is None else [t.c.run_id == run_id]))
        for t in tables
    ]
    found = set(connection.execute(union(*parts)).scalars())
    # A stop that no entry tells of is a fault, too.
    if run_id in (None, SWITCHES) and connection.execute(select(stops.c.scope)).first():
        found.add(SWITCHES)
    return sorted(found)


class _RunCheck:
    """Folds one run's chain and compares the rows with what it says.

    Args:
        connection: One snapshot of the database.
        run_id: The run.
        sums: What budgets should hold, by scope; added to here.
    """

    def __init__(
        self, connection: Connection, run_id: str, sums: dict[str, dict[str, int]]
    ) -> None:
        self.faults: list[ChainFault] = []
        self._connection = connection
        self._run_id = run_id
        self._sums = sums
        self._run: dict[str, Any] | None = None
        self._calls: dict[_CallId, dict[str, Any]] = {}
        self._charged: dict[_CallId, dict[str, int] | None] = {}
        self._lost: list[tuple[list[str], dict[str, int]]] = []
        self._cases: dict[str, str] = {}
        self._answers: dict[str, int] = {}
        self._approvals: dict[str, dict[str, Any]] = {}
        self._stops: dict[str, dict[str, Any]] = {}

    def _fault(
        self, kind: FaultKind, message: str, n: int | None = None, key: str | None = None
    ) -> None:
        self.faults.append(ChainFault(self._run_id, kind, message, n, key))

    # -- the chain -------------------------------------------------------------------------------

    def links(self, anchors: Sequence[ChainHead]) -> None:
        """Check numbers, links, hashes and anchored heads; fold every entry."""
        wanted = {(head.n, head.hash) for head in anchors}
        n, prev = 0, ""
        for row in self._entries():
            if not isinstance(row.n, int):  # SQLite holds any type in any column
                self._fault(FaultKind.NONSENSE, "an entry has no number", key=row.call_key)
                continue
            if row.n != n + 1:
                self._fault(FaultKind.GAP, f"entries {n + 1} to {row.n - 1} are missing", row.n)
            elif row.prev != prev:
                self._fault(
                    FaultKind.BROKEN_LINK, f"entry {row.n} does not follow entry {n}", row.n
                )
            digest = _digest(row)
            if digest != row.hash:
                self._fault(
                    FaultKind.EDITED, f"entry {row.n} ({row.type}) was edited", row.n, row.call_key
                )
            wanted.discard((row.n, digest))
            n, prev = row.n, row.hash
            self._fold(row)
        for number, _ in sorted(wanted):
            gone = f"the run is missing: its entry {number} was anchored"
            message = (
                gone
                if n == 0
                else (
                    f"the chain ends at entry {n}, before the anchored entry {number}"
                    if number > n
                    else f"entry {number} is not the one that was anchored"
                )
            )
            self._fault(FaultKind.HEAD, message, number)

    def _entries(self) -> Iterator[Any]:
        statement = select(entries).where(entries.c.run_id == self._run_id).order_by(entries.c.n)
        yield from self._connection.execution_options(yield_per=_BATCH).execute(statement)

    def _fold(self, row: Any) -> None:
        try:
            complaint = self._apply(row, json.loads(row.body))
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            complaint = "does not have the form of its type"
        if complaint is not None:
            message = f"entry {row.n} ({row.type}) {complaint}"
            self._fault(FaultKind.NONSENSE, message, row.n, row.call_key)

    def _apply(self, row: Any, body: dict[str, Any]) -> str | None:
        kind = EntryType(row.type)
        if kind in (EntryType.RUN_CREATED, EntryType.RUN_UPDATED):
            return self._apply_run(kind, body)
        if kind is EntryType.CASES_PUT:
            self._cases.update(body["cases"])
            return None
        if kind is EntryType.CASE_ANSWERED:
            first = self._answers.setdefault(body["case_id"], row.n)
            return None if first == row.n else "answers a case for the second time"
        if kind in (EntryType.SWITCH_STOPPED, EntryType.SWITCH_STARTED):
            return self._apply_switch(kind, row, body)
        if kind is EntryType.CALL_ANSWERED:
            return self._apply_answer(row, body)
        return self._apply_call(kind, row, body)

    def _apply_run(self, kind: EntryType, body: dict[str, Any]) -> str | None:
        if (kind is EntryType.RUN_CREATED) != (self._run is None):
            return "comes twice" if kind is EntryType.RUN_CREATED else "comes before its run"
        self._run = {**(self._run or {}), **run_columns(body)}
        return None

    def _apply_call(self, kind: EntryType, row: Any, body: dict[str, Any]) -> str | None:
        call_id = (row.call_key, row.generation)
        call = self._calls.get(call_id)
        if kind is EntryType.CALL_INTENT:
            self._calls[call_id] = intent_columns(body, n=row.n, at_us=row.at_us)
            return None if call is None else "begins a call that has begun"
        if call is None:
            return "is about a call that was never begun"
        tags = json.loads(call["tags"])
        if kind is EntryType.CALL_TAGGED:
            call["tags"] = json_text(tags | body["tags"])
        elif call["state"] != CallState.STARTED:
            return "changes a call that has ended"
        elif kind is EntryType.CALL_OUTCOME:
            call.update(outcome_columns(body, n=row.n, at_us=row.at_us))
            self._charged[call_id] = body["charged"]
        elif kind is EntryType.CALL_DECIDED:
            decision = body["decision"]
            call.update(verdict=decision["verdict"], decision=json_text(decision))
        elif kind is EntryType.CALL_RELEASED:
            return self._apply_release(call_id, call, row.n, body)
        elif kind is EntryType.CALL_ASK:
            return self._apply_ask(call_id, row, body)
        else:
            call["tags"] = json_text({**tags, "restarts": body["restarts"]})
            return self._apply_restart(call_id, call, body)
        return None

    def _apply_restart(
        self, call_id: _CallId, call: dict[str, Any], body: dict[str, Any]
    ) -> str | None:
        """Fold what the attempt before was charged and what the next one holds."""
        if "reserved" not in body:
            return None
        held, was_released = held_of(call["reserved"]), call["released_n"] is not None
        lost = self._charged.pop(call_id, None) if was_released else body.get("lost")
        call["reserved"] = None if body["reserved"] is None else json_text(body["reserved"])
        call["released_n"] = None
        if held is None:
            return None
        self._lost.append((held["scopes"], lost or {}))
        worst = {unit: held[unit] for unit in UNITS}
        return None if lost == worst else "charges other than the worst case"

    def _apply_release(
        self, call_id: _CallId, call: dict[str, Any], n: int, body: dict[str, Any]
    ) -> str | None:
        held = held_of(call["reserved"])
        if held is None or call["released_n"] is not None:
            return "releases a call that holds nothing"
        call["released_n"] = n
        self._charged[call_id] = body["charged"]
        worst = {unit: held[unit] for unit in UNITS}
        return None if body["charged"] == worst else "charges other than the worst case"

    def _apply_ask(self, call_id: _CallId, row: Any, body: dict[str, Any]) -> str | None:
        asked = [(a["call_key"], a["generation"]) for a in self._approvals.values()]
        place = {"call_key": row.call_key, "generation": row.generation}
        columns = {**place, **ask_columns(body, n=row.n, at_us=row.at_us)}
        known = self._approvals.setdefault(body["id"], columns)
        return None if known is columns and call_id not in asked else "asks for the second time"

    def _apply_answer(self, row: Any, body: dict[str, Any]) -> str | None:
        approval = self._approvals.get(body["id"])
        if approval is None:
            return "answers what was never asked"
        if not ApprovalState(approval["state"]).waiting:
            return "answers what was decided"
        approval.update(answer_columns(body, n=row.n, at_us=row.at_us))
        return None

    def _apply_switch(self, kind: EntryType, row: Any, body: dict[str, Any]) -> str | None:
        if kind is EntryType.SWITCH_STOPPED:
            self._stops[body["scope"]] = stop_columns(body, n=row.n, at_us=row.at_us)
            return None
        known = self._stops.pop(body["scope"], None)
        return "starts what is not stopped" if known is None else None

    # -- the projections -------------------------------------------------------------------------

    def run_row(self) -> None:
        """Compare the run's row."""
        statement = select(runs).where(runs.c.run_id == self._run_id)
        row = self._connection.execute(statement).mappings().first()
        if row is None and self._run is not None:
            self._fault(FaultKind.MISSING_ROW, "the run's row is missing")
        elif row is not None and self._run is None:
            self._fault(FaultKind.EXTRA_ROW, "the chain does not know this run")
        elif row is not None and self._run is not None:
            self._compare("runs", row, self._run)

    def call_rows(self) -> None:
        """Compare the rows of the run's calls, and their order."""
        left = dict(self._calls)
        last = 0
        statement = select(calls).where(calls.c.run_id == self._run_id).order_by(calls.c.seq)
        for row in self._connection.execute(statement).mappings():
            said = left.pop((row["call_key"], row["generation"]), None)
            name = f"call {row['call_key']}, generation {row['generation']},"
            if said is None:
                message = f"{name} is not in the chain"
                self._fault(FaultKind.EXTRA_ROW, message, key=row["call_key"])
                continue
            self._compare(name, row, said, key=row["call_key"])
            if said["intent_n"] < last:
                message = f"{name} is listed in another order than it began"
                self._fault(FaultKind.PROJECTION, message, said["intent_n"], row["call_key"])
            last = max(last, said["intent_n"])
        for (key, generation), said in left.items():
            message = f"the row of call {key}, generation {generation}, is missing"
            self._fault(FaultKind.MISSING_ROW, message, said["intent_n"], key)
        self._add_budgets()

    def _compare(self, what: str, row: Any, said: dict[str, Any], key: str | None = None) -> None:
        for name, value in said.items():
            if name not in _NOT_PROJECTED and row[name] != value:
                message = f"{what}: column {name} differs from the chain"
                self._fault(FaultKind.PROJECTION, message, said.get("intent_n"), key)

    def _add_budgets(self) -> None:
        for call_id, call in self._calls.items():
            if call["reserved"] is None:
                continue
            held = held_of(call["reserved"]) or {}
            finished = call["state"] != CallState.STARTED or call["released_n"] is not None
            amounts = self._charged.get(call_id) if finished else held
            self._add("spent" if finished else "reserved", held["scopes"], amounts or {})
        for scopes, lost in self._lost:
            self._add("spent", scopes, lost)

    def _add(self, part: str, scopes: Sequence[str], amounts: dict[str, Any]) -> None:
        for scope in scopes:
            total = self._sums.setdefault(scope, {})
            for unit in UNITS:
                name = f"{part}_{unit}"
                total[name] = total.get(name, 0) + (amounts.get(unit) or 0)

    def approval_rows(self) -> None:
        """Compare the requests to people."""
        statement = select(approvals).where(approvals.c.run_id == self._run_id)
        self._compare_all("the request", "approval_id", statement, self._approvals)

    def stop_rows(self) -> None:
        """Compare the stops in force with their chain."""
        if self._run_id == SWITCHES:
            self._compare_all("the stop of", "scope", select(stops), self._stops)
        elif self._stops:
            self._fault(FaultKind.NONSENSE, "a run's chain holds entries of the switches")

    def _compare_all(
        self, what: str, key: str, statement: Select[Any], said: dict[str, dict[str, Any]]
    ) -> None:
        left = dict(said)
        for row in self._connection.execute(statement).mappings():
            known = left.pop(row[key], None)
            if known is None:
                self._fault(FaultKind.EXTRA_ROW, f"{what} {row[key]} is not in the chain")
            else:
                differing = [name for name, value in known.items() if row[name] != value]
                for name in differing:
                    message = f"{what} {row[key]}: column {name} differs from the chain"
                    self._fault(FaultKind.PROJECTION, message)
        for name in left:
            self._fault(FaultKind.MISSING_ROW, f"the row of {what} {name} is missing")

    def case_rows(self) -> None:
        """Compare the cases and which entry answers them."""
        statement = select(cases).where(cases.c.run_id == self._run_id).order_by(cases.c.position)
        left = dict(self._cases)
        for row in self._connection.execute(statement):
            digest = left.pop(row.case_id, None)
            if digest is None:
                self._fault(FaultKind.EXTRA_ROW, f"case {row.case_id} is not in the chain")
            elif digest != _inputs_digest(row.inputs):
                self._fault(FaultKind.PROJECTION, f"the inputs of case {row.case_id} were edited")
            if row.answer_n != self._answers.get(row.case_id):
                message = f"case {row.case_id} points to another answer than the chain's"
                self._fault(FaultKind.PROJECTION, message, row.answer_n)
        for case_id in left:
            self._fault(FaultKind.MISSING_ROW, f"the row of case {case_id} is missing")


def _digest(row: Any) -> str | None:
    try:
        return entry_hash(
            run_id=row.run_id,
            n=row.n,
            type=row.type,
            call_key=row.call_key,
            generation=row.generation,
            at_us=row.at_us,
            prev=row.prev,
            body=row.body,
        )
    except (ValueError, TypeError, AttributeError):
        return None


def _inputs_digest(text: str) -> str | None:
    try:
        return digest_json(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def _budget_faults(connection: Connection, sums: dict[str, dict[str, int]]) -> list[ChainFault]:
    faults: list[ChainFault] = []
    left = dict(sums)
    for row in connection.execute(select(budgets)).mappings():
        said = left.pop(row["scope"], {})
        for part in ("reserved", "spent"):
            for unit in UNITS:
                name = f"{part}_{unit}"
                if row[name] != said.get(name, 0):
                    message = (
                        f"the budget's {name} is {row[name]}, its calls say {said.get(name, 0)}"
                    )
                    faults.append(ChainFault(row["scope"], FaultKind.BUDGET, message))
    faults += [ChainFault(scope, FaultKind.BUDGET, "the budget's row is missing") for scope in left]
    return faults
