"""What `toolkit check --fix` changes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import FIXTURES, make_notebook
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.wild import KINDS
from toolkit.document import Notebook
from toolkit.errors import UsageError
from toolkit.promotion.check import CheckCatalog, check_notebook, mend, mend_file

TEXT = {"output_type": "stream", "name": "stdout", "text": "much\n"}


def written(*cells: Any, **top: Any) -> bytes:
    return json.dumps(make_notebook(*cells, **top)).encode()


def test_a_good_notebook_is_not_touched() -> None:
    """Not a byte, however it is laid out."""
    data = written({"source": "x = 1", "outputs": [TEXT], "execution_count": 1})
    mended = mend(data)
    assert mended.after is data
    assert list(mended.diff("a.ipynb")) == []


def test_ids_kernel_and_earlier_parameters() -> None:
    """Each is told; the code of the other cells stays as it is."""
    injected = {"source": "limit = 7", "metadata": {"tags": ["injected-parameters"]}}
    document = make_notebook(
        "x = limit", injected, {"source": "y = 1", "metadata": {"papermill": {}}}
    )
    document["metadata"] = {"papermill": {"parameters": {"limit": 7}}}
    del document["cells"][2]["id"]
    document["cells"][4]["id"] = document["cells"][0]["id"]
    mended = mend(json.dumps(document).encode())
    assert mended.changes == (
        "2 cells got an id",
        "its kernel is named: python3",
        "1 cell with the parameters of an earlier run removed",
    )
    notebook = Notebook.parse(mended.after)
    assert [c.source for c in notebook.cells] == [
        "import toolkit", "limit: int = 20", "x = limit", "y = 1", "toolkit.result(rows=limit)",
    ]  # fmt: skip
    assert notebook.remarks == ()
    assert b"papermill" not in mended.after
    assert mend(mended.after).changes == ()


def test_outputs_go_only_when_asked(tmp_path: Path, catalog: CheckCatalog) -> None:
    """A promotion compares with them; sources, ids and digest stay."""
    data = written({"source": "x = 1", "outputs": [TEXT], "execution_count": 4})
    assert mend(data).changes == ()
    mended = mend(data, clear_outputs=True)
    assert mended.changes == ("outputs and execution counts of 1 cell cleared",)
    assert Notebook.parse(mended.after).digest == Notebook.parse(data).digest
    assert b"much" not in mended.after


def test_an_old_format_becomes_readable(tmp_path: Path, catalog: CheckCatalog) -> None:
    """Always to the same bytes: the ids follow from the content."""
    data = (FIXTURES / "format_3.ipynb").read_bytes()
    mended = mend(data)
    assert mended.changes[0] == "converted to notebook format 4"
    assert mend(data).after == mended.after
    path = tmp_path / "n.ipynb"
    path.write_bytes(mended.after)
    rules = {f.rule for f in check_notebook(path, catalog).findings}
    assert not rules & {"old-format", "invalid-structure", "missing-cell-id"}
    assert {"does-not-parse", "no-kernelspec"} <= rules  # Python 2: no kernel is guessed


@pytest.mark.parametrize("name", ["twin_keys", "not_json", "r_kernel", "does_not_parse", "secret"])
def test_what_needs_a_person_is_left_alone(name: str) -> None:
    """No code is rewritten, no contradiction decided."""
    data = (FIXTURES / f"{name}.ipynb").read_bytes()
    assert mend(data).after is data


def test_a_kernel_is_not_guessed() -> None:
    """Code that is not all Python names no kernel."""
    document = make_notebook("x <- c(1, 2)\ny %in% x", metadata={})
    assert mend(json.dumps(document).encode()).changes == ()


def test_a_declaration_with_both_tags_stays() -> None:
    """It is the author's own."""
    tags = {"tags": ["parameters", "injected-parameters"]}
    data = written({"source": "a: int = 1", "metadata": tags}, frame=False)
    assert mend(data).changes == ()


def test_the_diff_shows_no_output_and_no_secret() -> None:
    """It is read on screens that others see."""
    key = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b2C"
    output = {**TEXT, "text": f"{key}\n"}
    document = make_notebook({"source": f"x = '{key}'", "outputs": [output]})
    del document["cells"][2]["id"]
    lines = list(mend(json.dumps(document).encode(), clear_outputs=True).diff("n.ipynb"))
    assert lines[:2] == ["--- a/n.ipynb", "+++ b/n.ipynb"]
    assert any(line.startswith("+") and '"id"' in line for line in lines)
    assert any("characters" in line and line.startswith("-") for line in lines)
    assert key not in "\n".join(lines)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Permissions and links stay, nothing else is left in the folder; dry runs write nothing."""
    document = make_notebook("x = 1")
    del document["cells"][0]["id"]
    path, link = tmp_path / "n.ipynb", tmp_path / "link.ipynb"
    path.write_text(json.dumps(document), "utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    before = path.read_bytes()
    assert mend_file(link, write=False).changes
    assert path.read_bytes() == before
    assert mend_file(link).changes == ("1 cell got an id",)
    assert Notebook.read(path).remarks == ()
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.ipynb", "n.ipynb"]


def test_a_file_that_cannot_be_replaced_is_told(tmp_path: Path) -> None:
    """A sentence with the next step; the file stays."""
    document = make_notebook("x = 1")
    del document["cells"][0]["id"]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(document), "utf-8")
    (tmp_path / f".n.ipynb.{os.getpid()}.tmp").mkdir()  # where the draft would go
    before = path.read_bytes()
    with pytest.raises(UsageError, match="cannot be mended"):
        mend_file(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "4 MB outputs"])
def test_mending_wild_notebooks_twice_changes_nothing_more(kind: str) -> None:
    """And the second mend finds nothing to do."""
    mended = mend(KINDS[kind](Random(3)), clear_outputs=True)
    assert mend(mended.after, clear_outputs=True).changes == ()


@given(st.binary(max_size=200))
@settings(max_examples=80)
def test_any_bytes_survive(data: bytes) -> None:
    """What is no notebook stays as it is."""
    assert mend(data).after is data
