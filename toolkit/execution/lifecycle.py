"""One run from its first record to its last: ledger, kernel, results, MLflow, in this order.

The ledger's state is the truth.  MLflow and the HTML report follow it and may fail without
changing it; what failed is told in :attr:`RunReport.warnings`.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import Busy, Conflict, GatewayUnavailable, ToolkitError
from toolkit.execution.facts import Ending, Execution
from toolkit.execution.interruptions import Interruptions, interruptions
from toolkit.execution.ownership import (
    LEASE_S,
    QUEUED_TAG,
    Heartbeat,
    myself,
    runner_alive,
    was_left,
)
from toolkit.execution.placing import Kernels, place
from toolkit.execution.plans import Progress, RunPlan, RunReport
from toolkit.execution.processes import reap
from toolkit.execution.report import warm_page
from toolkit.execution.resuming import compare, failed_tags, started_again
from toolkit.execution.shown import shown_to_others
from toolkit.execution.telling import MIRRORED_TAG, Mirror
from toolkit.execution.waiting import WAITS, Parking, Patience, resumed_tags, wait
from toolkit.kernels import KernelPlan
from toolkit.ledger import Approval, Ledger, is_here
from toolkit.tracing import Shipper, Tracking
from toolkit.values import Cause, Clock, RunKind, RunRecord, RunState, SystemClock, digest_bytes

__all__ = ["QUEUED_TAG", "Runner", "runner_alive"]

_KEEPALIVE_S = 0.5
_RECENT = 100
_LEASE_LOOK_S = 0.25


@dataclass
class Runner:
    """Executes plans in this process.

    Attributes:
        ledger: Where runs and calls are recorded.
        tracking: MLflow runs; ``shipper``: calls to MLflow.
        gateway: Returns the socket of a living gateway, starting one if need be.
        runs: Folder of run folders.
        lapse: Does to a request to people what time does to it; default: lets it expire.
        kernels: Says how a run's kernel is started; default: cold, and not isolated.
        lease_s: Seconds of the lease on a run that no queue owns: see :class:`Heartbeat`.
    """

    ledger: Ledger
    tracking: Tracking
    shipper: Shipper
    gateway: Callable[[], str]
    runs: Path
    clock: Clock = field(default_factory=SystemClock)
    lapse: Callable[[Approval], Approval] | None = None
    kernels: Kernels = lambda _: KernelPlan()
    lease_s: float = LEASE_S

    def run(self, plan: RunPlan, *, on_progress: Progress | None = None) -> RunReport:
        """Execute a plan; returns the earlier report if its run id has already ended for good.

        A run that was killed, lost or out of time, or that infrastructure or a signal ended, goes on
        from its journal under the same id.

        A run that waits for people is returned in the state ``waiting`` where the plan says so, or
        when SIGTERM or SIGINT comes while it waits; else this waits, and goes on when it may.

        A run whose runner is on another machine is taken over once that one's lease is over; until
        then, or until it is seen to be renewed, this waits.

        Raises:
            Conflict: The run is being executed by a living process, or was taken by one meanwhile.
            LedgerError, GatewayUnavailable: Nothing was executed.
        """
        with Heartbeat(self.ledger, self.lease_s) as heart:
            while True:
                # From the record that it runs on, a signal is the run's end and not this process's.
                with interruptions() as heard:
                    report = self._attempt(plan, on_progress, heard, heart)
                if report.run.state is not RunState.WAITING or plan.leave:
                    return report
                if not wait(self._patience, report.run.run_id):
                    return self._let_go(report)

    def _let_go(self, report: RunReport) -> RunReport:
        """Leave a waiting run to whoever takes it next, be it on another machine."""
        run = self.ledger.get_run(report.run.run_id)
        with contextlib.suppress(Conflict):
            run = self.ledger.take(run, runner=None)
        return replace(report, run=run)

    def _attempt(
        self, plan: RunPlan, on_progress: Progress | None, heard: Interruptions, heart: Heartbeat
    ) -> RunReport:
        # Loads papermill, which a promotion that changes nothing does not need.
        from toolkit.execution.runner import OUTPUT_NAME, execute

        token = secrets.token_urlsafe(32)
        self._await_lease(plan.run.run_id, heard)
        run = self._claim(plan, token)
        if self._leases(plan) and not run.state.terminal and run.runner == myself():
            heart.begin(run)
        if run.state.terminal:
            return self._mirror.complete(run)
        if run.state is RunState.WAITING:
            return replace(self._mirror.repeat(run), repeated=False)
        warnings: list[str] = []
        kernel, run = place(self.kernels, self.ledger, run, self.clock)
        if not plan.later or WAITS in run.tags:
            run = self._mirror.start(run, warnings)
        parking = self._parking(plan, run)
        if not plan.later:  # the page is drawn here, and there is time now
            threading.Thread(target=warm_page, name="page", daemon=True).start()
        try:
            with self._gateway_kept_alive() as path:
                what = self._execution(plan, run, path, token, on_progress)
                look = None if parking is None else parking.look
                what = replace(what, parked=look, kernel=kernel, lost=heart.tell)
                with shown_to_others(self.ledger, run, what.folder / OUTPUT_NAME):
                    ending = execute(what, heard)
                run, ending = compare(self.ledger, run, (path, token), ending, warnings)
        except Exception as error:  # noqa: BLE001 - whatever it was: the run has not run
            message = error.message if isinstance(error, ToolkitError) else str(error)
            if parking is not None and parking.parked is not None:  # it waits, and will run again
                return replace(
                    self._mirror.repeat(parking.parked), repeated=False, warnings=(message,)
                )
            with contextlib.suppress(Conflict):  # it is somebody else's by now
                self._end(run, RunState.FAILED, Cause.INFRASTRUCTURE, message)
            raise
        if ending.state is RunState.WAITING and parking is not None and parking.parked is not None:
            return self._mirror.wait(parking.parked, ending, warnings)
        left = run if parking is None or parking.parked is None else parking.parked
        said = self._asked_for(ending, run.run_id, None if left is run else left.message)
        run = self._end(left, ending.state, ending.cause, said, failed_tags(left.tags, ending))
        if plan.later:
            return replace(self._report(run, ending), warnings=tuple(warnings))
        report = self._mirror.with_page(self._report(run, ending), ending.notes)
        warnings += [] if report.report else ["the HTML report could not be rendered"]
        return self._mirror.end(report, warnings)

    def reconcile(self) -> list[RunRecord]:
        """End the runs whose runner is gone as ``lost``, with what they left; return them.

        Runs that came from the queue are left alone: a worker starts them again under their own
        id, and their recorded calls answer then.  Runs whose end MLflow was not told (their process
        died at that moment, or MLflow was away) are told now.
        """
        lost = []
        for run in self.ledger.runs(state=RunState.RUNNING, limit=1000):
            if run.runner is None or QUEUED_TAG in run.tags or self.ledger.lives(run):
                continue
            if run.kind is RunKind.SESSION:
                continue  # a kernel that a person shut down is not lost: see `end_sessions`
            if is_here(run.runner):
                reap(self.ledger.identity, run.run_id)
            message = f"its runner {run.runner} is gone"
            with contextlib.suppress(Conflict):  # somebody else was first
                lost.append(self._end(run, RunState.LOST, Cause.RUNNER_DIED, message))
        for run in self.ledger.runs(limit=_RECENT):
            if run.state.terminal and self._mirror.complete(run).warnings:
                break  # MLflow is away; another time
        return lost

    def catch_up(self, *, limit: int = _RECENT) -> int:
        """Do what plans left for later; see :meth:`Mirror.catch_up`."""
        return self._mirror.catch_up(limit)

    # -- steps --------------------------------------------------------------------------------

    def _claim(self, plan: RunPlan, token: str) -> RunRecord:
        """Create the run, or take over one whose runner is gone or that may wait no longer."""
        fresh = replace(
            plan.run,
            state=RunState.RUNNING,
            token_digest=digest_bytes(token.encode()),
            runner=myself(),
            started_us=self.clock.now_us(),
        )
        lease_s = self._leases(plan)
        run = self.ledger.create_run(fresh, lease_s=lease_s)
        if run.token_digest == fresh.token_digest:
            return run
        if run.state.terminal:
            return self._reopen(run, fresh, lease_s) if run.resumable else run
        waits = run.state is RunState.WAITING
        # A run that waits in this very process may go on in it; one that runs in it may not.
        ours = waits and run.runner == fresh.runner
        if not ours and not was_left(self.ledger, run, plan.run):
            raise Busy(
                f"the run {run.run_id} is being executed by {run.runner}",
                next_step=f"watch it: toolkit show {run.run_id}",
            )
        if waits and (ended := self._patience.stopped(run)) is not None:
            return ended
        if waits and not self._patience.over(run):
            run = self.ledger.get_run(run.run_id)
            return (
                run if plan.leave else self.ledger.take(run, runner=fresh.runner, lease_s=lease_s)
            )
        return self.ledger.take(
            run,
            lease_s=lease_s,
            state=RunState.RUNNING,
            token_digest=fresh.token_digest,
            runner=fresh.runner,
            started_us=run.started_us or fresh.started_us,
            message=None,
            tags=started_again(self.ledger, run, resumed_tags(run) if waits else run.tags),
        )

    def _leases(self, plan: RunPlan) -> float | None:
        """Return how long the lease of a run is; of queued work its worker holds one."""
        return None if QUEUED_TAG in plan.run.tags else self.lease_s

    def _await_lease(self, run_id: str, heard: Interruptions) -> None:
        """Wait while a runner of another machine may live, until its lease shows whether it does."""
        first = self.ledger.lease(run_id)
        if first is None or is_here(first.runner):
            return
        while heard.kept is None:
            now = self.ledger.lease(run_id)
            if now is None or not now.valid or now.until_us != first.until_us:
                return
            time.sleep(_LEASE_LOOK_S)

    def _reopen(self, run: RunRecord, fresh: RunRecord, lease_s: float | None) -> RunRecord:
        """Go on with a run that something of the world has ended."""
        tags = {name: value for name, value in run.tags.items() if name != MIRRORED_TAG}
        return self.ledger.take(
            run,
            lease_s=lease_s,
            state=RunState.RUNNING,
            cause=None,
            message=None,
            ended_us=None,
            token_digest=fresh.token_digest,
            runner=fresh.runner,
            tags=started_again(self.ledger, run, tags),
        )

    @functools.cached_property
    def _mirror(self) -> Mirror:
        return Mirror(self.ledger, self.tracking, self.shipper, self.runs, self.clock)

    @property
    def _patience(self) -> Patience:
        return Patience(self.ledger, self.lapse or self._expire, self.clock)

    def _expire(self, approval: Approval) -> Approval:
        if approval.state.waiting and approval.expires_us <= self.clock.now_us():
            self.ledger.expire(self.clock.now_us())
        return self.ledger.approval(approval.id)

    def _parking(self, plan: RunPlan, run: RunRecord) -> Parking | None:
        if plan.hold_s is None:
            return None
        return Parking(self.ledger, run, plan.hold_s, None if plan.leave else run.runner)

    def _execution(
        self, plan: RunPlan, run: RunRecord, path: str, token: str, on_progress: Progress | None
    ) -> Execution:
        folder = self.runs / run.run_id
        work = plan.cwd or folder / "work"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        work.mkdir(mode=0o700, exist_ok=True)
        return Execution(
            run=run,
            ledger=self.ledger.identity,
            notebook=plan.notebook,
            parameters=plan.parameters,
            folder=folder,
            cwd=work,
            python=Path(sys.executable) if plan.python is None else plan.python(),
            gateway_socket=Path(path),
            token=token,
            timeout_s=plan.timeout_s,
            cell_timeout_s=plan.cell_timeout_s,
            extra_cells=plan.extra_cells,
            on_progress=on_progress,
            received=lambda: set(self.ledger.results(run.run_id)),
            stopped=lambda: _stopped(self.ledger, run.run_id),
        )

    @contextlib.contextmanager
    def _gateway_kept_alive(self) -> Iterator[str]:
        """Keep a gateway running beside the kernel: a killed one is started again."""
        path = self.gateway()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_KEEPALIVE_S):
                with contextlib.suppress(GatewayUnavailable):
                    self.gateway()

        watcher = threading.Thread(target=watch, name="gateway-keepalive", daemon=True)
        watcher.start()
        try:
            yield path
        finally:
            done.set()
            watcher.join(5.0)

    def _asked_for(self, ending: Ending, run_id: str, parked: str | None) -> str | None:
        """Return how a run ended; with who cancelled it and why, where somebody said so.

        ``parked`` is what the run itself said when it began to wait.
        """
        if ending.state is not RunState.CANCELLED:
            return ending.message
        said = self.ledger.get_run(run_id).message
        return ending.message if said in (None, parked) else f"{said} ({ending.message})"

    def _end(
        self,
        run: RunRecord,
        state: RunState,
        cause: Cause | None,
        message: str | None,
        tags: dict[str, str] | None = None,
    ) -> RunRecord:
        """End a run that is still this attempt's; one that another process took has its own end."""
        now_us = self.clock.now_us()
        changes: dict[str, Any] = {} if tags in (None, run.tags) else {"tags": tags}
        return self.ledger.take(
            run, state=state, cause=cause, message=message, ended_us=now_us, **changes
        )

    def _report(self, run: RunRecord, ending: Ending) -> RunReport:
        return RunReport(
            run=run,
            totals=self.ledger.totals(run.run_id),
            results=self.ledger.results(run.run_id),
            output=ending.output,
            seconds=max(0.0, ((run.ended_us or 0) - (run.started_us or 0)) / 1e6),
            cell=None if ending.cell is None else ending.cell + 1,
        )


def _stopped(ledger: Ledger, run_id: str) -> str | None:
    """Return who stopped a run, and why; stops of a whole agent, team or job refuse calls only."""
    stop = ledger.stopped((f"run:{run_id}",))
    return (
        None if stop is None else f"{stop.by} stopped the run: {stop.reason or 'no reason given'}"
    )
