"""`promote`: take a notebook to production."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.cli.checking import show_findings
from toolkit.errors import NotFound, ToolkitError, UsageError
from toolkit.values import RunKind

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_WAITS = 3
_NEXT = {
    "check": "reproduce",
    "lock": "reproduce",
    "reproduce": "rehearse",
    "rehearse": "evaluate",
    "evaluate": "evaluate, simulate",
    "simulate": "seal",
}
_TRIALS = (RunKind.REHEARSAL, RunKind.EVALUATION)
_LOOK_S = 1.0
_MOST = 1000
_MARK = {True: "[green]passed[/]", False: "[red]failed[/]", None: "[dim]not reached[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("promote")(promote)


def promote(
    notebook: Annotated[Path, typer.Argument(metavar="NB", help="The notebook.")],
    name: Annotated[
        str | None, typer.Option(help="The job's name; default: from the file's name.")
    ] = None,
    evaluate: Annotated[
        list[str] | None, typer.Option(help="Evaluation set beside the job's own, repeatable.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="NAME=VALUE for the rehearsal, repeatable."),
    ] = None,
    alias: Annotated[str, typer.Option(help="What points at the new version.")] = "production",
    canary: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="Give it so many of the alias's runs: 10%."),
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Run it beside what the alias points at, without effects."),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure again what was measured before on the same content."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Seal another version even though nothing has changed.")
    ] = False,
    json: Json = False,
) -> int:
    """Take a notebook through the gate and register it as the next version of a job.

    Exit code 0: it is in. 1: it was refused. 3: it is sealed and waits for people to approve it.
    """
    from toolkit.promotion import Wanted, job_name

    _check_there(notebook)
    with open_workbench() as bench:
        share = _share(canary, shadow)
        if canary or shadow:
            _check_stable(bench, name or job_name(notebook), alias)
        wanted = Wanted(
            path=notebook,
            job=name,
            kind="canary" if canary else "shadow" if shadow else "stable",
            share=share,
            sets=tuple(evaluate or ()),
            parameters=_parameters(notebook, parameter),
            alias=alias,
            git_commit=bench.git_commit,
            fresh=fresh,
            again=again,
        )
        bench.promotions.check_policy(name or job_name(notebook))
        promotion = _promoted(bench, wanted, json=json)
        if promotion.waiting:
            return _WAITS
        return 0 if promotion.accepted else 1


def _check_there(notebook: Path) -> None:
    if not notebook.is_file():
        raise NotFound(
            f"there is no notebook {notebook}",
            where=str(notebook),
            next_step="name a notebook file; the path is relative to this folder",
        )


def _parameters(notebook: Path, given: list[str] | None) -> dict[str, Any]:
    """Return the values of the command line; a slip there is no fault of the notebook."""
    from toolkit.app.running import read_parameters
    from toolkit.document import Notebook, check_parameters

    if not given:
        return {}
    schema = Notebook.read(notebook).schema
    values = read_parameters(given, schema)
    check_parameters({**schema, "required": []}, values)
    return values


def _promoted(bench: Workbench, wanted: Any, *, json: bool) -> Any:
    """Promote and show what came of it."""
    from toolkit.promotion import job_name

    job = wanted.job or job_name(wanted.path)
    if json:
        with _waits_told(bench, job):
            promotion = bench.promoter.promote(wanted)
        show.print_json(_promotion_json(promotion))
        return promotion
    with show.err.status("check") as status, _waits_told(bench, job):

        def ended(stage: Any) -> None:
            _announce(stage)
            status.update(_NEXT.get(stage.name, stage.name))

        promotion = bench.promoter.promote(
            wanted,
            announce=ended,
            heard=lambda done, all_: status.update(f"evaluate: {done} of {all_} answers"),
        )
    _show_promotion(bench, promotion)
    return promotion


@contextmanager
def _waits_told(bench: Workbench, job: str) -> Iterator[None]:
    """Say, as long as the block lasts, whom the runs of a promotion wait for; each request once.

    On standard error, so that what is read by programs stays as it is.
    """
    over = threading.Event()
    # What waits already is somebody else's, or of an attempt that is gone.
    seen = {one.id for one in bench.ledger.approvals(waiting=True, limit=_MOST)}

    def look() -> None:
        while not over.wait(_LOOK_S):
            try:
                for one in bench.ledger.approvals(waiting=True, limit=_MOST):
                    if one.id in seen:
                        continue
                    run = bench.ledger.get_run(one.run_id)
                    seen.add(one.id)
                    if run.job != job or run.kind not in _TRIALS:
                        continue
                    who = f"the {run.kind} waits for a person with the role {one.decider}"
                    show.err.print(
                        f"[yellow]waits[/] {show.safe(who)}: toolkit decide {one.id}",
                        soft_wrap=True,
                    )
            except ToolkitError:  # another time: the promotion itself says what is wrong
                continue

    thread = threading.Thread(target=look, name="promotion-waits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _share(canary: str | None, shadow: bool) -> int | None:
    """Return the percent of a canary."""
    if canary is None:
        return None
    if shadow:
        raise UsageError("--canary and --shadow exclude each other")
    text = canary.removesuffix("%").strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 99):
        raise UsageError("--canary takes 1% to 99%", next_step="--canary 10%")
    return int(text)


def _check_stable(bench: Workbench, job: str, alias: str) -> None:
    """Refuse before the trials what nothing could run beside."""
    known = bench.registry.aliases(job) if job in bench.registry.jobs() else {}
    if alias not in known:
        raise UsageError(
            f"{job}@{alias} points at no version that another could run beside",
            next_step="promote without --canary and --shadow first",
        )


def _announce(stage: Any) -> None:
    """Print a stage as soon as it ended: a promotion takes a minute or more."""
    took = f"[dim]{show.seconds(stage.seconds)}[/]"
    show.out.print(
        f"{stage.name:<10} {_MARK[stage.passed]:<16} {took}  {show.safe(stage.summary)}",
        soft_wrap=True,
    )


def _show_promotion(bench: Workbench, promotion: Any) -> None:
    show_findings(promotion.findings)
    if promotion.gates:
        rows = [
            (v.gate.scorer if v.gate else "–", "passed" if v.passed else "FAILED", v.sentence)
            for v in promotion.gates
        ]
        show.out.print(
            show.table("gates of the production policy", ("gate", "verdict", "numbers"), rows)
        )
    if promotion.unchanged:
        show.out.print(
            f"[bold green]unchanged[/] [bold]{promotion.job}@{promotion.version}[/] was promoted from "
            "the same notebook, environment, policy and sets; nothing was sealed\n"
            "  next  --again seals another version, --fresh measures everything again",
            soft_wrap=True,
        )
    elif promotion.accepted:
        show.out.print(
            f"[bold green]registered[/] [bold]{promotion.job}@{promotion.version}[/]  "
            f"{show.safe(bench.relative(promotion.folder))}"
        )
        for path in sorted(promotion.folder.iterdir()):
            show.out.print(f"  {path.stat().st_size:>10,} bytes  {show.safe(bench.relative(path))}")
        if promotion.waiting:
            show.out.print(f"[yellow]{show.safe(promotion.waiting)}[/]", soft_wrap=True)
            show.out.print(f"  next  toolkit approve {promotion.job}@{promotion.version}")
        else:
            show.out.print(f"  next  toolkit run {promotion.job}@{promotion.version}")
    else:
        count = sum(1 for f in promotion.findings if f.severity == "error")
        show.out.print(
            f"[bold red]refused[/] {promotion.job}: {count} finding(s); "
            f"attempt {promotion.attempt} of this notebook is recorded in the audit log"
        )
    if promotion.report:
        show.out.print(f"  report  {show.safe(promotion.report)}", soft_wrap=True)
    for what, url in promotion.links.items():
        if url:
            show.out.print(f"  {what}  {show.safe(url)}", soft_wrap=True)
    for warning in promotion.warnings:
        show.err.print(f"[yellow]warning[/] {show.safe(warning)}")


def _promotion_json(promotion: Any) -> dict[str, Any]:
    from toolkit.promotion import stage_json

    return {
        "accepted": promotion.accepted,
        "unchanged": promotion.unchanged,
        "job": promotion.job,
        "version": promotion.version,
        "waiting": promotion.waiting,
        "notebook": promotion.notebook,
        "notebook_digest": promotion.notebook_digest,
        "attempt": promotion.attempt,
        "stages": [stage_json(stage) for stage in promotion.stages],
        "gates": [
            {
                "label": v.label,
                "verdict": str(v.ruling),
                "sentence": v.sentence,
                "passed": v.passed,
                "observed": v.observed,
                "lower": v.lower,
                "upper": v.upper,
                "n": v.n,
            }
            for v in promotion.gates
        ],
        "folder": str(promotion.folder) if promotion.folder else None,
        "report": str(promotion.report) if promotion.report else None,
        "links": promotion.links,
        "warnings": list(promotion.warnings),
        **promotion.facts,
    }
