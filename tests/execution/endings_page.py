"""The table of docs/endings.md."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from toolkit.execution import exit_code
from toolkit.values import Cause, RunState, resumable

_PAGE = Path(__file__).parents[2] / "docs" / "endings.md"
_ROW = re.compile(
    r"^\| (.+) \| (\w+) \| (\w+|–) \| (\d+) \| (goes on|told again) \|$", re.MULTILINE
)


class Row(NamedTuple):
    """What the page says about one ending."""

    state: str
    cause: str
    code: int
    again: str

    @classmethod
    def of(cls, state: RunState, cause: Cause | None) -> Row:
        """The row of an ending that was seen."""
        again = "goes on" if resumable(state, cause) else "told again"
        return cls(str(state), str(cause or "–"), exit_code(state, cause), again)


@functools.cache
def page() -> dict[str, Row]:
    """The rows by what happens."""
    found = _ROW.findall(_PAGE.read_text("utf-8"))
    return {name: Row(state, cause, int(code), again) for name, state, cause, code, again in found}
