"""`run`, `runs`, `show`: start a run, list runs, explain one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import listing, show
from toolkit.cli.headers import brief, show_header, what_of
from toolkit.cli.run_json import run_report_json
from toolkit.errors import UsageError
from toolkit.values import RunRecord, RunState

if TYPE_CHECKING:
    from toolkit.app.running import Request

__all__ = ["register", "show_report"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RunId = Annotated[
    str | None,
    typer.Option(
        help="Idempotency key: a run that ended is told again; one that was killed goes on."
    ),
]
RunKey = Annotated[
    str | None,
    typer.Option(help="Any text that names the run elsewhere; its run id is made from it."),
]
Leave = Annotated[
    bool,
    typer.Option(
        "--leave",
        help="End with exit code 3 when the run waits for people only; "
        "the same command with its --run-id goes on.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("run")(run)
    listing.register(app)
    app.command("cancel")(cancel)


def run(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="JOB, JOB@3, JOB@production, or a notebook.")
    ],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, repeatable.")
    ] = None,
    run_id: RunId = None,
    run_key: RunKey = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Run here, or leave it to a worker.")
    ] = True,
    leave: Leave = False,
    timeout: Annotated[
        str | None, typer.Option(help="Limit for the whole run: 90, 90s, 15m, 2h.")
    ] = None,
    save: Annotated[
        bool, typer.Option(help="Write the outputs back into a sandbox notebook that succeeded.")
    ] = False,
    schedule: Annotated[str | None, typer.Option(hidden=True)] = None,
    queued: Annotated[bool, typer.Option("--queued", hidden=True)] = False,
    later: Annotated[bool, typer.Option("--later", hidden=True)] = False,
    by: Annotated[str | None, typer.Option("--by", hidden=True)] = None,
    again: Annotated[bool, typer.Option("--again", hidden=True)] = False,
    json: Json = False,
) -> int:
    """Run a registered version, or try a notebook in the sandbox."""
    from toolkit.app.running import Request
    from toolkit.execution import QUEUED_TAG

    if save and (parameter or not reference.endswith(".ipynb")):
        raise UsageError(
            "--save keeps the outputs of a notebook's own defaults",
            next_step="name a notebook and no -p; to change a default, edit the notebook",
        )
    if run_key is not None:
        run_id = _id_of(run_key, run_id)
    tags = {"schedule": schedule} if schedule else {}
    tags |= {QUEUED_TAG: "yes"} if queued else {}
    with open_workbench() as bench:
        request = Request(
            reference,
            {},
            run_id=run_id,
            timeout_s=None if timeout is None else _duration_s(timeout),
            tags=tags,
            leave=leave or queued,
            later=later,
            user=by if queued else None,
            again=again,
        )
        if not wait:
            return _enqueue(bench, request, parameter or [], as_json=json)
        return _run_here(bench, request, parameter or [], save=save, as_json=json)


def _run_here(
    bench: Workbench, request: Request, pairs: list[str], *, save: bool, as_json: bool
) -> int:
    """Run in this process, tell how it ended, and return the exit code."""
    from toolkit.app.running import run_reference
    from toolkit.document import save_outputs
    from toolkit.execution import exit_code

    with _progress(request.reference, quiet=as_json) as on_progress:
        report = run_reference(bench, request, pairs=pairs, on_progress=on_progress)
    code = exit_code(report.run.state, report.run.cause)
    if save and report.output is not None and report.run.state is RunState.SUCCEEDED:
        save_outputs(Path(request.reference), report.output)
    if as_json:
        show.print_json({**run_report_json(bench, report), "exit_code": code})
    else:
        show_report(bench, report)
    return code


def _id_of(key: str, run_id: str | None) -> str:
    """Return the run id for another scheduler's name of a run, which may be any text."""
    if run_id is not None or not key.strip():
        raise UsageError(
            "--run-key is empty" if run_id is None else "--run-id and --run-key both name the run",
            next_step="give one of the two",
        )
    return f"key-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}"


def cancel(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    json: Json = False,
) -> int:
    """Cancel a run: a waiting or queued one at once, a running one within seconds."""
    from toolkit.app.cancelling import cancel_run

    with open_workbench() as bench:
        told = cancel_run(bench, run_id, reason)
        if json:
            show.print_json({"run_id": run_id, "state": told})
        elif told == RunState.CANCELLED:
            show.out.print(f"cancelled [bold]{show.safe(run_id)}[/]")
        else:
            show.out.print(f"[bold]{show.safe(run_id)}[/] was told to end")
        return 0


def _enqueue(bench: Workbench, request: Any, pairs: list[str], *, as_json: bool) -> int:
    from toolkit.app.submitting import submit_run
    from toolkit.execution import exit_code

    if request.is_notebook:
        raise UsageError(
            "only registered versions can be left to a worker",
            next_step=f"promote it first: toolkit promote {request.reference}",
        )
    run_id, state, cause = submit_run(bench, request, pairs)
    code = exit_code(state, cause) if state.terminal else 0
    if as_json:
        told = {"run_id": run_id, "state": state.value, "cause": cause.value if cause else None}
        show.print_json(told | ({"exit_code": code} if state.terminal else {}))
    elif state is RunState.QUEUED:
        show.out.print(f"queued [bold]{run_id}[/]; a worker runs it: toolkit worker")
    elif state.terminal:
        show.out.print(f"[bold]{run_id}[/] has already ended: {state}; nothing is executed")
    else:
        show.out.print(f"[bold]{run_id}[/] is {state} already; nothing is queued")
    return code


class _progress:  # noqa: N801 - used like a function
    """A progress bar over cells; silent for ``--json``."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}[/]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells · {task.fields[what]}"),
            TimeElapsedColumn(),
            console=show.err,
            transient=True,
            disable=quiet or not show.err.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, what="starting the kernel")

    def __enter__(self) -> Any:
        self._bar.start()
        return self._step

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _step(self, index: int, total: int, event: Any, cell: Any) -> None:
        done = index + (0 if cell.seconds is None else 1)
        self._bar.update(self._task, completed=done, total=total, what=f"{cell.label} {event}")


def show_report(bench: Workbench, report: Any) -> None:
    """Print how a run ended."""
    show_header(bench, report.run, report.totals, seconds=report.seconds, cell=report.cell)
    if report.results:
        rows = [(name, brief(value)) for name, value in report.results.items()]
        show.out.print(show.table("results", ("name", "value"), rows))
    links = [
        ("notebook", report.output),
        ("report", report.report),
        ("MLflow run", bench.pages.run(report.run)),
    ]
    for name, where in links:
        if where:
            show.out.print(f"  {name:<11} {show.safe(where)}", soft_wrap=True)
    if report.run.state is RunState.WAITING:
        _show_how_to_go_on(report.run)
    for warning in report.warnings:
        show.err.print(f"[yellow]warning[/] {show.safe(warning)}")
    if report.repeated:
        show.err.print("[yellow]this run id has already ended; nothing was executed[/]")


def _show_how_to_go_on(record: RunRecord) -> None:
    from toolkit.execution import QUEUED_TAG, requests_of

    for request in requests_of(record):
        show.out.print(f"  {'decide':<11} toolkit decide {request}", soft_wrap=True)
    if QUEUED_TAG in record.tags:
        show.out.print("  then a worker goes on with it")
    else:
        again = f"toolkit run {what_of(record)} --run-id {record.run_id}"
        show.out.print(f"  {'then':<11} {show.safe(again)}", soft_wrap=True)


def _duration_s(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        value = float(number) * units[unit]
    except ValueError:
        value = 0.0
    if not 0 < value < 60 * 86400:
        raise UsageError(f"{text!r} is not a duration", next_step="write 90, 90s, 15m or 2h")
    return value
