"""What is to be run, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.execution.facts import CellFact, ProgressEvent
from toolkit.ledger import Totals
from toolkit.values import RunRecord

__all__ = ["Progress", "RunPlan", "RunReport"]

Progress = Callable[[int, int, ProgressEvent, CellFact], None]
"""Called with (position, total, event, cell) as cells start and end."""


@dataclass(frozen=True)
class RunPlan:
    """What to run.

    Attributes:
        run: The record to create; its id makes the plan idempotent.
        notebook: The bytes to execute (for a version: the verified bytes).
        parameters: Checked values by parameter name.
        cwd: The kernel's working folder; ``None``: an empty one in the run's folder, as a sealed
            version brings no files with it.
        extra_cells: Sources appended after the last cell.
        timeout_s, cell_timeout_s: Seconds for the whole run and for one cell; ``None``: no limit.
            A run that waited for people starts again with all of it.
        hold_s: Seconds after which a kernel that waits for people only is ended, and the run waits
            without one; ``None``: the kernel waits.
        leave: Whether this process ends with such a run (it goes on under the same run id, in any
            process), instead of waiting for the people itself.
        later: Whether MLflow and the HTML page are left to :meth:`Runner.catch_up` of another
            process: the run ends with its state in the ledger.
        python: Returns the interpreter of a locked environment, building that if need be;
            ``None``: the runner's own.
    """

    run: RunRecord
    notebook: bytes = field(repr=False)
    parameters: dict[str, Any] = field(default_factory=dict)
    cwd: Path | None = None
    extra_cells: tuple[str, ...] = ()
    timeout_s: float | None = None
    cell_timeout_s: float | None = None
    hold_s: float | None = None
    leave: bool = False
    later: bool = False
    python: Callable[[], Path] | None = None


@dataclass(frozen=True)
class RunReport:
    """How a run ended, and where to look.

    Attributes:
        run: The final record.
        totals: Calls, tokens, cost and latency by the ledger.
        results: Published results by name.
        output: The executed notebook; ``report`` its HTML form, if it could be rendered.
        seconds: From the start to the end that the ledger has, with what it waited.
        cell: 1-based number of the cell that ended the run, if one did.
        warnings: What failed without changing the run's state.
        repeated: The run had already ended; nothing was executed.
    """

    run: RunRecord
    totals: Totals
    results: dict[str, Any]
    output: Path | None = None
    report: Path | None = None
    seconds: float = 0.0
    cell: int | None = None
    warnings: tuple[str, ...] = ()
    repeated: bool = False
