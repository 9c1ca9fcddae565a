"""The ledger's door."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from toolkit.ledger import reading
from toolkit.ledger.controls import Controls
from toolkit.ledger.decisions import (
    RecordedDecision,
    count_decisions,
    decision_pages,
    newest_of_job,
)
from toolkit.ledger.records import (
    Begun,
    CaseAnswer,
    ChainFault,
    ChainHead,
    Reservation,
    Totals,
)
from toolkit.ledger.verify import verify_chains
from toolkit.values import (
    CallRecord,
    Cause,
    Decision,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
)

__all__ = ["Ledger"]


class Ledger(Controls):
    """What happened: runs, calls, decisions, outcomes, budgets, approvals, stops, answers.

    Thread-safe; several processes may open the same ledger.  Not to be used across ``fork``.
    Every method raises :class:`LedgerError` when the database cannot do what was asked; a write
    that raised has recorded nothing.
    """

    # -- runs ------------------------------------------------------------------------------------

    def create_run(self, run: RunRecord, *, lease_s: float | None = None) -> RunRecord:
        """Record a run; ``created_us`` is set here.  A known ``run_id`` is returned as it is.

        Args:
            run: The run.
            lease_s: Seconds of the lease that its runner gets in the same transaction.
        """
        return self._write(lambda s: s.create_run(run, lease_s))

    def update_run(
        self,
        run_id: str,
        *,
        state: RunState | None = None,
        cause: Cause | None = None,
        message: str | None = None,
        **fields: Any,
    ) -> RunRecord:
        """Record a change of a run; ``started_us`` and ``ended_us`` follow the state.

        A run that ends gives back what its unfinished calls hold: :meth:`release_abandoned`.

        Args:
            run_id: The run.
            state: The new state; ``None`` leaves it as it is.
            cause: Why it ended so; ``None`` leaves it as it is.
            message: One sentence for people; ``None`` leaves it as it is.
            **fields: Other fields of :class:`RunRecord` except who, why, where and when created.

        Raises:
            NotFound: There is no such run.
            Conflict: It ended, and state, cause, message or times would change.
            UsageError: A field is not one that may change.
        """
        run = self._write(
            lambda s: s.update_run(run_id, state=state, cause=cause, message=message, **fields)
        )
        if state is not None and run.state.terminal:
            self._anchor(run_id)
        return run

    def get_run(self, run_id: str) -> RunRecord:
        """Return a run; raises :class:`NotFound`."""
        return self._store.read(lambda c: reading.read_run(c, run_id))

    def find_run(self, token_digest: str) -> RunRecord | None:
        """Return the newest run with this token digest."""
        return self._store.read(lambda c: reading.run_by_token(c, token_digest))

    def find_run_at_once(self, token_digest: str) -> RunRecord | None:
        """As :meth:`find_run`, for an event loop.

        Raises:
            Occupied: It would have to wait, or takes another way; ask :meth:`find_run` in a thread.
        """
        return self._store.read_at_once(lambda c: reading.run_by_token_at_once(c, token_digest))

    def runs(
        self,
        *,
        job: str | None = None,
        kind: RunKind | None = None,
        state: RunState | None = None,
        limit: int = 50,
    ) -> list[RunRecord]:
        """Return runs, newest first."""
        filters = {"job": job, "kind": kind, "state": state}
        return self._store.read(lambda c: reading.list_runs(c, filters, limit))

    # -- calls -----------------------------------------------------------------------------------

    def begin(
        self,
        intent: Intent,
        decision: Decision,
        *,
        reserve: Reservation | None = None,
        switches: Sequence[str] = (),
        anew: tuple[int, int] | None = None,
    ) -> Begun:
        """Record that a call is about to happen, and hold its worst case; durable on return.

        ``fresh=False`` when the same ``request_id`` was recorded before, or when the key was and
        the run is not a session (replay).  In a session a known key with another request becomes
        the next generation.  A verdict of ``DENY`` records intent and ``DENIED`` outcome together
        and holds nothing.  So does any fresh call that a stop is in force for: its decision becomes
        ``DENY`` by policy ``stop``, with who stopped it and why.

        Args:
            intent: The call.
            decision: What policy says.
            reserve: Its worst case, the budgets that cover it and the rates that count it.
            switches: Stop scopes that the call belongs to: ``all``, ``team:legal`` … (``Controls``).
            anew: A record from this time (microseconds since the epoch) up to this ``seq`` that
                ended by an error of infrastructure is no answer: the call is made anew, as the next
                generation.

        Raises:
            NotFound: There is no such run.
            BudgetExceeded: A scope does not cover the worst case, too many calls are under way, or
                a rate is used up (``details["retry_after_s"]``); nothing is recorded.
            Conflict: The ``request_id`` was recorded for another call, or the run has ended and
                the call would hold something.
            UsageError: The arguments are not JSON.
        """
        return self._write(
            lambda s: s.begin(intent, decision, reserve=reserve, switches=switches, anew=anew)
        )

    def finish(self, call: CallRecord, outcome: Outcome) -> CallRecord:
        """Record how a call ended and settle its reservation; durable on return.

        The first outcome counts: a call that has ended is returned as it is recorded.  The answer
        in the returned record is what every replay will return (tuples have become lists).

        Raises:
            NotFound: The call was never begun.
            UsageError: The answer is not JSON, or an amount is negative.
        """
        return self._write(lambda s: s.finish(call, outcome))

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
        """Record that a call in doubt is attempted again; counted in its tag ``restarts``.

        What an attempt that nobody saw end has cost, nobody knows: with ``reserve`` it is charged at
        the worst case that was held for it, and ``reserve`` is held for the next one.  Without it,
        and where it is not ``spent``, what is held stays held.

        Args:
            call: The call.
            switches: Scopes whose stop refuses it.
            attempt: How often it was restarted before, as the caller knows it: of several who want
                to repeat one call, one does.
            decision: What policy says about it today; kept with the restart.
            reserve: What the next attempt may use.
            spent: Whether the attempt before may have used what is held.

        Raises:
            Conflict: The call, or its run, has ended in the meantime, or it was restarted since.
            CallDenied: A stop is in force for one of ``switches``.
            BudgetExceeded: A scope does not cover the next attempt; nothing is recorded.
        """
        return self._write(
            lambda s: s.restart(
                call,
                switches=switches,
                attempt=attempt,
                decision=decision,
                reserve=reserve,
                spent=spent,
            )
        )

    def decide(self, call: CallRecord, decision: Decision) -> CallRecord:
        """Replace the decision of an unfinished call, as an approval does; ``DENY`` ends it.

        Raises:
            Conflict: The call has ended, or its decision is no longer the one in ``call``.
        """
        return self._write(lambda s: s.decide(call, decision))

    def tag(self, call: CallRecord, tags: dict[str, str]) -> CallRecord:
        """Add tags to a call; a shipped call is shipped again."""
        return self._write(lambda s: s.tag(call, tags))

    def lookup(self, run_id: str, key: str) -> CallRecord | None:
        """Return the latest generation of a call, ``None`` if it was never begun."""
        return self._store.read(lambda c: reading.latest_call(c, run_id, key))

    def get_call(self, run_id: str, key: str, generation: int) -> CallRecord:
        """Return one generation of a call; raises :class:`NotFound`."""
        return self._store.read(lambda c: reading.exact_call(c, run_id, key, generation))

    def decisions(
        self,
        *,
        since_us: int = 0,
        run_id: str | None = None,
        notebook: str | None = None,
        answers: bool = False,
        share: tuple[int, int] | None = None,
        job: str | None = None,
        kinds: Collection[RunKind] = (),
    ) -> Iterator[RecordedDecision]:
        """Yield recorded calls with their first decision; see :func:`decision_pages`."""
        return decision_pages(
            self._store.read,
            since_us=since_us,
            run_id=run_id,
            notebook=notebook,
            answers=answers,
            share=share,
            job=job,
            kinds=kinds,
        )

    def newest_of_job(
        self, job: str, kinds: Collection[RunKind], *, since_us: int, most: int
    ) -> tuple[int, int]:
        """Return how many calls of a job there are, and since when the newest; see there."""
        return self._store.read(lambda c: newest_of_job(c, job, kinds, since_us, most))

    def count_decisions(self, since_us: int = 0) -> int:
        """Return how many calls began at a moment or later."""
        return self._store.read(lambda c: count_decisions(c, since_us))

    def calls(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[CallRecord]:
        """Return a page of a run's calls, in the order in which they began."""
        return self._store.read(lambda c: reading.list_calls(c, run_id, after_seq, limit))

    def last_seq(self, run_id: str) -> int:
        """Return the number (``CallRecord.seq``) of the call that a run began last, 0 without one."""
        return self._store.read(lambda c: reading.last_seq(c, run_id))

    def totals(self, run_id: str) -> Totals:
        """Return the sums over a run's calls."""
        return self._store.read(lambda c: reading.call_totals(c, run_id))

    def results(self, run_id: str) -> dict[str, Any]:
        """Return the last value of each result that the run published (denied ones are not)."""
        return self._store.read(lambda c: reading.all_results(c, run_id))

    # -- outbox ----------------------------------------------------------------------------------

    def unshipped(self, *, limit: int = 1000) -> list[CallRecord]:
        """Return finished calls that are not in MLflow (or changed since), oldest first."""
        return self._store.read(lambda c: reading.unshipped_calls(c, limit))

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        """Note that MLflow has these calls as they are; one that changed since stays unshipped."""
        self._write(lambda s: s.mark_shipped(calls))

    def unshipped_count(self, kind: RunKind | None = None) -> int:
        """Return how many finished calls are not in MLflow, of all runs or those of a kind."""
        return self._store.read(lambda c: reading.count_unshipped(c, kind))

    # -- evaluation cases ------------------------------------------------------------------------

    def put_cases(self, run_id: str, cases: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Add cases (id, inputs) to a run, in order; known ones with equal inputs are skipped.

        Raises:
            Conflict: A known id has other inputs.
        """
        self._write(lambda s: s.put_cases(run_id, cases))

    def next_case(self, run_id: str, *, reset: bool = False) -> tuple[str, dict[str, Any]] | None:
        """Hand out the next case, each once; ``None`` when there is none left.

        Args:
            run_id: The evaluation.
            reset: ``True`` from a new kernel's first request: unanswered cases go out again.
        """
        return self._write(lambda s: s.next_case(run_id, reset=reset))

    def withdraw_cases(self, run_id: str) -> None:
        """Hand out no further case; what was handed out may still be answered.

        Giving the same cases again (:meth:`put_cases`) takes it back.
        """
        self._write(lambda s: s.withdraw_cases(run_id))

    def answer_case(
        self, run_id: str, case_id: str, output: Any, error: dict[str, Any] | None
    ) -> None:
        """Record the answer to a case.

        Raises:
            NotFound: The run has no such case.
            Conflict: It was answered before, and differently.
        """
        self._write(lambda s: s.answer_case(run_id, case_id, output, error))

    def case_answers(self, run_id: str) -> dict[str, CaseAnswer]:
        """Return the answers by case id, in the order of the cases."""
        return self._store.read(lambda c: reading.case_answers(c, run_id))

    def case_inputs(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the inputs by case id, in the order of the cases."""
        return self._store.read(lambda c: reading.case_inputs(c, run_id))

    # -- evidence --------------------------------------------------------------------------------

    def head(self, run_id: str) -> ChainHead:
        """Return the last link of a run's chain, to be anchored elsewhere."""
        return self._store.read(lambda c: reading.chain_head(c, run_id))

    def ended_runs(self) -> list[str]:
        """Return the ids of runs that have ended."""
        return self._store.read(reading.ended_runs)

    def verify(
        self, run_id: str | None = None, *, expected: Sequence[ChainHead] = ()
    ) -> list[ChainFault]:
        """Recompute every hash and every projected column; ``[]`` means nothing was found.

        Found: an edited body or column (state, cost, tokens, decision …), an entry that is
        missing from the middle, entries in another order, a deleted or added row; without
        ``run_id`` also budgets that differ from the sum of their calls.

        **Not found** without ``expected``: a tail that was cut from the chain together with its
        rows, a chain that was rewritten from some entry on with all hashes recomputed, and a run
        that was removed entirely.  Whoever can write the database can do these; only a head that
        was anchored elsewhere (:meth:`head`; :class:`HeadFile` keeps them) shows them.

        Args:
            run_id: One run, or ``switches`` (the chain of stops), or everything.
            expected: Anchored heads; each must still be in its chain.

        Raises:
            NotFound: There is no such run, and no entry of it.
        """
        return self._store.read(lambda c: verify_chains(c, run_id, expected))
