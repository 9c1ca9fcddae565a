"""What servers and services offer, asked from a command: nothing is called."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from toolkit.settings import Workspace
from toolkit.tools import Listed, Toolbox

__all__ = ["first_line", "listed_tools", "offered_tools", "snippet"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_DESCRIPTION_CHARACTERS = 80


def listed_tools(workspace: Workspace) -> list[tuple[str, str | None]]:
    """Return the tools of ``tools.yaml`` that others offer, with the host that each asks.

    Raises:
        NotFound, InvalidFile: See :class:`~toolkit.tools.Toolbox`.
    """
    box = _toolbox(workspace)
    return [(name, box.host(name)) for name in box.names]


def offered_tools(workspace: Workspace, server: str) -> list[Listed]:
    """Ask a server or service what it offers; it is started, with its secrets, and ended again.

    Raises:
        NotFound, InvalidFile: There is no such server, or the files have faults.
        ToolFailed, ConfigurationError, CallDenied: It cannot be asked.
    """

    async def ask() -> list[Listed]:
        box = _toolbox(workspace)
        try:
            return await box.offered(server)
        finally:
            await box.close()

    return asyncio.run(ask())


def snippet(workspace: Workspace, server: str, offered: Sequence[Listed]) -> str:
    """Return the lines of ``tools.yaml`` that list everything offered, pinned as it is now.

    The effect is ``write`` for all of them, the stricter one: whether a tool only reads is for a
    person to say, not for its server.
    """
    box = _toolbox(workspace)
    section = "http" if box.has_document(server) else "servers"
    member = "operations" if section == "http" else "tools"
    lines = [f"{section}:", f"  {server}:", f"    {member}:"]
    for one in offered:
        own = one.name.partition(".")[2]
        key = own if _PLAIN.fullmatch(own) else json.dumps(own)
        lines.append(f'      {key}: {{effect: write, digest: "{one.offer.digest}"}}')
    return "\n".join(lines) + "\n"


def first_line(text: str) -> str:
    """Return the beginning of a description."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _DESCRIPTION_CHARACTERS else f"{line[:_DESCRIPTION_CHARACTERS]}…"


def _toolbox(workspace: Workspace) -> Toolbox:
    return Toolbox(
        Path(workspace.registry) / "tools.yaml",
        environ=os.environ,
        root=workspace.root,
        logs=workspace.state / "logs",
    )
