"""`export`: the few lines with which another scheduler runs a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.app.exports import Export, Target, render
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import NotFound, UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("export")(export)


def export(
    target: Annotated[Target, typer.Argument(metavar="TARGET", help=" | ".join(Target))],
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB, JOB@3 or JOB@production.")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, repeatable.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Five cron fields: '0 3 * * *'.")] = None,
    tz: Annotated[str, typer.Option(help="IANA time zone of --cron.")] = "UTC",
    schedule: Annotated[
        str | None, typer.Option(help="Take cron, zone, REF's parameters from this schedule.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Limit for a run: 90s, 15m, 2h.")] = None,
    workspace: Annotated[
        str | None, typer.Option(help="The workspace's folder where it will run; default: here.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Kubernetes: the image to run.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the file into; default: print it.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Write the lines with which Airflow, Kubernetes, Dagster or Prefect runs a version."""
    pairs = list(parameter or [])
    with open_workbench() as bench:
        if schedule is not None:
            reference, scheduled, cron, tz = _scheduled(bench, schedule, cron)
            pairs = [*scheduled, *pairs]
        _check(bench, reference, pairs, cron, tz)
        asked = Export(
            reference,
            tuple(pairs),
            cron,
            tz,
            workspace or str(bench.workspace.root),
            image,
            timeout,
        )
    name, text = render(asked, target)
    path = None if out is None else out / name
    if path is not None:
        _write(path, text, force=force)
    if json:
        show.print_json({"file": name, "path": path and str(path), "text": text})
    elif path is None:
        typer.echo(text, nl=False)
    else:
        show.out.print(f"wrote [bold]{show.safe(str(path))}[/]")
    return 0


def _scheduled(
    bench: Workbench, name: str, cron: str | None
) -> tuple[str, list[str], str | None, str]:
    if cron is not None:
        raise UsageError("--cron and --schedule both say when", next_step="give one of the two")
    for info in bench.engine.list_schedules():
        made = info.schedule
        if made.name == name:
            pairs = [f"{key}={_text(value)}" for key, value in made.parameters.items()]
            return made.job, pairs, made.cron, made.timezone
    raise NotFound(f"there is no schedule {name!a}", next_step="run `toolkit schedule list`")


def _text(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _check(bench: Workbench, reference: str, pairs: list[str], cron: str | None, zone: str) -> None:
    """Refuse now what would fail at night: unknown versions, bad values, bad times."""
    from toolkit.app.running import Request, plan_version
    from toolkit.scheduling import Schedule

    plan = plan_version(bench, Request(reference, {}), pairs)
    if cron is not None:
        user = bench.workspace.user
        Schedule(plan.run.job or reference, reference, plan.parameters, cron, zone, user)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already", where=str(path), next_step="pass --force to replace it"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            where=str(path),
            next_step="name another folder with --out",
        ) from error
