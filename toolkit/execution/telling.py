"""MLflow and the HTML page of a run: they follow the ledger, and may fail without changing it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.errors import Conflict, LedgerError, TrackingError
from toolkit.execution.facts import Ending
from toolkit.execution.ownership import QUEUED_TAG, runner_alive
from toolkit.execution.plans import RunReport
from toolkit.execution.report import ReportFacts, notes_of, render_html
from toolkit.execution.waiting import WAITS
from toolkit.ledger import Ledger
from toolkit.tracing import Shipper, Tracking
from toolkit.values import Clock, RunRecord, RunState

__all__ = ["MIRRORED_TAG", "Mirror"]

MIRRORED_TAG = "mirrored"
"""Tag of runs whose end MLflow has been told."""

_DRAIN_S = 30.0
_TELLING_S = 60.0
# Shorter runs are shown in MLflow when they have ended.
_SOON_US = 2_000_000
# One run that MLflow refuses does not keep the others from it.
_ENOUGH = 3


@dataclass(frozen=True)
class Mirror:
    """Shows runs; every method may be repeated.

    Attributes: those of :class:`toolkit.execution.Runner`.
    """

    ledger: Ledger
    tracking: Tracking
    shipper: Shipper
    runs: Path
    clock: Clock

    def catch_up(self, limit: int) -> int:
        """Do what plans left for later: pages, and MLflow; return how many runs had to be told.

        Of the newest ``limit`` runs: those that ended on this machine, in this workspace, and those
        of its queue that have been running for a while.

        Raises:
            TrackingError: MLflow is away; another time.
        """
        count, failures = 0, list[str]()
        for run in self.ledger.runs(limit=limit):
            if not (self.runs / run.run_id).is_dir():
                continue  # executed elsewhere
            if run.state.terminal and not _is_told(run):
                if warnings := self.complete(run).warnings:
                    failures.append(warnings[-1])
                    if len(failures) == _ENOUGH:
                        break
                    continue
            elif _goes_on_untold(run) and self.clock.now_us() - (run.started_us or 0) > _SOON_US:
                mlflow_run_id = self.tracking.start_run(run)
                self.ledger.update_run(run.run_id, mlflow_run_id=mlflow_run_id)
            else:
                continue
            count += 1
        if failures and not count:
            raise TrackingError(failures[0])
        return count

    def complete(self, run: RunRecord) -> RunReport:
        """Return the report of a run that has ended, and tell MLflow if nobody has."""
        report = self.repeat(run)
        if _is_told(run):
            return report
        self.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # Two processes that tell at once would each make a run in MLflow.
            with FileLock(self.runs / ".telling.lock", timeout=_TELLING_S):
                report = self.repeat(self.ledger.get_run(run.run_id))
                if _is_told(report.run):
                    return report
                if report.output is not None and not _is_drawn(report.output, report.report):
                    report = self.with_page(report, notes_of(report.output))
                return self.end(report, [])
        except Timeout:
            return replace(report, warnings=("another process is telling MLflow for long",))

    def repeat(self, run: RunRecord) -> RunReport:
        """Return the report of a run that was executed before."""
        output = self.runs / run.run_id / "output.ipynb"
        return RunReport(
            run=run,
            totals=self.ledger.totals(run.run_id),
            results=self.ledger.results(run.run_id),
            output=output if output.exists() else None,
            report=html if (html := output.with_name("report.html")).exists() else None,
            seconds=max(0.0, ((run.ended_us or 0) - (run.started_us or 0)) / 1e6),
            repeated=True,
        )

    def with_page(self, report: RunReport, notes: tuple[str, ...]) -> RunReport:
        """Draw the page; a report without one says that it could not be drawn."""
        if report.output is None:
            return report
        page = report.output.with_name("report.html")
        return replace(report, report=render_html(report.output, page, _facts(report, notes)))

    def start(self, run: RunRecord, warnings: list[str]) -> RunRecord:
        """Show a run that begins."""
        try:
            mlflow_run_id = self.tracking.start_run(run)
        except TrackingError as error:
            warnings.append(f"MLflow has no run for this: {error}")
            return run
        run = self.ledger.update_run(run.run_id, mlflow_run_id=mlflow_run_id)
        if WAITS in run.tags:  # MLflow shows it as waiting until then
            with contextlib.suppress(TrackingError):
                self.tracking.finish_run(run, self.ledger.totals(run.run_id), {})
        return run

    def wait(self, run: RunRecord, ending: Ending, warnings: list[str]) -> RunReport:
        """Show in MLflow that a run waits; from here on it may be anybody's, so nothing else."""
        totals = self.ledger.totals(run.run_id)
        try:
            self.tracking.finish_run(run, totals, {}, [ending.output])
        except TrackingError as error:
            warnings.append(f"MLflow was not told that the run waits: {error}")
        return RunReport(
            run=run,
            totals=totals,
            results=self.ledger.results(run.run_id),
            output=ending.output,
            seconds=ending.seconds,
            cell=None if ending.cell is None else ending.cell + 1,
            warnings=tuple(warnings),
        )

    def end(self, report: RunReport, warnings: list[str]) -> RunReport:
        """Show how a run ended, and note in the ledger that it was shown."""
        artifacts = [path for path in (report.output, report.report) if path is not None]
        try:
            self.shipper.drain(_DRAIN_S)
            mlflow_run_id = self.tracking.finish_run(
                report.run, report.totals, report.results, artifacts
            )
            told = {**report.run.tags, MIRRORED_TAG: "yes"}
            run = self.ledger.take(report.run, mlflow_run_id=mlflow_run_id, tags=told)
            report = replace(report, run=run)
        except (TrackingError, LedgerError, Conflict) as error:
            warnings.append(f"MLflow was not told how the run ended: {error}")
        return replace(report, warnings=tuple(warnings))


def _is_told(run: RunRecord) -> bool:
    """Whether MLflow knows a run's end, or the run's own process is about to tell it."""
    return MIRRORED_TAG in run.tags or run.runner is None or runner_alive(run.runner)


def _is_drawn(notebook: Path, page: Path | None) -> bool:
    """Whether there is a page of this notebook, and not of what an earlier attempt left."""
    return page is not None and page.stat().st_mtime >= notebook.stat().st_mtime


def _goes_on_untold(run: RunRecord) -> bool:
    mine = run.runner is not None and runner_alive(run.runner)
    return (
        run.state is RunState.RUNNING and QUEUED_TAG in run.tags and mine and not run.mlflow_run_id
    )


def _facts(report: RunReport, notes: tuple[str, ...]) -> ReportFacts:
    run, totals = report.run, report.totals
    return ReportFacts(
        run_id=run.run_id,
        state=run.state,
        cause=run.cause,
        message=run.message,
        job=run.job,
        version=run.version,
        parameters=run.parameters,
        totals={
            "calls": totals.calls,
            "denied": totals.denied,
            "tokens": totals.input_tokens + totals.output_tokens,
            "cost": str(totals.cost),
            "calls of unknown price": totals.unknown_cost_calls,
            "seconds": round(report.seconds, 1),
        },
        notes=notes,
    )
