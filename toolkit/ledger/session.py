"""Everything that may be written, inside a transaction that somebody else commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.ledger.abandoned import release_run
from toolkit.ledger.approvals import answer_approval, ask_approval, expire_approval
from toolkit.ledger.calls import (
    begin_call,
    decide_call,
    finish_call,
    mark_calls_shipped,
    tag_call,
)
from toolkit.ledger.cases import (
    answer_case,
    next_case,
    put_cases,
    reset_cases,
    withdraw_cases,
)
from toolkit.ledger.leases import hold_lease, renew_lease
from toolkit.ledger.records import Approval, Begun, Reservation, Stop
from toolkit.ledger.restarts import Restart, restart_call
from toolkit.ledger.runs import create_run, update_run
from toolkit.ledger.switches import start_scope, stop_scope
from toolkit.ledger.told import tell_cells
from toolkit.ledger.transaction import Transaction
from toolkit.ledger.waiting import park_run, take_run
from toolkit.values import CallRecord, Cause, Decision, Intent, Outcome, RunRecord, RunState

__all__ = ["Session"]


class Session:
    """The writes of one transaction; each method is described at its namesake in ``Ledger``.

    A function that takes a session may be run more than once before it is committed, so it has
    no effect elsewhere.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._tx = transaction

    def create_run(self, run: RunRecord, lease_s: float | None = None) -> RunRecord:
        """See :meth:`Ledger.create_run`."""
        known = create_run(self._tx, run)
        mine = known.runner == run.runner and known.token_digest == run.token_digest
        return self._leased(known, lease_s if mine else None)

    def renew(self, run: RunRecord, lease_s: float) -> bool:
        """See :meth:`Ledger.renew`."""
        return renew_lease(self._tx, run, lease_s)

    def tell_cells(self, run: RunRecord, cells: Sequence[dict[str, Any]]) -> bool:
        """See :meth:`Ledger.tell_cells`."""
        return tell_cells(self._tx, run, cells)

    def _leased(self, run: RunRecord, lease_s: float | None) -> RunRecord:
        if lease_s is not None and run.runner is not None and not run.state.terminal:
            hold_lease(self._tx, run.run_id, run.runner, lease_s)
        return run

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

    def park(
        self, run: RunRecord, asked: Sequence[str], *, message: str, runner: str | None = None
    ) -> RunRecord | None:
        """See :meth:`Ledger.park`."""
        return park_run(self._tx, run, asked, message=message, runner=runner)

    def take(
        self, run: RunRecord, changes: dict[str, Any], lease_s: float | None = None
    ) -> RunRecord:
        """See :meth:`Ledger.take`."""
        return self._leased(take_run(self._tx, run, changes), lease_s)

    def begin(
        self,
        intent: Intent,
        decision: Decision,
        *,
        reserve: Reservation | None = None,
        switches: Sequence[str] = (),
        anew: tuple[int, int] | None = None,
    ) -> Begun:
        """See :meth:`Ledger.begin`."""
        return begin_call(self._tx, intent, decision, reserve, switches, anew=anew)

    def finish(self, call: CallRecord, outcome: Outcome) -> CallRecord:
        """See :meth:`Ledger.finish`."""
        return finish_call(self._tx, call, outcome)

    def restart(
        self,
        call: CallRecord,
        *,
        switches: Sequence[str] = (),
        attempt: int | None = None,
        decision: Decision | None = None,
        reserve: Reservation | None = None,
        spent: bool = True,
    ) -> CallRecord:
        """See :meth:`Ledger.restart`."""
        again = Restart(switches, attempt, decision, reserve, spent)
        return restart_call(self._tx, call, again)

    def decide(self, call: CallRecord, decision: Decision) -> CallRecord:
        """See :meth:`Ledger.decide`."""
        return decide_call(self._tx, call, decision)

    def tag(self, call: CallRecord, tags: dict[str, str]) -> CallRecord:
        """See :meth:`Ledger.tag`."""
        return tag_call(self._tx, call, tags)

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        """See :meth:`Ledger.mark_shipped`."""
        mark_calls_shipped(self._tx, calls)

    def release_abandoned(self, run_id: str) -> int:
        """See :meth:`Ledger.release_abandoned`."""
        return release_run(self._tx, run_id)

    def ask(self, call: CallRecord, *, role: str, view: Any, expires_us: int) -> Approval:
        """See :meth:`Ledger.ask`."""
        return ask_approval(self._tx, call, role=role, view=view, expires_us=expires_us)

    def answer(
        self,
        approval_id: str,
        *,
        by: str,
        verdict: str,
        digest: str,
        reason: str | None = None,
        arguments: Any = None,
        role: str | None = None,
        signed: str | None = None,
    ) -> Approval:
        """See :meth:`Ledger.answer`."""
        return answer_approval(
            self._tx,
            approval_id,
            by=by,
            verdict=verdict,
            digest=digest,
            reason=reason,
            arguments=arguments,
            role=role,
            signed=signed,
        )

    def expire(self, approval_id: str) -> Approval:
        """Close a request that is overdue, or whose call has ended."""
        return expire_approval(self._tx, approval_id)

    def stop(self, scope: str, by: str, reason: str = "") -> Stop:
        """See :meth:`Ledger.stop`."""
        return stop_scope(self._tx, scope, by, reason)

    def start(self, scope: str, by: str, reason: str = "") -> Stop:
        """See :meth:`Ledger.start`."""
        return start_scope(self._tx, scope, by, reason)

    def put_cases(self, run_id: str, cases: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """See :meth:`Ledger.put_cases`."""
        put_cases(self._tx, run_id, cases)

    def next_case(self, run_id: str, *, reset: bool = False) -> tuple[str, dict[str, Any]] | None:
        """See :meth:`Ledger.next_case`."""
        if reset:
            reset_cases(self._tx, run_id)
        return next_case(self._tx, run_id)

    def withdraw_cases(self, run_id: str) -> None:
        """See :meth:`Ledger.withdraw_cases`."""
        withdraw_cases(self._tx, run_id)

    def answer_case(
        self, run_id: str, case_id: str, output: Any, error: dict[str, Any] | None
    ) -> None:
        """See :meth:`Ledger.answer_case`."""
        answer_case(self._tx, run_id, case_id, output, error)
