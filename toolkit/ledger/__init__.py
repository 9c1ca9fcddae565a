"""What happened: the durable record of runs, calls, decisions, budgets and evaluation answers.

Rules
-----
* Nothing is believed that is not committed: :meth:`Ledger.begin` and :meth:`Ledger.finish` return
  after the bytes are on disk (SQLite: WAL with ``synchronous=FULL``, or with a sync of its log
  before anybody is told; PostgreSQL: ``synchronous_commit=on``), or raise :class:`~toolkit.errors.LedgerError`.  It fails closed.
  Who asks :class:`LedgerWriter` for a write that is not ``synced``, gets one that outlives the
  process, and a loss of power only together with the next synced one (decisions/0012).
  After a sync that failed a writer promises nothing more.
* Entries are only ever added.  Each run is one hash chain, the stops and starts of all are another
  one; the columns of the other tables are projections of their entries, and :meth:`Ledger.verify`
  recomputes them.  The exceptions are limits (the policy's), the times that rates remember, the
  leases of runs, which say who is alive, and what cells show while a run goes on: no evidence.
* A cut tail is invisible to the chain itself: the head of a run's chain is kept in a file outside of
  the ledger when the run ends (:class:`HeadFile`), and handed to :meth:`Ledger.verify`.
* A repetition of a call in doubt is paid for like a new call: the attempt that nobody saw end is
  charged at its worst case.
* A budget is reserved in the transaction that records the intent and settled in the one that
  records the outcome: reserved + spent never passes a limit.  An unknown price counts as the worst.
* A run that ends holds nothing: what its unfinished calls held is charged at the worst case in the
  transaction that ends it, and put right if an outcome comes after all.
* A stop is read in the transaction that records the intent: what begins after it was recorded, is
  denied.
* A run is parked in the transaction that sees that it waits for people only; a parked run begins
  and restarts no calls, and lets none go on.
* A person's decision is bound to the digest of what was asked, and the first one counts.
* What is stored is what was given, member order and number spelling included: the first answer
  and every replay of it are equal.
* Every write is one function over a :class:`Session`, so that :class:`LedgerWriter` can commit
  many of them together, each in its own savepoint.
* One owner of SQLAlchemy and Alembic; one behaviour for SQLite and PostgreSQL.
"""

from __future__ import annotations

from toolkit.ledger.costs import COST_GROUPS, CostRow
from toolkit.ledger.decisions import RecordedDecision
from toolkit.ledger.heads import HeadFile
from toolkit.ledger.leases import Lease
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.owners import (
    MACHINE_VARIABLE,
    is_alive,
    is_here,
    machine_name,
    process_name,
    runner_alive,
)
from toolkit.ledger.records import (
    Approval,
    ApprovalState,
    Begun,
    Budget,
    CaseAnswer,
    ChainFault,
    ChainHead,
    FaultKind,
    Limit,
    Rate,
    Reservation,
    Said,
    Stop,
    StopChange,
    Totals,
)
from toolkit.ledger.session import Session
from toolkit.ledger.store import Occupied
from toolkit.ledger.told import MOST_TOLD, CellsTold
from toolkit.ledger.waiting import WAITING_FOR, WAITING_JOBS, WAITING_UNTIL, Standing, Woken
from toolkit.ledger.writer import LedgerWriter

__all__ = [
    "COST_GROUPS",
    "MACHINE_VARIABLE",
    "MOST_TOLD",
    "WAITING_FOR",
    "WAITING_JOBS",
    "WAITING_UNTIL",
    "Approval",
    "ApprovalState",
    "Begun",
    "Budget",
    "CaseAnswer",
    "CellsTold",
    "ChainFault",
    "ChainHead",
    "CostRow",
    "FaultKind",
    "HeadFile",
    "Lease",
    "Ledger",
    "LedgerWriter",
    "Limit",
    "Occupied",
    "Rate",
    "RecordedDecision",
    "Reservation",
    "Said",
    "Session",
    "Standing",
    "Stop",
    "StopChange",
    "Totals",
    "Woken",
    "is_alive",
    "is_here",
    "machine_name",
    "process_name",
    "runner_alive",
]
