"""The tool catalog: which tools exist and what they do to the world.

``registry/tools.yaml``::

    tools:
      read_licence: {effect: read, description: Text of one licence file.}
      file_ticket: {effect: write, description: Opens a ticket., idempotent: true}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from toolkit.settings import read_model
from toolkit.values import Digest, Effect, digest_json

__all__ = ["ToolCatalog", "ToolEntry"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """One tool.

    Attributes:
        name: The function's name.
        effect: ``read`` leaves the world as it is; ``write`` changes it.
        description: One sentence for people and models.
        idempotent: Calling twice does what calling once does.
    """

    name: str
    effect: Effect
    description: str
    idempotent: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether the call may be repeated when its outcome is not known."""
        return self.idempotent or self.effect is Effect.READ


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    effect: Annotated[Effect, Field(strict=False)]
    description: Annotated[str, Field(min_length=1, max_length=1_000)]
    idempotent: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tools: dict[str, _Entry]

    @field_validator("tools")
    @classmethod
    def _names(cls, tools: dict[str, _Entry]) -> dict[str, _Entry]:
        bad = [ascii(name) for name in tools if not _NAME.fullmatch(name)]
        if bad:
            msg = (
                f"{', '.join(bad)} cannot name a tool: use letters, digits, '_', '-' and '.', "
                "starting with a letter, at most 64 characters"
            )
            raise ValueError(msg)
        return tools


class ToolCatalog(Mapping[str, ToolEntry]):
    """The tools by name; immutable.

    Attributes:
        digest: Digest over every entry.
    """

    def __init__(self, tools: Mapping[str, ToolEntry]) -> None:
        self._tools = MappingProxyType(dict(sorted(tools.items())))
        self.digest: Digest = digest_json(
            [[t.name, str(t.effect), t.description, t.idempotent] for t in self._tools.values()]
        )

    @classmethod
    def load(cls, path: Path) -> ToolCatalog:
        """Read a catalog.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The file has faults (all are named).
        """
        parsed = read_model(
            path,
            _File,
            "tool catalog",
            missing=f"create {path} with a `tools:` mapping (it may be empty: `tools: {{}}`)",
        ).value
        return cls(
            {
                name: ToolEntry(name, entry.effect, entry.description, entry.idempotent)
                for name, entry in parsed.tools.items()
            }
        )

    def __getitem__(self, name: str) -> ToolEntry:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)
