"""`key`: the key that somebody signs with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.app.trusting import key_uri, own_signer, passphrase, use_key
from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    key = typer.Typer(help="Make and name the key that you sign with.", no_args_is_help=True)
    key.command("new")(key_new)
    key.command("use")(key_use)
    key.command("show")(key_show)
    app.add_typer(key, name="key")


def key_new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist.")],
    kind: Annotated[str, typer.Option("--type", help="ed25519 or ecdsa-p256.")] = "ed25519",
    encrypt: Annotated[
        bool, typer.Option(help="Ask for a passphrase, or take TOOLKIT_KEY_PASSPHRASE.")
    ] = False,
    json: Json = False,
) -> int:
    """Make a key in a file of mode 0600."""
    from toolkit.trust import new_key

    secret = passphrase() if encrypt else None
    if encrypt and not secret:
        raise UsageError(
            "there is no passphrase", next_step="export TOOLKIT_KEY_PASSPHRASE, or use a terminal"
        )
    signer = new_key(path, kind, secret)
    _tell_key(f"file:{path}", signer.public.id, signer.public.to_json(), json)
    return 0


def key_use(
    uri: Annotated[str, typer.Argument(metavar="URI", help="file:PATH, env:NAME …")],
    json: Json = False,
) -> int:
    """Sign with this key in this workspace; the URI is kept, not the key."""
    with open_workbench() as bench:
        public = use_key(bench.workspace, uri).public
        _tell_key(key_uri(bench.workspace) or uri, public.id, public.to_json(), json)
        return 0


def key_show(
    uri: Annotated[str | None, typer.Argument(metavar="URI", help="Left out: yours.")] = None,
    json: Json = False,
) -> int:
    """Show the public half of a key."""
    from toolkit.trust import open_signer

    if uri is not None:
        public = open_signer(uri, passphrase).public
        _tell_key(uri, public.id, public.to_json(), json)
        return 0
    with open_workbench() as bench:
        public = own_signer(bench.workspace).public
        _tell_key(str(key_uri(bench.workspace)), public.id, public.to_json(), json)
        return 0


def _tell_key(uri: str, key_id: str, public: dict[str, str], json: bool) -> None:
    if json:
        show.print_json({"uri": uri, "id": key_id, **public})
        return
    show.out.print(f"key     {show.safe(uri)}", soft_wrap=True)
    show.out.print(f"id      {key_id}", soft_wrap=True)
    show.out.print(f"public  {public['type']}:{public['public']}", soft_wrap=True)
