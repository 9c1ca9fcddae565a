"""`registry verify` and `registry log`: is it what was sealed, and what happened to it."""

from __future__ import annotations

import csv as csv_
import io
import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError

__all__ = ["register", "trust_log"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_COLUMNS = ("n", "at", "event", "by", "body", "prev", "hash", "signed")
_FORMULA = ("=", "+", "-", "@")


def register(registry: typer.Typer) -> None:
    """Add the commands."""
    registry.command("verify")(registry_verify)
    registry.command("log")(registry_log)


def registry_verify(json: Json = False) -> int:
    """Recompute every digest and the audit chain; every fault is told, not the first.

    The end of the audit log is held against its anchor in MLflow, where MLflow answers.
    """
    from toolkit.app.anchoring import AnchorCheck, check_anchor

    with open_workbench() as bench:
        faults = _verified(bench, quiet=json)
        anchor = AnchorCheck() if faults else check_anchor(bench)
        faults += anchor.faults
        head = None if faults else bench.registry.audit_head()
        vouched = None if faults else _vouched(bench)
        warned = [] if faults else bench.registry.warnings()
        standing = bench.registry.standing
        if json:
            body = [{"where": f.where, "message": f.message} for f in faults]
            show.print_json(
                {
                    "ok": not faults,
                    "faults": body,
                    "warnings": warned,
                    "head": head.hash if head else None,
                    "records": head.n if head else None,
                    "vouched_until": vouched,
                    "anchored_until": anchor.records,
                    "anchor": anchor.sentence,
                    "standing": standing,
                }
            )
            return 78 if faults else 0
        for fault in faults:
            show.out.print(f"[red]fault[/] {show.safe(fault.where)}: {show.safe(fault.message)}")
        if not faults:
            tail = f"; audit head {head.hash} at record {head.n}" if head else ""
            show.out.print(f"[green]verified[/]{tail}")
            show.out.print(show.safe(standing))
            for one in warned:
                show.out.print(f"[yellow]warning[/] {show.safe(one)}")
            show.out.print(show.safe(anchor.sentence), soft_wrap=True)
            told = _cut_tail(vouched or 0, anchor.records)
            show.out.print(f"[dim]{told}[/]", soft_wrap=True)
        return 78 if faults else 0


def _verified(bench: Workbench, *, quiet: bool) -> list[Any]:
    bar = Progress(
        TextColumn("[bold]verifying[/]"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=show.err,
        transient=True,
        disable=quiet or not show.err.is_terminal,
    )
    with bar:
        task = bar.add_task("audit log", total=None)

        def step(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=show.safe(what))

        return bench.registry.verify(step)


def _vouched(bench: Workbench) -> int:
    """How many records the newest signed checkpoint vouches for."""
    return max((mark.log.records for mark in bench.registry.checkpoints()), default=0)


def _cut_tail(vouched: int, anchored: int = 0) -> str:
    until = max(vouched, anchored)
    if until:
        how = "signed" if vouched >= anchored else "anchored in MLflow"
        return f"a cut tail of the log shows up to record {until}, which is {how}; after it, only against a head kept elsewhere"
    return "a cut tail of the log shows only against a head kept elsewhere"


def registry_log(
    limit: Annotated[int, typer.Option(min=1, help="How many records, newest last.")] = 50,
    csv: Annotated[bool, typer.Option("--csv", help="Print every record as CSV.")] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print every record as one JSON object a line.")
    ] = False,
    json: Json = False,
) -> int:
    """Show the audit log: promotions, refusals, alias moves.

    --csv and --jsonl print all of it, oldest first, for an auditor; `signed` says which records a
    checkpoint vouches for.
    """
    if csv + jsonl + json > 1:
        raise UsageError("--csv, --jsonl and --json exclude each other")
    with open_workbench() as bench:
        if csv or jsonl:
            rows = _audit_rows(bench)
            typer.echo(_as_csv(rows) if csv else _as_lines(rows), nl=False)
            show.err.print(f"[dim]{_cut_tail(_vouched(bench))}[/]")
            return 0
        records = list(bench.registry.audit())[-limit:]
        if json:
            show.print_json(
                [
                    {"n": r.n, "at": r.at, "event": r.event, "by": r.by, "body": r.body}
                    for r in records
                ]
            )
        else:
            cells = [(r.n, r.at, r.event, r.by, _about(r.body)) for r in records]
            show.out.print(show.table(None, (">n", "at", "event", "by", "about"), cells))
        return 0


def _audit_rows(bench: Workbench) -> list[dict[str, Any]]:
    """Return every record of the audit log; ``signed`` if a checkpoint vouches for it.

    Raises:
        IntegrityError: The log or a checkpoint is damaged: nothing is exported of such a log.
    """
    until = _vouched(bench)
    return [
        {name: getattr(record, name) for name in _COLUMNS[:-1]} | {"signed": record.n <= until}
        for record in bench.registry.audit()
    ]


def _as_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON object a line, members sorted, printable ASCII."""
    return "".join(json_.dumps(row, ensure_ascii=True, sort_keys=True) + "\n" for row in rows)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    """A cell that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv_.writer(text)
    writer.writerow(_COLUMNS)
    for row in rows:
        cells = [
            json_.dumps(cell, ensure_ascii=True) if isinstance(cell, dict) else _plain(str(cell))
            for cell in row.values()
        ]
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return text.getvalue()


def _plain(text: str) -> str:
    """Text without what a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _about(body: dict[str, Any]) -> str:
    gates = body.get("gates")
    if gates:
        return f"{body.get('job')}: {'; '.join(gates)}"
    facts = {k: v for k, v in body.items() if isinstance(v, str | int) and "digest" not in k}
    return ", ".join(f"{k} {v}" for k, v in facts.items())


def trust_log(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .jsonl or .csv.")],
    json: Json = False,
) -> int:
    """Write the audit log for an auditor; `signed` says which records a checkpoint vouches for."""
    if path.suffix not in (".jsonl", ".csv"):
        raise UsageError(f"{path} ends in neither .jsonl nor .csv", where=str(path))
    with open_workbench() as bench:
        marks, rows = bench.registry.checkpoints(), _audit_rows(bench)
        until = sum(row["signed"] for row in rows)
        show.write_file(path, _as_lines(rows) if path.suffix == ".jsonl" else _as_csv(rows))
        told = {"records": len(rows), "signed_until": until, "checkpoints": len(marks)}
        if json:
            show.print_json(told)
        else:
            show.out.print(f"{len(rows)} records; a checkpoint vouches for the first {until}")
            show.out.print("[dim]records cut off after that show only against a later copy[/]")
        return 0
