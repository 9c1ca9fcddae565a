"""`approve`, `reject`, `canary`, and what ends versions: rollback, revoke, retire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.cli.simulating import show_simulation
from toolkit.errors import UsageError
from toolkit.values import JobRef

if TYPE_CHECKING:
    from toolkit.app.policy_promotions import Tried
    from toolkit.app.standing import Standing
    from toolkit.registry import AliasMove

__all__ = ["policy_promote", "register", "register_releases"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ref = Annotated[str, typer.Argument(metavar="REF", help="JOB@3, as `toolkit inbox` names it.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="The job.")]
Alias = Annotated[str, typer.Option(help="Which alias.")]
_WAITS = 3


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("approve")(approve)
    app.command("reject")(reject)
    canary = typer.Typer(
        help="What runs beside an alias: a canary or a shadow.", no_args_is_help=True
    )
    canary.command("status")(canary_status)
    canary.command("promote")(canary_promote)
    canary.command("abort")(canary_abort)
    app.add_typer(canary, name="canary")


def register_releases(registry: typer.Typer) -> None:
    """Add the commands of `toolkit registry` that change what runs."""
    registry.command("release")(registry_release)
    registry.command("rollback")(registry_rollback)
    registry.command("revoke")(registry_revoke)
    registry.command("retire")(registry_retire)


def approve(reference: Ref, json: Json = False) -> int:
    """Let a version that waits into production; the last approval that is needed moves the alias.

    Exit code 0: it is in. 3: it waits for more people.
    """
    with open_workbench() as bench:
        return _tell(bench.promotions.approve(JobRef.parse(reference)), json)


def reject(
    reference: Ref,
    reason: Annotated[str, typer.Option(help="Why; told to whoever asked.")],
    json: Json = False,
) -> int:
    """Reject a version that waits, or withdraw your own."""
    with open_workbench() as bench:
        standing = bench.promotions.reject(JobRef.parse(reference), reason)
        _tell(standing, json)
        return 0


def canary_status(job: Job, alias: Alias = "production", json: Json = False) -> int:
    """Compare what runs beside an alias with it, and say what the policy's rule says."""
    from toolkit.app.canaries import judge_rollout

    with open_workbench() as bench:
        rollout, stable, candidate, judged = judge_rollout(bench, job, alias)
        if json:
            show.print_json(
                {
                    "job": job,
                    "alias": alias,
                    "kind": rollout.kind,
                    "share": rollout.share,
                    "stable": {"version": rollout.stable, **stable.to_json()},
                    "candidate": {"version": rollout.candidate, **candidate.to_json()},
                    "verdict": judged.verdict if judged else None,
                    "sentences": list(judged.sentences) if judged else [],
                }
            )
            return 0
        if rollout.candidate is None:
            show.out.print(f"nothing runs beside {show.safe(job)}@{show.safe(alias)}")
            return 0
        share = f"{rollout.share} % of the runs" if rollout.kind == "canary" else "a shadow"
        show.out.print(f"{job}@{rollout.candidate}, {share}, beside {job}@{rollout.stable}")
        rows = [
            (
                name,
                arm.runs,
                arm.failed,
                arm.denied,
                "–" if arm.mean_usd is None else f"${arm.mean_usd:.6f}",
            )
            for name, arm in (("stable", stable), (rollout.kind, candidate))
        ]
        columns = ("version", ">runs", ">failed", ">denied", ">mean cost")
        show.out.print(show.table(None, columns, rows))
        for sentence in judged.sentences if judged else ():
            show.out.print(f"  {show.safe(sentence)}", soft_wrap=True)
        verdict = judged.verdict if judged else "no rule in the policy: people decide"
        show.out.print(f"[bold]{verdict}[/]")
        return 0


def canary_promote(job: Job, alias: Alias = "production", json: Json = False) -> int:
    """Let what runs beside an alias take its place."""
    with open_workbench() as bench:
        moves = bench.registry.releases.promote(job, alias, by=bench.workspace.user)
        bench.promotions.mirror(job)
        return _tell_moves(job, moves, json)


def canary_abort(
    job: Job,
    alias: Alias = "production",
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    json: Json = False,
) -> int:
    """End what runs beside an alias."""
    with open_workbench() as bench:
        user = bench.workspace.user
        moves = bench.registry.releases.abort(job, alias, by=user, reason=reason or None)
        bench.promotions.mirror(job)
        return _tell_moves(job, moves, json)


def _tell_moves(job: str, moves: list[AliasMove], json: bool) -> int:
    if json:
        show.print_json({"job": job, "moves": _moves(moves)})
    else:
        _show_moves(job, moves)
    return 0


def registry_release(reference: Ref, json: Json = False) -> int:
    """Move the alias of a version that has its approvals: for operators, and after a crash."""
    with open_workbench() as bench:
        request = bench.promotions.get(JobRef.parse(reference)).request
        return _tell(bench.promotions.settle(request), json)


def registry_rollback(
    job: Job,
    alias: Alias = "production",
    to: Annotated[
        int | None, typer.Option(metavar="N", help="A version that it pointed at before.")
    ] = None,
    json: Json = False,
) -> int:
    """Point an alias back at the version it pointed at before; what runs beside it ends."""
    with open_workbench() as bench:
        move = bench.registry.rollback(job, alias, by=bench.workspace.user, to=to)
        bench.promotions.mirror(job)
        if json:
            body = {"job": job, "alias": alias, "before": move.before, "after": move.after}
            show.print_json(body)
        else:
            show.out.print(f"{job}@{alias}: {move.before} → [bold]{move.after}[/]")
        return 0


def registry_revoke(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB@3.")],
    reason: Annotated[str, typer.Option(help="Why; told to whoever runs it.")],
    json: Json = False,
) -> int:
    """End a version for good: nothing new runs it, and its running and waiting runs are ended."""
    from toolkit.app.ending import revoke_version

    ref = JobRef.parse(reference)
    if ref.version is None:
        raise UsageError("name the version by its number", next_step=f"{ref.name}@3")
    with open_workbench() as bench:
        done = revoke_version(bench, ref.name, ref.version, reason)
        if json:
            show.print_json(
                {"version": str(ref), "moves": _moves(done.moves), "runs": done.runs_json()}
            )
            return 0
        show.out.print(f"[bold]{ref}[/] is revoked")
        _show_moves(ref.name, done.moves)
        for run_id, said in done.runs.items():
            show.out.print(f"  run {show.safe(run_id)}: {show.safe(said)}", soft_wrap=True)
        return 0


def registry_retire(
    job: Job,
    reason: Annotated[str, typer.Option(help="Why; told to whoever runs it.")],
    json: Json = False,
) -> int:
    """End a job: no version of it is run until one is promoted again; its schedules pause."""
    from toolkit.app.ending import retire_job

    with open_workbench() as bench:
        done = retire_job(bench, job, reason)
        if json:
            show.print_json(
                {"job": job, "moves": _moves(done.moves), "schedules_paused": done.schedules}
            )
            return 0
        show.out.print(f"[bold]{show.safe(job)}[/] is retired")
        _show_moves(job, done.moves)
        for name in done.schedules:
            show.out.print(f"  schedule {show.safe(name)} is paused")
        return 0


def policy_promote(
    environment: Annotated[
        str, typer.Argument(metavar="ENV", help="production or sandbox.")
    ] = "production",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it changes; sign nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Say that a bundle, as its files are now, is the one to go by; policy approvers do.

    What was recorded is decided again under it first, and shown. Exit code 0: it is in force.
    3: more people have to sign it, or it was only looked at.
    """
    from toolkit.app.policy_promotions import promote_policy
    from toolkit.values import Environment

    if environment not in set(Environment):
        raise UsageError(
            f"there is no environment {environment!a}", next_step="name production or sandbox"
        )
    with open_workbench() as bench:
        standing = promote_policy(bench, Environment(environment), dry_run=dry_run)
        code = 0 if standing.in_force else _WAITS
        if json:
            show.print_json(
                {
                    "environment": standing.environment,
                    "digest": standing.digest,
                    "in_force": standing.in_force,
                    "simulation": standing.tried.to_json() if standing.tried else None,
                    "exit_code": code,
                }
            )
            return code
        _show_tried(standing.tried)
        if dry_run and not standing.in_force:
            show.out.print(f"nothing is signed: {standing.digest} is not in force")
        elif standing.in_force:
            show.out.print(f"the policy of {environment} is promoted: {standing.digest}")
        else:
            show.out.print("signed; it waits for more policy approvers")
        return code


def _show_tried(tried: Tried | None) -> None:
    if tried is None:
        return
    if tried.found is None:
        why = f"the recorded calls were not decided again: {tried.failed}"
        show.err.print(f"[yellow]warning[/] {show.safe(why)}", soft_wrap=True)
        return
    show.out.print("under this policy, of everything that was recorded:")
    show_simulation(tried.found)


def _tell(standing: Standing, json: bool) -> int:
    waits = not standing.moved and standing.request.state == "waiting"
    code = _WAITS if waits else 0
    if json:
        show.print_json({**standing.to_json(), "exit_code": code})
    else:
        show.out.print(show.safe(standing.sentence), soft_wrap=True)
        for note in standing.notes:
            if note not in standing.sentence:
                show.out.print(f"  [dim]{show.safe(note)}[/]", soft_wrap=True)
    return code


def _moves(moves: list[AliasMove]) -> list[dict[str, Any]]:
    return [move.to_json() for move in moves]


def _show_moves(job: str, moves: list[AliasMove]) -> None:
    for move in moves:
        if not move.alias.startswith(("revoked.", "retired")):
            after = move.after or "nothing"
            show.out.print(f"  {job}@{move.alias}: {move.before or 'nothing'} → {after}")
