"""Everything that may be written, inside a transaction that somebody else commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.ledger.calls import (
    begin_call,
    decide_call,
    finish_call,
    mark_calls_shipped,
    restart_call,
    tag_call,
)
from toolkit.ledger.cases import answer_case, next_case, put_cases, reset_cases
from toolkit.ledger.records import Begun, Reservation
from toolkit.ledger.runs import create_run, update_run
from toolkit.ledger.transaction import Transaction
from toolkit.values import CallRecord, Cause, Decision, Intent, Outcome, RunRecord, RunState

__all__ = ["Session"]


class Session:
    """The writes of one transaction; each method is described at its namesake in ``Ledger``.

    A function that takes a session may be run more than once before it is committed, so it has
    no effect elsewhere.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._tx = transaction

    def create_run(self, run: RunRecord) -> RunRecord:
        """See :meth:`Ledger.create_run`."""
        return create_run(self._tx, run)

    def update_run(
        self,
        run_id: str,
        *,
        state: RunState | None = None,
        cause: Cause | None = None,
        message: str | None = None,
        **fields: Any,
    ) -> RunRecord:
        """See :meth:`Ledger.update_run`."""
        given = {"state": state, "cause": cause, "message": message}
        changes = {name: value for name, value in given.items() if value is not None}
        return update_run(self._tx, run_id, {**changes, **fields})

    def begin(
        self, intent: Intent, decision: Decision, *, reserve: Reservation | None = None
    ) -> Begun:
        """See :meth:`Ledger.begin`."""
        return begin_call(self._tx, intent, decision, reserve)

    def finish(self, call: CallRecord, outcome: Outcome) -> CallRecord:
        """See :meth:`Ledger.finish`."""
        return finish_call(self._tx, call, outcome)

    def restart(self, call: CallRecord) -> CallRecord:
        """See :meth:`Ledger.restart`."""
        return restart_call(self._tx, call)

    def decide(self, call: CallRecord, decision: Decision) -> CallRecord:
        """See :meth:`Ledger.decide`."""
        return decide_call(self._tx, call, decision)

    def tag(self, call: CallRecord, tags: dict[str, str]) -> CallRecord:
        """See :meth:`Ledger.tag`."""
        return tag_call(self._tx, call, tags)

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        """See :meth:`Ledger.mark_shipped`."""
        mark_calls_shipped(self._tx, calls)

    def put_cases(self, run_id: str, cases: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """See :meth:`Ledger.put_cases`."""
        put_cases(self._tx, run_id, cases)

    def next_case(self, run_id: str, *, reset: bool = False) -> tuple[str, dict[str, Any]] | None:
        """See :meth:`Ledger.next_case`."""
        if reset:
            reset_cases(self._tx, run_id)
        return next_case(self._tx, run_id)

    def answer_case(
        self, run_id: str, case_id: str, output: Any, error: dict[str, Any] | None
    ) -> None:
        """See :meth:`Ledger.answer_case`."""
        answer_case(self._tx, run_id, case_id, output, error)
