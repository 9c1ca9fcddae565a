"""In what a call differs from a recorded one, told leaf by leaf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = ["Difference", "Divergence", "differences"]

_MOST_LEAVES = 20
_MOST_TEXT = 200
_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf of the arguments that differs.

    Attributes:
        path: ``amount``, ``items[2].name``; empty for the whole value.
        recorded, asked: JSON text, shortened; ``(absent)`` where there is none.
    """

    path: str
    recorded: str
    asked: str

    def __str__(self) -> str:
        return f"{self.path or 'value'}: {self.recorded} → {self.asked}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first call that differs.

    Attributes:
        kind, name, cell: What was asked; of a recorded call that nobody asked for: what it was.
        asked: Whether it was asked for and is not in the journal (else: the other way round).
        recorded: Key of the recorded call that comes nearest, ``None`` if none resembles it.
        differences: What differs between the two, leaf by leaf.
    """

    kind: str
    name: str
    cell: str | None
    asked: bool
    recorded: str | None = None
    differences: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        where = f" (cell {self.cell})" if self.cell else ""
        if not self.asked:
            return f"{self.kind} {self.name}{where} is recorded and was not asked for again"
        if self.recorded is None:
            return f"{self.kind} {self.name}{where} is asked for, and the journal has none like it"
        told = "; ".join(map(str, self.differences)) or "it was asked less often before"
        return f"{self.kind} {self.name}{where} is asked for otherwise than before: {told}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, with its sentence as ``message``."""
        return {
            "message": str(self),
            "kind": self.kind,
            "name": self.name,
            "cell": self.cell,
            "asked": self.asked,
            "recorded": self.recorded,
            "differences": [
                {"path": d.path, "recorded": d.recorded, "asked": d.asked} for d in self.differences
            ],
        }


def differences(recorded: Any, asked: Any) -> Iterator[Difference]:
    """Yield the leaves in which two JSON values differ, at most 20."""
    yield from islice(_walk(recorded, asked, ""), _MOST_LEAVES)


def _walk(recorded: Any, asked: Any, path: str) -> Iterator[Difference]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in sorted({*recorded, *asked}):
            inner = f"{path}.{name}" if path else name
            yield from _walk(recorded.get(name, _Absent), asked.get(name, _Absent), inner)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index in range(max(len(recorded), len(asked))):
            was = recorded[index] if index < len(recorded) else _Absent
            now = asked[index] if index < len(asked) else _Absent
            yield from _walk(was, now, f"{path}[{index}]")
    elif not _same(recorded, asked):
        yield Difference(path, _shown(recorded), _shown(asked))


class _Absent:
    """No value, which is not the same as null."""


def _same(recorded: Any, asked: Any) -> bool:
    # True == 1 in Python, and not in JSON.
    return recorded == asked and isinstance(recorded, bool) == isinstance(asked, bool)


def _shown(value: Any) -> str:
    if value is _Absent:
        return _ABSENT
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"
