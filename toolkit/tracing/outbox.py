"""What this room needs of the ledger, and a ledger in memory for tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from toolkit.errors import NotFound
from toolkit.values import CallRecord, Money, RunKind, RunRecord

__all__ = ["MemoryOutbox", "Outbox", "RunTotals"]


class RunTotals(Protocol):
    """Sums over the calls of one run (``toolkit.ledger.Totals``)."""

    @property
    def calls(self) -> int: ...
    @property
    def by_kind(self) -> Mapping[str, int]: ...
    @property
    def errors(self) -> int: ...
    @property
    def denied(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cost(self) -> Money: ...
    @property
    def unknown_cost_calls(self) -> int: ...
    @property
    def latency_p50_s(self) -> float | None: ...
    @property
    def latency_p95_s(self) -> float | None: ...


class Outbox(Protocol):
    """The part of ``toolkit.ledger.Ledger`` that is shipped to MLflow."""

    def unshipped(self, *, limit: int = 1000) -> list[CallRecord]:
        """Finished calls that were not shipped since they last changed, oldest first."""
        ...

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        """Take these calls, as they are, out of the outbox."""
        ...

    def unshipped_count(self, kind: RunKind | None = None) -> int:
        """How many there are, of all runs or of those of a kind."""
        ...

    def get_run(self, run_id: str) -> RunRecord:
        """Raise NotFound when there is no such run."""
        ...

    def get_call(self, run_id: str, key: str, generation: int) -> CallRecord:
        """Raise NotFound when there is no such call."""
        ...

    def lookup(self, run_id: str, key: str) -> CallRecord | None: ...

    def calls(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[CallRecord]: ...

    def runs(self, *, limit: int = 50) -> list[RunRecord]: ...


class MemoryOutbox:
    """A ledger's outbox in memory: the public test double of :class:`Outbox`."""

    def __init__(self, runs: Sequence[RunRecord] = (), calls: Sequence[CallRecord] = ()) -> None:
        self._lock = threading.Lock()
        self._runs = {run.run_id: run for run in runs}
        self._calls: dict[str, CallRecord] = {}
        self._waiting: dict[str, CallRecord] = {}
        self.add(*calls)

    def add(self, *calls: CallRecord) -> None:
        """Record calls; a call that is there already is replaced and waits again."""
        with self._lock:
            for call in calls:
                self._calls[call.call_id] = call
                if call.outcome is not None:
                    self._waiting[call.call_id] = call

    def put_run(self, run: RunRecord) -> None:
        """Record a run or replace it."""
        with self._lock:
            self._runs[run.run_id] = run

    def unshipped(self, *, limit: int = 1000) -> list[CallRecord]:
        with self._lock:
            return list(self._waiting.values())[:limit]

    def mark_shipped(self, calls: Sequence[CallRecord]) -> None:
        with self._lock:
            for call in calls:
                if self._waiting.get(call.call_id) == call:
                    del self._waiting[call.call_id]

    def unshipped_count(self, kind: RunKind | None = None) -> int:
        with self._lock:
            waiting = [self._runs.get(call.intent.run_id) for call in self._waiting.values()]
            return sum(kind is None or (run is not None and run.kind is kind) for run in waiting)

    def get_run(self, run_id: str) -> RunRecord:
        with self._lock:
            if run_id not in self._runs:
                raise NotFound(f"there is no run {run_id}", next_step="toolkit runs")
            return self._runs[run_id]

    def get_call(self, run_id: str, key: str, generation: int) -> CallRecord:
        with self._lock:
            call = self._calls.get(f"{run_id}/{key}/{generation}")
        if call is None:
            raise NotFound(f"there is no call {key} in run {run_id}")
        return call

    def lookup(self, run_id: str, key: str) -> CallRecord | None:
        with self._lock:
            found = [
                call
                for call in self._calls.values()
                if call.intent.run_id == run_id and call.key == key
            ]
        return max(found, key=lambda call: call.generation, default=None)

    def calls(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[CallRecord]:
        with self._lock:
            found = [
                call
                for call in self._calls.values()
                if call.intent.run_id == run_id and call.seq > after_seq
            ]
        return sorted(found, key=lambda call: call.seq)[:limit]

    def runs(self, *, limit: int = 50) -> list[RunRecord]:
        with self._lock:
            return list(reversed(self._runs.values()))[:limit]
