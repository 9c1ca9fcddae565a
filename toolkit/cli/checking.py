"""`check`: notebooks against the production rules, mended where a machine can."""

from __future__ import annotations

import itertools
import json as json_
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import NotFound, UsageError
from toolkit.values import Environment, SystemClock

__all__ = ["register", "show_findings"]

_DIFF_LINES = 400


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("check")(check)


def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="NB", help="Notebooks, or folders of notebooks.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    sarif: Annotated[
        Path | None, typer.Option(help="Also write the findings as SARIF 2.1.0.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="First mend what a machine can, in the files themselves.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what --fix changes; without --fix, change nothing.")
    ] = False,
    clear_outputs: Annotated[
        bool,
        typer.Option(
            "--clear-outputs",
            help="With --fix or --diff, or alone as --fix does: also clear outputs and counts.",
        ),
    ] = False,
) -> int:
    """Check notebooks against the production rules without running them."""
    from toolkit.promotion.check import to_sarif

    with open_workbench() as bench:
        found = _notebooks(paths)
        mended: dict[str, list[str]] = {}
        if fix or diff or clear_outputs:
            write = fix or not diff
            mended = _mend(bench, found, diff=diff and not json, clear=clear_outputs, write=write)
        reports = _reports(bench, found)
        if sarif is not None:
            log = to_sarif(reports, root=bench.workspace.root)
            show.write_file(sarif, json_.dumps(log, indent=1))
        bad = sum(1 for report in reports if not report.ok)
        if json:
            bodies = [report.to_json() for report in reports]
            show.print_json({"ok": bad == 0, "reports": bodies, "mended": mended})
        else:
            for report in reports:
                _show_check(bench, report)
            verdict = "[green]all fit[/]" if not bad else f"[red]{bad} not fit[/]"
            show.out.print(f"{len(reports)} notebook(s): {verdict}")
        return 1 if bad else 0


def _notebooks(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
            if not inside:
                raise UsageError(
                    f"there is no notebook in {path}",
                    where=str(path),
                    next_step="name a notebook, or a folder that holds some",
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise NotFound(
                f"there is no file {path}",
                where=str(path),
                next_step="name a notebook, or a folder with notebooks; paths are relative to this folder",
            )
    return found


def _mend(
    bench: Workbench, paths: list[Path], *, diff: bool, clear: bool, write: bool
) -> dict[str, list[str]]:
    """Mend the files and return the changes by path; show them unless that would break JSON."""
    from toolkit.promotion.check import mend_file

    changes: dict[str, list[str]] = {}
    for path in paths:
        mended = mend_file(path, clear_outputs=clear, write=write)
        if not mended.changes:
            continue
        name = bench.relative(path)
        changes[str(path)] = list(mended.changes)
        state = "[green]mended[/]  " if write else "[yellow]to mend[/] "
        show.err.print(f"{state} {show.safe(name)}: {show.safe('; '.join(mended.changes))}")
        if diff:
            _show_diff(mended.diff(str(name)))
    return changes


def _show_diff(lines: Iterable[str]) -> None:
    for line in itertools.islice(lines, _DIFF_LINES):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        show.out.print(f"  [{style}]{show.safe(line)}[/]", soft_wrap=True)
    if rest := sum(1 for _ in lines):
        show.out.print(f"  [dim]… {rest} more lines[/]")


def _reports(bench: Workbench, paths: list[Path]) -> list[Any]:
    from toolkit.promotion import catalog_of, checked, is_budgeted, job_name

    registry = bench.workspace.registry
    bundle = bench.governance.bundle(Environment.PRODUCTION)
    catalog = replace(catalog_of(registry, bench.governance, bundle), keep_outputs=False)
    now_us = SystemClock().now_us()
    reports = []
    for path in paths:
        try:
            job = job_name(path)
        except UsageError:  # a promotion would ask for --name
            job = None
        mine = replace(catalog, budgeted=is_budgeted(bundle, job))
        name = _below(bench.workspace.root, path)
        reports.append(checked(path, mine, registry, name=name, job=job, now_us=now_us))
    return reports


def _below(root: Path, path: Path) -> str:
    full = path.resolve()
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(full)


def _show_check(bench: Workbench, report: Any) -> None:
    name = show.safe(bench.relative(Path(report.path)))
    took = f"[dim]{report.seconds * 1000:.0f} ms[/]"
    verdict = "[green]fit[/]     " if report.ok else "[red]not fit[/] "
    show.out.print(f"{verdict} {name}  {took}")
    show_findings(report.findings)
    for one in report.waived:
        show.out.print(
            f"  [dim]waived[/] {_place(one.finding):<10} [bold]{show.safe(one.finding.rule)}[/] "
            f"{show.safe(one.finding.message)}; {show.safe(one.owner)} until {one.expires}: "
            f"{show.safe(one.reason)}",
            soft_wrap=True,
        )


def show_findings(findings: Any) -> None:
    """Print findings by cell: what, where, the line where it may be shown, and the fix."""
    for cell, group in itertools.groupby(findings, key=lambda found: found.cell):
        found_here = list(group)
        if cell is not None and found_here[0].cell_id:
            show.out.print(f"  [dim]── cell {cell} · id {show.safe(found_here[0].cell_id)}[/]")
        last: tuple[int | None, str | None] | None = None
        for found in found_here:
            style = "red" if found.severity == "error" else "yellow"
            show.out.print(
                f"  [{style}]{found.severity}[/] {_place(found):<10} "
                f"[bold]{show.safe(found.rule)}[/] {show.safe(found.message)}",
                soft_wrap=True,
            )
            if found.excerpt and last != (found.line, found.excerpt):
                show.out.print(
                    f"          [dim]{found.line:>4} │[/] {show.safe(found.excerpt)}",
                    soft_wrap=True,
                )
            last = (found.line, found.excerpt)
            show.out.print(f"          [dim]fix[/] {show.safe(found.fix)}", soft_wrap=True)


def _place(found: Any) -> str:
    place = f"cell {found.cell}" if found.cell else "file"
    return f"{place}:{found.line}" if found.line else place
