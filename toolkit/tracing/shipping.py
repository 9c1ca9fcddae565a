"""Ledger → MLflow, in batches, as often as it takes.

The shipper holds no state that matters: what is to be sent is in the ledger, what was sent is in
MLflow, and sending again changes nothing.  So it may be killed at any moment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import ToolkitError, TrackingError
from toolkit.tracing.attributes import clean
from toolkit.tracing.conventions import CHARS_NAME
from toolkit.tracing.family import Family
from toolkit.tracing.ids import agent_root, is_shard, mlflow_trace_id
from toolkit.tracing.outbox import Outbox
from toolkit.tracing.spans import SpanData, call_span, shard_span, stub_span, trace_tags
from toolkit.tracing.store import MlflowStore, TraceStore
from toolkit.tracing.turns import Turn
from toolkit.values import CallRecord, RunKind, RunRecord

__all__ = ["Shipper", "ShipperStats", "experiment_of"]

_log = logging.getLogger("toolkit.tracing")

_SPANS_PER_REQUEST = 900  # with the roots of their shards well below 1,000 spans
_MEASURED_PER_REQUEST = 100
_BYTES_PER_REQUEST = 8 * 1024 * 1024
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class ShipperStats:
    """What a shipper has done so far.

    Attributes:
        shipped: Calls that MLflow took (a call that changed counts again).
        refused: Calls of which MLflow took only a stub, or nothing.
        failures: Rounds that failed because MLflow (or the ledger) did.
        down: Whether the last round failed.
        last_error: Sentence of the last failure.
    """

    shipped: int = 0
    refused: int = 0
    failures: int = 0
    down: bool = False
    last_error: str | None = None


def experiment_of(run: RunRecord | None, sandbox: str) -> str:
    """Return the experiment of a run: its job's, or the sandbox's for sessions and trials."""
    if run is None or run.job is None or run.kind is RunKind.SESSION:
        return sandbox
    return run.job


class Shipper:
    """Sends finished calls to MLflow.

    Args:
        ledger: Where the calls are.
        tracking_uri: Where they go.
        artifacts: Folder of MLflow's artifacts when the URI is a database.
        experiment: Name of the experiment of calls that belong to no job.
        store: Another place to put spans, instead of ``tracking_uri``.
        turn: Shared with the other processes that ship from the same ledger.
        warn: Called with a sentence when MLflow goes away, comes back, or refuses a call.
    """

    def __init__(
        self,
        ledger: Outbox,
        tracking_uri: str,
        *,
        artifacts: Path | None = None,
        experiment: str = "toolkit-sandbox",
        store: TraceStore | None = None,
        turn: Turn | None = None,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self._ledger = ledger
        self._store = store or MlflowStore(tracking_uri, artifacts=artifacts)
        self._sandbox = experiment
        self._warn = warn
        self._turn = turn or Turn()
        self._family = Family(ledger)
        self._unlinked: dict[str, set[str]] = {}
        self._named: set[str] = set()
        self.stats = ShipperStats()

    def ship_once(self, limit: int = 1000) -> int:
        """Send at most ``limit`` calls and return how many were sent.

        Raises:
            TrackingError: MLflow is not there; what was sent before is marked.
            LedgerError: The ledger cannot be read or marked.
        """
        with self._turn.taken():
            calls = self._ledger.unshipped(limit=limit)
            runs = {run_id: self._run(run_id) for run_id in {c.intent.run_id for c in calls}}
            groups: dict[str, list[CallRecord]] = {}
            for call in calls:
                name = experiment_of(runs[call.intent.run_id], self._sandbox)
                groups.setdefault(name, []).append(call)
            self._family.learn(calls)
            for name, group in groups.items():
                self._ship_group(name, group, runs)
            self._link(runs)
            return len(calls)

    def _run(self, run_id: str) -> RunRecord | None:
        try:
            return self._ledger.get_run(run_id)
        except ToolkitError as error:
            if error.code == "not_found":
                return None
            raise

    def _ship_group(
        self, name: str, calls: list[CallRecord], runs: dict[str, RunRecord | None]
    ) -> None:
        experiment = self._store.experiment(name)
        for chunk in self._chunks([(call, self._span(call, runs)) for call in calls]):
            refused = self._send(experiment, chunk, runs)
            for call, _ in chunk:
                trace = mlflow_trace_id(call.intent.run_id, call.trace_key)
                self._unlinked.setdefault(call.intent.run_id, set()).add(trace)
            self._name_open_traces([call for call, _ in chunk], runs)
            # Marked after MLflow has committed: a kill in between sends the same spans again.
            self._ledger.mark_shipped([call for call, _ in chunk])
            self.stats = replace(
                self.stats,
                shipped=self.stats.shipped + len(chunk) - refused,
                refused=self.stats.refused + refused,
            )

    def _span(self, call: CallRecord, runs: dict[str, RunRecord | None]) -> SpanData | None:
        """Return the call's span, or ``None`` if it cannot be written as one."""
        try:
            return call_span(call, runs[call.intent.run_id], parent=self._family.parent_span(call))
        except (ArithmeticError, RecursionError, TypeError, ValueError, AttributeError) as error:
            # Whatever a notebook put into a call, the other calls go on.
            _log.debug("no span for %s: %r", call.call_id, error)
            return None

    @staticmethod
    def _chunks(
        items: list[tuple[CallRecord, SpanData | None]],
    ) -> list[list[tuple[CallRecord, SpanData | None]]]:
        chunks: list[list[tuple[CallRecord, SpanData | None]]] = []
        size = spans = 0
        for item in items:
            weight = item[1].size_bytes if item[1] else 0
            more = 1 + len(item[1].attempts) if item[1] else 1
            full = size + weight > _BYTES_PER_REQUEST or spans + more > _SPANS_PER_REQUEST
            if not chunks or full:
                chunks.append([])
                size = spans = 0
            chunks[-1].append(item)
            size += weight
            spans += more
        return chunks

    def _send(
        self,
        experiment: str,
        items: Sequence[tuple[CallRecord, SpanData | None]],
        runs: dict[str, RunRecord | None],
    ) -> int:
        """Send calls, halving the batch around a call that MLflow refuses; return the refused."""
        bad = [call for call, span in items if span is None]
        good = [(call, span) for call, span in items if span is not None]
        refused = sum(
            self._send_stub(experiment, call, runs, "it cannot be written as a span")
            for call in bad
        )
        if not good:
            return refused
        try:
            roots = self._roots([call for call, _ in good], runs)
            drawn = (each for _, span in good for each in (span, *span.attempts))
            self._store.log_spans(experiment, [*roots, *drawn])
        except TrackingError as error:
            # Refused, or not there?  A store that takes a small write is there.
            self._store.probe(experiment)
            if len(good) == 1:
                return refused + self._send_stub(experiment, good[0][0], runs, error.message)
            half = len(good) // 2
            refused += self._send(experiment, good[:half], runs)
            refused += self._send(experiment, good[half:], runs)
        return refused

    def _send_stub(
        self, experiment: str, call: CallRecord, runs: dict[str, RunRecord | None], why: str
    ) -> int:
        run, parent = runs[call.intent.run_id], self._family.parent_span(call)
        self._warn(f"MLflow refuses the call {call.call_id}, shown without its payload: {why}")
        try:
            self._store.log_spans(experiment, [stub_span(call, run, parent=parent, why=why)])
        except TrackingError as error:
            self._store.probe(experiment)
            self._warn(f"MLflow refuses the call {call.call_id} altogether: {error.message}")
        return 1

    def _roots(self, calls: list[CallRecord], runs: dict[str, RunRecord | None]) -> list[SpanData]:
        """Return the root spans of the shards of these calls, grown to cover them."""
        shards: dict[str, list[CallRecord]] = {}
        for call in calls:
            if is_shard(call.trace_key):
                name = mlflow_trace_id(call.intent.run_id, call.trace_key)
                shards.setdefault(name, []).append(call)
        known = self._store.bounds(shards) if shards else {}
        roots = []
        for name, members in shards.items():
            start = min(call.started_us for call in members) // 1000
            # Rounded up to whole milliseconds: MLflow keeps no finer bounds of a trace.
            end = max(-(-(call.ended_us or call.started_us) // 1000) for call in members)
            before = known.get(name, (start, end))
            first = members[0]
            roots.append(
                shard_span(
                    first,
                    runs[first.intent.run_id],
                    start_ms=min(start, before[0]),
                    end_ms=max(start, end, before[1]),
                )
            )
        return roots

    def _name_open_traces(self, calls: list[CallRecord], runs: dict[str, RunRecord | None]) -> None:
        """Name the traces of agents that are still at work: their root span comes last."""
        rooted = {c.trace_key for c in calls if c.intent.parent is None}
        for call in calls:
            agent = agent_root(call.trace_key)
            name = mlflow_trace_id(call.intent.run_id, call.trace_key)
            if agent is None or is_shard(call.trace_key) or call.trace_key in rooted:
                continue
            if name in self._named:
                continue
            if len(self._named) > _MAX_REMEMBERED:
                self._named.clear()
            self._named.add(name)
            try:
                root = self._ledger.get_call(call.intent.run_id, *agent)
                tags = trace_tags(runs[call.intent.run_id], root)
                title = clean(root.intent.name, CHARS_NAME)
                self._store.tag(name, tags | {"mlflow.traceName": title})
            except ToolkitError as error:
                # A name is a comfort; the root span brings it again.
                _log.debug("no name for %s yet: %s", name, error)

    def _link(self, runs: dict[str, RunRecord | None]) -> None:
        for run_id, run in runs.items():
            traces = self._unlinked.get(run_id)
            if not traces or run is None or not run.mlflow_run_id:
                continue
            try:
                self._store.link(sorted(traces), run.mlflow_run_id)
                del self._unlinked[run_id]
            except TrackingError as error:
                # The spans are there.  The next calls of the run, or `Tracking.finish_run`, link
                # what is left; a run that somebody deleted in MLflow must not hold up the others.
                _log.info("traces of %s are not linked yet: %s", run_id, error)
        while len(self._unlinked) > _MAX_REMEMBERED:
            self._unlinked.pop(next(iter(self._unlinked)))

    def _round(self) -> int | None:
        """Ship once; on failure warn on the first of a row, count, and return ``None``."""
        try:
            sent = self.ship_once()
        except ToolkitError as error:
            if not self.stats.down:
                self._warn(f"{error.message}; calls stay in the ledger and are shipped later")
            self._store.forget()
            self.stats = replace(
                self.stats, failures=self.stats.failures + 1, down=True, last_error=error.message
            )
            return None
        if self.stats.down and sent:
            self._warn("MLflow takes calls again; catching up")
            self.stats = replace(self.stats, down=False)
        return sent

    def _gather(self, stop: threading.Event, quiet_s: float, longest_s: float) -> None:
        """Wait until no more calls come, or one request is full of them, or the time is over.

        Nobody waits for a single call of an evaluation, but somebody for the end of all of them:
        their spans are not left until then.
        """
        deadline = time.monotonic() + longest_s
        before = 0
        while time.monotonic() < deadline:
            try:
                waiting = self._ledger.unshipped_count()
                if waiting >= _MEASURED_PER_REQUEST:
                    measured = self._ledger.unshipped_count(RunKind.EVALUATION)
                    if measured >= _MEASURED_PER_REQUEST:
                        return
            except ToolkitError:
                return  # the round that follows says so
            if waiting in (0, before) or waiting >= _SPANS_PER_REQUEST or stop.wait(quiet_s):
                return
            before = waiting

    def drain(self, timeout_s: float) -> int:
        """Ship until nothing is left, MLflow fails, or the time is over.

        Returns:
            The calls that are still unshipped; 0 is what a runner wants to see.

        Raises:
            LedgerError: The ledger cannot count.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._round():
            pass
        return self._ledger.unshipped_count()

    def run_forever(
        self,
        stop: threading.Event,
        *,
        poll_s: float = 0.3,
        gather_s: float = 2.0,
        idle: Callable[[], bool] = lambda: False,
        drain_s: float = 10.0,
    ) -> None:
        """Ship until ``stop`` is set, then drain; never raises for what MLflow does.

        Calls are waited for, their spans are not: while calls come one after the other, this leaves
        processor, disk and ledger to them, and then ships many in one transaction of MLflow.

        Args:
            stop: Ends the loop.
            poll_s: Seconds between two looks at an empty outbox, and without a new call after
                which what is there is shipped.
            gather_s: Longest time for which that is waited for, seconds.
            idle: Asked when the outbox is empty, and when MLflow was away for about a minute;
                true ends the loop as well.
            drain_s: Longest time that is spent on draining at the end, seconds.
        """
        wait = _FIRST_WAIT_S
        while not stop.is_set():
            self._gather(stop, poll_s, gather_s)
            sent = self._round()
            if sent is None:
                if wait >= _LONGEST_WAIT_S and idle():
                    return  # a minute without MLflow, and nobody waits: the next shipper's turn
                stop.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)
                continue
            wait = _FIRST_WAIT_S
            if sent == 0:
                if idle():
                    return
                stop.wait(poll_s)
        self.drain(drain_s)
