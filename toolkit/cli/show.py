"""How commands talk: consoles, tables, errors, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toolkit.errors import ToolkitError, UsageError
from toolkit.values import CallRecord, Money, RunState

__all__ = [
    "call_state", "err", "error_lines", "money", "out", "print_json", "safe", "seconds", "state_text", "table", "when",
    "write_file",
]  # fmt: skip


class _Out(Console):
    """A console whose reader may go away: `toolkit show RUN | head -1`."""

    def on_broken_pipe(self) -> None:
        # rich would end the process with 1, and say nothing.
        raise BrokenPipeError


# Without a terminal nothing is cut: the reader is a file or a program.
_WIDE = 240
out = _Out(highlight=False, width=None if Console().is_terminal else _WIDE)
err = Console(stderr=True, highlight=False)

_STATE_STYLE = {
    RunState.SUCCEEDED: "green",
    RunState.RUNNING: "cyan",
    RunState.QUEUED: "cyan",
    RunState.WAITING: "yellow",
    RunState.SKIPPED: "dim",
}


def safe(text: object) -> str:
    """Return text for a terminal: control characters shown, rich markup inert."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))
    return escape(shown)


def print_json(body: Any) -> None:
    """Print one JSON document."""
    out.file.write(json.dumps(body, ensure_ascii=False, default=str) + "\n")
    out.file.flush()


def write_file(path: Path, text: str) -> None:
    """Write a file that a person named.

    Raises:
        UsageError: It cannot be written there.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}",
            where=str(path),
            next_step="name a file in a folder that exists and is yours",
        ) from error


def error_lines(error: ToolkitError) -> None:
    """Print an error: what, where, what next."""
    err.print(f"[bold red]error[/] {safe(error.message)}")
    if error.where:
        err.print(f"  [dim]at[/]   {safe(error.where)}")
    if error.next_step:
        err.print(f"  [dim]next[/] {safe(error.next_step)}")


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; columns whose name starts with ``>`` are right-aligned.

    Cells are plain text unless they are already rich renderables made by :func:`state_text`.
    """
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            # The first column is what people copy; long texts fold, and nothing is cut.
            no_wrap=place == 0,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, _Styled) else safe(cell) for cell in row))
    return made


class _Styled(str):
    """Text that already holds rich markup."""

    __slots__ = ()


def state_text(state: RunState | str) -> str:
    """Return a run state in its colour."""
    value = RunState(state)
    style = _STATE_STYLE.get(value, "red")
    return _Styled(f"[{style}]{value.value}[/]")


def call_state(call: CallRecord, run: RunState) -> str:
    """Return a call's state; without an outcome in a run that has ended, it is *in doubt*."""
    return "in doubt" if call.outcome is None and run.terminal else call.state.value


def money(cost: Money | None, unknown_calls: int = 0) -> str:
    """Return an amount for people; unknown prices are said, not hidden."""
    if cost is None:
        return "unknown"
    return f"{cost} + {unknown_calls} of unknown price" if unknown_calls else str(cost)


def seconds(value: float | None) -> str:
    """Return a duration for people."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min"


def when(at_us: int | None) -> str:
    """Return a time for people, in UTC."""
    if not at_us:
        return "–"
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
