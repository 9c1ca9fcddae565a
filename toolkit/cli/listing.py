"""`runs`, `show`: list runs, explain one, be it in the ledger or still in the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.cli.calls import call_json, print_calls
from toolkit.cli.family import draw_family, family_json, family_of
from toolkit.cli.headers import brief, show_header, what_of
from toolkit.cli.run_json import run_json, totals_json, wall_s
from toolkit.errors import EngineError, NotFound
from toolkit.values import JobRef, RunKind, RunRecord

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("runs")(runs)
    app.command("show")(show_run)


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
    from toolkit.app.known import check_known

    with open_workbench() as bench:
        name = JobRef.parse(job).name if job else None
        bench.runner.reconcile()
        waiting = _of_queue(bench, name, limit)
        found = bench.ledger.runs(job=name, limit=limit if everything else limit * 5)
        if not everything:
            found = [r for r in found if r.kind in (RunKind.RUN, RunKind.TRIAL)]
        found = sorted([*waiting, *found], key=lambda r: -r.created_us)[:limit]
        if name and not found:
            check_known(bench, "job", name, next_step="see the jobs: toolkit registry list")
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
                what_of(record),
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
        try:
            record = settled(bench, bench.ledger.get_run(run_id))
        except NotFound:
            return _show_queued(bench, run_id, as_json=json)
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
        show_header(bench, record, totals)
        if listed:
            print_calls(bench.ledger, record, listed, totals.calls)
        if family.children:
            show.out.print(draw_family(family))
        if results:
            rows_ = [(name, brief(value)) for name, value in results.items()]
            show.out.print(show.table("results", ("name", "value"), rows_))
        return 0


def _of_queue(bench: Workbench, job: str | None, limit: int) -> list[RunRecord]:
    """Return what only the queue knows; runs that it has done with are ended first."""
    from toolkit.app.queued import QueuedRuns

    queued = QueuedRuns(bench)
    try:
        queued.sweep(slowly=False)
        return queued.pending(job, limit)
    except EngineError as error:
        show.err.print(
            f"[yellow]warning[/] what is queued is not shown: {show.safe(error.message)}"
        )
        return []


def _show_queued(bench: Workbench, run_id: str, *, as_json: bool) -> int:
    """Show a run that has not begun.

    Raises:
        NotFound: The queue does not know it either.
    """
    from toolkit.app.queued import QueuedRuns

    record = QueuedRuns(bench).look(run_id)
    if record is None:
        bench.ledger.get_run(run_id)  # says that there is none
        return 0
    totals = bench.ledger.totals(run_id) if record.state.terminal else None
    if as_json:
        told = totals_json(totals) if totals is not None else None
        body = run_json(record) | {"totals": told, "results": {}, "children": [], "calls": []}
        show.print_json(body)
    elif totals is not None:
        show_header(bench, record, totals)
    else:
        show.out.print(f"{show.state_text(record.state)}  {show.safe(what_of(record))}  {run_id}")
        show.out.print(f"  {'user':<11} {show.safe(record.user)}")
        show.out.print(f"  {'since':<11} {show.when(record.created_us)}")
    return 0
