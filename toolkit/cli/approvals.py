"""`inbox`, `decide`, `stop`, `start`: what people decide about calls."""

from __future__ import annotations

import json as json_
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.app.approvals import Asked, Inbox
    from toolkit.ledger import Stop

__all__ = ["register"]

Choice = Literal["approve", "reject", "escalate", "stop"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_EVERY_S = 1.0
_COLOURS = {"pending": "yellow", "escalated": "yellow", "approved": "green", "changed": "green"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("inbox")(inbox)
    app.command("decide")(decide)
    app.command("stop")(stop)
    app.command("start")(start)


def inbox(
    role: Annotated[str | None, typer.Option(help="Only what this role decides.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Decided requests, too; newest first.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing, until interrupted.")
    ] = False,
    json: Json = False,
) -> int:
    """List calls and promotions that wait for a person."""
    if watch and json:
        raise UsageError("--watch shows a table; it cannot be combined with --json")
    with open_workbench() as bench:
        box = bench.inbox
        if watch:
            return _watch(box, role, everything)
        found = box.requests(role=role, everything=everything)
        versions = [] if role else list(bench.promotions.waiting())
        if json:
            calls = [asked.to_json(box.clock.now_us()) for asked in found]
            waits = [{"kind_of_request": "promotion", **one.to_json()} for one in versions]
            show.print_json([*calls, *waits])
        else:
            if found or not versions:
                show.out.print(_inbox_table(box, found, everything))
            for one in versions:
                show.out.print(show.safe(one.sentence), soft_wrap=True)
                if not one.enough:  # the sentence says who completes it
                    show.out.print(f"  [dim]toolkit approve {one.request.ref}[/]")
        return 0


def _watch(box: Inbox, role: str | None, everything: bool) -> int:
    with Live(console=show.out, auto_refresh=False) as live:
        while True:
            found = box.requests(role=role, everything=everything)
            live.update(_inbox_table(box, found, everything), refresh=True)
            time.sleep(_EVERY_S)


def _inbox_table(box: Inbox, found: list[Asked], everything: bool) -> Table | str:
    if not found:
        return "nobody has been asked yet" if everything else "nothing waits for a person"
    now_us = box.clock.now_us()
    columns = (
        "request",
        "what",
        "role",
        "asked by",
        "run",
        "state" if everything else "until",
        "you",
    )
    rows = []
    for asked in found:
        approval = asked.approval
        sealed = f", signed {asked.seal.short}" if asked.seal else ""
        state = approval.state.value + sealed if everything else _left(asked.due_us - now_us)
        may = "" if not approval.state.waiting else "may decide" if asked.why_not is None else "–"
        what = str(approval.view["title"]) + (f"  [{asked.warning}]" if asked.warning else "")
        facts = (approval.id, what, approval.decider, approval.requested_by, approval.run_id)
        rows.append((*facts, state, may))
    return show.table(None, columns, rows)


def decide(
    request: Annotated[str, typer.Argument(metavar="ID", help="A request of `toolkit inbox`.")],
    choice: Annotated[
        Choice | None, typer.Argument(help="Left out: only show the request.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Told to whoever called; a rejection needs one.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Approve with this argument instead; repeatable."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="ROLE", help="With escalate: who decides instead.")
    ] = None,
    happened: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Of a write in doubt: it happened, and answered this."),
    ] = None,
    not_happened: Annotated[
        bool, typer.Option("--not-happened", help="Of a write in doubt: it is to be made.")
    ] = False,
    answer: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of a model call: what to answer; JSON by its schema."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask again.")] = False,
    json: Json = False,
) -> int:
    """Show a request, and approve, reject or escalate it, or stop its run."""
    with open_workbench() as bench:
        box = bench.inbox
        asked = box.request(request)
        if choice is not None:
            _check_options(choice, change or happened or not_happened or answer, to)
            changed = _answer(asked, answer) or _became(happened, not_happened)
            changed = changed or _changed(asked, change or [])
            if not (yes or json):
                show.out.print(_view(asked, box))
            _confirm(asked, "approve with changes" if changed else choice, yes=yes)
            digest = asked.approval.digest
            box.decide(request, choice, digest, reason=reason, arguments=changed, role=to)
            asked = box.request(request)
        if json:
            show.print_json(asked.to_json(box.clock.now_us()))
        elif choice is None:
            show.out.print(_view(asked, box))
        else:
            approval = asked.approval
            by = f" by {approval.decided_by}" if approval.decided_by else ""
            by += f", signed with the key {asked.seal.short}" if asked.seal else ""
            colour = _COLOURS.get(approval.state.value, "red")
            show.out.print(f"{approval.id} [{colour}]{approval.state.value}[/]{show.safe(by)}")
        return 0


def _answer(asked: Asked, text: str | None) -> dict[str, Any] | None:
    """Return what a person answers in the place of a model, as the desk takes it."""
    if text is None:
        return None
    if asked.call.intent.arguments.get("schema") is None:
        return {"text": text}
    try:
        return {"data": json_.loads(text)}
    except ValueError as error:
        raise UsageError(f"the answer has to be JSON by the call's schema: {error}") from error


def _became(happened: str | None, not_happened: bool) -> dict[str, Any] | None:
    """Return what became of a write in doubt, as the desk takes it."""
    if happened is not None and not_happened:
        raise UsageError("a call happened or it did not", next_step="say one of the two")
    if happened is None:
        return {"happened": False} if not_happened else None
    try:
        return {"happened": True, "answer": json_.loads(happened)}
    except ValueError as error:
        raise UsageError(
            f"--happened takes JSON: {error}",
            next_step="write text in quotes: --happened '\"paid\"'",
        ) from error


def _check_options(choice: Choice, change: object, to: str | None) -> None:
    if change and choice != "approve":
        raise UsageError(
            "--change, --happened and --not-happened belong to approve",
            next_step="toolkit decide ID approve --change …",
        )
    if to and choice != "escalate":
        raise UsageError(
            "--to belongs to escalate", next_step="toolkit decide ID escalate --to ROLE"
        )


def _changed(asked: Asked, changes: list[str]) -> dict[str, Any] | None:
    """Return the arguments with the changes in them, each read like the value it replaces."""
    if not changes:
        return None
    given = asked.call.intent.arguments
    if not isinstance(given, dict):
        raise UsageError("this call's arguments have no names; they cannot be changed")
    changed = dict(given)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in given:
            raise UsageError(
                f"--change {change!a} does not name an argument of the call",
                next_step=f"use NAME=VALUE with one of: {', '.join(given)}",
            )
        changed[name] = _value(text, given[name])
    return changed


def _value(text: str, before: Any) -> Any:
    if isinstance(before, str):
        return text
    try:
        return json_.loads(text)
    except ValueError:
        return text


def _confirm(asked: Asked, what: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked here whether this is meant",
            next_step="say --yes when you have seen the request",
        )
    typer.confirm(f"{what} {asked.approval.id}?", abort=True, err=True)


def _view(asked: Asked, box: Inbox) -> Group:
    """Return a request in full: what, with what, from where, why, by whom, until when."""
    approval, view = asked.approval, asked.approval.view
    parts = Table.grid(padding=(0, 2))
    parts.add_column(style="bold", no_wrap=True)
    parts.add_column(overflow="fold")
    parts.add_column(overflow="fold", style="yellow")
    changed = approval.arguments if isinstance(approval.arguments, dict) else {}
    for part in view["arguments"]:
        name, value = part["name"], Text(part["value"])
        if name in changed and changed[name] != asked.call.intent.arguments.get(name):
            value.append(f"  → {json_.dumps(changed[name], ensure_ascii=True)}", "green")
        parts.add_row(Text(name), value, Text(part["origin"]))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for reason in view["reasons"]:
        facts.add_row("why", Text(reason))
    for fact, said in [*view["facts"], *_standing(asked, box.clock.now_us())]:
        facts.add_row(Text(fact), Text(said))
    title = Text(str(view["title"]), style="bold")
    return Group(title, parts, Text(), facts)


def _standing(asked: Asked, now_us: int) -> list[tuple[str, str]]:
    approval = asked.approval
    rows = [("request", approval.id), ("state", approval.state.value)]
    if approval.state.waiting:
        due = asked.due_us
        rows.append(
            ("decides", f"{approval.decider}, until {show.when(due)} UTC ({_left(due - now_us)})")
        )
        rows.append(("you", "may decide" if asked.why_not is None else asked.why_not))
    if approval.decided_by:
        rows.append(
            ("decided", f"by {approval.decided_by} at {show.when(approval.decided_us)} UTC")
        )
    if asked.seal:
        rows.append(("signed", f"by {asked.seal.person} with the key {asked.seal.short}"))
    if asked.fault:
        rows.append(("it does not count", asked.fault))
    if approval.reason:
        rows.append(("reason", approval.reason))
    if asked.warning:
        rows.append(("webhook", asked.warning))
    return rows


def _left(us: int) -> str:
    seconds = max(us, 0) / 1e6
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- the stop switch -------------------------------------------------------------------------------

All = Annotated[bool, typer.Option("--all", help="Every call of everybody.")]
Agent = Annotated[str | None, typer.Option(metavar="NAME", help="Calls made in this agent.")]
Team = Annotated[str | None, typer.Option(metavar="NAME", help="Calls of this team's runs.")]
Route = Annotated[str | None, typer.Option(metavar="NAME", help="Calls of this model route.")]
Job = Annotated[str | None, typer.Option(metavar="NAME", help="Calls of this job's runs.")]
User = Annotated[str | None, typer.Option(metavar="NAME", help="Calls of this user's runs.")]
Tool = Annotated[str | None, typer.Option(metavar="NAME", help="Calls of this tool.")]
Run = Annotated[str | None, typer.Option(metavar="ID", help="Calls of this run.")]


def stop(
    everything: All = False,
    agent: Agent = None,
    team: Team = None,
    route: Route = None,
    job: Job = None,
    user: User = None,
    tool: Tool = None,
    run: Run = None,
    reason: Annotated[str, typer.Option(help="Why; every refused call is told.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show what is stopped.")] = False,
    json: Json = False,
) -> int:
    """Refuse calls from now on, everywhere; or show what is stopped."""
    named = {"agent": agent, "team": team, "route": route, "job": job, "user": user, "tool": tool, "run": run}  # fmt: skip
    with open_workbench() as bench:
        box = bench.inbox
        if not list_:
            stopped = box.stop(_scope(named, everything), reason)
            _tell_switch(stopped, "stopped", json)
            _warn_if_unknown(bench, stopped.scope)
        elif json:
            show.print_json([_stop_json(one) for one in box.stops()])
        else:
            _show_stops(box.stops())
        return 0


def start(
    everything: All = False,
    agent: Agent = None,
    team: Team = None,
    route: Route = None,
    job: Job = None,
    user: User = None,
    tool: Tool = None,
    run: Run = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    json: Json = False,
) -> int:
    """Undo a stop."""
    named = {"agent": agent, "team": team, "route": route, "job": job, "user": user, "tool": tool, "run": run}  # fmt: skip
    with open_workbench() as bench:
        box = bench.inbox
        _tell_switch(box.start(_scope(named, everything), reason), "started", json)
        return 0


def _scope(named: dict[str, str | None], everything: bool) -> str:
    scopes = [f"{kind}:{name}" for kind, name in named.items() if name is not None]
    scopes += ["all"] if everything else []
    if len(scopes) != 1:
        said = "nothing is" if not scopes else f"{len(scopes)} things are"
        raise UsageError(
            f"{said} named; one at a time",
            next_step="use one of --all, " + ", ".join(f"--{kind} NAME" for kind in named),
        )
    return scopes[0]


def _tell_switch(one: Stop, done: str, json: bool) -> None:
    if json:
        show.print_json({**_stop_json(one), "done": done})
    else:
        colour = "red" if done == "stopped" else "green"
        show.out.print(f"{show.safe(one.scope)} is [{colour}]{done}[/]")


def _warn_if_unknown(bench: Workbench, scope: str) -> None:
    """Say that a stop met nothing that is known: a misspelt one would stop nobody."""
    from toolkit.app.known import unknown_name

    kind, _, name = scope.partition(":")
    said = unknown_name(bench, kind, name) if name else None
    if said is not None:
        show.err.print(f"[bold yellow]warning[/] {show.safe(said)}", soft_wrap=True)
        show.err.print(f"  the stop holds all the same; undo it: toolkit start --{kind} NAME")


def _stop_json(one: Stop) -> dict[str, Any]:
    return {"scope": one.scope, "by": one.by, "reason": one.reason, "at": show.when(one.at_us)}


def _show_stops(stops: list[Stop]) -> None:
    if not stops:
        show.out.print("nothing is stopped")
        return
    rows = [(one.scope, one.by, show.when(one.at_us), one.reason) for one in stops]
    show.out.print(show.table(None, ("stopped", "by", "at (UTC)", "reason"), rows))
