"""`registry`, `ledger`, `inventory`, `costs`: what is registered, recorded and spent."""

from __future__ import annotations

from dataclasses import asdict
from difflib import unified_diff
from typing import Annotated, Any

import typer

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.cli.auditing import register as register_auditing
from toolkit.cli.ledger import costs, ledger_export, ledger_verify
from toolkit.cli.promoting import register_releases
from toolkit.values import JobRef, RunKind

__all__ = ["register"]

_MOST_GROUPS = 20

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    registry = typer.Typer(help="Look at the governed registry.", no_args_is_help=True)
    registry.command("list")(registry_list)
    registry.command("show")(registry_show)
    registry.command("diff")(registry_diff)
    register_auditing(registry)
    register_releases(registry)
    app.add_typer(registry, name="registry")
    ledger = typer.Typer(help="Look at the ledger of calls.", no_args_is_help=True)
    ledger.command("verify")(ledger_verify)
    ledger.command("export")(ledger_export)
    app.add_typer(ledger, name="ledger")
    app.command("inventory")(inventory)
    app.command("costs")(costs)


def registry_list(json: Json = False) -> int:
    """List jobs, their versions and aliases."""
    with open_workbench() as bench:
        rows: list[dict[str, Any]] = []
        for name in bench.registry.jobs():
            aliases = bench.registry.aliases(name)
            for number in bench.registry.versions(name):
                version = bench.registry.resolve(JobRef(name, str(number)))
                rows.append(
                    {
                        "job": name,
                        "version": number,
                        "aliases": sorted(a for a, n in aliases.items() if n == number),
                        "created": version.manifest.created,
                        "by": version.manifest.by,
                        "bundle_digest": version.bundle_digest,
                    }
                )
        if json:
            show.print_json(rows)
        elif not rows:
            show.out.print("nothing is registered; promote a notebook: toolkit promote NB")
        else:
            cells = [
                (
                    r["job"],
                    r["version"],
                    ", ".join(r["aliases"]),
                    r["created"],
                    r["by"],
                    r["bundle_digest"],
                )
                for r in rows
            ]
            columns = ("job", ">version", "aliases", "created", "by", "digest")
            show.out.print(show.table(None, columns, cells))
        return 0


def registry_show(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB, JOB@3, JOB@production.")],
    json: Json = False,
) -> int:
    """Explain one version: what it is and why it was let through."""
    import json as json_

    from toolkit.app.explaining import explain, simulated

    with open_workbench() as bench:
        version = bench.registry.resolve(JobRef.parse(reference))
        files = bench.registry.load(version)
        evidence = json_.loads(files["evidence.json"]) if "evidence.json" in files else {}
        if json:
            show.print_json(
                {
                    **version.manifest.to_json(),
                    "bundle_digest": version.bundle_digest,
                    "why": explain(bench, version, evidence),
                    "simulation": simulated(evidence),
                    "evidence": evidence,
                }
            )
            return 0
        manifest = version.manifest
        show.out.print(f"[bold]{version.ref}[/]  {manifest.created} by {show.safe(manifest.by)}")
        show.out.print(f"  bundle   {version.bundle_digest}  [green]every digest verified[/]")
        for name, schema in manifest.parameters.get("properties", {}).items():
            kind = schema.get("type", "any")
            show.out.print(
                f"  -p {show.safe(name)}: {kind} = {show.safe(schema.get('default', 'required'))}"
            )
        if manifest.results:
            show.out.print(f"  results  {', '.join(manifest.results)}")
        for sentence in explain(bench, version, evidence):
            show.out.print(f"  [bold]why[/]      {show.safe(sentence)}", soft_wrap=True)
        for stage in evidence.get("stages", []):
            show.out.print(f"  {stage['name']:<10} {show.safe(stage['summary'])}", soft_wrap=True)
        if (simulation := simulated(evidence)) is not None:
            _show_simulation(simulation)
        rows = [(path, f"{fact.size:,}", fact.digest) for path, fact in manifest.files.items()]
        show.out.print(show.table("files", ("file", ">bytes", "digest"), rows))
        return 0


def _show_simulation(simulation: dict[str, Any]) -> None:
    """Show the groups of calls that the version's policy decides in another way, each with one call."""
    groups = simulation["groups"]
    rows = []
    for group in groups[:_MOST_GROUPS]:
        example = group["example"] or {}
        reasons = "; ".join(map(str, example.get("reasons") or ()))
        rows.append(
            (
                group["change"],
                f"{group['calls']:,}",
                f"{group['action']} {group['resource']}",
                ", ".join(group["policies"]) or "no policy permits it",
                f"{example.get('call_id', '–')}{f': {reasons}' if reasons else ''}",
            )
        )
    if rows:
        columns = ("change", ">calls", "what", "by", "for example")
        show.out.print(show.table("recorded calls under its policy", columns, rows))
    if (hidden := len(groups) - len(rows)) > 0:
        show.out.print(f"  … {hidden} more; --json shows them")
    if simulation["more_groups"]:
        show.out.print(f"  {simulation['more_groups']} further groups were counted and not kept")
    for one in simulation["not_told"]:
        show.out.print(
            f"  nothing can be said of {one['calls']:,} × {show.safe(one['action'])} "
            f"{show.safe(one['resource'])}: facts that decide it are not recorded",
            soft_wrap=True,
        )


def registry_diff(
    first: Annotated[str, typer.Argument(metavar="A", help="JOB@3, the version before.")],
    second: Annotated[str, typer.Argument(metavar="B", help="JOB@4, the version after.")],
    json: Json = False,
) -> int:
    """Compare two versions: cells, parameters, files, policy, evaluation."""
    with open_workbench() as bench:
        found = bench.registry.diff(JobRef.parse(first), JobRef.parse(second))
        if json:
            show.print_json(asdict(found))
        else:
            _show_diff(found)
        return 0


def _show_diff(found: Any) -> None:
    show.out.print(f"{found.before} → {found.after}" + ("" if found else ": no difference"))
    rows = [("file", c.path, c.change, "") for c in found.files]
    rows += [("parameter", c.name, c.change, f"{c.before} → {c.after}") for c in found.parameters]
    rows += [("fact", c.name, c.change, f"{c.before} → {c.after}") for c in found.facts]
    rows += [("package", c.name, c.change, f"{c.before} → {c.after}") for c in found.packages]
    rows += [("evaluation set", c.name, c.change, f"{c.before} → {c.after}") for c in found.sets]
    rows += [("tool", c.name, c.change, _tool(c)) for c in found.tools]
    rows += [("score", c.name, c.change, f"{c.before} → {c.after}") for c in found.scores]
    if rows:
        show.out.print(show.table(None, ("what", "name", "change", "before → after"), rows))
    for ref in found.tools_unknown:
        told = f"tools: not known of {ref}, which was sealed without its tool catalog"
        show.out.print(f"[dim]{show.safe(told)}[/]", soft_wrap=True)
    for cell in found.cells:
        show.out.print(f"[bold]cell {show.safe(cell.cell)}[/] {cell.change}")
        before, after = (cell.before or "").splitlines(), (cell.after or "").splitlines()
        for line in list(unified_diff(before, after, lineterm="", n=2))[2:]:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            show.out.print(f"  [{style}]{show.safe(line)}[/]", soft_wrap=True)


def _tool(change: Any) -> str:
    """Only of a changed tool the members that differ fit beside its name."""
    return f"{change.before} → {change.after}" if change.before and change.after else ""


def inventory(json: Json = False) -> int:
    """List what exists: jobs, routes, evaluation sets, notebooks."""
    with open_workbench() as bench:
        catalog = bench.governance.catalog()
        sets = bench.workspace.registry / "evaluations"
        jobs = {name: bench.registry.aliases(name) for name in bench.registry.jobs()}
        runs = bench.ledger.runs(limit=1000)
        last = {r.job: r for r in reversed(runs) if r.kind is RunKind.RUN and r.job}
        body = {
            "jobs": [
                {
                    "job": name,
                    "versions": bench.registry.versions(name),
                    "aliases": aliases,
                    "last_run": last[name].state.value if name in last else None,
                }
                for name, aliases in jobs.items()
            ],
            "routes": {n: f"{r.provider}/{r.model}" for n, r in catalog.routes.items()},
            "evaluation_sets": sorted(p.name for p in sets.glob("*") if p.is_dir()),
            "notebooks_seen": sorted({r.notebook for r in runs if r.notebook and not r.job}),
        }
        if json:
            show.print_json(body)
            return 0
        for title, value in body.items():
            _show_inventory(title.replace("_", " "), value)
        return 0


def _show_inventory(title: str, value: Any) -> None:
    """Print one part, its title above the table: a narrow table would fold it."""
    show.out.print(f"[bold]{title}[/]" if value else f"[bold]{title}[/]  none")
    if isinstance(value, dict):
        show.out.print(show.table(None, ("name", "what"), list(value.items())))
    elif value and isinstance(value[0], dict):
        names = tuple(value[0])
        rows = [[_inventory_cell(item[name]) for name in names] for item in value]
        show.out.print(show.table(None, tuple(name.replace("_", " ") for name in names), rows))
    else:
        for item in value:
            show.out.print(f"  {show.safe(item)}", soft_wrap=True)


def _inventory_cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "–")
