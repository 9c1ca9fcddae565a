from __future__ import annotations

import copy
import json

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.document import Notebook

SOURCES = st.text(st.characters(codec="utf-8"), max_size=30)
CELLS = st.lists(
    st.fixed_dictionaries(
        {
            "cell_type": st.sampled_from(["code", "markdown", "raw"]),
            "source": SOURCES | st.lists(SOURCES, max_size=3),
            "tags": st.lists(st.sampled_from("abc"), unique=True),
        },
        optional={"id": st.sampled_from(["a", "b", "c-1"])},
    ),
    max_size=4,
)


def _document(cells: list[dict], minor: int) -> dict:
    made = []
    for given_cell in cells:
        cell = dict(given_cell)
        cell["metadata"] = {"tags": cell.pop("tags"), "scrolled": True}
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": 3}
        made.append(cell)
    return {"cells": made, "metadata": {"x": 1}, "nbformat": 4, "nbformat_minor": minor}


@given(CELLS, st.integers(4, 5))
@settings(max_examples=200)
def test_normalising_twice_changes_nothing(cells: list[dict], minor: int) -> None:
    """The normal form is a valid notebook without remarks, and its own normal form."""
    data = json.dumps(_document(cells, minor)).encode()
    once = Notebook.parse(data).normalised()
    again = Notebook.parse(once)
    assert again.normalised() == once
    assert {remark.code for remark in again.remarks} <= {"no-kernelspec"}
    nbformat.validate(nbformat.reads(once.decode(), as_version=4))


def _digest(document: dict) -> str:
    return Notebook.parse(json.dumps(document, indent=1).encode()).digest


def test_running_and_viewing_leave_the_digest(document) -> None:
    """Outputs, counts, widget state, timing and scroll marks are not part of the digest."""
    before = document("x = 1\ny = 2", {"cell_type": "markdown", "source": "t"})
    after = copy.deepcopy(before)
    cell = after["cells"][0]
    cell["source"] = ["x = 1\n", "y = 2"]
    cell["execution_count"] = 7
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "hi"}]
    cell["metadata"] = {"execution": {"iopub.status.busy": "now"}, "scrolled": True, "tags": []}
    after["metadata"] |= {"widgets": {"state": {}}, "papermill": {"duration": 1}}
    after["metadata"]["kernelspec"] = {"name": "other", "display_name": "O", "language": "python"}
    assert _digest(after) == _digest(before)


@pytest.mark.parametrize("change", ["source", "tag", "order", "kind", "id", "language"])
def test_what_a_run_depends_on_changes_the_digest(change: str, document) -> None:
    """Source, tags, order, kinds, ids and language are part of the digest."""
    before = document("x = 1", "y = 2")
    after = copy.deepcopy(before)
    cell = after["cells"][0]
    if change == "source":
        cell["source"] = "x = 1 "
    elif change == "tag":
        cell["metadata"] = {"tags": ["parameters"]}
    elif change == "order":
        after["cells"].reverse()
    elif change == "kind":
        after["cells"][0] = {k: cell[k] for k in ("id", "metadata", "source")} | {
            "cell_type": "raw"
        }
    elif change == "id":
        cell["id"] = "other"
    else:
        after["metadata"]["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    assert _digest(after) != _digest(before)


def test_results_agents_tools_and_routes(notebook) -> None:
    """What a notebook publishes, defines and uses is read from its syntax trees."""
    made = notebook(
        "import toolkit as tk\nfrom toolkit import tool, result as publish, agent",
        "@tool(effect='write')\ndef write_row(x: int) -> int:\n    return x",
        "@tk.tool\ndef read_row(x: int) -> int:\n    return x\n"
        "@agent(name='judge')\nasync def judge_one(x: int) -> str:\n"
        "    return (await tk.model('hi', route='small')).text",
        "%%tool --effect write\ndef third(x: int) -> int:\n    return x",
        "%%agent --name boss\ndef fourth(x: int) -> int:\n    return x",
        "%%model large --schema X\nWhat is this?",
        "tk.result(rows=3, share=0.5)\npublish(rows=4, note='x')",
    )
    found = [(d.kind, d.name, d.effect, d.cell, d.line) for d in made.definitions]
    assert found == [
        ("tool", "write_row", "write", 2, 2),
        ("tool", "read_row", "read", 3, 2),
        ("agent", "judge", "read", 3, 5),
        ("tool", "third", "write", 4, 2),
        ("agent", "boss", "read", 5, 2),
    ]
    assert made.tools == ("write_row", "read_row", "third")
    assert made.agents == ("judge", "boss")
    assert [(r.name, r.cell, r.line) for r in made.route_uses] == [("small", 3, 6), ("large", 6, 1)]
    assert made.results == ("rows", "share", "note")


def test_names_of_other_libraries_are_not_ours(notebook) -> None:
    """``tool`` and ``result`` of another library, or of the notebook itself, do not count."""
    made = notebook(
        "from langchain.tools import tool\n@tool\ndef f(x): ...",
        "def result(**values): ...\nresult(rows=1)\nsession.result(rows=2)",
    )
    assert (made.tools, made.results) == ((), ())


def test_results_by_double_star_are_marked(notebook) -> None:
    """``result(**values)`` publishes names that only a run shows."""
    made = notebook("import toolkit\ntoolkit.result(**values)")
    assert made.results == ()
    assert [use.name for use in made.result_uses] == [None]


def test_other_languages_are_not_read_as_python(notebook) -> None:
    """An R notebook has cells and a digest, but no parameters and no results."""
    spec = {"name": "ir", "display_name": "R", "language": "R"}
    made = notebook("x <- 1\nresult(rows=1)", metadata={"kernelspec": spec})
    assert made.code_cells == ()
    assert (made.results, made.parameters) == ((), ())


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\nif x\n  y", 2),
        ("return 1", 1),
        ("def f(a, a): pass", 1),
        ("x = '\0'", 1),
        ("x = " + "(" * 500 + ")" * 500, 1),
        ("-" * 100_000 + "1", 1),
        ("'unfinished", 1),
        ("  x = 1\n y = 2", 1),
    ],
)
def test_cell_that_does_not_parse_names_its_line(source: str, line: int, notebook) -> None:
    """Broken Python is a flaw with cell and line, never an exception."""
    code = notebook("ok = 1", source).cells[1].code
    assert code.tree is None
    assert code.flaw is not None
    assert (code.flaw.code, code.flaw.cell) == ("does-not-parse", 2)
    assert code.flaw.line == line


@pytest.mark.parametrize(
    "source",
    ["await f()", "async for x in y:\n    pass", "x = !ls\n%time f()", "'\\d'", "1 is 1", "a?", ""],
)
def test_what_ipython_runs_parses(source: str, notebook) -> None:
    """Top-level ``await`` and IPython syntax are fine."""
    assert notebook(source).cells[0].code.flaw is None
