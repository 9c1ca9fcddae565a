"""How commands talk: consoles, tables, errors, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

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
_WORD = 10
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


class _Table(Table):
    """A table that becomes one block per row where the terminal is too narrow for its columns.

    Attributes:
        body: Columns and cells, as markup.
    """

    body: tuple[list[str], list[list[str]]] = ([], [])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names, rows = self.body
        words = [_longest_word([name, *(row[n] for row in rows)]) for n, name in enumerate(names)]
        whole = max((len(Text.from_markup(row[0]).plain) for row in rows), default=0)
        least = max(whole, words[0]) + sum(min(word, _WORD) + 2 for word in words[1:])
        if least <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text(str(self.title), style="italic")
        width = max(map(len, names))
        for row in rows:
            yield Text.from_markup(row[0], style="bold", overflow="fold")
            for name, cell in zip(names[1:], row[1:], strict=True):
                if cell:
                    yield Text.from_markup(f"  [dim]{name:<{width}}[/] {cell}", overflow="fold")


def _longest_word(texts: Iterable[str]) -> int:
    return max(len(word) for text in texts for word in [*Text.from_markup(text).plain.split(), ""])


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; columns whose name starts with ``>`` are right-aligned.

    Cells are plain text unless they are already rich renderables made by :func:`state_text`.
    """
    made = _Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    names = [column.removeprefix(">") for column in columns]
    cells = [[cell if isinstance(cell, _Styled) else safe(cell) for cell in row] for row in rows]
    made.body = (names, cells)
    for place, name in enumerate(names):
        made.add_column(
            name,
            justify="right" if columns[place].startswith(">") else "left",
            # The first column is what people copy; long texts fold, and nothing is cut.
            no_wrap=place == 0,
            overflow="fold",
            min_width=min(_longest_word([name, *(row[place] for row in cells)]), _WORD),
        )
    for row in cells:
        made.add_row(*row)
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
