"""A run as it goes: its state and calls from the ledger, its cells and output from its notebook.

Both can be read from any process while the run goes on.  The executed notebook is replaced in one
step after every cell, and about once a second while a cell prints, so it is never torn.  A notebook
that takes long to write is written less often: writing takes a fiftieth of the time.

On a machine without the run's folder the ledger says what the cells show, where machines share one.

Known limits
------------
* There, cells are two seconds late, and of long output its end is kept: 64,000 characters a run.
* Output that a cell clears or replaces is told again from its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.app.workbench import Workbench
from toolkit.errors import EngineError, NotFound
from toolkit.execution import QUEUED_TAG, CellSeen, read_cells, told_cells
from toolkit.ledger import machine_name
from toolkit.values import CallRecord, RunRecord, RunState

__all__ = ["Event", "Followed", "Follower", "follow", "new_text", "settled"]

EventKind = Literal["state", "cell", "output", "call", "note"]

_EVERY_S = 0.5
_PAGE = 500
_MOST_OPEN = 200
# A notebook that was written so long before its runner told its cells is not what it wrote.
_LEFT_US = 30_000_000
# Cells of these states say nothing new.
_SILENT = frozenset({"", "pending"})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was seen.

    Attributes:
        kind: ``state``, ``cell``, ``output``, ``call`` or ``note``.
        what: The run, the cell (``cell 3``) or the call (``model default``).
        state: The run's, the cell's or the call's state.
        text: A message, or new output as the cell wrote it, terminal sequences and all.
        seconds: How long the cell or the call took.
    """

    kind: EventKind
    what: str
    state: str = ""
    text: str = ""
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; members without a value are left out."""
        return {name: v for name, v in asdict(self).items() if v not in ("", None)}


@dataclass
class Followed:
    """How a run ended.

    Attributes:
        state: Its state.
        run: Its record; ``None`` if it ended in the queue before it began.
    """

    state: RunState
    run: RunRecord | None


@dataclass
class Follower:
    """Looks at one run again and again, and tells what is new.

    Attributes:
        bench: The workspace.
        run_id: The run; the ledger must know it.
    """

    bench: Workbench
    run_id: str
    _state: tuple[Any, ...] = ()
    _attempt: str | None = None
    _stamp: tuple[int, ...] | None = None
    _cells: dict[int, CellSeen] = field(default_factory=dict)
    _after: int = 0
    _open: dict[int, CallRecord] = field(default_factory=dict)
    _told_apart: bool = False

    @property
    def path(self) -> Path:
        """Where the executed notebook is, if it is on this machine."""
        return self.bench.workspace.runs / self.run_id / "output.ipynb"

    def look(self) -> tuple[RunRecord, list[Event]]:
        """Return the run as it is now, and what is new since the last look.

        The record is read first: what the notebook and the calls then show is at least as new, so
        nothing of a run that has ended is missed.

        Raises:
            NotFound, LedgerError: The ledger does not know the run, or cannot be read.
        """
        run = settled(self.bench, self.bench.ledger.get_run(self.run_id))
        events = [*self._look_at_cells(run), *self._look_at_calls()]
        seen = (run.state, run.cause, run.message)
        if seen != self._state:
            self._state = seen
            cause = f" ({run.cause})" if run.cause else ""
            told = Event("state", self.run_id, run.state.value + cause, run.message or "")
            # A beginning stands before what it brought, an end after it.
            events.insert(len(events) if run.state.terminal else 0, told)
        return run, events

    def _look_at_cells(self, run: RunRecord) -> Iterator[Event]:
        if run.token_digest != self._attempt:
            if self._attempt is not None and run.token_digest is not None:
                self._cells = {}
                yield Event("note", self.run_id, text="it starts again, from its journal")
            self._attempt = run.token_digest or self._attempt
        cells, told = self.cells(run)
        if cells is None or told:
            yield from self._elsewhere(run, cells is not None)
        # What was told has code cells only; both are counted alike.
        for position, cell in enumerate(cell for cell in cells or () if cell.code):
            before = self._cells.get(position)
            self._cells[position] = cell
            if cell != before:
                yield from _changes(cell, before)

    def cells(self, run: RunRecord) -> tuple[list[CellSeen] | None, bool]:
        """Return the run's cells and whether they are what its runner told the ledger.

        The notebook on this machine counts, unless it is what an earlier attempt left here.
        Without either the cells are ``None``, without news an empty list.
        """
        at_us, told = None, None
        host = (run.runner or "").partition(":")[0]
        if self.bench.ledger.shared and host not in ("", machine_name()):
            at_us, told = told_cells(self.bench.ledger, self.run_id)
        try:
            found = self.path.stat()
            if at_us is not None and found.st_mtime_ns // 1_000 < at_us - _LEFT_US:
                return told, True
            stamp = (found.st_mtime_ns, found.st_ino)
            cells = [] if stamp == self._stamp else read_cells(self.path)
        except FileNotFoundError:
            return told, told is not None
        self._stamp = stamp
        return cells, False

    def _elsewhere(self, run: RunRecord, told: bool) -> Iterator[Event]:
        host = (run.runner or "").partition(":")[0]
        if self._told_apart or not (run.state.terminal or host not in ("", machine_name())):
            return
        self._told_apart = True
        where = f" It is executed on {host}." if host and not run.state.terminal else ""
        comes = told or (self.bench.ledger.shared and not run.state.terminal)
        what = "output comes every two seconds, shortened" if comes else "calls and states only"
        text = f"the run's folder is not on this machine: {what}.{where}"
        yield Event("note", self.run_id, text=text)

    def _look_at_calls(self) -> Iterator[Event]:
        ledger = self.bench.ledger
        for seq, call in list(self._open.items()):
            now = ledger.get_call(self.run_id, call.key, call.generation)
            if now.outcome is not None:
                del self._open[seq]
                yield _call(now)
        while page := ledger.calls(self.run_id, after_seq=self._after, limit=_PAGE):
            for call in page:
                self._after = call.seq
                if call.outcome is None and len(self._open) < _MOST_OPEN:
                    self._open[call.seq] = call
                yield _call(call)


def follow(
    bench: Workbench,
    run_id: str,
    tell: Callable[[Event], None],
    *,
    every_s: float = _EVERY_S,
) -> Followed:
    """Tell what happens in a run until it ends; a run that waits is followed while it waits.

    Args:
        bench: The workspace.
        run_id: A run of the ledger, or one that is still in the queue.
        tell: Called with each event.
        every_s: Seconds between two looks.

    Raises:
        NotFound: Neither the ledger nor the queue knows the run.
        LedgerError, EngineError: They cannot be read.
    """
    queued = _until_begun(bench, run_id, tell, every_s)
    if queued is not None:
        return Followed(queued, None)
    follower = Follower(bench, run_id)
    while True:
        run, events = follower.look()
        for event in events:
            tell(event)
        if run.state.terminal:
            return Followed(run.state, run)
        time.sleep(every_s)


def settled(bench: Workbench, run: RunRecord) -> RunRecord:
    """Return a run after its runner was looked for: one that lost it is recorded as lost.

    Of runs of the queue, whose runner may start again, the queue is asked.
    """
    gone = run.state is RunState.RUNNING and run.runner is not None
    if not gone or bench.ledger.lives(run):
        return run
    if QUEUED_TAG in run.tags:
        from toolkit.app.queued import QueuedRuns

        with suppress(EngineError):  # then nobody can say
            return QueuedRuns(bench).settled(run)
        return run
    bench.runner.reconcile()
    return bench.ledger.get_run(run.run_id)


def _until_begun(
    bench: Workbench, run_id: str, tell: Callable[[Event], None], every_s: float
) -> RunState | None:
    """Wait until the ledger knows a run; return how it ended in the queue if it never does."""
    told = ""
    while True:
        try:
            bench.ledger.get_run(run_id)
        except NotFound as unknown:
            try:
                state = bench.engine.status(run_id).state
            except NotFound:
                raise unknown from None
        else:
            return None
        if state.value != told:
            told = state.value
            tell(Event("state", run_id, told))
        if state.terminal:
            return state
        time.sleep(every_s)


def _changes(cell: CellSeen, before: CellSeen | None) -> Iterator[Event]:
    status = before.status if before is not None else ""
    begins = cell.status != status and cell.status not in _SILENT
    if begins and cell.status == "running":
        yield Event("cell", cell.label, cell.status)
    if new := new_text(cell, before):
        yield Event("output", cell.label, text=new)
    if begins and cell.status != "running":
        yield Event("cell", cell.label, cell.status, seconds=cell.seconds)


def new_text(cell: CellSeen, before: CellSeen | None) -> str:
    """Return the text that was not there before; told texts may lack their beginnings."""
    if before is None:
        return _missing(cell.cut) + cell.text
    seen = before.cut + len(before.text)  # counted from the beginning of the cell's output
    if cell.cut > seen:
        return _missing(cell.cut - seen) + cell.text
    start = max(cell.cut, before.cut)
    known = before.text[start - before.cut :]
    same = cell.text[start - cell.cut :].startswith(known)
    return cell.text[seen - cell.cut :] if same else _missing(cell.cut) + cell.text


def _missing(characters: int) -> str:
    return f"[… {characters:,} characters]\n" if characters else ""


def _call(call: CallRecord) -> Event:
    name = f"{call.intent.kind} {call.intent.name}"
    error = call.outcome.error if call.outcome is not None else None
    text = str(error.get("message", "")) if error else ""
    return Event("call", name, call.state.value, text, call.latency_s)
