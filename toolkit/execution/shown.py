"""What the cells of an executed notebook show, read from its file, and told to other machines.

The file is replaced in one step after every cell, and about once a second while a cell prints, so it
is never torn.  Where several machines share a ledger, the runner also tells the ledger what the cells
show, shortened, every two seconds and at the end: who follows the run there has no such file.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.ledger import MOST_TOLD, Ledger
from toolkit.values import RunRecord

__all__ = ["CellSeen", "fitting", "read_cells", "shown_to_others", "told_cells"]

_EVERY_S = 2.0
_SHARE = 50
"""Reading a large notebook takes at most a fiftieth of the time."""
_MOST_CELLS = 400
_MEMBERS = 100  # characters of a cell's other members, beside its label
_log = logging.getLogger("toolkit.execution")


@dataclass(frozen=True, slots=True)
class CellSeen:
    """One cell of an executed notebook.

    Attributes:
        label: ``cell 3``, counted in the notebook that was given; added cells say what they are.
        status: ``pending``, ``running``, ``completed``, ``failed`` or ``waiting``.
        text: What it printed and showed, as plain text.
        seconds: How long it ran.
        code: Whether it is a code cell.
        cut: How many characters are missing before ``text``.
    """

    label: str
    status: str
    text: str
    seconds: float | None
    code: bool
    cut: int = 0


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


def told_cells(ledger: Ledger, run_id: str) -> tuple[int, list[CellSeen]] | tuple[None, None]:
    """Return when a run's cells were told last, and its code cells; twice ``None`` if never."""
    told = ledger.told_cells(run_id)
    return (None, None) if told is None else (told.at_us, [_cell(one) for one in told.cells])


@contextmanager
def shown_to_others(ledger: Ledger, run: RunRecord, path: Path) -> Iterator[None]:
    """Tell a shared ledger what the cells in ``path`` show, until the end of the context and then.

    A ledger that cannot be told changes nothing for the run.
    """
    if not ledger.shared:
        yield
        return
    teller = _Teller(ledger, run, path)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(max(_EVERY_S, teller.took_s * _SHARE)):
            teller.tell()

    watcher = threading.Thread(target=watch, name="shown", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        teller.tell()


class _Teller:
    """Tells what is new in one file."""

    def __init__(self, ledger: Ledger, run: RunRecord, path: Path) -> None:
        self.took_s = 0.0
        self._ledger = ledger
        self._run = run
        self._path = path
        self._stamp: tuple[int, int] | None = None

    def tell(self) -> None:
        began = time.monotonic()
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._stamp:
                return
            cells = [asdict(cell) for cell in fitting(read_cells(self._path))]
            self._ledger.tell_cells(self._run, cells)
            self._stamp = stamp
        except (OSError, ToolkitError) as error:
            _log.info("other machines are not told what %s shows: %s", self._run.run_id, error)
        self.took_s = time.monotonic() - began


def fitting(cells: list[CellSeen]) -> list[CellSeen]:
    """Return the code cells with the beginnings of long texts cut, so that they fit into a ledger.

    Each cell gets an equal share, and what short ones leave goes to the long ones.
    """
    cells = [cell for cell in cells if cell.code][:_MOST_CELLS]
    left = MOST_TOLD - sum(len(cell.label) + _MEMBERS for cell in cells)
    share = 0
    by_length = sorted(_weight(cell.text) for cell in cells)
    for number, weight in enumerate(by_length):
        share = max(0, left // (len(by_length) - number))
        if weight > share:
            break
        left -= weight
    else:
        return cells
    return [_shortened(cell, share) for cell in cells]


def _shortened(cell: CellSeen, room: int) -> CellSeen:
    if _weight(cell.text) <= room:
        return cell
    # In proportion: what it weighs is told apart from how many characters it has.
    keep = room * len(cell.text) // _weight(cell.text)
    while keep and _weight(cell.text[-keep:]) > room:
        keep = keep * 99 // 100
    kept = cell.text[len(cell.text) - keep :]
    return replace(cell, text=kept, cut=len(cell.text) - keep)


def _weight(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False))


def _cell(told: Mapping[str, Any]) -> CellSeen:
    return CellSeen(
        label=str(told["label"]),
        status=str(told["status"]),
        text=str(told["text"]),
        seconds=told["seconds"],
        code=bool(told["code"]),
        cut=int(told["cut"]),
    )


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
