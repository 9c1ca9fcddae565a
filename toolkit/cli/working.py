"""`worker`, `up`, `prune`: what runs jobs, what is kept of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import NotFound, ToolkitError, UsageError
from toolkit.settings import until_signal
from toolkit.values import Environment, RunKind, RunRecord, RunState, iso_utc

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Lines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, as it happens.")]
_PROGRAM = (sys.executable, "-m", "toolkit")
# What `toolkit run` does first, so that the runs of a worker find it done.
_RUN_NEEDS = ("toolkit.cli.main:command", "toolkit.app.warming:warm_up")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("worker")(worker)
    app.command("up")(up)
    app.command("prune")(prune)


def prune(
    older_than: Annotated[str, typer.Option(help="Runs that ended so long ago: 90d, 12h.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    json: Json = False,
) -> int:
    """Forget the queue's rows and the folders of old runs; the ledger keeps everything."""
    from toolkit.scheduling import seconds_of

    try:
        age_s = seconds_of(older_than)
    except ValueError as error:
        raise UsageError(f"{older_than!a} {error}", next_step="write 90d") from error
    with open_workbench() as bench:
        rows, paths = clean(bench, age_s, dry_run=dry_run)
        if json:
            show.print_json({"rows": rows, "paths": [bench.relative(path) for path in paths]})
        else:
            verb = "would go" if dry_run else "removed"
            count = "" if rows is None else f"{rows} rows of the queue, "
            show.out.print(f"{verb}: {count}{len(paths)} folders and logs; the ledger is unchanged")
        return 0


def clean(
    bench: Workbench, age_s: float, *, dry_run: bool = False
) -> tuple[int | None, list[Path]]:
    """Remove what runs that ended ``age_s`` seconds ago left in queue and folders.

    Returns:
        How many rows went (``None`` for a dry run, which does not count them), and which paths.
    """
    from toolkit.scheduling import prune_folders

    before_s = time.time() - age_s

    def is_over(run_id: str) -> bool | None:
        try:
            record = bench.ledger.get_run(run_id)
        except NotFound:
            return None
        ended_us = record.ended_us or record.created_us
        return record.state.terminal and ended_us / 1e6 < before_s

    state = bench.workspace.state
    paths = prune_folders(
        bench.workspace.runs, state / "logs", is_over, before_s=before_s, dry_run=dry_run
    )
    return None if dry_run else bench.engine.prune(older_than_s=age_s), paths


def worker(
    slots: Annotated[int, typer.Option(min=0, max=64, help="Runs at a time; 0: the setting.")] = 0,
    listen: Annotated[
        str | None, typer.Option(help="Receive signed events there: 127.0.0.1:8790.")
    ] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="On SQLite: wait for another worker's end.")
    ] = False,
    json: Lines = False,
) -> int:
    """Run queued and scheduled jobs until told to stop."""
    with open_workbench() as bench:
        slots = slots or bench.workspace.settings.slots
        say = _say_json if json else _say
        return _work(bench, slots, say, listen=listen, standby=standby)


def up(
    slots: Annotated[int, typer.Option(min=0, max=64, help="Runs at a time; 0: the setting.")] = 0,
    port: Annotated[int, typer.Option(help="MLflow's port; 0 picks a free one.")] = 0,
    listen: Annotated[
        str | None, typer.Option(help="Receive signed events there: 127.0.0.1:8790.")
    ] = None,
    json: Lines = False,
) -> int:
    """Run the worker and MLflow's UI together."""
    from toolkit.tracing import MlflowServer

    with open_workbench() as bench:
        server = MlflowServer(bench.workspace)
        owned = server.url() is None
        with show.err.status("starting MLflow's UI"):
            url = server.start(port or None)
        say = _say_json if json else _say
        say("mlflow_up", f"MLflow  {url}", {"url": url})
        try:
            return _work(bench, slots or bench.workspace.settings.slots, say, listen=listen)
        finally:
            if owned:
                server.stop()


Say = Callable[[str, str, dict[str, Any]], None]
"""Tells one event: its kind, a sentence for people, facts for programs."""


def _say(_kind: str, sentence: str, _facts: dict[str, Any]) -> None:
    show.out.print(show.safe(sentence), soft_wrap=True)


def _say_json(kind: str, sentence: str, facts: dict[str, Any]) -> None:
    show.print_json(
        {"event": kind, "at": iso_utc(time.time_ns() // 1000), **facts, "said": sentence}
    )


def _work(
    bench: Workbench, slots: int, say: Say, *, listen: str | None, standby: bool = False
) -> int:
    from toolkit.app.cancelling import superseded
    from toolkit.app.isolating import zygote_folder
    from toolkit.app.queued import QueuedRuns
    from toolkit.app.telling import Teller
    from toolkit.app.waiting import Waking
    from toolkit.scheduling import Hosting, JobsFile, Worker

    waking = Waking(bench.ledger, lambda: bench.engine)
    queued = QueuedRuns(bench)
    zygote_folder(bench.workspace).mkdir(
        mode=0o700, exist_ok=True
    )  # kernels start warm from now on

    teller = Teller(bench.workspace)
    jobs = JobsFile(
        bench.workspace.registry / "jobs.yaml",
        lambda text: show.err.print(f"[yellow]warning[/] {show.safe(text)}"),
    )

    def housekeep() -> None:
        if (keep_s := jobs.now().keep_s) is not None:
            clean(bench, keep_s)

    def tend() -> int:
        woken = waking.sweep()
        queued.sweep()
        return woken

    made = Worker(
        bench.workspace.engine_url,
        root=bench.workspace.root,
        slots=slots,
        command=lambda item: _command(item, jobs.now()),
        on_event=lambda event: _tell(bench, teller, event, say),
        on_ended=queued.ended,
        why=queued.why,
        cancel=lambda run_id: superseded(bench, run_id),
        tend=tend,
        jobs=jobs.now,
        housekeep=housekeep,
        listen=listen,
        standby=standby,
        hosting=Hosting(_PROGRAM, "toolkit.cli:main", _RUN_NEEDS),
    )
    for run in bench.runner.reconcile():
        say("run_lost", f"lost {run.run_id}: {run.message}", {"run_id": run.run_id})
    with until_signal() as stop:
        say("worker_up", f"worker up: {slots} slots; stop with Ctrl-C", {"slots": slots})
        try:
            made.run(stop)
        finally:
            teller.end()
    say("worker_ended", "worker ended", {})
    return 0


def _tell(bench: Workbench, teller: Any, event: Any, say: Say) -> None:
    """Print what a worker does, and have MLflow told of runs that began or ended."""
    from toolkit.scheduling import EventKind

    if event.kind in (EventKind.RUN_STARTED, EventKind.RUN_ENDED):
        teller.look()
    clock = datetime.now(UTC).strftime("%H:%M:%S")
    said = event.message
    if event.work is not None and event.state is not None:
        said = f"{event.work.run_id} {event.state}" + (f": {said}" if said else "")
    facts: dict[str, Any] = {}
    if event.work is not None:
        facts = {"run_id": event.work.run_id, "job": event.work.job}
        facts |= {"state": str(event.state)} if event.state is not None else {}
    facts |= {} if event.exit_code is None else {"exit_code": event.exit_code}
    say(event.kind.value, f"{clock} {said}", facts)
    if event.kind is EventKind.TICK_SKIPPED:
        _record_skipped(bench, event.work, event.message)


def _command(item: Any, jobs: Any) -> list[str]:
    """Return the command that does a piece of work."""
    argv = [*_PROGRAM, "run", item.job]
    argv += ["--run-id", item.run_id, "--json", "--queued", "--later"]
    for name, value in item.parameters.items():
        argv += ["-p", f"{name}={_text(value)}"]
    if item.schedule or item.trigger:
        argv += ["--schedule", item.schedule or item.trigger]
    if item.attempt > 1 and "cell_error" in jobs.of(item.job).retries:
        argv.append("--again")
    if item.created_by:
        argv += ["--by", item.created_by]
    limit_s = item.timeout_s or jobs.of(item.job).run_s
    return argv if limit_s is None else [*argv, "--timeout", f"{max(1.0, limit_s):.0f}s"]


def _record_skipped(bench: Workbench, work: Any, reason: str) -> None:
    """Put a skipped tick among the runs; of many in a row, the first stands for all."""
    record = RunRecord(
        run_id=work.run_id,
        kind=RunKind.RUN,
        environment=Environment.PRODUCTION,
        user=work.created_by,
        state=RunState.SKIPPED,
        message=reason,
        job=work.job.partition("@")[0],
        parameters=work.parameters,
        tags={"schedule": work.schedule, "tick": work.tick},
        created_us=time.time_ns() // 1000,
        ended_us=time.time_ns() // 1000,
    )
    try:
        bench.ledger.create_run(record)
    except ToolkitError as error:
        show.err.print(f"[yellow]warning[/] {show.safe(error.message)}")


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
