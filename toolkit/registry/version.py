"""A version as callers see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.registry.manifest import Manifest

__all__ = ["Sealed", "Version"]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A version that was just published.

    Attributes:
        name, version: ``licence-review`` and 3.
        bundle_digest: What a signature or an approval refers to.
        path: A folder with its files for people to look at: its own, or a copy if it is in a
            bucket (then empty or missing if there was no room).
    """

    name: str
    version: int
    bundle_digest: str
    path: Path

    @property
    def ref(self) -> str:
        """``licence-review@3``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Version:
    """A version as its manifest describes it; its files are not verified until they are loaded.

    Attributes:
        manifest: The facts.
        bundle_digest: Their digest; :meth:`Registry.load` refuses a folder that has another.
    """

    manifest: Manifest
    bundle_digest: str

    @property
    def name(self) -> str:
        """The job."""
        return self.manifest.name

    @property
    def number(self) -> int:
        """The version's number."""
        return self.manifest.version

    @property
    def ref(self) -> str:
        """``licence-review@3``."""
        return f"{self.name}@{self.number}"
