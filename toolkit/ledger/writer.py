"""One thread that commits the writes of many callers together.

A durable commit costs a flush of the disk however much is in it, so whatever is waiting goes into
one transaction: each operation in its own savepoint, one commit, then every future resolves.

A write of an event loop that finds nothing waiting is made in the loop's own thread, and the
ledger's thread is left with what takes long and needs no interpreter: the sync.  On a disk that syncs faster
than two threads take turns, a loop that has nothing else to do makes that itself, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from toolkit.errors import LedgerError
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.records import Begun, Reservation
from toolkit.ledger.session import Session
from toolkit.ledger.store import Occupied
from toolkit.values import CallRecord, Decision, Intent, Outcome

__all__ = ["LedgerWriter"]

T = TypeVar("T")

_QUICK_S = 0.002
_LOOK_EVERY = 8  # syncs, each of some ten thousand bytes


class _Job(Generic[T]):
    """One operation and the future that waits for it in some thread."""

    def __init__(self, work: Callable[[Session], T], *, synced: bool = True) -> None:
        self.work = work
        self.synced = synced
        self.future: Future[T] = Future()

    def taken(self) -> bool:
        """Begin; false if nobody waits any more."""
        return self.future.set_running_or_notify_cancel()

    def settle(self, result: T | BaseException) -> None:
        """Tell how it ended."""
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class _Promised(Generic[T]):
    """One operation that an event loop waits for.

    Attributes:
        written: Its result in a list, if it is made and only the sync of the disk is left.
    """

    def __init__(self, work: Callable[[Session], T], *, synced: bool) -> None:
        self.work = work
        self.synced = synced
        self.written: list[T] = []
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def taken(self) -> bool:
        """Begin; false if nobody waits any more, and nothing is written."""
        return bool(self.written) or not self.future.cancelled()

    def settle(self, result: T | BaseException) -> None:
        """Tell how it ended, from the ledger's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self.loop.call_soon_threadsafe(self.resolve, result)

    def resolve(self, result: T | BaseException) -> None:
        """Tell how it ended, from the loop's thread."""
        if self.future.cancelled():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def _nothing(_: Session) -> None:
    """Write nothing."""


class LedgerWriter:
    """Group commit over a ledger; thread-safe, ends with :meth:`close` or ``with``.

    A future resolves after its bytes are on disk.  When the commit fails, every future of that
    commit gets a :class:`LedgerError`: nobody is told that something is recorded when it is not.

    Args:
        ledger: Stays the caller's to close, after the writer.
        max_batch: Most operations in one transaction.
        quick_s: A disk whose last sync took less is quick; see :meth:`promise`.
    """

    def __init__(self, ledger: Ledger, *, max_batch: int = 256, quick_s: float = _QUICK_S) -> None:
        self._ledger = ledger
        self._max_batch = max_batch
        self._quick_s = quick_s
        self._last_s = math.inf  # how long the last sync took
        self._queue: queue.SimpleQueue[_Job[Any] | _Promised[Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        # Whether the thread has nothing to do; a wrong answer costs time only.
        self._idle = True
        # Writes that were made in loops, and those of them that are on disk.
        self._made = self._durable = 0
        self._failed: LedgerError | None = None
        self._unlooked = 0  # syncs since the log was looked at
        self._tidier = threading.Thread()  # none yet
        self._thread = threading.Thread(target=self._serve, name="ledger-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, work: Callable[[Session], T]) -> Future[T]:
        """Queue a function over a session; it may run more than once before it is committed.

        Raises:
            LedgerError: The writer is closed.
        """
        job = _Job(work)
        self._put(job)
        return job.future

    def promise(
        self, work: Callable[[Session], T], *, synced: bool = True, alone: bool = False
    ) -> asyncio.Future[T]:
        """Queue a function over a session, for the event loop that this is called in.

        Cheaper than :meth:`submit` and ``asyncio.wrap_future``.

        Args:
            work: May run more than once before it is committed.
            synced: Whether the bytes have to be on disk when the future resolves; see
                :meth:`Ledger.write_all`.  A commit syncs if one of its operations asks for it.
                A write is made here and now, in the loop's own thread, while nobody else writes:
                going to another thread and back costs more.  One that is synced leaves only the
                sync to the ledger's thread, unless that is at work: then it is committed there
                together with what else waits.
            alone: Whether nobody is hurt when the loop stands still for a sync.  It makes it
                itself then, as long as the disk is quick.

        Raises:
            LedgerError: The writer is closed, or a sync has failed.
        """
        job = _Promised(work, synced=synced)
        if not self._at_once(job, alone=alone):
            self._put(job)
        return job.future

    async def settled(self) -> None:
        """Wait until everything that was promised before is on disk.

        Raises:
            LedgerError: It is not.
        """
        if self._made != self._durable:
            job = _Promised[None](_nothing, synced=True)
            job.written.append(None)
            self._put(job)
            await job.future

    def _at_once(self, job: _Promised[Any], *, alone: bool) -> bool:
        """Make a write in this thread, if it is nobody else's turn; return whether it was made."""
        if self._closed or self._failed or not self._queue.empty():
            return False
        if job.synced and not self._idle:
            return False
        try:
            result = self._ledger.write_at_once(job.work)
        except Occupied:
            return False
        except Exception as error:
            job.resolve(error)
            return True
        if not job.synced:
            job.resolve(result)
            return True
        job.written.append(result)
        if alone and self._last_s < self._quick_s:
            job.resolve(self._synced() or result)
            self._tidy(waits=False)
        else:
            self._idle = False
            self._put(job)
        return True

    def _synced(self) -> LedgerError | None:
        """Take what was written in event loops to the disk; return why it may not be there."""
        start = time.monotonic()
        try:
            self._ledger.sync()
        except LedgerError as error:
            # A second sync would not tell what the first one lost: nothing more is promised.
            self._failed = error
            return error
        self._last_s = time.monotonic() - start
        return None

    def _put(self, job: _Job[Any] | _Promised[Any]) -> None:
        with self._gate:
            if self._failed is not None:
                raise self._failed
            if self._closed:
                raise LedgerError(
                    "the ledger's writer is closed", next_step="open the ledger again"
                )
            self._made += isinstance(job, _Promised) and bool(job.written)
            self._queue.put(job)

    def begin(
        self,
        intent: Intent,
        decision: Decision,
        *,
        reserve: Reservation | None = None,
        switches: Sequence[str] = (),
    ) -> Future[Begun]:
        """Queue :meth:`Ledger.begin`."""
        return self.submit(
            lambda session: session.begin(intent, decision, reserve=reserve, switches=switches)
        )

    def finish(self, call: CallRecord, outcome: Outcome) -> Future[CallRecord]:
        """Queue :meth:`Ledger.finish`."""
        return self.submit(lambda session: session.finish(call, outcome))

    def restart(self, call: CallRecord, *, switches: Sequence[str] = ()) -> Future[CallRecord]:
        """Queue :meth:`Ledger.restart`."""
        return self.submit(lambda session: session.restart(call, switches=switches))

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        if self._tidier.is_alive():
            self._tidier.join()

    def _serve(self) -> None:
        open_ = True
        while open_:
            jobs: list[_Job[Any] | _Promised[Any]] = []
            self._idle = self._queue.empty()
            job = self._queue.get()
            self._idle = False
            while job is not None:
                # A caller that has gone away (cancelled) must not get its call recorded.
                if job.taken():
                    jobs.append(job)
                if len(jobs) >= self._max_batch:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            open_ = job is not None
            made: list[_Promised[Any]] = []
            rest: list[_Job[Any] | _Promised[Any]] = []
            for each in jobs:
                if isinstance(each, _Promised) and each.written:
                    made.append(each)
                else:
                    rest.append(each)
            if made:
                self._sync(made)
            if rest:
                self._commit(rest)

    def _sync(self, made: list[_Promised[Any]]) -> None:
        """Tell of what was written in event loops, when it is on disk."""
        error = self._synced()
        if error is None:
            self._durable += len(made)
        for job in made:
            job.settle(error or job.written[0])
        self._tidy(waits=True)

    def _tidy(self, *, waits: bool) -> None:
        """Have a log that has grown long shortened in a thread of its own: nobody's answer waits for it.

        Args:
            waits: Whether this thread may wait where it is still at work from the last time, so that
                writes cannot outrun it.
        """
        self._unlooked += 1
        if self._unlooked < _LOOK_EVERY:
            return
        self._unlooked = 0
        if not self._ledger.untidy:
            return
        if self._tidier.is_alive():
            if waits:
                self._tidier.join()
            return
        self._tidier = threading.Thread(target=self._ledger.tidy, name="ledger-tidy", daemon=True)
        self._tidier.start()

    def _commit(self, jobs: list[_Job[Any] | _Promised[Any]]) -> None:
        synced = any(job.synced for job in jobs)
        if self._failed is not None:
            for job in jobs:
                job.settle(self._failed)
            return
        try:
            results = self._ledger.write_all([job.work for job in jobs], synced=synced)
        except BaseException as error:
            for job in jobs:
                job.settle(error)
            return
        for job, result in zip(jobs, results, strict=True):
            job.settle(result)
