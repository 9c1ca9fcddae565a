"""The part of the ledger's door that governs calls: budgets, people's decisions, stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.ledger import reading, switches
from toolkit.ledger.abandoned import abandoned_runs
from toolkit.ledger.answers import answers_to
from toolkit.ledger.approvals import (
    approval_of_call,
    list_approvals,
    overdue_approvals,
    read_approval,
)
from toolkit.ledger.base import LedgerBase
from toolkit.ledger.chain import SWITCHES
from toolkit.ledger.costs import CostRow, cost_rows
from toolkit.ledger.family import children_of
from toolkit.ledger.leases import Lease, read_lease
from toolkit.ledger.owners import is_here, runner_alive
from toolkit.ledger.records import Approval, ApprovalState, Budget, Said, Stop, StopChange
from toolkit.ledger.seen import seen_names
from toolkit.ledger.told import CellsTold, read_told
from toolkit.ledger.waiting import Standing, Woken, awaited_runs, standing_of
from toolkit.values import CallRecord, RunRecord

__all__ = ["Controls"]


class Controls(LedgerBase):
    """Budgets, approvals and stops; see ``Ledger``."""

    # -- budgets ---------------------------------------------------------------------------------

    def budget(self, scope: str) -> Budget | None:
        """Return where a scope stands, ``None`` before its first reservation."""
        return self._store.read(lambda c: reading.read_budget(c, scope))

    def costs(self, by: str, *, since_us: int | None = None) -> list[CostRow]:
        """Return what model calls cost, dearest first.

        Args:
            by: One of :data:`COST_GROUPS`.
            since_us: Only calls that began at or after this time (microseconds since the epoch).
        """
        return self._store.read(lambda c: cost_rows(c, by, since_us))

    def seen(self, kind: str) -> set[str]:
        """Return every recorded name of a ``job``, ``user``, ``team``, ``agent``, ``route``, ``tool``.

        It reads all runs or calls: not for what is asked often.
        """
        return self._store.read(lambda c: seen_names(c, kind))

    def release_abandoned(self, run_id: str | None = None) -> int:
        """Settle at the worst case what calls without an outcome still hold of an ended run.

        ``update_run`` does this in the transaction in which a run ends.  It is here for runs that
        ended in a ledger of format 1, which kept such reservations for ever.  Requests to people
        that wait in the run expire.  A call whose outcome is recorded afterwards is charged what
        it really cost.

        Args:
            run_id: One run; ``None``: every run that has ended (reads all calls).

        Returns:
            How many calls were settled.

        Raises:
            NotFound: There is no such run.
            Conflict: It has not ended.
        """
        if run_id is not None:
            return self._write(lambda s: s.release_abandoned(run_id))
        found = self._store.read(abandoned_runs)
        return sum(self.release_abandoned(one) for one in found)

    # -- approvals -------------------------------------------------------------------------------

    def ask(self, call: CallRecord, *, role: str, view: Any, expires_us: int) -> Approval:
        """Record that a person is asked about a call that has begun; durable on return.

        A call is asked about once: a second request returns the first one as it stands.

        Args:
            call: Has no outcome yet; it keeps what it holds while it waits.
            role: Who may decide.
            view: The call for a reader's eyes, a JSON value.
            expires_us: When the request ends by itself, microseconds since the epoch.

        Raises:
            NotFound: There is no such call.
            Conflict: It has ended.
            UsageError: The time is past, there is no role, or the view is not JSON.
        """
        return self._write(lambda s: s.ask(call, role=role, view=view, expires_us=expires_us))

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
        """Record a person's decision; durable on return.  It changes nothing about the call.

        Whether ``by`` has the role is for the caller to know.  That nobody approves an own request
        in production is refused here.

        Args:
            approval_id: The request.
            by: Who decides.
            verdict: ``approved``, ``changed``, ``rejected``, ``escalated`` or ``stopped``.
            digest: The digest that the person was shown.
            reason: Why; the model reads it after ``rejected``.
            arguments: With ``changed``: what the call is made with instead.
            role: With ``escalated``: who decides instead.
            signed: The envelope in which ``by`` signed it; kept with the answer, not verified here.

        Raises:
            NotFound: There is no such request.
            Conflict: It was decided before, has expired, its call has ended, or its digest is
                another one.
            CallDenied: The request is ``by``'s own, in production.
            UsageError: Verdict, arguments and role do not fit together.
        """
        return self._write(
            lambda s: s.answer(
                approval_id,
                by=by,
                verdict=verdict,
                digest=digest,
                reason=reason,
                arguments=arguments,
                role=role,
                signed=signed,
            )
        )

    def approval(self, approval_id: str) -> Approval:
        """Return a request; raises :class:`NotFound`."""
        return self._store.read(lambda c: read_approval(c, approval_id))

    def approval_of(self, call: CallRecord) -> Approval | None:
        """Return the request about a call, ``None`` if nobody was asked."""
        run_id, key, generation = call.intent.run_id, call.key, call.generation
        return self._store.read(lambda c: approval_of_call(c, run_id, key, generation))

    def answers(self, approval_id: str) -> list[Said]:
        """Return every decision about a request, the oldest first; all but the last escalated it."""
        return self._store.read(lambda c: answers_to(c, approval_id))

    def approvals(
        self,
        state: ApprovalState | None = None,
        role: str | None = None,
        limit: int = 50,
        *,
        waiting: bool = False,
    ) -> list[Approval]:
        """Return requests, newest first.

        Args:
            state: Only those in this state.
            role: Only those that this role decides now (after an escalation: the new one).
            limit: Most to return.
            waiting: Only those that a person may still decide, oldest first.
        """
        return self._store.read(
            lambda c: list_approvals(c, state=state, role=role, waiting=waiting, limit=limit)
        )

    def expire(self, now_us: int | None = None) -> list[Approval]:
        """Close requests whose time is over or whose call has ended; return them.

        Args:
            now_us: Microseconds since the epoch; the ledger's clock by default.
        """
        now = self._clock.now_us() if now_us is None else now_us
        overdue = self._store.read(lambda c: overdue_approvals(c, now))
        closed = [self._write(lambda s, one=one: s.expire(one)) for one in overdue]  # type: ignore[misc]
        return [each for each in closed if each.state is ApprovalState.EXPIRED]

    # -- runs that wait --------------------------------------------------------------------------

    def children(self, run_id: str) -> list[RunRecord]:
        """Return the runs that a run started itself, in the order in which it asked for them."""
        return self._store.read(lambda c: children_of(c, run_id))

    def standing(self, run_id: str) -> Standing:
        """Return whom a run's unfinished calls wait for, and whether anything else is under way."""
        return self._store.read(lambda c: standing_of(c, run_id))

    def park(
        self, run: RunRecord, asked: Sequence[str], *, message: str, runner: str | None = None
    ) -> RunRecord | None:
        """Record that a run only waits, for people or for runs; its token is worth nothing then.

        Args:
            run: The run as its runner began it.
            asked: Ids of the requests and of the runs that it waits for (``Standing.names``).
            message: One sentence for people.
            runner: The process that goes on with it; ``None``: anybody may.

        Returns:
            The run as it waits; ``None`` if that is not so (any more): it does not run, was taken
            over, a request was decided or is due, another one was made, or a call is under way.
        """
        return self._write(lambda s: s.park(run, asked, message=message, runner=runner))

    def take(self, run: RunRecord, *, lease_s: float | None = None, **changes: Any) -> RunRecord:
        """Change a run if state, runner and token are still as in ``run``; one of two takes it.

        Args:
            run: The run as it was read.
            lease_s: Seconds of the lease that the (new) runner gets in the same transaction;
                ``None``: a new runner has none.
            changes: As for ``update_run``.

        Raises:
            Conflict: They are not, or the run has ended.
            UsageError: A field is not one that may change.
        """
        taken = self._write(lambda s: s.take(run, changes, lease_s))
        if taken.state.terminal and not run.state.terminal:
            self._anchor(run.run_id)
        return taken

    # -- leases ----------------------------------------------------------------------------------

    def renew(self, run: RunRecord, lease_s: float) -> bool:
        """Renew the lease that ``run.runner`` holds; whether it still does.

        ``False``: the run has ended or belongs to another runner, and this one must stop.  A lease
        that is over can be renewed while nobody took the run.  It is not synced: after a loss of
        power the runner is gone, too.

        Raises:
            NotFound: There is no such run.
        """
        return self._write(lambda s: s.renew(run, lease_s), synced=False)

    def lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, ``None`` if nobody holds one."""
        return self._store.read(lambda c: read_lease(c, run_id))

    def lives(self, run: RunRecord) -> bool:
        """Whether the runner of a run is there: by the list of processes here, elsewhere by its lease.

        A runner of another machine that holds no lease (one of an older toolkit, a session, an
        evaluation) is assumed to be there.
        """
        if run.runner is None:
            return False
        if is_here(run.runner):
            return runner_alive(run.runner)
        lease = self.lease(run.run_id)
        if lease is None or lease.runner != run.runner:
            return runner_alive(run.runner)
        return lease.valid

    # -- what a run shows ------------------------------------------------------------------------

    def tell_cells(self, run: RunRecord, cells: Sequence[dict[str, Any]]) -> bool:
        """Keep what a run's cells show now, in place of the last time; whether ``run`` may tell it.

        ``False``: another attempt has the run.  It is not synced, and in no chain.

        Args:
            run: The run as its attempt was claimed: its token has to be the present one.
            cells: One JSON object for each cell, at most 64,000 characters of JSON text together.

        Raises:
            NotFound: There is no such run.
            UsageError: It is too long, or no JSON.
        """
        return self._write(lambda s: s.tell_cells(run, cells), synced=False)

    def told_cells(self, run_id: str) -> CellsTold | None:
        """Return what a run's cells showed last; ``None`` where nobody told."""
        return self._store.read(lambda c: read_told(c, run_id))

    # -- parked runs -----------------------------------------------------------------------------

    def awaited(self, now_us: int | None = None, *, limit: int = 1_000) -> list[Woken]:
        """Return parked runs that may go on, the oldest first: one query, however many wait.

        Args:
            now_us: Microseconds since the epoch; the ledger's clock by default.
            limit: Most to return; runs that were stopped come on top.
        """
        now = self._clock.now_us() if now_us is None else now_us
        return self._store.read(lambda c: awaited_runs(c, now, limit))

    # -- stops -----------------------------------------------------------------------------------

    def stop(self, scope: str, by: str, reason: str = "") -> Stop:
        """Refuse from now on what ``begin`` is told to belong to this scope; durable on return.

        A scope that is stopped already is stopped by the newer one; history keeps both.

        Args:
            scope: ``all``, or ``agent:``, ``team:``, ``route:``, ``job:``, ``user:``, ``tool:``,
                ``run:`` and a name.
            by: Who stops it.
            reason: Why; told to whoever is refused.

        Raises:
            UsageError: The scope is none of these.
        """
        said = self._write(lambda s: s.stop(scope, by, reason))
        self._anchor(SWITCHES)
        return said

    def start(self, scope: str, by: str, reason: str = "") -> Stop:
        """Undo a stop of exactly this scope and return it; others stay in force.

        Raises:
            NotFound: The scope is not stopped.
            UsageError: It is no scope.
        """
        said = self._write(lambda s: s.start(scope, by, reason))
        self._anchor(SWITCHES)
        return said

    def stops(self) -> list[Stop]:
        """Return what is stopped now, by scope."""
        return self._store.read(switches.list_stops)

    def stop_history(self, limit: int = 50) -> list[StopChange]:
        """Return every stop and start, newest first."""
        return self._store.read(lambda c: switches.list_changes(c, limit))

    def stopped(self, scopes: Sequence[str]) -> Stop | None:
        """Return a stop that holds for one of these scopes, for work that begins no call."""
        return next((stop for stop in self.stops() if stop.scope in scopes), None)
