"""`schedule`, `worker`, `up`: when jobs run, and what runs them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show

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
    app.add_typer(schedule, name="schedule")
    app.command("worker")(worker)
    app.command("up")(up)


def add(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB, JOB@3 or JOB@production.")],
    cron: Annotated[str, typer.Option(help="Five cron fields: '0 3 * * *'.")],
    tz: Annotated[str, typer.Option(help="IANA time zone.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Default: the job's name.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, repeatable.")
    ] = None,
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
) -> int:
    """Run queued and scheduled jobs until told to stop."""
    with open_workbench() as bench:
        return _work(bench, slots or bench.workspace.settings.slots)


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


def _work(bench: Workbench, slots: int) -> int:
    from toolkit.app.waiting import Waking
    from toolkit.scheduling import Worker

    waking = Waking(bench.ledger, lambda: bench.engine)

    def command(item: Any) -> list[str]:
        argv = [
            sys.executable,
            "-m",
            "toolkit",
            "run",
            item.job,
            "--run-id",
            item.run_id,
            "--json",
            "--queued",
        ]
        for name, value in item.parameters.items():
            argv += ["-p", f"{name}={_text(value)}"]
        if item.schedule:
            argv += ["--schedule", item.schedule]
        return argv

    def tell(event: Any) -> None:
        clock = datetime.now(UTC).strftime("%H:%M:%S")
        said = event.message
        if event.work is not None and event.state is not None:
            said = f"{event.work.run_id} {event.state}" + (f": {said}" if said else "")
        show.out.print(f"[dim]{clock}[/] {show.safe(said)}", soft_wrap=True)

    made = Worker(
        bench.workspace.engine_url,
        root=bench.workspace.root,
        slots=slots,
        command=command,
        on_event=tell,
        on_waiting=lambda item: waking.parked(item.run_id),
        tend=waking.sweep,
    )
    for run in bench.runner.reconcile():
        show.out.print(f"[yellow]lost[/] {run.run_id}: {show.safe(run.message)}")
    with _until_signal() as stop:
        show.out.print(f"worker up: {slots} slots; stop with Ctrl-C")
        made.run(stop)
    show.out.print("worker ended")
    return 0


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
            each.next_fire.strftime("%Y-%m-%d %H:%M %Z") if each.next_fire else "–",
            each.last_fired.strftime("%Y-%m-%d %H:%M:%S %Z") if each.last_fired else "–",
        )
        for each in found
    ]
    columns = ("schedule", "job", "cron", "zone", "state", "next", "last")
    show.out.print(show.table(None, columns, rows))


def _schedule_json(each: Any) -> dict[str, Any]:
    return {
        "name": each.schedule.name,
        "job": each.schedule.job,
        "parameters": each.schedule.parameters,
        "cron": each.schedule.cron,
        "timezone": each.schedule.timezone,
        "paused": each.paused,
        "next_fire": each.next_fire.isoformat() if each.next_fire else None,
        "last_fired": each.last_fired.isoformat() if each.last_fired else None,
    }
