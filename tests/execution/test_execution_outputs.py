"""Output is kept within bounds, joined as it was printed, and readable while the run goes on."""

from __future__ import annotations

import hashlib
import json
import resource
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.execution import CellFact, OutputLimits
from toolkit.execution.outputs import OutputKeeper, collapse
from toolkit.values import Cause, RunState

SMALL = OutputLimits(cell_bytes=5_000, run_bytes=12_000, kept_bytes=100)


def feed(keeper: OutputKeeper, outputs: list[dict[str, Any]], name: str, text: str) -> bool:
    """Pass one stream message on as the client does."""
    content = {"name": name, "text": text}
    joins = keeper.extends(outputs, content)
    if not keeper.admit(content, joins=joins):
        return False
    if joins:
        keeper.join(outputs, content)
    else:
        keeper.flush()
        outputs.append({"output_type": "stream", **content})
    return True


PARTS = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text()), max_size=30)


@given(PARTS)
def test_joined_streams_are_what_was_printed(parts):
    """Neighbouring texts of one stream become one output; no character and no order is lost."""
    keeper, outputs = OutputKeeper(OutputLimits()), []
    keeper.begin_cell()
    for name, text in parts:
        assert feed(keeper, outputs, name, text.replace("\r", ""))
    kept, cut = keeper.end_cell(outputs)
    assert cut is None
    expected: list[list[str]] = []
    for name, text in parts:
        if not expected or expected[-1][0] != name:
            expected.append([name, ""])
        expected[-1][1] += text.replace("\r", "")
    assert [[o["name"], o["text"]] for o in kept] == expected


@given(st.lists(st.sampled_from(["a", "bc", "\r", "\n", "\r\n", "é"]), max_size=20))
def test_a_progress_line_ends_as_a_terminal_shows_it(parts):
    """Collapsing twice changes nothing, and adding text in pieces or at once ends the same."""
    text = "".join(parts)
    once = collapse(text)
    assert collapse(once) == once
    pieces = ""
    for part in parts:
        pieces = collapse(pieces + part)
    assert pieces == once
    assert collapse(text + "\rlast").endswith("last")
    assert "a" * 3 not in collapse("aaa\rb")


@given(st.lists(st.text(alphabet="xé", max_size=3_000), min_size=1, max_size=20))
def test_the_limit_bounds_what_is_kept_and_says_what_was_cut(texts):
    """Past a limit head, tail, size and digest of the cell's output stay."""
    keeper, outputs = OutputKeeper(SMALL), []
    keeper.begin_cell()
    arrived = []
    for text in texts:
        arrived.append(text)
        if not feed(keeper, outputs, "stdout", text):
            break
    kept, cut = keeper.end_cell(outputs)
    printed = "".join(arrived)
    if cut is None:
        assert "".join(o["text"] for o in kept) == printed
        return
    assert sum(len(o["text"]) for o in kept) < 3 * SMALL.kept_bytes + 200
    assert kept[-1]["text"] == printed[-SMALL.kept_bytes :]
    assert printed.startswith(kept[0]["text"]) or kept[0]["name"] == "stderr"
    digest = hashlib.sha256(b"".join(f"namestdouttext{t}".encode() for t in arrived)).hexdigest()
    assert cut["digest"] == f"sha256:{digest}"
    assert cut["digest"] in kept[-2]["text"]


def test_many_tiny_outputs_count_for_what_they_cost():
    """Outputs that are one letter each reach the limit long before their letters do."""
    keeper, outputs = OutputKeeper(SMALL), []
    keeper.begin_cell()
    names = ("stdout", "stderr")
    admitted = sum(feed(keeper, outputs, names[i % 2], "x") for i in range(1_000))
    assert admitted < 30


def test_cleared_output_does_not_count():
    """A cell that redraws one display for hours stays within its limit."""
    keeper = OutputKeeper(SMALL)
    keeper.begin_cell()
    for _ in range(100):
        assert keeper.admit({"data": {"text/plain": "x" * 1_000}})
        keeper.cleared()
    assert keeper.run_bytes == 0


def test_replaced_values_count_once_and_growth_counts():
    """A widget's state counts with its present size; many widgets reach the limit of the run."""
    keeper = OutputKeeper(SMALL)
    for _ in range(100):
        assert keeper.replace(("widget", "a", "value"), "x" * 5_000)
    assert keeper.replace(("widget", "b", "value"), "x" * 5_000)
    assert not keeper.replace(("widget", "c", "value"), "x" * 5_000)
    assert keeper.exceeded


LIMITS = OutputLimits(cell_bytes=1_000_000, run_bytes=2_500_000, kept_bytes=1_000)
FLOOD = "for i in range(60_000): print('x' * 999)"
ONE_BIG = (
    "from IPython.display import display\ndisplay({'text/plain': 'x' * 200_000_000}, raw=True)"
)
UPDATES = """
from IPython.display import display
d = display({'text/plain': '1'}, raw=True, display_id='d')
for size in (10, 3_000_000):
    display({'text/plain': 'x' * size}, raw=True, display_id='d', update=True)
import time; time.sleep(600)
"""
WIDGETS = """
from ipywidgets import HTML
kept = [HTML(value='x' * 500_000) for _ in range(8)]
import time; time.sleep(600)
"""


@pytest.mark.parametrize("source", [FLOOD, ONE_BIG, UPDATES, WIDGETS], ids=range(4))
def test_a_flood_ends_the_run_and_neither_memory_nor_file_follow_it(run, source):
    """60 MB of lines, one output of 200 MB, a growing display and widgets: all end the run."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = run(source, "never = 1", limits=LIMITS)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (ran.ending.state, ran.ending.cause) == (RunState.FAILED, Cause.OUTPUT_LIMIT)
    assert ran.statuses == ["failed", "pending"]
    assert ran.ending.output.stat().st_size < 3_000_000
    assert grown_kib < 100_000, "the runner holds a small part of what was produced"


def test_the_limit_of_the_run_counts_all_cells(run):
    """Three cells below the limit of a cell together exceed the limit of the run."""
    ran = run(*["print('x' * 900_000)"] * 4, limits=LIMITS)
    assert ran.ending.cell == 2
    assert ran.statuses == ["completed", "completed", "failed", "pending"]
    cut = ran.node.cells[2].metadata.toolkit.output
    assert cut.received_bytes > 0
    assert cut.digest in ran.text(2)
    assert ran.text(2).startswith("xxx")
    assert ran.text(2).endswith("x\n")


def test_ordinary_output_arrives_whole(run):
    """Streams, displays, updates, clearing and progress lines look as they do in JupyterLab."""
    ran = run(
        "import sys\nfor i in range(3):\n    print(i, flush=True)\nprint('e', file=sys.stderr)",
        "for i in range(50):\n    print(f'\\r{i} %', end='', flush=True)",
        "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')",
        "from IPython.display import display\nh = display(1, display_id=True)\nh.update(2)\n'\\ud800'",
    )
    assert ran.ending.state == "succeeded"
    outputs = [cell.outputs for cell in ran.node.cells]
    assert [(o.name, o.text) for o in outputs[0]] == [("stdout", "0\n1\n2\n"), ("stderr", "e\n")]
    assert ran.text(1) == "49 %"
    assert ran.text(2) == "new\n"
    assert outputs[3][0].data["text/plain"] == "2"
    nbformat.validate(ran.node)


def test_the_notebook_is_readable_after_every_cell(run, tmp_path):
    """While a cell runs the file holds all earlier outputs and says which cell runs."""
    seen: list[tuple[list[str], str]] = []

    def look(position: int, _total: int, event: str, _cell: CellFact) -> None:
        if event == "started" and position:
            node = json.loads((tmp_path / "run" / "output.ipynb").read_text())
            cells = node["cells"]
            states = [cell["metadata"]["papermill"]["status"] for cell in cells]
            seen.append((states, "".join(cells[position - 1]["outputs"][0]["text"])))

    run("print('one')", "print('two')", "3", folder=tmp_path / "run", on_progress=look)
    assert seen == [
        (["completed", "pending", "pending"], "one\n"),
        (["completed", "completed", "pending"], "two\n"),
    ]


def test_a_callback_that_fails_does_not_fail_the_run(run):
    """Whoever watches a run has no say in how it ends."""

    def broken(*_: object) -> None:
        raise RuntimeError("the screen is gone")

    assert run("1", on_progress=broken).ending.state == "succeeded"


def test_a_disk_that_takes_no_more_ends_the_run_as_infrastructure(run, tmp_path):
    """The run says that its notebook could not be written, and raises nothing."""
    folder = tmp_path / "run"
    block = f"import os, pathlib; pathlib.Path({str(folder)!r}).rename({str(tmp_path / 'gone')!r})"
    ending = run(block, "2", folder=folder).ending
    assert (ending.state, ending.cause) == (RunState.FAILED, Cause.INFRASTRUCTURE)
    assert "cannot be written: No such file or directory" in ending.message
