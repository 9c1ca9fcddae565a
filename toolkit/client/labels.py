"""A job's kernel that goes for the files of an evaluation set: refused where seen, and recorded.

The wall is elsewhere: from isolation level L2 on, the files are not in the kernel's enclosure, and a
kernel is given the inputs of cases only.  This is evidence: an audit hook (PEP 578) sees what Python
code opens, lists, copies or starts, raises ``PermissionError``, and has the attempt recorded by the
gateway as a call of the tool :data:`OPENED`, which promotions look for.

Not seen: what compiled code opens by itself, what ``ctypes`` calls, a file reached by a link that
was there before or relative to a folder that was opened above it, a name that is put together in a
shell.  Code that means harm can also stop the record, though not the refusal: hooks stay.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from toolkit.client.functions import tool

__all__ = ["OPENED", "guard_labels", "is_label_file"]

OPENED = "open_evaluation_set"
"""The tool's name in the ledger; no catalog should list it."""

_PLACE = r"(?:registry/+evaluations(?![\w.-])|evaluations/+[^/\s'\"]+/+(?:cases|review)\.jsonl)"
_NAMED = re.compile(rf"(?<![\w.-]){_PLACE}")
_PATHS = frozenset(
    [
        *("open", "os.listdir", "os.scandir", "os.chdir", "os.link", "os.symlink", "os.rename"),
        *("shutil.copyfile", "shutil.copytree", "shutil.move", "glob.glob", "sqlite3.connect"),
        *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"),
    ]
)
_MOST = 20
_SHOWN = 300
_guard: _Guard | None = None


def is_label_file(text: str) -> bool:
    """Say whether a path, or a command, names the files of an evaluation set."""
    # Most of what is opened names no such folder: a search for a word is cheaper than a pattern.
    return "evaluations" in text and _NAMED.search(os.path.normpath(text)) is not None


def guard_labels(shell: Any = None) -> None:
    """Watch this process from now on; once, and for its whole life.

    Args:
        shell: IPython's shell, which says which cell the code is from; ``None``: nobody does.
    """
    global _guard  # noqa: PLW0603 - a process has one list of audit hooks
    if _guard is None:
        _guard = _Guard()
        sys.addaudithook(_guard.hear)
    if shell is not None:
        _guard.shell = shell
        shell.events.register("pre_run_cell", _guard.cell_begins)


@tool(effect="read", name=OPENED)
def _opened(path: str, how: str, cell: str, line: int) -> None:
    """Refuse; the call stands in the ledger, whatever policy says of it."""
    raise PermissionError(f"{how} of {path} in cell {cell or '?'}, line {line}")


class _Guard:
    """Hears what the interpreter does."""

    def __init__(self) -> None:
        self.shell: Any = None
        self._cells: dict[str, str] = {}
        self._running = ""
        self._told: set[str] = set()
        self._busy = threading.local()

    def cell_begins(self, info: Any) -> None:
        """Remember which cell has which text."""
        self._running = str(getattr(info, "cell_id", None) or "")
        self._cells[self._running] = str(info.raw_cell)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Look at one event; see "Audit events table" of Python's documentation."""
        if event not in _PATHS or getattr(self._busy, "now", False):
            return
        path = next((text for text in _texts(args) if is_label_file(_full(text))), None)
        if path is None:
            return
        self._busy.now = True
        try:
            self._tell(event, path[:_SHOWN])
        finally:
            self._busy.now = False
        raise PermissionError(f"the files of evaluation sets are not for a job's kernel: {path!r}")

    def _tell(self, event: str, path: str) -> None:
        if path in self._told or len(self._told) >= _MOST:
            return
        self._told.add(path)
        cell, line = self._place()
        try:
            _opened(path, event, cell, line)
        except Exception:  # noqa: BLE001 - denied, or no gateway: refused all the same
            return

    def _place(self) -> tuple[str, int]:
        """Return the cell whose code is at work, and its line; the running cell if none is known."""
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the way to it
        while frame is not None:
            source = "".join(linecache.getlines(frame.f_code.co_filename))
            for cell, raw in self._cells.items() if source else ():
                if source.strip() in (raw.strip(), self._transformed(raw)):
                    return cell, frame.f_lineno
            frame = frame.f_back
        return self._running, 0

    def _transformed(self, raw: str) -> str:
        return str(self.shell.transform_cell(raw)).strip() if self.shell is not None else ""


def _texts(args: tuple[Any, ...]) -> Iterator[str]:
    """Yield what may be a path or a command; the parts of a command also as one."""
    for value in args:
        if isinstance(value, str | bytes | os.PathLike):
            yield os.fsdecode(value)
        elif isinstance(value, list | tuple):
            yield " ".join(
                os.fsdecode(v) for v in value if isinstance(v, str | bytes | os.PathLike)
            )


def _full(text: str) -> str:
    """Return a relative path with the working folder before it: ``chdir`` is no way around."""
    if not text or text.startswith("/") or " " in text or "\n" in text:
        return text
    try:
        return f"{os.getcwd()}/{text}"  # noqa: PTH109 - a hook has to be cheap
    except OSError:
        return text
