"""`replay`: execute a recorded run again from its journal, and forecast upgrades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.app.replays import Terms

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("replay")(replay)


def replay(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="A run's id.")] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", metavar="JOB@N", help="Execute this version's notebook instead."),
    ] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Every waiting run of the job of --with.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=1, help="Seconds for each; default: as for the run."),
    ] = None,
    network: Annotated[
        bool,
        typer.Option(
            "--network-not-isolated", help="Do without isolation L2: connections are possible."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Execute a recorded run again from its journal; exit code 1 where something differs."""
    if waiting == (run_id is not None):
        raise UsageError(
            "name one run, or --waiting for all that wait",
            next_step="toolkit replay RUN, or toolkit replay --waiting --with JOB@N",
        )
    from toolkit.app.replays import Terms

    terms = Terms(isolated=not network, timeout_s=timeout)
    with open_workbench() as bench:
        if run_id is not None:
            return _one(bench, run_id, with_, terms, as_json=json)
        if with_ is None:
            raise UsageError("--waiting needs the version that they would go on with",
                             next_step="add --with JOB@N")  # fmt: skip
        return _waiting(bench, with_, terms, as_json=json)


def _one(bench: Workbench, run_id: str, with_: str | None, terms: Terms, *, as_json: bool) -> int:
    from toolkit.app.replays import replay as execute

    found = execute(bench, run_id, with_=with_, terms=terms)
    code = 0 if found.same else 1
    if as_json:
        show.print_json({**_json(found), "exit_code": code})
        return code
    verdict = "[green]same[/]" if found.same else "[red]differs[/]"
    show.out.print(f"{verdict}  {show.safe(found.what)} from the journal of {found.source.run_id}")
    results = "none recorded"
    if found.results:
        results = f"{found.results}, {'equal' if found.results_equal else 'not equal'}"
    rows = [
        ("chain", "verified before anything was executed"),
        ("calls", f"{found.asked} of {found.recorded} recorded ones asked for again"),
        ("results", results),
        ("difference", found.differs or "none"),
        ("ended", _ending(found)),
        ("took", show.seconds(found.seconds)),
        ("replay", found.run_id),
    ]
    if with_ is not None:
        rows.insert(0, ("upgrade", "safe" if found.same else "finishes on the old version"))
    show.out.print(show.table(None, ("what", "found"), rows))
    return code


def _ending(found: Any) -> str:
    if found.ended is not None:
        return f"the journal ends: {found.ended}"
    return f"{found.state}, recorded {found.source.state}"


def _waiting(bench: Workbench, with_: str, terms: Terms, *, as_json: bool) -> int:
    from toolkit.app.replays import forecast

    found = forecast(bench, with_, terms=terms)
    code = 0 if all(each.safe for each in found) else 1
    if as_json:
        rows = [
            {"run_id": each.run.run_id, "version": each.run.version, "safe": each.safe,
             "verdict": each.verdict, "why": each.why}
            for each in found
        ]  # fmt: skip
        show.print_json({"with": with_, "runs": rows, "exit_code": code})
        return code
    if not found:
        show.out.print(f"no run of {show.safe(with_.partition('@')[0])} waits")
        return 0
    shown = [
        (each.run.run_id, f"{each.run.job}@{each.run.version}", each.verdict, each.why or "")
        for each in found
    ]
    title = f"waiting runs, replayed with {show.safe(with_)}"
    show.out.print(show.table(title, ("run", "began with", "verdict", "first difference"), shown))
    return code


def _json(found: Any) -> dict[str, Any]:
    return {
        "run_id": found.source.run_id,
        "replay": found.run_id,
        "what": found.what,
        "same": found.same,
        "calls_recorded": found.recorded,
        "calls_asked": found.asked,
        "results": found.results,
        "results_equal": found.results_equal,
        "first_divergence": found.first,
        "difference": found.differs,
        "journal_ends": found.ended,
        "state": found.state.value,
        "recorded_state": found.source.state.value,
        "message": found.message,
        "seconds": found.seconds,
    }
