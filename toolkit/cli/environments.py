"""`environments`: the locked environments of this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toolkit.cli import show
from toolkit.errors import UsageError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        help="Locked environments of versions, built on this machine.", no_args_is_help=True
    )
    group.command("list")(list_environments)
    group.command("verify")(verify)
    group.command("prune")(prune)
    app.add_typer(group, name="environments")


def list_environments(json: Json = False) -> int:
    """List the environments that are built here."""
    from toolkit.app.environments import environment_rows
    from toolkit.app.workbench import open_workbench

    with open_workbench() as bench:
        rows = environment_rows(bench)
    if json:
        show.print_json({"environments": rows})
        return 0
    if not rows:
        show.out.print("no environments; a version with a lock gets one at its first run")
        return 0
    columns = ("digest", "python", "packages", "MB", "built", "used", "in use")
    cells = [
        (
            str(row["digest"])[7:19],
            str(row["python"] or "–"),
            str(row["packages"] or "–"),
            f"{(row['size_bytes'] or 0) / 1e6:.0f}",
            str(row["built"] or "–"),
            str(row["used"]),
            "yes" if row["in_use"] else "no",
        )
        for row in rows
    ]
    show.out.print(show.table(None, columns, cells))
    return 0


def verify(
    digest: Annotated[
        str | None, typer.Argument(metavar="DIGEST", help="Its first digits; default: all.")
    ] = None,
    json: Json = False,
) -> int:
    """Read every file of the environments and hold it against what was installed."""
    from toolkit.app.environments import verify_environments
    from toolkit.app.workbench import open_workbench

    with open_workbench() as bench:
        found = verify_environments(bench, digest)
    faulty = any(one["faults"] for one in found)
    if json:
        show.print_json({"ok": not faulty, "environments": found})
        return 78 if faulty else 0
    for one in found:
        state = "[red]broken[/]" if one["faults"] else "[green]fine[/]"
        show.out.print(f"{str(one['digest'])[7:19]}  {state}")
        for fault in one["faults"]:
            line = f"  {fault['where']}: {fault['message']}"
            show.out.print(show.safe(line), soft_wrap=True)
    if faulty:
        show.out.print("a broken environment is built again at its next run")
    if not found:
        show.out.print("no environments")
    return 78 if faulty else 0


def prune(
    older_than: Annotated[
        str, typer.Option(metavar="DAYS", help="Delete what no run used for so long: 30d.")
    ] = "30d",
    json: Json = False,
) -> int:
    """Delete environments that were not used for a while; they are built again when needed."""
    from toolkit.app.workbench import open_workbench

    number = older_than.removesuffix("d")
    if not number.isdecimal() or len(number) > 5:
        raise UsageError(f"{older_than!a} is not a number of days", next_step="write 30d")
    with open_workbench() as bench:
        deleted: list[Any] = bench.environments.prune(int(number) * _DAY_S)
    if json:
        show.print_json({"deleted": deleted})
    else:
        count = len(deleted)
        show.out.print(f"deleted {count} environment{'' if count == 1 else 's'}")
    return 0
