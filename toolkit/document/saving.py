"""Outputs of an executed copy, written back into the notebook that a person keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from toolkit.document.notebook import examine

__all__ = ["save_outputs"]

_MAX_EXECUTED_BYTES = 100_000_000


def save_outputs(path: Path, executed: Path) -> int:
    """Write the outputs of ``executed`` into the cells of ``path`` that have the same id.

    Only outputs and execution counts change: cells that the runner added (parameters) stay out.
    The file is replaced in one step.

    Returns:
        How many code cells got outputs.

    Raises:
        InvalidFile, NotFound: One of the files cannot be read.
    """
    notebook, source = _load(path), _load(executed)
    by_id = {c.get("id"): c for c in source["cells"] if c.get("cell_type") == "code"}
    count = 0
    for cell in notebook["cells"]:
        done = by_id.get(cell.get("id"))
        if cell.get("cell_type") != "code" or done is None:
            continue
        cell["outputs"] = done.get("outputs", [])
        count += 1
        # Counts as after Run All: the injected cell of a run would leave a gap.
        cell["execution_count"] = count
    text = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    draft.replace(path)
    return count


def _load(path: Path) -> dict[str, Any]:
    examine(path, max_bytes=_MAX_EXECUTED_BYTES).require()  # every fault, as for any reader
    document: dict[str, Any] = json.loads(path.read_text("utf-8-sig"))
    return document
