"""`schedule`, `worker`, `up`, `prune`: when jobs run, what runs them, what is kept."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import NotFound, ToolkitError, UsageError
from toolkit.values import Environment, RunKind, RunRecord, RunState

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ScheduleName = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    schedule = typer.Typer(help="When jobs run.", no_args_is_help=True)
    schedule.command("add")(add)
    schedule.command("list")(list_)
    schedule.command("pause")(pause)
    schedule.command("resume")(resume)
    schedule.command("remove")(remove)
    schedule.command("ticks")(ticks)
    app.add_typer(schedule, name="schedule")
    app.command("worker")(worker)
    app.command("up")(up)
    app.command("prune")(prune)


def add(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB, JOB@3 or JOB@production.")],
    cron: Annotated[str, typer.Option(help="Five cron fields: '0 3 * * *'.")],
    tz: Annotated[str, typer.Option(help="IANA time zone.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Default: the job's name.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, repeatable.")
    ] = None,
    catch_up: Annotated[
        str, typer.Option(help="Of ticks that no worker saw: none, latest, all.")
    ] = "none",
    catch_up_limit: Annotated[int, typer.Option(help="With all: how many at most.")] = 100,
    overlap: Annotated[
        str, typer.Option(help="While a run goes on: allow, skip, queue, cancel-previous.")
    ] = "allow",
    jitter: Annotated[float, typer.Option(help="Start up to so many seconds late.")] = 0.0,
    not_before: Annotated[str | None, typer.Option(help="First moment: 2026-12-24T18:00.")] = None,
    not_after: Annotated[str | None, typer.Option(help="Last moment.")] = None,
    json: Json = False,
) -> int:
    """Run a registered version on a schedule."""
    from toolkit.app.running import Request, plan_version
    from toolkit.scheduling import Schedule
    from toolkit.values import JobRef

    with open_workbench() as bench:
        # An unknown version or a wrong value is refused now, not at night.
        plan = plan_version(bench, Request(reference, {}), parameter or [])
        made = Schedule(
            name=name or JobRef.parse(reference).name,
            job=reference,
            parameters=plan.parameters,
            cron=cron,
            timezone=tz,
            created_by=bench.workspace.user,
            catch_up=catch_up,
            catch_up_limit=catch_up_limit,
            overlap=overlap,
            jitter_s=jitter,
            not_before=not_before,
            not_after=not_after,
        )
        bench.engine.add_schedule(made)
        bench.registry.record(
            "schedule.added",
            {"name": made.name, "job": made.job, "cron": cron, "timezone": tz},
            by=bench.workspace.user,
        )
        if json:
            show.print_json(_schedule_json(_find(bench, made.name)))
        else:
            _print_schedules([_find(bench, made.name)])
            show.out.print("a worker runs it: toolkit worker")
        return 0


def list_(json: Json = False) -> int:
    """List schedules with their next run."""
    with open_workbench() as bench:
        found = bench.engine.list_schedules()
        if json:
            show.print_json([_schedule_json(each) for each in found])
        elif found:
            _print_schedules(found)
        else:
            show.out.print("no schedules; add one: toolkit schedule add REF --cron '0 3 * * *'")
        return 0


def pause(name: ScheduleName, json: Json = False) -> int:
    """Pause a schedule; missed ticks are not made up for."""
    return _change("pause", name, json)


def resume(name: ScheduleName, json: Json = False) -> int:
    """Let a paused schedule run again."""
    return _change("resume", name, json)


def remove(name: ScheduleName, json: Json = False) -> int:
    """Remove a schedule; its past runs stay."""
    return _change("remove", name, json)


def ticks(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this schedule's.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the latest.")] = 20,
    json: Json = False,
) -> int:
    """List what became of ticks: queued, waiting for their turn, or skipped and why."""
    with open_workbench() as bench:
        found = bench.engine.ticks(name, limit=limit)
        if json:
            show.print_json([asdict(tick) for tick in found])
        elif found:
            rows = [(t.schedule, t.tick, str(t.count), t.state, t.run_id, t.reason) for t in found]
            columns = ("schedule", "tick", ">ticks", "state", "run", "reason")
            show.out.print(show.table(None, columns, rows))
        else:
            show.out.print("no ticks yet")
        return 0


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


def _change(verb: str, name: str, as_json: bool) -> int:  # noqa: FBT001
    past = {"pause": "paused", "resume": "resumed", "remove": "removed"}[verb]
    with open_workbench() as bench:
        getattr(bench.engine, verb)(name)
        bench.registry.record(f"schedule.{past}", {"name": name}, by=bench.workspace.user)
        if as_json:
            show.print_json({"name": name, "state": past})
        else:
            show.out.print(f"{past} {show.safe(name)}")
        return 0


def worker(
    slots: Annotated[int, typer.Option(min=0, max=64, help="Runs at a time; 0: the setting.")] = 0,
    listen: Annotated[
        str | None, typer.Option(help="Receive signed events there: 127.0.0.1:8790.")
    ] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="On SQLite: wait for another worker's end.")
    ] = False,
) -> int:
    """Run queued and scheduled jobs until told to stop."""
    with open_workbench() as bench:
        slots = slots or bench.workspace.settings.slots
        return _work(bench, slots, listen=listen, standby=standby)


def up(
    slots: Annotated[int, typer.Option(min=0, max=64, help="Runs at a time; 0: the setting.")] = 0,
    port: Annotated[int, typer.Option(help="MLflow's port; 0 picks a free one.")] = 0,
) -> int:
    """Run the worker and MLflow's UI together."""
    from toolkit.tracing import MlflowServer

    with open_workbench() as bench:
        server = MlflowServer(bench.workspace)
        owned = server.url() is None
        with show.err.status("starting MLflow's UI"):
            url = server.start(port or None)
        show.out.print(f"MLflow  {url}")
        try:
            return _work(bench, slots or bench.workspace.settings.slots)
        finally:
            if owned:
                server.stop()


def _work(bench: Workbench, slots: int, *, listen: str | None = None, standby: bool = False) -> int:
    from toolkit.app.isolating import zygote_folder
    from toolkit.app.waiting import Waking
    from toolkit.scheduling import EventKind, JobsFile, Worker

    waking = Waking(bench.ledger, lambda: bench.engine)
    zygote_folder(bench.workspace).mkdir(
        mode=0o700, exist_ok=True
    )  # kernels start warm from now on

    def tell(event: Any) -> None:
        clock = datetime.now(UTC).strftime("%H:%M:%S")
        said = event.message
        if event.work is not None and event.state is not None:
            said = f"{event.work.run_id} {event.state}" + (f": {said}" if said else "")
        show.out.print(f"[dim]{clock}[/] {show.safe(said)}", soft_wrap=True)
        if event.kind is EventKind.TICK_SKIPPED:
            _record_skipped(bench, event.work, event.message)

    jobs = JobsFile(
        bench.workspace.registry / "jobs.yaml",
        lambda text: show.err.print(f"[yellow]warning[/] {show.safe(text)}"),
    )

    def housekeep() -> None:
        if (keep_s := jobs.now().keep_s) is not None:
            clean(bench, keep_s)

    made = Worker(
        bench.workspace.engine_url,
        root=bench.workspace.root,
        slots=slots,
        command=lambda item: _command(item, jobs.now()),
        on_event=tell,
        on_waiting=lambda item: waking.parked(item.run_id),
        tend=waking.sweep,
        jobs=jobs.now,
        housekeep=housekeep,
        listen=listen,
        standby=standby,
    )
    for run in bench.runner.reconcile():
        show.out.print(f"[yellow]lost[/] {run.run_id}: {show.safe(run.message)}")
    with _until_signal() as stop:
        show.out.print(f"worker up: {slots} slots; stop with Ctrl-C")
        made.run(stop)
    show.out.print("worker ended")
    return 0


def _command(item: Any, jobs: Any) -> list[str]:
    """Return the command that does a piece of work."""
    argv = [sys.executable, "-m", "toolkit", "run", item.job]
    argv += ["--run-id", item.run_id, "--json", "--queued"]
    for name, value in item.parameters.items():
        argv += ["-p", f"{name}={_text(value)}"]
    if item.schedule or item.trigger:
        argv += ["--schedule", item.schedule or item.trigger]
    limit_s = jobs.of(item.job).run_s
    return argv if limit_s is None else [*argv, "--timeout", f"{limit_s:.0f}s"]


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


@contextlib.contextmanager
def _until_signal() -> Iterator[threading.Event]:
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _find(bench: Workbench, name: str) -> Any:
    return next(each for each in bench.engine.list_schedules() if each.schedule.name == name)


def _print_schedules(found: list[Any]) -> None:
    rows = [
        (
            each.schedule.name,
            each.schedule.job,
            each.schedule.cron,
            each.schedule.timezone,
            "paused" if each.paused else "active",
            _rules(each.schedule),
            each.next_fire.strftime("%Y-%m-%d %H:%M %Z") if each.next_fire else "–",
            each.last_fired.strftime("%Y-%m-%d %H:%M:%S %Z") if each.last_fired else "–",
        )
        for each in found
    ]
    columns = ("schedule", "job", "cron", "zone", "state", "rules", "next", "last")
    show.out.print(show.table(None, columns, rows))


def _rules(schedule: Any) -> str:
    said = [] if schedule.catch_up == "none" else [f"catch up {schedule.catch_up}"]
    said += [] if schedule.overlap == "allow" else [f"overlap {schedule.overlap}"]
    said += [f"jitter {schedule.jitter_s:g} s"] if schedule.jitter_s else []
    said += [f"from {schedule.not_before}"] if schedule.not_before else []
    said += [f"until {schedule.not_after}"] if schedule.not_after else []
    return ", ".join(said) or "–"


def _schedule_json(each: Any) -> dict[str, Any]:
    return {
        "name": each.schedule.name,
        "job": each.schedule.job,
        "parameters": each.schedule.parameters,
        "cron": each.schedule.cron,
        "timezone": each.schedule.timezone,
        "catch_up": each.schedule.catch_up,
        "catch_up_limit": each.schedule.catch_up_limit,
        "overlap": each.schedule.overlap,
        "jitter_s": each.schedule.jitter_s,
        "not_before": each.schedule.not_before,
        "not_after": each.schedule.not_after,
        "paused": each.paused,
        "next_fire": each.next_fire.isoformat() if each.next_fire else None,
        "last_fired": each.last_fired.isoformat() if each.last_fired else None,
    }
