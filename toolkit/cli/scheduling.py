"""`schedule`: when jobs run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import NotFound

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
    """List what became of ticks and their runs: queued, due, or skipped and why."""
    from toolkit.app.queued import QueuedRuns

    with open_workbench() as bench:
        found = bench.engine.ticks(name, limit=limit)
        if name and not found:
            _check_schedule(bench, name)
        ran = QueuedRuns(bench).statuses([t.run_id for t in found if t.state == "queued"])
        states = {run_id: state.value for run_id, state in ran.items()}
        if json:
            told = [asdict(tick) | {"run_state": states.get(tick.run_id)} for tick in found]
            show.print_json(told)
        elif found:
            rows = [
                (t.schedule, t.tick, str(t.count), t.state, t.run_id, _run_state(t, ran), t.reason)
                for t in found
            ]
            columns = ("schedule", "tick", ">ticks", "state", "run", "run is", "reason")
            show.out.print(show.table(None, columns, rows))
        else:
            show.out.print("no ticks yet")
        return 0


def _run_state(tick: Any, states: Any) -> str:
    state = states.get(tick.run_id)
    return show.state_text(state) if state is not None else ""


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


def _find(bench: Workbench, name: str) -> Any:
    return next(each for each in bench.engine.list_schedules() if each.schedule.name == name)


def _check_schedule(bench: Workbench, name: str) -> None:
    known = [each.schedule.name for each in bench.engine.list_schedules()]
    if name not in known:
        raise NotFound(
            f"there is no schedule {name!a}",
            where=name,
            next_step=f"schedules: {', '.join(known) or 'none'}",
        )


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
