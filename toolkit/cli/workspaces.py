"""`init`, `lab`, `ui`, `up`, `doctor`, `demo`: make a workspace and run its services."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli import show
from toolkit.errors import UsageError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("init")(init)
    app.command("lab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        lab
    )
    app.command("ui")(ui)
    app.command("doctor")(doctor)
    app.command("demo")(demo)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    json: Json = False,
) -> int:
    """Make a new workspace."""
    from toolkit.app.starter import make_workspace

    written = make_workspace(folder)
    if json:
        show.print_json({"root": str(folder.resolve()), "files": [str(p) for p in written]})
    else:
        for path in written:
            show.out.print(f"  {show.safe(path)}")
        show.out.print(f"[green]made[/] {show.safe(folder.resolve())}")
        show.out.print(f"next  cd {show.safe(folder)} && toolkit lab")
    return 0


def lab(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="JupyterLab's port; 0 picks a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    json: Json = False,
) -> int:
    """Open JupyterLab with the gateway and MLflow's UI beside it."""
    from toolkit.app.services import run_lab
    from toolkit.settings import open_workspace

    workspace = open_workspace()
    with show.err.status("starting the gateway and MLflow's UI"):
        services = run_lab(
            workspace,
            port=port or workspace.settings.lab_port,
            browser=browser,
            extra=list(context.args),
        )
    if json:
        show.print_json(
            {
                "jupyterlab": services.lab_url,
                "mlflow": services.mlflow_url,
                "gateway": services.socket,
            }
        )
        return services.wait()
    rows = [
        ("JupyterLab", services.lab_url),
        ("MLflow", services.mlflow_url),
        ("gateway", services.socket),
    ]
    show.out.print(show.table(None, ("service", "address"), rows))
    show.out.print("stop with Ctrl-C")
    return services.wait()


def ui(
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 0,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the server of this workspace.")
    ] = False,
    json: Json = False,
) -> int:
    """Start MLflow's UI on this workspace, in the background."""
    from toolkit.settings import open_workspace
    from toolkit.tracing import MlflowServer

    server = MlflowServer(open_workspace())
    if stop:
        stopped = server.stop()
        show.print_json({"stopped": stopped}) if json else show.out.print(
            "stopped" if stopped else "it was not running"
        )
        return 0
    with show.err.status("starting MLflow's UI"):
        url = server.start(port or None)
    if json:
        show.print_json({"url": url})
    else:
        show.out.print(f"MLflow  {url}   stop it with `toolkit ui --stop`")
    return 0


def doctor(
    environments: Annotated[
        bool, typer.Option("--environments", help="Also read every file of locked environments.")
    ] = False,
    isolation: Annotated[
        bool,
        typer.Option("--isolation", help="Try to escape from every level of isolation instead."),
    ] = False,
    json: Json = False,
) -> int:
    """Look at everything a workspace needs and say what is wrong and how to mend it."""
    if isolation:
        return _show_probes(json)
    from toolkit.app.doctor import examine

    findings = examine(environments=environments)
    wrong = [found for found in findings if found.state == "wrong"]
    # What a change here has to mend outweighs what may pass by itself.
    code = 78 if any(not found.passing for found in wrong) else 75 if wrong else 0
    if json:
        show.print_json(
            {
                "ok": not wrong,
                "checks": [asdict(found) for found in findings],
            }
        )
        return code
    style = {"fine": "green", "note": "yellow", "wrong": "red"}
    for found in findings:
        show.out.print(
            f"[{style[found.state]}]{found.state:<6}[/] {found.what:<16} {show.safe(found.detail)}",
            soft_wrap=True,
        )
        if found.next_step:
            show.out.print(f"       [dim]next[/] {show.safe(found.next_step)}", soft_wrap=True)
    return code


def _show_probes(json: bool) -> int:
    """Show every attempt to escape, by level (``-``: nothing is promised); 78 where L1 fails."""
    from toolkit.app.isolating import probe_all

    reports = probe_all()
    if json:
        show.print_json(
            {"ok": reports[1].holds, "levels": [report.to_json() for report in reports]}
        )
        return 0 if reports[1].holds else 78
    rows = []
    for position, first in enumerate(reports[0].probes):
        cells = [f"{first.name}: {first.what}", first.least.name]
        for report in reports:
            tried = report.probes[position] if report.probes else None
            if tried is None:
                cells.append("?")
            elif not tried.escaped:
                cells.append("held")
            else:
                cells.append("ESCAPED" if first.least <= report.level else "-")
        rows.append(cells)
    columns = ["attempt", "from", *(report.level.name for report in reports)]
    show.out.print(show.table(None, columns, rows))
    for report in reports:
        verdict = "[green]holds[/]" if report.holds else "[red]does not hold[/]"
        show.out.print(f"{report.level.name}  {verdict}  {show.safe(report.problem or '')}")
        if report.next_step:
            show.out.print(f"    [dim]next[/] {show.safe(report.next_step)}", soft_wrap=True)
    return 0 if reports[1].holds else 78


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where to run it; default: a fresh folder in .toolkit/.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Packages that each run reviews.")] = 60,
    keep: Annotated[bool, typer.Option("--keep/--stop", help="Leave MLflow's UI running.")] = False,
) -> int:
    """Run the whole story: sandbox, refused promotion, promotion, runs, schedule, comparison."""
    from toolkit.app.demo import run_demo

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", next_step="name a new folder")
    return run_demo(folder, limit=limit, keep=keep)
