"""`gateway`: run it, for this workspace or for a team, and the tokens of a team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import show
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.gateway import TeamTokens
    from toolkit.settings import Workspace

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_FOREVER_S = 10 * 365 * 86400.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(gateway)
    token = typer.Typer(help="Tokens that open sessions at a team's gateway.", no_args_is_help=True)
    token.command("create")(token_create)
    token.command("list")(token_list)
    token.command("revoke")(token_revoke)
    group.add_typer(token, name="token")
    app.add_typer(group, name="gateway")


def gateway(
    context: typer.Context,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the gateway of this workspace.")
    ] = False,
    ensure: Annotated[bool, typer.Option("--ensure", help="Start it in the background.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Also listen there, for a team's kernels elsewhere."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --listen: certificate chain (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --listen: private key (PEM).")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="With --listen: no TLS although others can listen in."),
    ] = False,
    json: Json = False,
) -> int:
    """Run this workspace's gateway in the foreground (it also starts by itself)."""
    if context.invoked_subcommand is not None:
        return 0
    from toolkit.settings import open_workspace

    workspace = open_workspace()
    if stop:
        return _stop(workspace, json=json)
    if ensure:
        return _ensure(workspace, json=json)
    return _serve(workspace, listen, (tls_cert, tls_key), insecure=insecure)


def _stop(workspace: Workspace, *, json: bool) -> int:
    from toolkit.gateway import stop_gateway

    stopped = stop_gateway(workspace.state)
    if json:
        show.print_json({"stopped": stopped})
    else:
        show.out.print("stopped" if stopped else "it was not running")
    return 0


def _ensure(workspace: Workspace, *, json: bool) -> int:
    from toolkit.client import ensure_gateway

    socket = ensure_gateway(workspace.root)
    if json:
        show.print_json({"socket": socket})
    else:
        show.out.print(f"gateway  {show.safe(socket)}")
    return 0


def _serve(
    workspace: Workspace,
    listen: str | None,
    tls: tuple[Path | None, Path | None],
    *,
    insecure: bool,
) -> int:
    from toolkit.app.serve import serve_workspace
    from toolkit.gateway import TeamAddress, read_record

    if listen is None:
        if any(tls) or insecure:
            raise UsageError("--tls-cert, --tls-key and --insecure belong to --listen")
        team = None
    else:
        team = TeamAddress.parse(listen, certificate=tls[0], key=tls[1], insecure=insecure)

    def begun() -> None:
        record = read_record(workspace.state)
        where = [str(workspace.socket), *([record.team] if record and record.team else [])]
        text = f"gateway on {show.safe(' and '.join(where))}; stop with Ctrl-C"
        show.err.print(text, soft_wrap=True)

    code = serve_workspace(workspace, idle_s=_FOREVER_S, team=team, begun=begun)
    other = read_record(workspace.state)  # ours is gone when we end
    if other is None:
        return code
    if team is not None:
        raise UsageError(
            "another gateway of this workspace runs already, and does not listen there",
            next_step="toolkit gateway --stop, then this command again",
        )
    show.err.print(f"gateway  {show.safe(other.socket)} runs already, pid {other.pid}")
    return code


def token_create(
    user: Annotated[str, typer.Option(help="Who acts with it.")],
    team: Annotated[str | None, typer.Option(help="The team whose budgets and rules hold.")] = None,
    ttl: Annotated[
        str,
        typer.Option(help="How long it is valid: 90m, 24h, 30d, 12w, or `never` (until revoked)."),
    ] = "30d",
    json: Json = False,
) -> int:
    """Make a token and show it, this once."""
    from toolkit.values import iso_utc

    made, shown = _tokens().create(user, team, _seconds(ttl))
    until = None if made.expires_us is None else iso_utc(made.expires_us)
    if json:
        show.print_json({"id": made.id, "token": shown, "user": user, "team": team, "until": until})
        return 0
    show.out.print(f"token  {shown}", soft_wrap=True)
    show.out.print(f"id     {made.id}   valid until {until or 'it is revoked'}")
    show.err.print("It is not shown again. In the kernel's environment: TOOLKIT_GATEWAY=https://…")
    show.err.print("and TOOLKIT_TOKEN=<the token>.")
    return 0


def token_list(json: Json = False) -> int:
    """List tokens; never the tokens themselves."""
    from toolkit.values import SystemClock, iso_utc

    now = SystemClock().now_us()
    rows = [
        {
            "id": one.id,
            "user": one.user,
            "team": one.team,
            "created": iso_utc(one.created_us),
            "until": None if one.expires_us is None else iso_utc(one.expires_us),
            "state": "valid" if one.valid(now) else "revoked" if one.revoked_us else "expired",
        }
        for one in _tokens().all()
    ]
    if json:
        show.print_json({"tokens": rows})
        return 0
    if not rows:
        show.out.print("no tokens; make one with `toolkit gateway token create --user NAME`")
        return 0
    columns = ("id", "user", "team", "created", "until", "state")
    cells = [tuple(str(row[name] or "–") for name in columns) for row in rows]
    show.out.print(show.table(None, columns, cells))
    return 0


def token_revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="From `toolkit gateway token list`.")],
    json: Json = False,
) -> int:
    """End a token, and with it the sessions that it opened, within a second."""
    revoked = _tokens().revoke(token)
    if json:
        show.print_json({"id": revoked.id, "user": revoked.user, "state": "revoked"})
    else:
        show.out.print(f"revoked {revoked.id} of {show.safe(revoked.user)}")
    return 0


def _tokens() -> TeamTokens:
    from toolkit.gateway import TeamTokens
    from toolkit.settings import open_workspace

    return TeamTokens(open_workspace().state / "tokens.json")


def _seconds(text: str) -> float | None:
    if text == "never":
        return None
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or not 0 < int(number) < 100_000:
        raise UsageError(
            f"{text!a} is not a time", where="--ttl", next_step="write 90m, 24h, 30d, 12w or never"
        )
    return float(int(number) * _UNITS[unit])
