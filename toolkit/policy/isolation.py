"""``isolation`` of ``policy.yaml``: how far a run's kernel is kept from its machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from toolkit.policy.types import Isolation
from toolkit.values import Caps, IsolationLevel

__all__ = ["IsolationFile", "IsolationPolicy", "isolation_policy", "parse_size"]

_SIZE = re.compile(r"([1-9][0-9]{0,6})(KiB|MiB|GiB|TiB)", re.ASCII)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MIN_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class IsolationPolicy:
    """What a kernel gets.

    Attributes:
        minimum: Below this level a run is refused.
        preferred: The level that is used where the machine reaches it; at least ``minimum``.
        caps: What the kernel, and all that it starts, may use.
    """

    minimum: IsolationLevel = IsolationLevel.L0
    preferred: IsolationLevel = IsolationLevel.L0
    caps: Caps = field(default_factory=Caps)


def parse_size(text: Any) -> int:
    """Return the bytes of ``512MiB`` or ``2GiB``.

    Raises:
        ValueError: The text is neither.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        msg = f"{str(text)[:40]!a} is not a size like 512MiB or 2GiB"
        raise ValueError(msg)
    return int(match[1]) * _UNITS[match[2]]


def _level(value: Any) -> IsolationLevel:
    names = [level.name for level in IsolationLevel]
    if value not in names:
        msg = f"{str(value)[:40]!a} is not a level: {', '.join(names)}"
        raise ValueError(msg)
    return IsolationLevel[value]


_Level = Annotated[IsolationLevel, BeforeValidator(_level)]
_Size = Annotated[int, BeforeValidator(parse_size)]


class IsolationFile(BaseModel):
    """The member ``isolation`` of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    minimum: _Level | None = None
    preferred: _Level | None = None
    memory: Annotated[_Size, Field(ge=_MIN_MEMORY)] | None = None
    processes: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    cpu_s: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    file: _Size | None = None
    open_files: Annotated[int, Field(ge=64, le=1_000_000)] | None = None


def isolation_policy(named: Isolation | None, file: IsolationFile) -> IsolationPolicy:
    """Bring ``minimum_isolation`` and ``isolation`` together.

    Raises:
        ValueError: Neither names a minimum, they differ, or the preferred level is below it.
    """
    minimum = file.minimum if named is None else IsolationLevel(named.level)
    if minimum is None:
        msg = "says no minimum_isolation: none, limits, sandbox or hardened"
        raise ValueError(msg)
    if file.minimum not in (None, minimum):
        msg = f"minimum_isolation: {named} is {minimum.name}, and isolation.minimum differs"
        raise ValueError(msg)
    preferred = minimum if file.preferred is None else file.preferred
    if preferred < minimum:
        msg = f"isolation.preferred {preferred.name} is below the minimum {minimum.name}"
        raise ValueError(msg)
    caps = Caps(file.memory, file.processes, file.cpu_s, file.file, file.open_files)
    return IsolationPolicy(minimum, preferred, caps)
