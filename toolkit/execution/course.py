"""What happens to one run while it runs: where it is, who stopped it first, and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from toolkit.execution.endings import Stop, kernel_death, shorten
from toolkit.execution.facts import CellFact, Execution, ProgressEvent
from toolkit.execution.outputs import OutputKeeper
from toolkit.execution.preparation import Prepared
from toolkit.execution.processes import OomCounter, Warden, kill_group
from toolkit.execution.vendors import nbformat
from toolkit.values import Cause, RunState

__all__ = ["Course"]

_log = logging.getLogger("toolkit.execution")


@dataclass(slots=True)
class _Kernel:
    pid: int
    warden: Warden


class Course:
    """The course of one run.

    The first stop wins, whoever calls it: a cell, a timer's thread, or a signal handler.  It
    takes no lock, because a handler may interrupt any line of the thread it runs in.

    Attributes:
        execution, prepared: What is run.
        keeper: The run's output.
        notes: What a reader must know of a run that went on.
        done: Positions of the cells that were executed to their end.
        position: The cell that runs now.
        began_us: When the last cell began, microseconds since the epoch.
        parked: What a run that was recorded as waiting waits for.
    """

    def __init__(
        self, execution: Execution, prepared: Prepared, save: Callable[[Any], None]
    ) -> None:
        self.execution = execution
        self.prepared = prepared
        self.keeper = OutputKeeper(execution.limits)
        self.notes: list[str] = []
        self.done: set[int] = set()
        self.position: int | None = None
        self.parked: Stop | None = None
        self.node: Any = prepared.node
        self._save = save
        self._first: dict[str, Stop] = {}
        self._kernel: _Kernel | None = None
        self._wake: Callable[[], None] | None = None
        self._oom = OomCounter()
        self._began = 0.0
        self.began_us = 0

    # stops

    @property
    def stopped(self) -> Stop | None:
        """Why the run ends early, if it does."""
        return self._first.get("stop")

    def ended(self) -> bool:
        """Whether the run was ended early; another thread may change the answer at any time."""
        return self.stopped is not None

    def stop(self, state: RunState, cause: Cause, message: str) -> None:
        """End the run now, unless it was ended before; the kernel is killed at once."""
        self.conclude(Stop(state, cause, message, self.position))

    def conclude(self, stop: Stop) -> None:
        """Like :meth:`stop`."""
        if self._first.setdefault("stop", stop) is not stop:
            return
        if self._kernel is not None:
            kill_group(self._kernel.pid)
        if self._wake is not None:
            self._wake()

    def park(self, message: str) -> None:
        """End the kernel of a run that is recorded as waiting.

        That record holds, whatever the kernel did in its last moments; only who ends the run as a
        whole has more to say.
        """
        self.parked = Stop(RunState.WAITING, None, message, self.position)
        self.conclude(self.parked)

    @property
    def verdict(self) -> Stop | None:
        """Why the run ends early, if it does: what counts of :attr:`stopped` and :attr:`parked`."""
        stop = self.stopped
        ends = (RunState.CANCELLED, RunState.TIMED_OUT)
        if self.parked is None or (stop is not None and stop.state in ends):
            return stop
        return self.parked

    def kernel_died(self, returncode: int | None, out_of_memory: bool = False) -> None:
        """End the run because its kernel is gone.

        Args:
            returncode: As in :class:`subprocess.Popen`.
            out_of_memory: What the kernel's own control group counted; the runner's is asked too.
        """
        label = self.label(self.position) if self.position is not None else None
        self.conclude(
            kernel_death(label, returncode, out_of_memory or self._oom.rose(), self.position)
        )

    @property
    def here(self) -> str:
        """`` (cell 3 was running)``, or nothing between cells."""
        return "" if self.position is None else f" ({self.label(self.position)} was running)"

    # the kernel

    def kernel_started(self, pid: int, wake: Callable[[], None]) -> None:
        """Take charge of the kernel's process group; ``wake`` ends a wait for its answer."""
        self._kernel = _Kernel(pid, Warden(pid))
        self._wake = wake
        if self.stopped is not None:  # a signal came while the process was being made
            kill_group(pid)

    def end_kernel(self) -> None:
        """Kill what is left of the kernel's process group and dismiss its warden."""
        if self._kernel is not None:
            kill_group(self._kernel.pid)
            self._kernel.warden.dismiss()
            self._kernel, self._wake = None, None

    # cells

    def label(self, position: int) -> str:
        """Return the cell's name in messages."""
        return self.prepared.labels[position]

    def origin(self, position: int | None) -> int | None:
        """Return the cell's position in the notebook that was given."""
        return None if position is None else self.prepared.origins[position]

    def cell_started(self, position: int, cell: Any) -> None:
        """Note that a cell starts, and tell."""
        self.position = position
        self._began = time.monotonic()
        self.began_us = time.time_ns() // 1_000
        self.keeper.begin_cell()
        self._tell("started", position, self._fact(position, cell))

    def cell_ended(self, position: int, cell: Any) -> None:
        """Note that a cell ended, well or not, and tell."""
        if cell.cell_type == "code":
            outputs, cut = self.keeper.end_cell(cell.outputs)
            if cut is not None:
                cell.outputs = [nbformat.from_dict(output) for output in outputs]
                cell.metadata.setdefault("toolkit", {})["output"] = cut
        fact = replace(self._fact(position, cell), seconds=time.monotonic() - self._began)
        if self.stopped is None:
            self.position = None
            self.done.add(position)
            self._tell("completed", position, fact)
        elif self.stopped is self.parked:
            self._tell("waiting", position, fact)
        else:
            self._tell("failed", position, replace(fact, error=self.stopped.message))

    def cell_tolerated(self, position: int, cell: Any, what: str) -> None:
        """Note a failure that a ``raises-exception`` tag allows."""
        what = shorten(what)
        cell.metadata.setdefault("toolkit", {})["tolerated"] = what
        cell.metadata.papermill["exception"] = True
        self.notes.append(f"{self.label(position)}: {what}, which its tag raises-exception allows")

    @property
    def complete(self) -> bool:
        """Whether every code cell was executed to its end."""
        cells = enumerate(self.node.cells)
        return all(i in self.done for i, cell in cells if cell.cell_type == "code")

    def save(self) -> None:
        """Write the notebook as it is now; a disk that takes no more ends the run."""
        self.keeper.flush()
        try:
            self._save(self.node)
        except OSError as error:
            message = f"the executed notebook cannot be written: {error.strerror or error}"
            self.stop(RunState.FAILED, Cause.INFRASTRUCTURE, message + self.here)

    def _fact(self, position: int, cell: Any) -> CellFact:
        return CellFact(
            index=self.origin(position),
            id=str(cell.get("id", "")),
            kind=str(cell.cell_type),
            source=str(cell.source),
            label=self.label(position),
        )

    def _tell(self, event: ProgressEvent, position: int, fact: CellFact) -> None:
        if self.execution.on_progress is None:
            return
        try:
            self.execution.on_progress(position, len(self.node.cells), event, fact)
        except Exception:
            _log.warning("on_progress failed at %s %s", fact.label, event, exc_info=True)
