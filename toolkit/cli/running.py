"""`run`, `runs`, `show`: start a run, list runs, explain one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.cli.calls import call_json, print_calls
from toolkit.cli.family import draw_family, family_json, family_of
from toolkit.cli.run_json import run_json, run_report_json, totals_json, wall_s
from toolkit.errors import UsageError
from toolkit.values import JobRef, RunKind, RunRecord, RunState, new_id

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
    app.command("runs")(runs)
    app.command("show")(show_run)
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
    json: Json = False,
) -> int:
    """Run a registered version, or try a notebook in the sandbox."""
    from toolkit.app.running import Request, run_reference
    from toolkit.document import save_outputs
    from toolkit.execution import QUEUED_TAG, exit_code

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
        )
        if not wait:
            return _enqueue(bench, request, parameter or [], as_json=json)
        with _progress(reference, quiet=json) as on_progress:
            report = run_reference(bench, request, pairs=parameter or [], on_progress=on_progress)
        code = exit_code(report.run.state, report.run.cause)
        if save and report.output is not None and report.run.state is RunState.SUCCEEDED:
            save_outputs(Path(reference), report.output)
        if json:
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
    from toolkit.app.running import cancel_run

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
    from toolkit.app.running import plan_version

    if request.is_notebook:
        raise UsageError(
            "only registered versions can be left to a worker",
            next_step=f"promote it first: toolkit promote {request.reference}",
        )
    plan = plan_version(bench, request, pairs)  # refuses unknown versions and bad values now
    run_id = request.run_id or new_id("run")
    bench.engine.submit(request.reference, plan.parameters, run_id=run_id)
    if as_json:
        show.print_json({"run_id": run_id, "state": RunState.QUEUED.value})
    else:
        show.out.print(f"queued [bold]{run_id}[/]; a worker runs it: toolkit worker")
    return 0


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


def runs(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Only runs of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    everything: Annotated[
        bool, typer.Option("--all", help="Sandbox sessions and promotion steps too.")
    ] = False,
    overdue: Annotated[
        bool,
        typer.Option("--overdue", help="Only what is queued or runs for too long (jobs.yaml)."),
    ] = False,
    json: Json = False,
) -> int:
    """List runs, newest first."""
    if overdue:
        from toolkit.cli.overdue import list_overdue

        return list_overdue(job, as_json=json)
    with open_workbench() as bench:
        name = JobRef.parse(job).name if job else None
        bench.runner.reconcile()
        found = bench.ledger.runs(job=name, limit=limit if everything else limit * 5)
        if not everything:
            found = [r for r in found if r.kind in (RunKind.RUN, RunKind.TRIAL)][:limit]
        if json:
            show.print_json([run_json(record) for record in found])
            return 0
        if not found:
            show.out.print("no runs yet; start one: toolkit run REF")
            return 0
        rows = [
            (
                record.run_id,
                record.kind,
                _what(record),
                show.state_text(record.state),
                record.cause or "",
                show.when(record.started_us or record.created_us),
                show.seconds(wall_s(record)),
                record.user,
            )
            for record in found
        ]
        columns = ("run", "kind", "what", "state", "cause", "started (UTC)", ">took", "user")
        show.out.print(show.table(None, columns, rows))
        compare = bench.pages.compare([r for r in found if r.state.terminal][:2])
        if compare:
            show.out.print(f"compare the last two  {show.safe(compare)}", soft_wrap=True)
        return 0


def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")],
    calls: Annotated[int, typer.Option(help="How many calls to list.")] = 20,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Tell cells, output and calls as they come, and end with the run and its exit code.",
        ),
    ] = False,
    output: Annotated[
        bool, typer.Option("--output", help="Its cells and what they have printed so far.")
    ] = False,
    json: Json = False,
) -> int:
    """Explain one run: how it ended, what it called, where to look."""
    from toolkit.app.following import settled
    from toolkit.cli.following import follow_run, show_output

    with open_workbench() as bench:
        if follow or output:
            return (follow_run if follow else show_output)(bench, run_id, as_json=json)
        record = settled(bench, bench.ledger.get_run(run_id))
        totals = bench.ledger.totals(run_id)
        listed = bench.ledger.calls(run_id, limit=max(1, calls))
        results = bench.ledger.results(run_id)
        family = family_of(bench.ledger, record)
        if json:
            body = run_json(record)
            body |= {"totals": totals_json(totals), "results": results}
            body["children"] = family_json(family)
            body["calls"] = [call_json(bench.ledger, call, record) for call in listed]
            show.print_json(body)
            return 0
        _show_header(bench, record, totals)
        if listed:
            print_calls(bench.ledger, record, listed, totals.calls)
        if family.children:
            show.out.print(draw_family(family))
        if results:
            rows_ = [(name, _brief(value)) for name, value in results.items()]
            show.out.print(show.table("results", ("name", "value"), rows_))
        return 0


def show_report(bench: Workbench, report: Any) -> None:
    """Print how a run ended."""
    _show_header(bench, report.run, report.totals, seconds=report.seconds, cell=report.cell)
    if report.results:
        rows = [(name, _brief(value)) for name, value in report.results.items()]
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
        again = f"toolkit run {_what(record)} --run-id {record.run_id}"
        show.out.print(f"  {'then':<11} {show.safe(again)}", soft_wrap=True)


def _show_header(
    bench: Workbench,
    record: RunRecord,
    totals: Any,
    *,
    seconds: float | None = None,
    cell: int | None = None,
) -> None:
    del bench
    what = _what(record)
    cause = f" ({record.cause})" if record.cause else ""
    show.out.print(f"{show.state_text(record.state)}{cause}  {show.safe(what)}  {record.run_id}")
    if record.message:
        place = f"cell {cell}: " if cell else ""
        show.out.print(f"  {place}{show.safe(record.message)}")
    if said := record.tags.get("divergence"):
        show.out.print(f"  [yellow]resumed otherwise than before:[/] {show.safe(said)}")
    facts = [
        ("user", f"{record.user} in {record.environment}"),
        ("took", show.seconds(seconds if seconds is not None else wall_s(record))),
        ("calls", _counts(record, totals)),
        ("tokens", f"{totals.input_tokens:,} in, {totals.output_tokens:,} out"),
        ("cost", show.money(totals.cost, totals.unknown_cost_calls)),
        (
            "latency",
            f"p50 {show.seconds(totals.latency_p50_s)}, p95 {show.seconds(totals.latency_p95_s)}",
        ),
        ("policy", record.policy_digest or "–"),
    ]
    for name, value in facts:
        show.out.print(f"  {name:<11} {show.safe(value)}")


def _counts(record: RunRecord, totals: Any) -> str:
    text = f"{totals.calls} ({totals.errors} failed, {totals.denied} denied"
    doubtful = totals.unfinished if record.state.terminal else 0
    return f"{text}, {doubtful} in doubt)" if doubtful else f"{text})"


def _what(record: RunRecord) -> str:
    if record.job and record.version:
        return f"{record.job}@{record.version}"
    return record.job or record.notebook or record.kind


def _brief(value: Any) -> str:
    if isinstance(value, dict) and value.get("type") == "table":
        return f"table, {len(value['rows'])} rows × {len(value['columns'])} columns"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


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
