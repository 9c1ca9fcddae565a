"""What goes into one execution and what comes out of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import UsageError
from toolkit.kernels import KernelPlan
from toolkit.values import Cause, RunRecord, RunState

__all__ = ["CellFact", "Ending", "Execution", "OutputLimits", "ProgressEvent"]

ProgressEvent = Literal["started", "completed", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much output a run may produce before it is stopped.

    Attributes:
        cell_bytes: Kept output of one cell.
        run_bytes: Kept output of all cells and widgets together.
        kept_bytes: Of a cell that exceeded a limit, this much of its head and of its tail stays.
    """

    cell_bytes: int = 10_000_000
    run_bytes: int = 50_000_000
    kept_bytes: int = 65_536

    @property
    def message_bytes(self) -> int:
        """The largest single message that is received at all (JSON escapes may double a text)."""
        return 2 * self.cell_bytes + 1_048_576


@dataclass(frozen=True, slots=True)
class CellFact:
    """One cell as progress is told.

    Attributes:
        index: Position in the notebook that was given; ``None`` for a cell the runner added.
        id: The cell's id.
        kind: ``code``, ``markdown`` or ``raw``.
        source: The cell's text.
        label: The cell as a message names it (``cell 3``).
        seconds: How long it ran; ``None`` while it runs.
        error: Why it failed, one sentence.
    """

    index: int | None
    id: str
    kind: str
    source: str
    label: str
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One notebook to run in one fresh kernel.

    Attributes:
        run: The run.
        ledger: Identity of the ledger that records it (:attr:`toolkit.ledger.Ledger.identity`); with
            the run's id it names the kernel and everything the kernel starts.
        notebook: The verified bytes of the ``.ipynb``.
        parameters: JSON values by name; checked against the schema by the caller.
        folder: The run's own folder; created with mode 0700.
        gateway_socket: Unix socket of the gateway; ``None`` leaves the kernel without one.
        token: The run's bearer token for the gateway; never written to a file or an argument.
        timeout_s, cell_timeout_s: ``None`` means no limit.
        start_timeout_s: How long a living kernel may take until it answers for the first time.
        extra_cells: Sources that are run after the last cell.
        results_expected: Names that must have been received; those of ``run`` are added.
        received: Asks the ledger which results it holds; needed where results are expected.
        parked: Asked about once a second while the kernel runs; what it answers other than ``None``
            is what the run, which is recorded as waiting by then, waits for.  The kernel ends.
        stopped: Asked when every cell has run; what it answers other than ``None`` is who stopped the
            run, and why: a notebook that swallows its refusals has not succeeded.
        lost: Called with a function, which is to be told why, should the run not be this process's
            any more; the kernel is killed then.  Called with ``None`` at the end.
        on_progress: Called with (position, total, event, cell) as cells start and end; positions
            are those of the executed notebook.  What it raises is logged, not passed on.
        cwd: The kernel's working directory; ``None`` is the runner's.
        python: The interpreter of the version's environment.
        limits: How much output is kept.
        kernel: How the kernel is started: warm or cold, at which level of isolation.
    """

    run: RunRecord
    ledger: str
    notebook: bytes = field(repr=False)
    parameters: Mapping[str, Any]
    folder: Path
    gateway_socket: Path | None
    token: str = field(repr=False)
    timeout_s: float | None
    cell_timeout_s: float | None = None
    start_timeout_s: int = 60
    extra_cells: tuple[str, ...] = ()
    results_expected: tuple[str, ...] = ()
    received: Callable[[], set[str]] | None = None
    parked: Callable[[], str | None] | None = None
    stopped: Callable[[], str | None] | None = None
    lost: Callable[[Callable[[str], None] | None], None] | None = None
    on_progress: Callable[[int, int, ProgressEvent, CellFact], None] | None = None
    cwd: Path | None = None
    python: Path = field(default_factory=lambda: Path(sys.executable))
    limits: OutputLimits = OutputLimits()
    kernel: KernelPlan = field(default_factory=KernelPlan)

    def __post_init__(self) -> None:
        if self.expected and self.received is None:
            raise UsageError(
                f"the run expects the results {', '.join(self.expected)} "
                "and nobody can say which were received",
                next_step="pass Execution.received, a question to the ledger",
            )

    @property
    def expected(self) -> tuple[str, ...]:
        """Names of all results that must have been received, without twins."""
        return tuple(dict.fromkeys((*self.run.results_expected, *self.results_expected)))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, as the runner saw it.

    Attributes:
        state, cause: From the closed sets; the cause of a success is ``None``.
        message: One sentence; ``None`` for a plain success.
        output: The executed notebook, readable whatever happened.
        cell: Position, in the notebook that was given, of the cell that was running when the
            run ended early; ``None`` if there is none.
        seconds: From the call to the decision.
        notes: What a reader must know of a run that went on, such as an exception that a
            ``raises-exception`` tag allowed.
        cell_us: When that cell began, microseconds since the epoch.
    """

    state: RunState
    cause: Cause | None
    message: str | None
    output: Path
    cell: int | None
    seconds: float
    notes: tuple[str, ...] = ()
    cell_us: int | None = None
