"""Builds notebooks for the tests of this room."""

from __future__ import annotations

import nbformat


def notebook_bytes(*cells: str | tuple[str, list[str]], kernel: str = "python3") -> bytes:
    """Return a notebook; a cell is its source, or its source and its tags."""
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    for cell in cells:
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        node.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags}))
    return nbformat.writes(node).encode()
