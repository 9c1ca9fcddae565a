"""The ledger's door."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from toolkit.ledger import reading
from toolkit.ledger.costs import CostRow, cost_rows
from toolkit.ledger.explain import explain, is_local
from toolkit.ledger.link import Link
from toolkit.ledger.records import (
    Begun,
    Budget,
    CaseAnswer,
    ChainFault,
    ChainHead,
    Reservation,
    Totals,
)
from toolkit.ledger.session import Session
from toolkit.ledger.store import Store
from toolkit.ledger.transaction import Transaction
from toolkit.ledger.verify import verify_chains
from toolkit.values import (
    CallRecord,
    Cause,
    Clock,
    Decision,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    SystemClock,
)

__all__ = ["Ledger"]

T = TypeVar("T")


class Ledger:
    """What happened: runs, calls, decisions, outcomes, budgets, evaluation answers.

    Thread-safe; several processes may open the same ledger.  Not to be used across ``fork``.
    Every method raises :class:`LedgerError` when the database cannot do what was asked; a write
    that raised has recorded nothing.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @classmethod
    def open(cls, url: str, *, clock: Clock | None = None, busy_timeout_s: float = 30.0) -> Ledger:
        """Open a ledger, creating or migrating its tables.

        Args:
            url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
            clock: Where times come from; the machine's clock by default.
            busy_timeout_s: How long a write waits for another process's write.

        Raises:
            ConfigurationError: The URL or the format of the ledger is not one that this toolkit
                knows, or the login is refused.
            LedgerError: The database cannot be reached or written.
        """
        return cls(Store(url, busy_timeout_s=busy_timeout_s), clock or SystemClock())

    def close(self) -> None:
        """Close every connection."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- runs ------------------------------------------------------------------------------------

    def create_run(self, run: RunRecord) -> RunRecord:
        """Record a run; ``created_us`` is set here.  A known ``run_id`` is returned as it is."""
        return self._write(lambda s: s.create_run(run))

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
        return self._write(
            lambda s: s.update_run(run_id, state=state, cause=cause, message=message, **fields)
        )

    def get_run(self, run_id: str) -> RunRecord:
        """Return a run; raises :class:`NotFound`."""
        return self._store.read(lambda c: reading.read_run(c, run_id))

    def find_run(self, token_digest: str) -> RunRecord | None:
        """Return the newest run with this token digest."""
        return self._store.read(lambda c: reading.run_by_token(c, token_digest))

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
        self, intent: Intent, decision: Decision, *, reserve: Reservation | None = None
    ) -> Begun:
        """Record that a call is about to happen, and hold its worst case; durable on return.

        ``fresh=False`` when the same ``request_id`` was recorded before, or when the key was and
        the run is not a session (replay).  In a session a known key with another request becomes
        the next generation.  A verdict of ``DENY`` records intent and ``DENIED`` outcome together
        and holds nothing.

        Raises:
            NotFound: There is no such run.
            BudgetExceeded: A scope does not cover the worst case; nothing is recorded.
            Conflict: The ``request_id`` was recorded for another call.
            UsageError: The arguments are not JSON.
        """
        return self._write(lambda s: s.begin(intent, decision, reserve=reserve))

    def finish(self, call: CallRecord, outcome: Outcome) -> CallRecord:
        """Record how a call ended and settle its reservation; durable on return.

        The first outcome counts: a call that has ended is returned as it is recorded.  The answer
        in the returned record is what every replay will return (tuples have become lists).

        Raises:
            NotFound: The call was never begun.
            UsageError: The answer is not JSON, or an amount is negative.
        """
        return self._write(lambda s: s.finish(call, outcome))

    def restart(self, call: CallRecord) -> CallRecord:
        """Record that a call in doubt is attempted again; counted in its tag ``restarts``.

        Raises:
            Conflict: The call has ended in the meantime.
        """
        return self._write(lambda s: s.restart(call))

    def decide(self, call: CallRecord, decision: Decision) -> CallRecord:
        """Replace the decision of an unfinished call, as an approval does; ``DENY`` ends it.

        Raises:
            Conflict: The call has ended.
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

    def calls(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[CallRecord]:
        """Return a page of a run's calls, in the order in which they began."""
        return self._store.read(lambda c: reading.list_calls(c, run_id, after_seq, limit))

    def totals(self, run_id: str) -> Totals:
        """Return the sums over a run's calls."""
        return self._store.read(lambda c: reading.call_totals(c, run_id))

    def results(self, run_id: str) -> dict[str, Any]:
        """Return the last value of each result that the run published (denied ones are not)."""
        return self._store.read(lambda c: reading.all_results(c, run_id))

    def budget(self, scope: str) -> Budget | None:
        """Return where a scope stands, ``None`` before its first reservation."""
        return self._store.read(lambda c: reading.read_budget(c, scope))

    def costs(self, by: str) -> list[CostRow]:
        """Return what model calls cost, grouped by one of :data:`COST_GROUPS`, dearest first."""
        return self._store.read(lambda c: cost_rows(c, by))

    # -- outbox ----------------------------------------------------------------------------------

    def unshipped(self, *, limit: int = 1000) -> list[CallRecord]:
        """Return finished calls that are not in MLflow (or changed since), oldest first."""
        return self._store.read(lambda c: reading.unshipped_calls(c, limit))

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        """Note that MLflow has these calls as they are; one that changed since stays unshipped."""
        self._write(lambda s: s.mark_shipped(calls))

    def unshipped_count(self) -> int:
        """Return how many finished calls are not in MLflow."""
        return self._store.read(reading.count_unshipped)

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

    # -- evidence --------------------------------------------------------------------------------

    def head(self, run_id: str) -> ChainHead:
        """Return the last link of a run's chain, to be anchored elsewhere."""
        return self._store.read(lambda c: reading.chain_head(c, run_id))

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
        was anchored elsewhere (:meth:`head`) shows them.

        Args:
            run_id: One run, or every run.
            expected: Anchored heads; each must still be in its chain.

        Raises:
            NotFound: There is no such run, and no entry of it.
        """
        return self._store.read(lambda c: verify_chains(c, run_id, expected))

    # -- writing ---------------------------------------------------------------------------------

    def write_all(self, works: Sequence[Callable[[Session], Any]]) -> list[Any]:
        """Run every function in its own savepoint of one transaction and commit once.

        Returns:
            For each function, in order, its value or the exception that it raised; a function
            that raised has recorded nothing, the others are durable.

        Raises:
            LedgerError: Nothing at all was recorded.
        """
        return self._store.write(lambda c: self._each(c, works), many=len(works) > 1)

    def _each(self, link: Link, works: Sequence[Callable[[Session], Any]]) -> list[Any]:
        transaction = Transaction(link, self._clock)
        session = Session(transaction)
        results: list[Any] = []
        for work in works:
            link.command("SAVEPOINT one")
            try:
                results.append(work(session))
            except (SQLAlchemyError, sqlite3.Error) as error:
                if not is_local(error):
                    raise
                results.append(explain(error, self._store.place))
            except Exception as error:
                results.append(error)
            else:
                link.command("RELEASE SAVEPOINT one")
                continue
            link.command("ROLLBACK TO SAVEPOINT one")
            link.command("RELEASE SAVEPOINT one")
            transaction.forget()
        return results

    def _write(self, work: Callable[[Session], T]) -> T:
        return self._store.write(lambda c: work(Session(Transaction(c, self._clock))))
