"""Build ``notebooks/*.ipynb`` from their sources in ``tools/notebooks/*.py``.

A source is Python in the percent form: a line ``# %% [markdown] id=NAME tags=a,b`` begins a cell;
a line ``# %load_ext …`` or ``# %%magic …`` at the start of a code cell is a magic.  A cell whose
source did not change keeps its outputs::

    python tools/build_notebooks.py            # write
    python tools/build_notebooks.py --clear    # write, without outputs
    python tools/build_notebooks.py --check    # exit 1 if a notebook and its source differ
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "tools" / "notebooks"
NOTEBOOKS = ROOT / "notebooks"
_HEAD = re.compile(
    r"# %%(?: \[(?P<kind>markdown)\])? id=(?P<id>[a-z0-9-]+)(?: tags=(?P<tags>\S+))?"
)
_MAGIC = re.compile(r"# (%%?[a-z])")


@dataclass(frozen=True)
class Source:
    """One cell of a source file."""

    cell_id: str
    kind: str
    tags: tuple[str, ...]
    text: str


def read_source(text: str) -> list[Source]:
    """Split a percent source into its cells.

    Raises:
        ValueError: Text comes before the first cell, or two cells share an id.
    """
    cells: list[Source] = []
    parts = re.split(r"(?m)^(?=# %% ?(?:\[|id=))", text)
    if parts[0].strip():
        raise ValueError("text before the first cell")
    for part in parts[1:]:
        head, _, body = part.partition("\n")
        found = _HEAD.fullmatch(head.rstrip())
        if found is None:
            raise ValueError(f"not a cell's head: {head}")
        kind = found["kind"] or "code"
        lines = body.strip("\n").split("\n")
        if kind == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        else:
            lines = [_MAGIC.sub(r"\1", line) for line in lines]
        tags = tuple((found["tags"] or "").split(",")) if found["tags"] else ()
        cells.append(Source(found["id"], kind, tags, "\n".join(lines)))
    ids = [cell.cell_id for cell in cells]
    if len(set(ids)) != len(ids):
        raise ValueError("two cells share an id")
    return cells


def build(cells: list[Source], earlier: Any | None) -> Any:
    """Return the notebook of these cells; unchanged code cells keep their outputs."""
    kept = {cell["id"]: cell for cell in (earlier.cells if earlier else [])}
    made = []
    for cell in cells:
        new = (
            nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        )
        node = new(cell.text, id=cell.cell_id)
        node.metadata = {"tags": list(cell.tags)} if cell.tags else {}
        old = kept.get(cell.cell_id)
        if cell.kind == "code" and old is not None and old.get("source") == cell.text:
            node.outputs = old.get("outputs", [])
            node.execution_count = old.get("execution_count")
        made.append(node)
    notebook = nbformat.v4.new_notebook(cells=made)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    return notebook


def main() -> int:
    """Write the notebooks, or compare them with their sources."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether they agree")
    parser.add_argument("--clear", action="store_true", help="drop all outputs")
    arguments = parser.parse_args()
    stale = []
    for source in sorted(SOURCES.glob("*.py")):
        path = NOTEBOOKS / f"{source.stem}.ipynb"
        cells = read_source(source.read_text("utf-8"))
        earlier = nbformat.read(path, as_version=4) if path.is_file() else None
        if arguments.check:
            there = [(c["id"], c["source"]) for c in earlier.cells] if earlier else []
            if there != [(c.cell_id, c.text) for c in cells]:
                stale.append(path.name)
            continue
        NOTEBOOKS.mkdir(exist_ok=True)
        nbformat.write(build(cells, None if arguments.clear else earlier), path)
    if stale:
        print(f"{', '.join(stale)} differ from their sources: run tools/build_notebooks.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
