"""`evaluation`: sets of cases, and where cases come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.cli.ledger import read_since
from toolkit.errors import ToolkitError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Name = Annotated[str, typer.Argument(metavar="SET", help="The evaluation set.")]
_SHOWN = 20
_LONGEST = 60


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Evaluation sets and their cases.", no_args_is_help=True)
    group.command("list")(list_sets)
    group.command("show")(show_set)
    group.command("add-case")(add_case)
    group.command("import")(bring)
    group.command("accept")(accept_cases)
    app.add_typer(group, name="evaluation")


def list_sets(json: Json = False) -> int:
    """List the evaluation sets, with their cases, gates and faults."""
    from toolkit.app.evaluation_sets import EvaluationSets

    with open_workbench() as bench:
        sets = EvaluationSets(bench)
        rows: list[dict[str, Any]] = []
        for name in sets.names():
            row: dict[str, Any] = {"set": name, "gates": sets.gates(name), "error": None}
            try:
                row["waiting"] = sets.waiting(name)
                if sets.empty(name):
                    rows.append(row | {"cases": 0})
                    continue
                chosen = sets.load(name)
                row |= {
                    "cases": len(chosen.cases),
                    "trials": chosen.trials,
                    "scorers": [scorer.name for scorer in chosen.scorers],
                    "digest": chosen.digest,
                }
            except ToolkitError as error:
                row["error"] = error.to_json()
            rows.append(row)
        if json:
            show.print_json(rows)
            return 0
        columns = ("set", ">cases", ">trials", ">gates", ">to review", "scorers")
        cells = [
            (
                r["set"],
                r.get("cases", "–"),
                r.get("trials", "–"),
                "?" if r["gates"] is None else r["gates"],
                r.get("waiting", "–"),
                _scorers(r),
            )
            for r in rows
        ]
        if cells:
            show.out.print(show.table(None, columns, cells))
        else:
            show.out.print("there is no evaluation set; make one: toolkit evaluation import SET …")
        return 0


def _scorers(row: dict[str, Any]) -> str:
    if row["error"] is not None:
        return f"has faults: toolkit evaluation show {row['set']}"
    if not row["cases"]:
        return f"no case yet: toolkit evaluation accept {row['set']}"
    return ", ".join(row["scorers"])


def show_set(
    name: Name,
    cases: Annotated[bool, typer.Option("--cases", help="All cases, not the first few.")] = False,
    json: Json = False,
) -> int:
    """Show one set: what is asked, who judges, and the cases with what is expected."""
    from toolkit.app.evaluation_sets import EvaluationSets

    with open_workbench() as bench:
        sets = EvaluationSets(bench)
        chosen = sets.load(name)
        if json:
            show.print_json(
                {
                    "set": chosen.name,
                    "digest": chosen.digest,
                    "description": chosen.description,
                    "target": chosen.target,
                    "agent": chosen.agent or None,
                    "trials": chosen.trials,
                    "parameters": chosen.parameters,
                    "gates": sets.gates(name),
                    "waiting": sets.waiting(name),
                    "scorers": [scorer.to_json() for scorer in chosen.scorers],
                    "cases": [
                        {"id": c.id, "inputs": c.inputs, "expected": c.expected, "slice": c.slice}
                        for c in chosen.cases
                    ],
                }
            )
            return 0
        gates = sets.gates(name)
        counted = (
            "gates in production not known: its policy has faults"
            if gates is None
            else f"{gates} gate(s) in production"
        )
        who = f"agent {chosen.agent}" if chosen.agent else "the whole job, by its parameters"
        show.out.print(f"[bold]{chosen.name}[/]  {show.safe(chosen.description)}", soft_wrap=True)
        show.out.print(
            f"  {who} · {len(chosen.cases)} cases · {chosen.trials} trial(s) each · "
            f"{counted} · {chosen.digest}",
            soft_wrap=True,
        )
        rows = [(s.name, s.kind.value, s.field or "–", s.better) for s in chosen.scorers]
        show.out.print(show.table("scorers", ("scorer", "kind", "field", "better"), rows))
        shown = chosen.cases if cases else chosen.cases[:_SHOWN]
        lines = [(c.id, c.slice or "–", _cut(c.inputs), _cut(c.expected)) for c in shown]
        show.out.print(show.table("cases", ("case", "slice", "inputs", "expected"), lines))
        if len(shown) < len(chosen.cases):
            show.out.print(f"  … {len(chosen.cases) - len(shown)} more; --cases shows all")
        if waiting := sets.waiting(name):
            show.out.print(f"  {waiting} imported case(s) wait: toolkit evaluation accept {name}")
        return 0


def add_case(
    name: Name,
    case_id: Annotated[str, typer.Option("--id", help="The case's name, unique in the set.")],
    inputs: Annotated[str, typer.Option(help="Arguments by name, as JSON.")],
    expected: Annotated[str, typer.Option(help="What scorers compare with, as JSON.")] = "null",
    part: Annotated[str, typer.Option("--slice", help="The slice that it belongs to.")] = "",
    json: Json = False,
) -> int:
    """Add one case to a set; a case that a scorer could not use is refused."""
    from toolkit.app.evaluation_sets import EvaluationSets, case_of
    from toolkit.evaluation import add_case as add

    with open_workbench() as bench:
        folder = EvaluationSets(bench).existing(name)
        made = add(folder, case_of(case_id, inputs, expected, part))
        return _changed(made, 1, json=json)


def bring(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Cases as JSON, one a line.")
    ] = None,
    mlflow_dataset: Annotated[
        str | None, typer.Option("--mlflow-dataset", help="Name or id of an MLflow dataset.")
    ] = None,
    from_runs: Annotated[
        str | None, typer.Option("--from-runs", help="A job whose recorded runs become cases.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", help="With --from-runs: the last 12h, 30d, or since 2026-11-21 (UTC)."
        ),
    ] = "30d",
    agent: Annotated[
        str,
        typer.Option(
            help="Who answers in a new set; with --from-runs also: whose recorded calls become "
            "cases. Default: the whole job, by parameters and results."
        ),
    ] = "",
    json: Json = False,
) -> int:
    """Import cases for review; they count once `toolkit evaluation accept` has moved them over."""
    from toolkit.app.evaluation_sets import Asked, EvaluationSets

    since_us = read_since(since)
    with open_workbench() as bench:
        asked = Asked(file, mlflow_dataset, from_runs, since_us, agent)
        found = EvaluationSets(bench).bring(name, asked)
        if json:
            show.print_json(
                {"added": found.added, "known": found.known, "conflicts": found.conflicts}
            )
            return 0
        waiting = EvaluationSets(bench).waiting(name)
        show.out.print(
            f"{waiting} case(s) wait for review in registry/evaluations/{name}/review.jsonl: "
            f"{len(found.added)} new; {found.known} known before"
        )
        if found.conflicts:
            show.out.print(
                f"[yellow]{len(found.conflicts)} ask what another case asks and expect something "
                f"else; left out:[/] {show.safe(', '.join(found.conflicts[:_SHOWN]))}",
                soft_wrap=True,
            )
        show.out.print(
            f"  next  read them, correct what is expected, then toolkit evaluation accept {name}"
        )
        return 0


def accept_cases(
    name: Name,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]…", help="Default: all.")
    ] = None,
    json: Json = False,
) -> int:
    """Move reviewed cases into the set."""
    from toolkit.app.evaluation_sets import EvaluationSets
    from toolkit.evaluation import accept

    with open_workbench() as bench:
        sets = EvaluationSets(bench)
        before = sets.waiting(name)
        made = accept(sets.existing(name), ids or None)
        return _changed(made, before - sets.waiting(name), json=json)


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _changed(made: Any, count: int, *, json: bool) -> int:
    body = {"set": made.name, "added": count, "cases": len(made.cases), "digest": made.digest}
    if json:
        show.print_json(body)
    else:
        show.out.print(f"{made.name}: {count} added, {len(made.cases)} cases now, {made.digest}")
    return 0
