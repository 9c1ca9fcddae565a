"""What is installed beside this toolkit: the workspace's own environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from toolkit.environments.kernel_side import KERNEL_MODULES
from toolkit.values import Digest, digest_json

__all__ = ["Provided", "WorkspaceEnvironment", "installed", "provided"]

_SUFFIXES = (".dist-info", ".egg-info")


@dataclass(frozen=True)
class WorkspaceEnvironment:
    """The environment of this process, which notebooks without a declaration run in.

    It is recorded, not locked: two machines, or one machine on two days, may have different ones.

    Attributes:
        python: Version of the interpreter (``3.11.7``).
        distributions: ``name==version`` of everything that is installed, sorted.
    """

    python: str
    distributions: tuple[str, ...]

    @classmethod
    def current(cls) -> WorkspaceEnvironment:
        """Look at this process's ``sys.path``."""
        version = ".".join(map(str, sys.version_info[:3]))
        return cls(version, tuple(f"{n}=={v}" for n, v in sorted(installed().items())))

    @cached_property
    def digest(self) -> Digest:
        """Digest of Python's version and the list."""
        return digest_json({"python": self.python, "distributions": list(self.distributions)})

    def to_json(self) -> dict[str, Any]:
        """Return what a version records about it."""
        return {
            "kind": "workspace",
            "digest": self.digest,
            "python": self.python,
            "distributions": len(self.distributions),
        }


def installed() -> dict[str, str]:
    """Return versions by normal name, by the names of metadata folders; the first on the path wins.

    The folders are named by the specification of installed projects; reading 200 metadata files
    instead would cost a tenth of a second at each run.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = sorted(os.listdir(folder or "."))  # noqa: PTH208 - names are enough
        except OSError:
            continue
        for entry in entries:
            stem, dot, kind = entry.rpartition(".")
            suffix = dot + kind
            name, _, version = stem.partition("-")
            if suffix in _SUFFIXES and name:
                version = version.partition("-py")[0] if suffix == ".egg-info" else version
                found.setdefault(canonicalize_name(name), version or "unknown")
    return found


class Provided(StrEnum):
    """What provides an imported module in an environment of declared dependencies."""

    BASE = "base"
    """The standard library, or the kernel's half of the toolkit."""
    DECLARED = "declared"
    """A declared dependency."""
    INDIRECT = "indirect"
    """Only something that a declared dependency needs."""
    UNKNOWN = "unknown"
    """Perhaps a declared dependency that is not installed here, so nobody can look."""
    NOBODY = "nobody"
    """Nothing."""


def provided(module: str, declared: Collection[str]) -> Provided:
    """Say what provides a top-level module.

    A module is matched with distributions by the metadata of what is installed here, and by its
    name where that is the distribution's name.  For distributions that are not installed here
    only the name can be compared.

    Args:
        module: ``yaml``.
        declared: Normal names of the declared distributions.
    """
    if module in sys.stdlib_module_names or module in KERNEL_MODULES:
        return Provided.BASE
    names = {canonicalize_name(name) for name in declared}
    givers = {canonicalize_name(name) for name in _givers().get(module, ())}
    if canonicalize_name(module) in names or givers & names:
        return Provided.DECLARED
    present = installed()
    if givers & _closure(names):
        return Provided.INDIRECT
    return Provided.UNKNOWN if any(name not in present for name in names) else Provided.NOBODY


@cache
def _givers() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _closure(names: set[Any]) -> set[str]:
    """Return what the distributions need, as far as they are installed; extras are not followed."""
    seen: set[str] = set()
    queue = sorted(names)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        queue += [parsed for text in needed if (parsed := _applies(text)) is not None]
    return seen


def _applies(text: str) -> str | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    marker = requirement.marker
    wanted = marker is None or marker.evaluate({"extra": ""})
    return canonicalize_name(requirement.name) if wanted else None
