"""Runs that notebooks start: through the queue where their parent came from it, else right here.

Places: a run of the queue takes a place of a worker.  Its parent holds one too, until the run has
waited for ``approvals.hold`` seconds without a place; then the parent waits without a kernel, and its
place is free.  So parents never keep all places from the runs that they wait for.  Where no queue is
involved, the gateway starts ``toolkit run``, at most ``slots`` at a time at each depth: a run waits for
deeper ones only, so those that wait never keep others from beginning.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from toolkit.app.cancelling import cancel_run
from toolkit.app.running import Request, plan_version
from toolkit.app.workbench import Workbench
from toolkit.document import Notebook
from toolkit.errors import Conflict, NotFound, ToolkitError
from toolkit.execution import QUEUED_TAG
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import Cause, RunRecord, RunState, lineage_of

__all__ = ["Composition"]

_STARTS = 3
_ASK_EVERY = 10
"""Looks at a run between two questions to the queue."""
_DESCRIPTION_CHARS = 1_000


@dataclass
class Composition:
    """Does the runs that calls of jobs start; see ``toolkit.gateway.jobs.Runs``.

    Thread-safe.

    Attributes:
        workspace: Whose jobs they are.
        ledger: Where runs are recorded.
    """

    workspace: Workspace
    ledger: Ledger
    _processes: dict[str, tuple[int, subprocess.Popen[bytes]]] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _submitted: dict[str, int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @cached_property
    def _bench(self) -> Workbench:
        return Workbench(self.workspace)

    def plan(
        self, parent: RunRecord, reference: str, parameters: dict[str, Any], run_id: str
    ) -> RunRecord:
        """Return the run of a registered version as it is to be recorded, queued."""
        request = Request(reference, parameters, run_id=run_id)
        with self._lock:
            planned = plan_version(self._bench, request, None).run
        tags = {QUEUED_TAG: "yes"} if QUEUED_TAG in parent.tags else {}
        return replace(planned, state=RunState.QUEUED, tags={**planned.tags, **tags})

    def look(self, run: RunRecord) -> tuple[RunRecord, bool]:
        """See to it that a run is done, and return it and whether it has ended for good."""
        run = self.ledger.get_run(run.run_id)
        with self._lock:
            look = self._look_in_queue if QUEUED_TAG in run.tags else self._look_here
            run, over = look(run)
            if over:
                self._submitted.pop(run.run_id, None)
                self._starts.pop(run.run_id, None)
            return run, over

    def cancel(self, run: RunRecord, reason: str) -> None:
        """Cancel a run and the runs below it; one that has ended stays as it is."""
        with suppress(Conflict, NotFound):
            cancel_run(self._bench, run.run_id, reason)

    def describe(self, reference: str) -> dict[str, Any]:
        """Return what a model has to know of a version to run it."""
        with self._lock:
            version = self._bench.registry.resolve(reference)
            files = self._bench.registry.load(version)
        return {
            "name": version.name,
            "version": version.number,
            "description": _description(files["notebook.ipynb"], version.name),
            "parameters": version.manifest.parameters or {"type": "object", "properties": {}},
            "results": list(version.manifest.results),
        }

    def close(self) -> None:
        """Give back what was opened; runs go on without this process."""
        if "_bench" in self.__dict__:
            self._bench.close()

    # -- the queue ----------------------------------------------------------------------------

    def _look_in_queue(self, run: RunRecord) -> tuple[RunRecord, bool]:
        engine, run_id = self._bench.engine, run.run_id
        if run.state.terminal:
            # One that was killed may be tried again: the queue says whether it will.
            return run, not run.resumable or not engine.unfinished(run_id)
        if run.state is RunState.QUEUED:
            if run_id not in self._submitted:
                # Its parameters are in the ledger: the queue need not know them.
                engine.submit(f"{run.job}@{run.version}", {}, run_id=run_id, created_by=run.user)
            looks = self._submitted[run_id] = self._submitted.get(run_id, 0) + 1
            if looks % _ASK_EVERY == 0 and not engine.unfinished(run_id):
                return self._never_began(run, engine.status(run_id).message)
        return run, False

    # -- this machine -------------------------------------------------------------------------

    def _look_here(self, run: RunRecord) -> tuple[RunRecord, bool]:
        for run_id, (_, process) in list(self._processes.items()):
            if process.poll() is not None and run_id != run.run_id:
                del self._processes[run_id]
        known = self._processes.get(run.run_id)
        if known is not None and known[1].poll() is None:
            # A run that has ended is only being told to MLflow: nobody need wait for that.
            return run, run.state.terminal and run.state is not RunState.LOST
        if known is not None:  # what it recorded before it ended counts
            run = self.ledger.get_run(run.run_id)
            del self._processes[run.run_id]
        lost = run.state is RunState.LOST
        if run.state.terminal and not lost:
            return run, True
        if self.ledger.lives(run) and not lost:
            return run, False
        if run.state is RunState.WAITING or self._starts[run.run_id] < _STARTS:
            self._start(run)
            return run, False
        return (run, True) if lost else self._never_began(run, self._last_line(run))

    def _start(self, run: RunRecord) -> None:
        depth = len(lineage_of(run))
        busy = sum(at == depth and one.poll() is None for at, one in self._processes.values())
        if busy >= self.workspace.settings.slots:
            return
        self._starts[run.run_id] += 1
        command = ["run", f"{run.job}@{run.version}", "--run-id", run.run_id, "--json"]
        logs = self.workspace.state / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(logs / f"{run.run_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "toolkit", *command],
                cwd=self.workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self._processes[run.run_id] = (depth, process)

    def _last_line(self, run: RunRecord) -> str:
        path = self.workspace.state / "logs" / f"{run.run_id}.log"
        with suppress(OSError):
            lines = path.read_text("utf-8", "replace").splitlines()
            return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
        return ""

    def _never_began(self, run: RunRecord, said: str) -> tuple[RunRecord, bool]:
        """Record the end of a run that nobody will do: what it was to be done by has given up."""
        message = f"it could not be executed: {said or 'its process ended without a word'}"
        try:
            cause = Cause.INFRASTRUCTURE
            run = self.ledger.take(run, state=RunState.FAILED, cause=cause, message=message)
        except Conflict:  # somebody does it after all
            return self.ledger.get_run(run.run_id), False
        return run, True


def _description(notebook: bytes, name: str) -> str:
    """Return the first text of a notebook: what a person would read about it."""
    with suppress(ToolkitError):
        for cell in Notebook.parse(notebook).cells:
            if cell.kind == "markdown" and (text := cell.source.strip("# \n")):
                return text[:_DESCRIPTION_CHARS]
    return f"Runs the job {name}."
