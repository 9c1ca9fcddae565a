"""What the cells of a run show, as its runner tells it to other machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from toolkit.app.following import new_text
from toolkit.execution import CellSeen, read_cells, told_cells
from toolkit.execution.shown import fitting, shown_to_others
from toolkit.ledger import MOST_TOLD, Ledger
from toolkit.ledger.codec import json_text
from toolkit.values import Environment, RunKind, RunRecord

texts = st.one_of(
    st.text(max_size=40),
    st.builds(lambda text, n: text * n, st.text(min_size=1, max_size=8), st.integers(1, 60_000)),
)


def cell(text: str, cut: int = 0, *, code: bool = True) -> CellSeen:
    return CellSeen("cell 1", "running", text, None, code=code, cut=cut)


@given(st.lists(texts, max_size=12))
def test_whatever_cells_print_fits_into_a_ledger_with_its_ends(printed):
    """Each text keeps its end, and the number of characters before it is told."""
    told = fitting([cell(text) for text in printed])
    assert len(json_text([asdict(one) for one in told])) <= MOST_TOLD
    for one, text in zip(told, printed, strict=True):
        assert one.cut + len(one.text) == len(text)
        assert text.endswith(one.text)


def test_short_texts_are_told_whole_beside_a_long_one():
    """What they leave of their share goes to the long one; cells of text are not told."""
    notes = cell("# notes", code=False)
    told = fitting([notes, cell("short"), cell("x" * 200_000), cell("also short")])
    assert [one.text for one in told if one.cut == 0] == ["short", "also short"]
    assert len(told) == 3
    assert len(told[1].text) > MOST_TOLD * 0.95
    assert len(fitting([cell("y")] * 5_000)) == 400


@given(st.text(max_size=60), st.data())
def test_who_looks_now_and_then_reads_everything_once(printed, data):
    """A cell prints more and more, and each look has lost some of the beginning: gaps are told."""
    lengths = sorted(data.draw(st.lists(st.integers(0, len(printed)), min_size=1, max_size=6)))
    looks: list[CellSeen | None] = [None]
    cut = 0
    for length in lengths:
        cut = data.draw(st.integers(cut, length))
        looks.append(cell(printed[cut:length], cut))
    read = 0
    for before, now in pairwise(looks):
        assert now is not None
        news = new_text(now, before)
        missing = now.cut - read
        if missing > 0:
            assert news == f"[… {missing:,} characters]\n{now.text}"
        else:
            assert news == printed[read : now.cut + len(now.text)]
        read = now.cut + len(now.text)


class Shared(Ledger):
    """A ledger that says to be many machines'."""

    @property
    def shared(self) -> bool:
        return True


def notebook(path: Path, text: str) -> None:
    output = {"output_type": "stream", "text": text}
    record = {"papermill": {"status": "completed", "duration": 1.5}}
    made = {"cell_type": "code", "metadata": record, "outputs": [output]}
    path.write_text(json.dumps({"cells": [made]}))


def test_the_last_look_is_told_when_the_run_ends(tmp_path):
    """Also of a run that was shorter than two looks; a ledger of one machine is told nothing."""
    path = tmp_path / "output.ipynb"
    record = RunRecord("run-1", RunKind.RUN, Environment.PRODUCTION, "ana", token_digest="a")
    for kind, expected in ((Shared, 1), (Ledger, 0)):
        with kind.open(f"sqlite:///{tmp_path}/{kind.__name__}.db") as ledger:
            run = ledger.create_run(record)
            with shown_to_others(ledger, run, path):
                notebook(path, "printed")
            told = told_cells(ledger, "run-1")[1] or []
            assert told == read_cells(path)[:expected]


def test_a_ledger_that_cannot_be_told_changes_nothing(tmp_path):
    """The run goes on; whoever follows it sees what was told before."""
    path = tmp_path / "output.ipynb"
    with Shared.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        unknown = RunRecord("run-1", RunKind.RUN, Environment.PRODUCTION, "ana")
        with shown_to_others(ledger, unknown, path):
            notebook(path, "printed")
        assert told_cells(ledger, "run-1") == (None, None)
