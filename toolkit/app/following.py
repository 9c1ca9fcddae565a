"""A run as it goes: its state and calls from the ledger, its cells and output from its notebook.

Both can be read from any process while the run goes on.  The executed notebook is replaced in one
step after every cell, and about once a second while a cell prints, so it is never torn.  A notebook
that takes long to write is written less often: writing takes a fiftieth of the time.

Known limits
------------
* Cells and output are in the run's folder.  Over a shared database without that folder, calls and
  states are all that is seen, and a note says so.
* Output that a cell clears or replaces is told again from its beginning.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.app.workbench import Workbench
from toolkit.errors import EngineError, NotFound
from toolkit.execution import QUEUED_TAG
from toolkit.ledger import machine_name
from toolkit.values import CallRecord, RunRecord, RunState

__all__ = ["CellSeen", "Event", "Followed", "Follower", "follow", "read_cells", "settled"]

EventKind = Literal["state", "cell", "output", "call", "note"]

_EVERY_S = 0.5
_PAGE = 500
_MOST_OPEN = 200
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


@dataclass(frozen=True, slots=True)
class CellSeen:
    """One cell of an executed notebook.

    Attributes:
        label: ``cell 3``, counted in the notebook that was given; added cells say what they are.
        status: ``pending``, ``running``, ``completed``, ``failed`` or ``waiting``.
        text: What it printed and showed, as plain text.
        seconds: How long it ran.
        code: Whether it is a code cell.
    """

    label: str
    status: str
    text: str
    seconds: float | None
    code: bool


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
    _stamp: tuple[int, int] | None = None
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
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            cells = None if stamp == self._stamp else read_cells(self.path)
        except FileNotFoundError:
            yield from self._elsewhere(run)
            return
        self._stamp = stamp
        for position, cell in enumerate(cells or ()):
            before = self._cells.get(position)
            self._cells[position] = cell
            if cell.code:
                yield from _changes(cell, before)

    def _elsewhere(self, run: RunRecord) -> Iterator[Event]:
        host = (run.runner or "").partition(":")[0]
        if self._told_apart or not (run.state.terminal or host not in ("", machine_name())):
            return
        self._told_apart = True
        where = f" It is executed on {host}." if host and not run.state.terminal else ""
        text = f"the run's folder is not on this machine: calls and states only.{where}"
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


def read_cells(path: Path) -> list[CellSeen]:
    """Return the cells of an executed notebook, as it is at this moment.

    Raises:
        FileNotFoundError: There is none.
    """
    made = json.loads(path.read_bytes())
    cells = []
    given = 0
    for cell in made.get("cells", []):
        metadata = cell.get("metadata", {})
        added = metadata.get("toolkit", {}).get("added", False)
        given += not added
        record = metadata.get("papermill", {})
        cells.append(
            CellSeen(
                label="an added cell" if added else f"cell {given}",
                status=str(record.get("status") or ""),
                text="".join(map(_text, cell.get("outputs", []))),
                seconds=record.get("duration"),
                code=cell.get("cell_type") == "code",
            )
        )
    return cells


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
    known = before.text if before is not None else ""
    status = before.status if before is not None else ""
    begins = cell.status != status and cell.status not in _SILENT
    if begins and cell.status == "running":
        yield Event("cell", cell.label, cell.status)
    new = cell.text.removeprefix(known)
    if new:
        yield Event("output", cell.label, text=new)
    if begins and cell.status != "running":
        yield Event("cell", cell.label, cell.status, seconds=cell.seconds)


def _call(call: CallRecord) -> Event:
    name = f"{call.intent.kind} {call.intent.name}"
    error = call.outcome.error if call.outcome is not None else None
    text = str(error.get("message", "")) if error else ""
    return Event("call", name, call.state.value, text, call.latency_s)


def _text(output: dict[str, Any]) -> str:
    """Return one output as text; pictures and pages only say what they are."""
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text", ""))
    if kind == "error":
        lines = output.get("traceback") or [f"{output.get('ename')}: {output.get('evalue')}"]
        return "\n".join(map(str, lines)) + "\n"
    data = output.get("data", {})
    shown = _joined(data.get("text/plain", "")) or f"<{', '.join(sorted(data)) or 'nothing'}>"
    return shown + "\n"


def _joined(text: Any) -> str:
    # nbformat keeps a text as one string or as a list of lines.
    return "".join(map(str, text)) if isinstance(text, list) else str(text)
