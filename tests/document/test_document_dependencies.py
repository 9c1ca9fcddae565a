"""Declared dependencies: two forms, every fault with its cell and line, nothing executed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from toolkit.document import Dependencies, Notebook


def read(*cells: dict[str, Any] | str) -> Dependencies:
    made = []
    for index, cell in enumerate(cells):
        given_ = {"source": cell} if isinstance(cell, str) else cell
        full = {"cell_type": "code", "id": f"c{index}", "metadata": {}, **given_}
        if full["cell_type"] == "code":
            full |= {"outputs": [], "execution_count": None}
        made.append(full)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    body = {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    return Notebook.parse(json.dumps(body).encode()).dependencies


def tagged(source: str, kind: str = "raw") -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {"tags": ["dependencies"]}}


def faults(found: Dependencies) -> list[tuple[str, int | None, int | None]]:
    return [(flaw.code, flaw.cell, flaw.line) for flaw in found.flaws]


BLOCK = """import os
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "Pandas >= 2",
#   "scikit_learn[extra]; python_version > '3'",
# ]
# ///
import pandas"""


def test_a_block_in_a_code_cell_is_read() -> None:
    """PEP 723: requirements in their normal form with their lines, and the Python version."""
    found = read("x = 1", BLOCK)
    assert found.texts == ("Pandas>=2", 'scikit_learn[extra]; python_version > "3"')
    places = [(one.name, one.cell, one.line) for one in found.requirements]
    assert places == [("pandas", 2, 5), ("scikit-learn", 2, 6)]
    assert (found.declared, found.requires_python, found.flaws) == (True, ">=3.11", ())


def test_a_tagged_cell_is_read() -> None:
    """A raw cell has a requirement per line; a code cell a plain list."""
    raw = read(tagged("# ours\npandas>=2  # tables\n\nrapidfuzz\n"))
    assert [(one.text, one.line) for one in raw.requirements] == [
        ("pandas>=2", 2),
        ("rapidfuzz", 4),
    ]
    code = read(tagged('dependencies = [\n  "pandas>=2",\n]', "code"))
    assert [(one.text, one.line) for one in code.requirements] == [("pandas>=2", 2)]


def test_a_notebook_without_a_declaration_declares_nothing() -> None:
    """An empty list is a declaration; a comment about scripts is none."""
    assert read("import pandas", "# /// scripts\n# ///") == Dependencies()
    assert read("# /// script\n# dependencies = []\n# ///").declared


def test_every_fault_has_its_cell_and_line_and_shows_no_value() -> None:
    """Addresses, options, our own name, what is no requirement, what is no list."""
    block = read(
        "# /// script\n# dependencies = [\n#   'x @ https://ana:s3cret@host/x.whl',\n"
        "#   'agent_toolkit',\n#   '-r s3cret',\n#   7,\n# ]\n# requires-python = 's3cret'\n"
        "# index = 's3cret'\n# [tool.uv]\n# ///"
    )
    assert sorted({line or 0 for _, _, line in faults(block)}) == [3, 4, 5, 8, 9, 10]
    assert [code for code, _, _ in faults(block)] == ["bad-dependencies"] * 7  # 7 is at 5, too
    assert "s3cret" not in repr(block.flaws)
    raw = read(tagged("--index-url https://host\n./here\npandas"))
    assert faults(raw) == [("bad-dependencies", 1, 1), ("bad-dependencies", 1, 2)]
    for source in ("dependencies = make()", "x = ['a']", "import os\ndependencies = ['a']", ""):
        assert faults(read(tagged(source, "code"))) == [("bad-dependencies", 1, 1)]
    assert faults(read(tagged("pandas", "markdown"))) == [("bad-dependencies", 1, 1)]
    assert faults(read("# /// script\n# dependencies = [\n# ///")) == [("bad-dependencies", 1, 2)]
    assert faults(read("x = 1\n# /// script\n# dependencies = []\nx = 2")) == [
        ("bad-dependencies", 1, 2)
    ]


def test_two_declarations_are_a_fault() -> None:
    """The first one is read; the others are named."""
    empty = "# /// script\n# dependencies = ['pandas']\n# ///"
    found = read(empty, "x = 1", "\n" + empty)
    assert faults(found) == [("several-dependencies", 3, 2)]
    assert found.texts == ("pandas",)
    assert faults(read(f"{empty}\n\n{empty}"))[0][0] == "several-dependencies"


_LINES = st.sampled_from(
    [
        *("# /// script", "# ///", "#", "# dependencies = ['a', 'b @ c']", "# dependencies = 1"),
        *("# requires-python = 3", "# [tool.uv]", "x = 1", "# [[[[", '# a = """'),
        *("pandas>=2", "-e ."),
    ]
)


@given(st.lists(_LINES | st.text(max_size=8), max_size=8), st.booleans())
def test_any_text_ends_with_a_declaration_or_faults(lines: list[str], tag: bool) -> None:
    """Reading never raises, and each fault stands inside its cell."""
    source = "\n".join(lines)
    found = read(tagged(source, "raw" if tag else "code"))
    lines_there = len(source.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    assert all(flaw.line and 1 <= flaw.line <= lines_there for flaw in found.flaws)
