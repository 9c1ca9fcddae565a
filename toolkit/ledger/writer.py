"""One thread that commits the writes of many callers together.

A durable commit costs a flush of the disk however much is in it, so whatever is waiting goes into
one transaction: each operation in its own savepoint, one commit, then every future resolves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from toolkit.errors import LedgerError
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.records import Begun, Reservation
from toolkit.ledger.session import Session
from toolkit.values import CallRecord, Decision, Intent, Outcome

__all__ = ["LedgerWriter"]

T = TypeVar("T")


class _Job(Generic[T]):
    """One operation and the future that waits for it."""

    def __init__(self, work: Callable[[Session], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()


class LedgerWriter:
    """Group commit over a ledger; thread-safe, ends with :meth:`close` or ``with``.

    A future resolves after its bytes are on disk.  When the commit fails, every future of that
    commit gets a :class:`LedgerError`: nobody is told that something is recorded when it is not.

    Args:
        ledger: Stays the caller's to close, after the writer.
        max_batch: Most operations in one transaction.
    """

    def __init__(self, ledger: Ledger, *, max_batch: int = 256) -> None:
        self._ledger = ledger
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
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
        with self._gate:
            if self._closed:
                raise LedgerError(
                    "the ledger's writer is closed", next_step="open the ledger again"
                )
            self._queue.put(job)
        return job.future

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

    def _serve(self) -> None:
        open_ = True
        while open_:
            jobs: list[_Job[Any]] = []
            job = self._queue.get()
            while job is not None:
                # A caller that has gone away (cancelled) must not get its call recorded.
                if job.future.set_running_or_notify_cancel():
                    jobs.append(job)
                if len(jobs) >= self._max_batch:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            open_ = job is not None
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[_Job[Any]]) -> None:
        try:
            results = self._ledger.write_all([job.work for job in jobs])
        except BaseException as error:
            for job in jobs:
                job.future.set_exception(error)
            return
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
