"""`trigger`: what starts a job besides the clock."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TriggerName = Annotated[str, typer.Argument(metavar="NAME", help="The trigger's name.")]

SecretEnv = Annotated[
    str | None, typer.Option(help="Signed HTTP event; the variable that holds the secret.")
]
Model = Annotated[
    str | None,
    typer.Option(help="MLflow webhook of this model, * for every one; with --secret-env."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    trigger = typer.Typer(help="What starts jobs besides the clock.", no_args_is_help=True)
    trigger.command("add")(add)
    trigger.command("list")(list_)
    trigger.command("pause")(pause)
    trigger.command("resume")(resume)
    trigger.command("remove")(remove)
    app.add_typer(trigger, name="trigger")


def add(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB, JOB@3 or JOB@production.")],
    name: Annotated[str | None, typer.Option(help="Default: the job's name.")] = None,
    secret_env: SecretEnv = None,
    mlflow: Model = None,
    event: Annotated[str, typer.Option(help="With --mlflow.")] = "model_version.created",
    watch: Annotated[str | None, typer.Option(help="New files: a glob, as a path or URL.")] = None,
    every: Annotated[float, typer.Option(help="With --watch: seconds between looks.")] = 10.0,
    settle: Annotated[float, typer.Option(help="With --watch: seconds a file must rest.")] = 10.0,
    existing: Annotated[
        bool, typer.Option("--existing", help="With --watch: files that are there count.")
    ] = False,
    after: Annotated[str | None, typer.Option(help="The end of this other job's runs.")] = None,
    on: Annotated[str, typer.Option(help="With --after: success, failure, any.")] = "success",
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="NAME=PLACE in the event (data.customer.id), repeatable."),
    ] = None,
    json: Json = False,
) -> int:
    """Run a registered version when something happens."""
    from toolkit.scheduling import Trigger
    from toolkit.values import JobRef

    kind = _kind(secret_env=secret_env, mlflow=mlflow, watch=watch, after=after)
    with open_workbench() as bench:
        parameters, places = _parameters(bench, reference, parameter or [], mapping or [])
        made = Trigger(
            name=name or JobRef.parse(reference).name,
            job=reference,
            kind=kind,
            created_by=bench.workspace.user,
            parameters=parameters,
            mapping=places,
            secret_env=secret_env,
            watch=_place(watch, bench.workspace.root),
            every_s=every,
            settle_s=settle,
            existing=existing,
            after=after,
            on=on,
            model=None if mlflow in (None, "*") else mlflow,
            event=event,
        )
        bench.engine.add_trigger(made)
        facts = {"name": made.name, "job": made.job, "kind": kind}
        bench.registry.record("trigger.added", facts, by=bench.workspace.user)
        _warn_if_unknown(bench, after)
        if json:
            show.print_json(_json(bench.engine.get_trigger(made.name)))
        else:
            _print([bench.engine.get_trigger(made.name)])
            more = " --listen 127.0.0.1:8790" if secret_env else ""
            show.out.print(f"a worker looks for it: toolkit worker{more}")
        return 0


def _warn_if_unknown(bench: Workbench, after: str | None) -> None:
    from toolkit.app.known import unknown_name

    said = unknown_name(bench, "job", after) if after else None
    if said is not None:
        show.err.print(f"[yellow]warning[/] {show.safe(said)}", soft_wrap=True)


def list_(json: Json = False) -> int:
    """List triggers, when they last fired and what is wrong with them."""
    with open_workbench() as bench:
        found = bench.engine.list_triggers()
        if json:
            show.print_json([_json(each) for each in found])
        elif found:
            _print(found)
        else:
            show.out.print("no triggers; add one: toolkit trigger add REF --watch 'inbox/*.csv'")
        return 0


def pause(name: TriggerName, json: Json = False) -> int:
    """Pause a trigger; files that come meanwhile count later, ends of jobs do not."""
    return _change("pause", name, json)


def resume(name: TriggerName, json: Json = False) -> int:
    """Let a paused trigger start runs again."""
    return _change("resume", name, json)


def remove(name: TriggerName, json: Json = False) -> int:
    """Remove a trigger and what it has seen; runs it started stay."""
    return _change("remove", name, json)


def _change(verb: str, name: str, as_json: bool) -> int:  # noqa: FBT001
    past = {"pause": "paused", "resume": "resumed", "remove": "removed"}[verb]
    with open_workbench() as bench:
        getattr(bench.engine, f"{verb}_trigger")(name)
        bench.registry.record(f"trigger.{past}", {"name": name}, by=bench.workspace.user)
        if as_json:
            show.print_json({"name": name, "state": past})
        else:
            show.out.print(f"{past} {show.safe(name)}")
        return 0


def _kind(
    *, secret_env: str | None, mlflow: str | None, watch: str | None, after: str | None
) -> str:
    told = [kind for kind, value in (("file", watch), ("job", after)) if value]
    told += ["mlflow"] if mlflow else ["http"] if secret_env else []
    if len(told) != 1:
        raise UsageError(
            "a trigger has exactly one cause",
            next_step="give one of --secret-env, --mlflow with --secret-env, --watch, --after",
        )
    return told[0]


def _parameters(
    bench: Workbench, reference: str, pairs: list[str], mapping: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the options by the version's own parameters; unknown names are refused now."""
    from toolkit.app.running import read_parameters
    from toolkit.values import JobRef

    schema = bench.registry.resolve(JobRef.parse(reference)).manifest.parameters
    values = read_parameters(pairs, schema)
    places = dict(pair.partition("=")[::2] for pair in mapping)
    unknown = sorted({*values, *places} - set(schema.get("properties", {})))
    missing = sorted(set(schema.get("required", [])) - {*values, *places})
    faults = [f"there is no parameter {each}" for each in unknown]
    faults += [f"the parameter {each} is neither given nor mapped" for each in missing]
    if faults:
        raise UsageError("; ".join(faults), next_step="see `toolkit registry show`")
    return values, places


def _place(watch: str | None, root: Path) -> str | None:
    return str(root / watch) if watch and "://" not in watch else watch


def _print(found: list[Any]) -> None:
    rows = [
        (
            each.trigger.name,
            each.trigger.job,
            _cause(each.trigger),
            "paused" if each.paused else "active",
            each.last_fired.strftime("%Y-%m-%d %H:%M:%S") if each.last_fired else "–",
            each.fault or "–",
        )
        for each in found
    ]
    columns = ("trigger", "job", "cause", "state", "last (UTC)", "fault")
    show.out.print(show.table(None, columns, rows))


def _cause(trigger: Any) -> str:
    return {
        "http": f"POST /events/{trigger.name}",
        "mlflow": f"{trigger.event} of {trigger.model or 'every model'}",
        "file": f"new {trigger.watch}",
        "job": f"{trigger.after} ends ({trigger.on})",
    }[str(trigger.kind)]


def _json(each: Any) -> dict[str, Any]:
    return {
        **asdict(each.trigger),
        "paused": each.paused,
        "last_fired": each.last_fired.isoformat() if each.last_fired else None,
        "fault": each.fault or None,
    }
