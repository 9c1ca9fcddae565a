"""The registry as this workspace trusts it: what was seen last, and whose key signs."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from toolkit.registry import Registry
    from toolkit.settings import Workspace
    from toolkit.trust import Signer

__all__ = ["key_uri", "open_registry", "own_signer", "passphrase", "trust_state", "use_key"]

_URI = "TOOLKIT_SIGNING_KEY"
_PASSPHRASE = "TOOLKIT_KEY_PASSPHRASE"  # noqa: S105 - the variable's name
_MAX_URI = 1024


def trust_state(workspace: Workspace) -> Path:
    """Where what was seen last is kept: not in the registry."""
    return workspace.state / "trust" / "state.json"


def open_registry(workspace: Workspace) -> Registry:
    """Return the workspace's registry; in a signed one this user's key signs.

    Raises:
        UsageError: ``registry`` names neither a folder nor a bucket.
        ConfigurationError: It names a bucket, and s3fs is not installed.
    """
    from toolkit.registry import Registry, place_at

    address, cache = workspace.registry_address, workspace.state / "registry-cache"
    return Registry(
        workspace.registry,
        place=place_at(address, cache) if address else None,
        trust_state=trust_state(workspace),
        signer=lambda: own_signer(workspace),
    )


def own_signer(workspace: Workspace, *, ask: bool = True) -> Signer:
    """Open this user's key.

    Args:
        workspace: Whose settings name it.
        ask: Whether somebody may be asked for its passphrase.

    Raises:
        ConfigurationError: None is named here, or it cannot be opened.
        UsageError: Nothing here opens keys of its scheme.
    """
    uri = key_uri(workspace)
    if uri is None:
        raise ConfigurationError(
            "no key is named to sign with",
            where=str(_file(workspace)),
            next_step=f"name yours: `toolkit key use URI`, or export {_URI}",
        )
    return _open(uri, passphrase if ask else lambda: os.environ.get(_PASSPHRASE))


def key_uri(workspace: Workspace) -> str | None:
    """Return the URI of this user's key: of the variable, or of ``toolkit key use``."""
    named = os.environ.get(_URI)
    if named:
        return named
    try:
        return _file(workspace).read_text("utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "which key signs cannot be read",
            where=str(_file(workspace)),
            next_step="name it again: `toolkit key use URI`",
        ) from error


def use_key(workspace: Workspace, uri: str) -> Signer:
    """Sign with a key from now on in this workspace; its URI is kept, never the key.

    Raises:
        ConfigurationError: It cannot be opened.
        UsageError: It is not a URI of a key.
    """
    if "-----BEGIN" in uri or len(uri) > _MAX_URI or not uri.isprintable():
        raise UsageError("this is not the URI of a key", next_step="use file:PATH or env:NAME")
    if uri.startswith("file:"):
        uri = f"file:{Path(uri.removeprefix('file:')).expanduser().absolute()}"
    signer = _open(uri)
    path = _file(workspace)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".signer-{secrets.token_hex(8)}")
    scratch.write_text(uri + "\n", "utf-8")
    scratch.replace(path)
    return signer


def passphrase() -> str | None:
    """Return what opens an encrypted key: of the variable, or asked for in a terminal."""
    said = os.environ.get(_PASSPHRASE)
    if said or not sys.stdin.isatty():
        return said
    return getpass("passphrase of the key: ")


def _open(uri: str, secret: Callable[[], str | None] = passphrase) -> Signer:
    from toolkit.trust import open_signer

    return open_signer(uri, secret)


def _file(workspace: Workspace) -> Path:
    return workspace.state / "trust" / "signer"
