"""What the tests of this room share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import nbformat

from toolkit.execution import Ending

SECRET = "sk-canary-of-whoever-started-the-zygote"


@dataclass
class Ran:
    """An ending, and what each cell printed."""

    ending: Ending

    def said(self, position: int = 0) -> Any:
        """Return the JSON that a cell printed."""
        cell = nbformat.read(self.ending.output, as_version=4).cells[position]
        return json.loads("".join(o.text for o in cell.outputs if o.output_type == "stream"))
