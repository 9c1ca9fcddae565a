"""Ends versions and jobs, and the work that goes on under them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.app.cancelling import cancel_run
from toolkit.errors import Conflict, EngineError, NotFound, ToolkitError
from toolkit.registry import AliasMove
from toolkit.values import RunRecord, RunState

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["Ended", "retire_job", "revoke_version"]

_MOST = 10_000
_ALIVE = (RunState.RUNNING, RunState.WAITING, RunState.QUEUED)


@dataclass(frozen=True, slots=True)
class Ended:
    """What ending a version or a job did.

    Attributes:
        moves: Aliases that were moved.
        runs: What became of each run that was going on or waiting.
        schedules: Those that were paused.
    """

    moves: list[AliasMove]
    runs: dict[str, str] = field(default_factory=dict)
    schedules: list[str] = field(default_factory=list)

    def runs_json(self) -> list[dict[str, str]]:
        """Return the runs as JSON values."""
        return [{"run_id": run_id, "said": said} for run_id, said in self.runs.items()]


def revoke_version(bench: Workbench, job: str, version: int, reason: str) -> Ended:
    """Revoke a version, and end what runs it: a repeat ends what began meanwhile.

    The version is refused first.  Then every run of it is stopped, so that its next call is refused
    wherever it runs, and cancelled: a waiting one ends at once, a running one within seconds.

    Raises:
        NotFound: There is no such version.
        UsageError: There is no reason.
    """
    moves = bench.registry.releases.revoke(job, version, by=bench.workspace.user, reason=reason)
    body = {"job": job, "version": version, "reason": reason.strip()}
    if moves:
        bench.registry.record("version.revoked", body, by=bench.workspace.user)
    bench.promotions.mirror(job)
    ended: dict[str, str] = {}
    why = f"{job}@{version} is revoked: {reason.strip()}"
    for run in _runs(bench, job, version):
        ended[run.run_id] = _end(bench, run, why)
    return Ended(moves, ended)


def retire_job(bench: Workbench, job: str, reason: str) -> Ended:
    """Retire a job and pause its schedules; runs that go on are left to end.

    Raises:
        NotFound: There is no such job, or no version of it.
        UsageError: There is no reason.
        EngineError: The job is retired, and its schedules could not be read.
    """
    user = bench.workspace.user
    moves = bench.registry.releases.retire(job, by=user, reason=reason)
    if moves:
        bench.registry.record("job.retired", {"job": job, "reason": reason.strip()}, by=user)
    bench.promotions.mirror(job)
    paused = []
    for info in bench.engine.list_schedules():
        if info.schedule.job.partition("@")[0] == job and not info.paused:
            bench.engine.pause(info.schedule.name)
            body = {"schedule": info.schedule.name, "why": f"{job} is retired"}
            bench.registry.record("schedule.paused", body, by=user)
            paused.append(info.schedule.name)
    return Ended(moves, schedules=paused)


def _runs(bench: Workbench, job: str, version: int) -> list[RunRecord]:
    return [
        run
        for state in _ALIVE
        for run in bench.ledger.runs(job=job, state=state, limit=_MOST)
        if run.version == version
    ]


def _end(bench: Workbench, run: RunRecord, why: str) -> str:
    with suppress(ToolkitError):  # the switch is the second line: cancelling may be all it takes
        bench.inbox.stop(f"run:{run.run_id}", why)
    try:
        state = cancel_run(bench, run.run_id, why)
    except (Conflict, NotFound, EngineError) as error:
        return f"its next call is refused; it could not be cancelled here: {error.message}"
    return "cancelled" if state is RunState.CANCELLED else "was told to end"
