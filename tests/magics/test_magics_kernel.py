"""The extension in a real kernel, driven by nbclient and nbval as in production."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from toolkit.client import wire
from toolkit.errors import BudgetExceeded, CallDenied
from toolkit.magics import NBVAL_SANITIZE

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _notebook(*cells: str):
    return new_notebook(cells=[new_code_cell(cell) for cell in ("%load_ext toolkit", *cells)])


def _execute(notebook, **options):
    client = NotebookClient(notebook, kernel_name="python3", timeout=60, **options)
    client.execute()
    return notebook


@pytest.mark.parametrize("kind", [CallDenied, BudgetExceeded])
def test_a_refused_call_is_an_error_of_the_kernel(gateway, kind):
    """nbclient and papermill see status error under the error's own name; the cell shows a box."""
    gateway.errors["default"] = kind("the policy says no", where="p.cedar", next_step="ask ana")
    notebook = _notebook("x = 1\nreply = toolkit.model('hello')", "raise SystemError('never')")
    with pytest.raises(CellExecutionError) as caught:
        _execute(notebook)
    assert (caught.value.ename, caught.value.evalue) == (kind.__name__, "the policy says no")
    (output,) = [o for o in notebook.cells[1].outputs if o.output_type == "error"]
    assert (output.ename, output.evalue) == (kind.__name__, "the policy says no")
    box = [_ANSI.sub("", line) for line in output.traceback]
    assert box == [
        f"│ {kind.__name__}: the policy says no",
        "│     at  line 2 of the cell: reply = toolkit.model('hello')",
        "│  where  p.cedar",
        "│   next  ask ana",
    ]
    assert notebook.cells[2].execution_count is None


def test_a_later_error_is_not_shown_with_the_earlier_box(gateway):
    """After a toolkit error the kernel still tells an ordinary error with its own traceback."""
    gateway.errors["default"] = CallDenied("no")
    notebook = _execute(_notebook("toolkit.model('a')", "1/0"), allow_errors=True)
    (error,) = notebook.cells[2].outputs
    assert error.ename == "ZeroDivisionError"
    assert "CallDenied" not in "".join(error.traceback)


def test_a_denial_in_awaited_code_is_an_error_too(gateway):
    """Cells with top-level await take another path through IPython."""
    gateway.errors["slow"] = CallDenied("not that tool")
    tool = "@toolkit.tool\nasync def slow(n: int) -> int:\n    return n"
    notebook = _execute(_notebook(tool, "await slow(1)"), allow_errors=True)
    (error,) = [o for o in notebook.cells[2].outputs if o.output_type == "error"]
    assert (error.ename, error.evalue) == ("CallDenied", "not that tool")


def test_a_kernel_without_cell_ids_marks_every_cell(gateway):
    """nbclient sends no ids: two equal cells have different marks and different occurrences."""
    _execute(_notebook("r = toolkit.model('a')", "r = toolkit.model('a')"))
    first, second = gateway.asked(wire.MODEL)
    assert first["cell"] != second["cell"]
    assert (first["occurrence"], second["occurrence"]) == (0, 1)


def test_cards_and_lines_are_kept_in_the_notebook(gateway):
    """The executed notebook shows what each cell did, as HTML with a text twin."""
    notebook = _execute(
        _notebook(
            "%%model --out r\nhello {1+1}",
            "replies = [toolkit.model(w) for w in 'ab']",
            "%toolkit panel",
            "%toolkit calls",
        )
    )
    card, line, panel, calls = (cell.outputs[0] for cell in notebook.cells[1:])
    assert card.output_type == "execute_result"
    assert card.data["text/plain"] == "echo: hello 2"
    assert "smollm2" in card.data["text/html"]
    assert line.data["text/plain"] == "2 governed calls: model default ×2"
    assert "application/vnd.jupyter.widget-view+json" in panel.data
    assert calls.data["text/plain"] == "toolkit calls: 3"


@pytest.mark.slow
def test_nbval_compares_answers_and_not_seconds(gateway, tmp_path):
    """With our pattern a run with other links passes nbval, and another answer fails it."""
    cells = ("%%model\nhello", "a, b = toolkit.model('a'), toolkit.model('b')", "%toolkit status")
    gateway.ui = "http://127.0.0.1:6002"
    notebook = _execute(_notebook(*cells))
    nbformat.write(notebook, tmp_path / "same.ipynb")
    data = notebook.cells[1].outputs[0].data
    data["text/html"] = data["text/html"].replace("echo", "another answer")
    nbformat.write(notebook, tmp_path / "other.ipynb")
    (tmp_path / "nbval.cfg").write_text(NBVAL_SANITIZE)
    gateway.ui = "http://127.0.0.1:5001"

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "-rA"]
    command += ["--nbval-current-env", "--nbval-sanitize-with", "nbval.cfg"]
    done = subprocess.run(
        [*command, "same.ipynb", "other.ipynb"], cwd=tmp_path, capture_output=True, text=True
    )
    verdicts = re.findall(
        r"^(PASSED|FAILED|ERROR) (\w+)\.ipynb::Cell (\d)", done.stdout, re.MULTILINE
    )
    passed = {(name, int(cell)) for verdict, name, cell in verdicts if verdict == "PASSED"}
    failed = {(name, int(cell)) for verdict, name, cell in verdicts if verdict != "PASSED"}
    assert passed == {*(("same", n) for n in range(4)), ("other", 0), ("other", 2), ("other", 3)}
    assert failed == {("other", 1)}
