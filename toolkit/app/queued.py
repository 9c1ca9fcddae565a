"""What the ledger says of the queue's runs, kept true where a run's own process could not say it.

A run records its end itself.  One whose process was killed, could not reach the ledger, or was
refused before it began, cannot: then its worker does, which knows the process's exit code.  Should
the worker die, too, whoever looks compares ledger and queue: every worker at its start and every few
seconds, and `toolkit runs`, `toolkit show` and `toolkit cancel`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from toolkit.errors import Conflict, LedgerError, NotFound
from toolkit.execution import QUEUED_TAG, reap, runner_alive
from toolkit.ledger import is_here, machine_name
from toolkit.scheduling import AWAY, BUSY, RunStatus, cause_of_exit, state_of_exit
from toolkit.values import Cause, Environment, JobRef, RunKind, RunRecord, RunState

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.scheduling import Outcome, Work

__all__ = ["QueuedRuns", "status_of_work"]

_WAITING = 3
_REFUSED = 78
# Processes of other machines, and cancelled ones of this one, are given so long to record their end.
_GRACE_S = 60.0
# Runs that do not run are compared that often: there may be thousands.
_SLOWLY_S = 600.0
_AT_ONCE = 10_000
_RETRIES = {
    Cause.OUT_OF_MEMORY: "out_of_memory",
    Cause.KERNEL_START: "kernel_start",
    Cause.KERNEL_DIED: "killed",
    Cause.CELL_ERROR: "cell_error",
    Cause.RUN_TIMEOUT: "timeout",
    Cause.CELL_TIMEOUT: "timeout",
    Cause.INFRASTRUCTURE: "infrastructure",
}

Ending = tuple[RunState, Cause | None, str]


@dataclass
class QueuedRuns:
    """Keeps the ledger true about the queue's runs; every method may be repeated, by anybody.

    Attributes:
        bench: The workspace.
    """

    bench: Workbench
    _slow_s: float = field(default=float("-inf"))

    # -- for a worker --------------------------------------------------------------------------

    def why(self, work: Work, code: int, began_us: int) -> str | None:
        """Say why a process of a run ended; see :data:`toolkit.scheduling.attempts.Why`."""
        told = cause_of_exit(code)
        try:
            run = self._find(work.run_id)
        except LedgerError:
            return AWAY if told in ("infrastructure", "killed") else told
        if run is None or code < 0:
            return told
        if run.state is RunState.RUNNING and told == "infrastructure" and _lives_here(run):
            return BUSY
        # Not what an earlier attempt had recorded: this one may not have come so far.
        if run.state.terminal and (run.ended_us or 0) >= began_us and run.cause is not None:
            return _RETRIES.get(run.cause, told)
        return told

    def ended(self, work: Work, outcome: Outcome) -> Outcome:
        """Record how a run ended whose process has not; return how it ended for the queue.

        Raises:
            LedgerError, EngineError: The next sweep makes up for it.
        """
        run = self._find(work.run_id)
        code = outcome.exit_code
        if run is not None and run.state is RunState.WAITING and (code < 0 or code in (3, 75)):
            # It waits, whatever became of its process since it said so.
            if until := run.tags.get("waiting_until"):
                self.bench.engine.wake(run.run_id, at_us=int(until))
            return replace(outcome, exit_code=_WAITING)
        if code == _WAITING and (run is None or run.state is RunState.QUEUED):
            # Its version waits for people, and nobody would wake it.
            outcome = replace(outcome, exit_code=_REFUSED)
        if outcome.exit_code not in (0, _WAITING):
            self._settle(run, status_of_work(work, outcome))
        return outcome

    def sweep(self, *, slowly: bool = True) -> int:
        """Find runs that the queue has done with and the ledger has not; return how many.

        Args:
            slowly: As a worker does: look at runs that wait or have not begun, too, now and then,
                and see to it that cancelled ones end.

        Raises:
            EngineError, LedgerError: Another time.
        """
        found = self._runs(RunState.RUNNING)
        if slowly:
            if time.monotonic() - self._slow_s > _SLOWLY_S:
                self._slow_s = time.monotonic()
                found += [*self._runs(RunState.WAITING), *self._runs(RunState.QUEUED)]
        else:
            found = [run for run in found if not _lives_here(run)]
        if not found:
            return 0
        known = self.bench.engine.statuses([run.run_id for run in found])
        return sum(self._compare(run, known.get(run.run_id)) for run in found)

    # -- for whoever looks ---------------------------------------------------------------------

    def settled(self, run: RunRecord) -> RunRecord:
        """Return a run of the queue, ended if the queue has done with it."""
        if not self._doubtful(run):
            return run
        known = self.bench.engine.statuses([run.run_id])
        if not self._compare(run, known.get(run.run_id)):
            return run
        return self.bench.ledger.get_run(run.run_id)

    def over(self, run: RunRecord) -> bool:
        """Whether nobody executes a run of the queue, and nobody will."""
        if _lives_here(run):
            return False
        told = self.bench.engine.statuses([run.run_id]).get(run.run_id)
        if told is None:
            return self._is_here(run)
        return told.state.terminal and (_was_here(run) or _is_long_ago(told))

    def look(self, run_id: str) -> RunRecord | None:
        """Return a run that only the queue knows; one that ended there is recorded first.

        Raises:
            EngineError: The queue does not answer.
        """
        told = self._statuses([run_id]).get(run_id)
        if told is not None and told.state.terminal and told.state is not RunState.SUCCEEDED:
            return self.record(told, _before(told))
        return None if told is None else self._shown(told)

    def pending(self, job: str | None, limit: int) -> list[RunRecord]:
        """Return runs of a job, or of all, that are queued and not in the ledger, newest first."""
        if not self._has_queue():
            return []
        found = []
        for told in reversed(self.bench.engine.pending()):
            if job in (None, JobRef.parse(told.job).name) and self._find(told.run_id) is None:
                found.append(self._shown(told))
                if len(found) == limit:
                    break
        return found

    def statuses(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        """Return how runs stand, by the ledger and else by the queue."""
        records = {run_id: self._find(run_id) for run_id in run_ids}
        found = {run_id: run.state for run_id, run in records.items() if run is not None}
        left = [run_id for run_id, run in records.items() if run is None]
        return found | {run_id: told.state for run_id, told in self._statuses(left).items()}

    def record(self, told: RunStatus, ending: Ending) -> RunRecord:
        """Record a run that ended before it began; one that is recorded stays as it is."""
        state, cause, message = ending
        now_us = time.time_ns() // 1000
        shown = self._shown(told)
        return self.bench.ledger.create_run(
            replace(shown, state=state, cause=cause, message=message, ended_us=now_us)
        )

    def _shown(self, told: RunStatus) -> RunRecord:
        workspace = self.bench.workspace
        tags = {"schedule": told.schedule, "tick": told.tick, QUEUED_TAG: "yes"}
        return RunRecord(
            run_id=told.run_id,
            kind=RunKind.RUN,
            environment=Environment.PRODUCTION,
            user=told.created_by or workspace.user,
            team=workspace.settings.team or None,
            state=told.state,
            job=JobRef.parse(told.job).name,
            parameters=told.parameters,
            tags={name: text for name, text in tags.items() if text},
            created_us=told.created_us,
        )

    # -- steps ---------------------------------------------------------------------------------

    def _has_queue(self) -> bool:
        """Whether there is a queue's database; asking for one would make it."""
        backend, _, rest = self.bench.workspace.engine_url.partition(":///")
        return backend != "sqlite" or (self.bench.workspace.root / rest).exists()

    def _statuses(self, run_ids: Sequence[str]) -> dict[str, RunStatus]:
        return self.bench.engine.statuses(run_ids) if run_ids and self._has_queue() else {}

    def _find(self, run_id: str) -> RunRecord | None:
        try:
            return self.bench.ledger.get_run(run_id)
        except NotFound:
            return None

    def _runs(self, state: RunState) -> list[RunRecord]:
        found = self.bench.ledger.runs(state=state, limit=_AT_ONCE)
        return [run for run in found if self._doubtful(run)]

    def _doubtful(self, run: RunRecord) -> bool:
        return not run.state.terminal and QUEUED_TAG in run.tags and run.kind is RunKind.RUN

    def _is_here(self, run: RunRecord) -> bool:
        """Whether a run was executed in this workspace: a ledger may serve more than one queue."""
        return (self.bench.workspace.runs / run.run_id).is_dir()

    def _compare(self, run: RunRecord, told: RunStatus | None) -> bool:
        """Settle one run; return whether there was something to do."""
        if run.state is RunState.RUNNING and _lives_here(run):
            if told is not None and told.state is RunState.CANCELLED and _is_long_ago(told):
                _ask_to_end(run)
            return False
        if told is None:
            return self._is_here(run) and self._unknown(run)
        if not told.state.terminal:
            return False
        if run.state is RunState.RUNNING and not (_was_here(run) or _is_long_ago(told)):
            return False
        if run.state is RunState.WAITING and _may_wait(told):
            return self.bench.engine.again(run.run_id)
        return self._settle(run, told)

    def _unknown(self, run: RunRecord) -> bool:
        """Do what is right for a run that the queue has forgotten."""
        if run.state is RunState.WAITING:
            reference = f"{run.job}@{run.version}"
            self.bench.engine.submit(reference, {}, run_id=run.run_id, created_by=run.user)
            return True
        if run.state is not RunState.RUNNING or not _was_here(run):
            return False  # what was planned and never queued is its parent's to queue
        message = "its process is gone, and the queue does not know it any more"
        return self._end(run, (RunState.LOST, Cause.RUNNER_DIED, message))

    def _settle(self, run: RunRecord | None, told: RunStatus) -> bool:
        if run is None:
            self.record(told, _before(told))
            return True
        if run.state.terminal or (run.state is RunState.RUNNING and _lives_here(run)):
            return False
        return self._end(run, _midway(told) if run.state is RunState.RUNNING else _before(told))

    def _end(self, run: RunRecord, ending: Ending) -> bool:
        state, cause, message = ending
        if _was_here(run):
            reap(self.bench.ledger.identity, run.run_id)
        if state is RunState.CANCELLED and run.message and run.state is RunState.RUNNING:
            message = f"{run.message} ({message})"
        with suppress(Conflict):  # somebody else was first
            self.bench.ledger.take(run, state=state, cause=cause, message=message)
            return True
        return False


def status_of_work(work: Work, outcome: Outcome) -> RunStatus:
    """Return what the queue is about to say of work that has ended."""
    return RunStatus(
        run_id=work.run_id,
        job=work.job,
        state=state_of_exit(outcome.exit_code),
        schedule=work.schedule or work.trigger,
        exit_code=outcome.exit_code,
        attempts=outcome.attempts,
        message=outcome.message,
        parameters=work.parameters,
        created_by=work.created_by,
        tick=work.tick,
    )


def _before(told: RunStatus) -> Ending:
    """Return how a run ended that never began, or was not let go on."""
    said = told.message or "its process ended without a word"
    if told.state is RunState.CANCELLED:
        return RunState.CANCELLED, Cause.REQUESTED, "it was cancelled in the queue"
    if told.state is RunState.TIMED_OUT:
        return RunState.TIMED_OUT, Cause.RUN_TIMEOUT, said
    if told.state in (RunState.LOST, RunState.KILLED):
        return RunState.LOST, Cause.RUNNER_DIED, _given_up(told)
    if cause_of_exit(told.exit_code or 1) == "infrastructure":
        return RunState.FAILED, Cause.INFRASTRUCTURE, said
    return RunState.FAILED, Cause.REFUSED, said


def _midway(told: RunStatus) -> Ending:
    """Return how a run ended whose process had begun it and could not record its end."""
    if told.state is RunState.CANCELLED:
        cause = Cause.REQUESTED if told.exit_code is None else Cause.SIGNAL
        return RunState.CANCELLED, cause, "its process ended without a word"
    if told.state is RunState.TIMED_OUT:
        return RunState.TIMED_OUT, Cause.RUN_TIMEOUT, _given_up(told)
    away = cause_of_exit(told.exit_code or 1) == "infrastructure"
    return RunState.LOST, Cause.INFRASTRUCTURE if away else Cause.RUNNER_DIED, _given_up(told)


def _given_up(told: RunStatus) -> str:
    """Say what the queue says of a run that it has done with."""
    if told.exit_code is None:
        return f"the queue has given it up: {told.message or 'too many workers died over it'}"
    code = told.exit_code
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    tries = "its process" if told.attempts < 2 else f"the last of its {told.attempts} processes"
    said = f": {told.message}" if told.message else ""
    return f"{tries} {how} and recorded no end{said}"


def _may_wait(told: RunStatus) -> bool:
    """Whether a waiting run's process ended so that the run may wait on."""
    return told.state in (RunState.LOST, RunState.KILLED) or told.exit_code == 75


def _was_here(run: RunRecord) -> bool:
    return run.runner is None or run.runner.partition(":")[0] == machine_name()


def _lives_here(run: RunRecord) -> bool:
    return run.runner is not None and _was_here(run) and runner_alive(run.runner)


def _is_long_ago(told: RunStatus) -> bool:
    return time.time() - (told.ended_us or told.created_us) / 1e6 > _GRACE_S


def _ask_to_end(run: RunRecord) -> None:
    """Tell a process that its run was cancelled: the worker that would have done so is not there."""
    if not is_here(run.runner or ""):
        return  # a container of the same name: the number is another process's here
    with suppress(OSError, ValueError):
        os.kill(int((run.runner or "").split(":")[1]), signal.SIGTERM)
