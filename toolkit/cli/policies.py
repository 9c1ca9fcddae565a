"""`policy`: check, test, simulate and mine bundles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.cli.promoting import policy_promote
from toolkit.cli.simulating import show_simulation
from toolkit.errors import UsageError
from toolkit.settings import open_workspace
from toolkit.values import Environment

if TYPE_CHECKING:
    from toolkit.app.policies import BundleReport
    from toolkit.policy import Mined

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_INVALID = 78


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    policy = typer.Typer(help="Check, test, try out and propose policies.", no_args_is_help=True)
    policy.command("check")(policy_check)
    policy.command("test")(policy_test)
    policy.command("simulate")(policy_simulate)
    policy.command("mine")(policy_mine)
    policy.command("promote")(policy_promote)
    app.add_typer(policy, name="policy")


def policy_check(
    environments: Annotated[
        list[str] | None, typer.Argument(metavar="[ENV]…", help="Default: every bundle.")
    ] = None,
    json: Json = False,
) -> int:
    """Validate bundles against the schema of the tool catalog.

    Exit code 0: nothing found; 1: a bundle loads, but something in it cannot work as it is
    meant; 78: a bundle has faults, and calls under it would be refused.
    """
    from toolkit.app.policies import check_bundles

    reports = check_bundles(open_workspace().registry, environments or ())
    code = _INVALID if any(r.error for r in reports) else int(any(r.notes for r in reports))
    if json:
        show.print_json({"bundles": [report.to_json() for report in reports], "exit_code": code})
        return code
    rows = [(r.environment, _state(r), r.policies, r.tools, r.digest or "–") for r in reports]
    columns = ("bundle", "state", ">policies", ">tools", "digest")
    show.out.print(show.table(None, columns, rows))
    for report in reports:
        for note in report.notes:
            show.out.print(f"  {report.environment}: {show.safe(note)}", soft_wrap=True)
        if report.error is not None:
            show.error_lines(report.error)
    return code


def _state(report: BundleReport) -> str:
    if report.error is not None:
        count = len(report.error.details.get("faults", ())) or 1
        return f"{count} faults" if count > 1 else "1 fault"
    return f"{len(report.notes)} notes" if report.notes else "ok"


def policy_test(
    environment: Annotated[
        str, typer.Argument(metavar="[ENV]", help="Whose cases are run.")
    ] = "production",
    json: Json = False,
) -> int:
    """Run the cases in tests.yaml beside a bundle."""
    from toolkit.app.policies import run_policy_tests

    results = run_policy_tests(open_workspace().registry, environment)
    failed = [result for result in results if not result]
    if json:
        show.print_json(
            {
                "environment": environment,
                "cases": [
                    {
                        "name": result.case.name,
                        "passed": bool(result),
                        "verdict": result.decision.verdict.value,
                        "policies": list(result.decision.policies),
                        "reasons": list(result.decision.reasons),
                        "faults": list(result.faults),
                    }
                    for result in results
                ],
                "exit_code": int(bool(failed)),
            }
        )
        return int(bool(failed))
    rows = [
        (
            r.case.name,
            "passed" if r else "FAILED",
            r.decision.verdict,
            ", ".join(r.decision.policies),
        )
        for r in results
    ]
    show.out.print(show.table(None, ("case", "result", "verdict", "decided by"), rows))
    for result in failed:
        for fault in result.faults:
            show.out.print(f"  {show.safe(result.case.name)}: {show.safe(fault)}", soft_wrap=True)
    show.out.print(f"{len(results) - len(failed)} of {len(results)} cases passed")
    return int(bool(failed))


def policy_simulate(
    since: Annotated[
        str, typer.Option("--since", help="How far back: 90s, 30m, 24h, 7d, or `all`.")
    ] = "7d",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A changed bundle; default: the present one.")
    ] = None,
    environment: Annotated[
        Environment, typer.Option("--environment", help="Whose policy decides.")
    ] = Environment.PRODUCTION,
    examples: Annotated[
        int, typer.Option("--examples", min=0, max=100, help="Calls shown per difference.")
    ] = 3,
    json: Json = False,
) -> int:
    """Decide recorded calls again and show what differs from then."""
    from toolkit.app.simulations import simulate_bundle

    since_us = _since_us(since)
    with open_workbench() as bench:
        found = simulate_bundle(
            bench, environment=environment, since_us=since_us, folder=bundle, examples=examples
        )
    if json:
        show.print_json(found.to_json())
    else:
        show_simulation(found)
    return 0


def _since_us(text: str) -> int:
    if text == "all":
        return 0
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in _UNITS):
        raise UsageError(
            f"{text!a} is not a time", where="--since", next_step="write 90s, 30m, 24h, 7d or all"
        )
    return max(0, int((time.time() - int(number) * _UNITS[unit]) * 1e6))


def policy_mine(
    target: Annotated[
        str, typer.Argument(metavar="NOTEBOOK_OR_RUN", help="Whose recorded calls are looked at.")
    ],
    job: Annotated[
        str | None, typer.Option("--job", help="Limit every permit to this job.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new or empty folder for the files.")
    ] = None,
    json: Json = False,
) -> int:
    """Propose the least that a notebook needs, from what its sandbox runs recorded."""
    from toolkit.app.policies import mine_bundle

    with open_workbench() as bench:
        mined = mine_bundle(bench, target, job=job)
    if out is not None:
        _write(mined, out)
    if json:
        show.print_json(
            {
                "calls": mined.calls,
                "runs": mined.runs,
                "notes": list(mined.notes),
                "files": mined.files,
                "written_to": None if out is None else str(out),
            }
        )
        return 0
    for name, text in mined.files.items():
        if out is None:
            show.out.print(f"# --- registry/{name}", markup=False)
            show.out.print(text, markup=False, soft_wrap=True)
        else:
            show.out.print(show.safe(f"wrote {out / name}"), soft_wrap=True)
    for note in mined.notes:
        show.err.print(f"note: {show.safe(note)}", soft_wrap=True)
    return 0


def _write(mined: Mined, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is not an empty folder", where=str(out), next_step="name a new folder"
        )
    for name, text in mined.files.items():
        try:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{out} cannot be written: {error.strerror or error}",
                where=str(out),
                next_step="name a folder that is yours",
            ) from error
        show.write_file(out / name, text)
