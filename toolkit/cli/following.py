"""`show --follow` and `show --output`: a run as it goes, from any terminal."""

from __future__ import annotations

from rich.text import Text

from toolkit.app.following import Event, Follower, follow
from toolkit.app.workbench import Workbench
from toolkit.cli import show
from toolkit.cli.run_json import run_json
from toolkit.errors import NotFound

__all__ = ["follow_run", "show_output"]

_STYLES = {
    "completed": "green",
    "succeeded": "green",
    "ok": "green",
    "running": "cyan",
    "started": "cyan",
    "queued": "cyan",
    "waiting": "yellow",
    "pending": "dim",
}


def follow_run(bench: Workbench, run_id: str, *, as_json: bool) -> int:
    """Print what happens in a run until it ends; return its exit code.

    As JSON one object for each event, and last one for the run with its exit code.
    """
    from toolkit.execution import exit_code

    tell = (lambda event: show.print_json(event.to_json())) if as_json else _print_event
    followed = follow(bench, run_id, tell)
    run = followed.run
    code = exit_code(followed.state, run.cause if run is not None else None)
    if as_json:
        body = {"run_id": run_id, "state": followed.state.value} if run is None else run_json(run)
        show.print_json({**body, "exit_code": code})
    return code


def show_output(bench: Workbench, run_id: str, *, as_json: bool) -> int:
    """Print the cells of a run's executed notebook as it is now, with their output.

    Raises:
        NotFound: The run is not known, or its notebook is not on this machine.
    """
    record = bench.ledger.get_run(run_id)
    follower = Follower(bench, run_id)
    found, told = follower.cells(record)
    if found is None:
        raise NotFound(
            f"the run {run_id} has no executed notebook on this machine",
            where=str(follower.path),
            next_step=f"look where it ran ({record.runner or 'nowhere yet'}), "
            f"or at its calls: toolkit show {run_id}",
        )
    cells = [cell for cell in found if cell.code]
    path = None if told else follower.path
    if as_json:
        shown = [
            {"cell": c.label, "status": c.status, "seconds": c.seconds, "text": c.text}
            | ({"cut": c.cut} if c.cut else {})
            for c in cells
        ]
        notebook = None if path is None else str(path)
        body = {"run_id": run_id, "state": record.state.value, "notebook": notebook}
        show.print_json({**body, "cells": shown})
        return 0
    place = path or "as its runner told the ledger: the notebook is not on this machine"
    show.out.print(f"{show.state_text(record.state)}  {show.safe(place)}", soft_wrap=True)
    for cell in cells:
        _print_event(Event("cell", cell.label, cell.status, seconds=cell.seconds))
        if cell.text:
            missing = f"[… {cell.cut:,} characters]\n" if cell.cut else ""
            _print_event(Event("output", cell.label, text=missing + cell.text))
    return 0


def _print_event(event: Event) -> None:
    if event.kind == "output":
        for line in event.text.removesuffix("\n").split("\n"):
            # What a progress bar overwrites is not shown; colours of a notebook are not ours.
            last = line.rstrip("\r").rpartition("\r")[2]
            show.out.print(f"  {show.safe(Text.from_ansi(last).plain)}", soft_wrap=True)
        return
    if event.kind == "note":
        show.out.print(f"[yellow]note[/] {show.safe(event.text)}", soft_wrap=True)
        return
    style = _STYLES.get(event.state, "red")
    took = f"  {show.seconds(event.seconds)}" if event.seconds is not None else ""
    text = f"  {show.safe(' '.join(event.text.split()))}" if event.text else ""
    indent = "  [dim]call[/] " if event.kind == "call" else ""
    what = f"[bold]{show.safe(event.what)}[/]" if event.kind != "call" else show.safe(event.what)
    line = f"{indent}{what}  [{style}]{show.safe(event.state)}[/]{took}{text}"
    show.out.print(line, soft_wrap=True)
