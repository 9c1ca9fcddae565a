"""`tools`: what MCP servers and HTTP services offer, and which of it may be called."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli import show
from toolkit.settings import open_workspace

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    tools = typer.Typer(help="Tools of MCP servers and HTTP services.", no_args_is_help=True)
    tools.command("list")(tools_list)
    app.add_typer(tools, name="tools")


def tools_list(
    server: Annotated[
        str | None,
        typer.Argument(metavar="[SERVER]", help="Ask this server or service what it offers."),
    ] = None,
    json: Json = False,
) -> int:
    """List tools of registry/tools.yaml that others offer; with SERVER, everything it offers.

    A server that is asked is started with its secrets, as the gateway would start it.
    """
    return _listed(json=json) if server is None else _offered(server, json=json)


def _listed(*, json: bool) -> int:
    from toolkit.app.tooling import listed_tools

    found = listed_tools(open_workspace())
    if json:
        show.print_json([{"name": name, "host": host} for name, host in found])
    elif not found:
        show.out.print("no server or service is listed in registry/tools.yaml (see docs/tools.md)")
    else:
        rows = [(name, host or "this machine") for name, host in found]
        show.out.print(show.table(None, ("tool", "asks"), rows))
    return 0


def _offered(server: str, *, json: bool) -> int:
    from toolkit.app.tooling import first_line, offered_tools, snippet

    workspace = open_workspace()
    offered = offered_tools(workspace, server)
    if json:
        show.print_json(
            [
                {
                    "name": one.name,
                    "state": _state(callable_=one.callable, changed=one.changed),
                    "description": one.offer.description,
                    "parameters": one.offer.parameters,
                    "digest": one.offer.digest,
                }
                for one in offered
            ]
        )
        return 0
    rows = [
        (
            one.name,
            _state(callable_=one.callable, changed=one.changed),
            ", ".join(one.offer.parameters.get("properties", {})),
            first_line(one.offer.description),
        )
        for one in offered
    ]
    columns = ("tool", "state", "arguments", "the server's words")
    show.out.print(show.table(None, columns, rows))
    show.out.print(
        "\nlines for registry/tools.yaml; read the words first, then say what is read:\n"
    )
    show.out.print(snippet(workspace, server, offered), markup=False)
    return 0


def _state(*, callable_: bool, changed: bool) -> str:
    if changed:
        return "changed since it was approved"
    return "callable" if callable_ else "not listed"
