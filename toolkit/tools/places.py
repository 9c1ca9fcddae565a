"""What servers and services need to know of their surroundings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.settings import Resolver

__all__ = ["Places"]


@dataclass(frozen=True)
class Places:
    """What servers and services need to know of their surroundings.

    Attributes:
        environ: The gateway's environment, where their secrets are.
        root: The workspace; working folders are inside.
        registry: The folder of ``tools.yaml``; its paths are relative to it.
        logs: Where ``server-<name>.log`` gets what a server prints to its error output.
        resolver: Finds addresses.
        screen: Cuts secrets out of a line that a server printed.
    """

    environ: Mapping[str, str]
    root: Path
    registry: Path
    logs: Path
    resolver: Resolver
    screen: Callable[[str], str] = lambda line: line

    def authority(self, ca_file: str | None) -> Path | None:
        """Return the path of a file of certificate authorities."""
        return None if ca_file is None else self.registry / ca_file
