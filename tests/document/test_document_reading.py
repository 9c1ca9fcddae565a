from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.validator import get_validator

from toolkit.document import Notebook, examine
from toolkit.errors import InvalidFile, NotFound

QUICK = settings(max_examples=150)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
BASE = {
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "metadata": {"tags": ["parameters"]},
            "source": ["limit: int = 20\n", "!ls"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["a\n"]},
                {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}},
            ],
            "execution_count": 1,
        },
        {"cell_type": "markdown", "id": "two", "metadata": {}, "source": "# T"},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def _codes(data: bytes, tmp_path: Path) -> list[str]:
    path = tmp_path / "notebook.ipynb"
    path.write_bytes(data)
    return [flaw.code for flaw in examine(path).flaws]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-json"),
        (b"print(1)", "not-json"),
        (b"<html></html>", "not-json"),
        (b"<<<<<<< HEAD\n{}", "not-json"),
        (b"version https://git-lfs.github.com/spec/v1", "not-json"),
        (b"\xff\xfe{\x00}\x00", "not-utf8"),
        (b'{"a": "\xe9"}', "not-utf8"),
        (b"[]", "not-a-notebook"),
        (b"{}", "not-a-notebook"),
        (b'{"cells": NaN}', "not-a-number"),
        (b'{"cells": 1e999}', "not-a-number"),
        (b'{"cells": ' + b"9" * 5000 + b"}", "not-a-number"),
        (b"[" * 100_000, "too-deep"),
        (b"[" * 300 + b"]" * 300, "too-deep"),
        (b'{"nbformat": 3, "worksheets": []}', "old-format"),
        (b'{"nbformat": 2, "worksheets": []}', "old-format"),
        (b'{"nbformat": 5, "cells": []}', "new-format"),
        (b'{"nbformat": true, "cells": []}', "invalid-structure"),
        (b'{"nbformat": 4, "nbformat": 4, "cells": []}', "twin-keys"),
    ],
)
def test_every_unreadable_file_has_its_own_code(data: bytes, code: str, tmp_path: Path) -> None:
    """What is not a notebook is refused, and the first flaw says why."""
    assert _codes(data, tmp_path)[0] == code


def test_byte_order_mark_is_tolerated() -> None:
    """Windows editors put a BOM in front; the notebook is read all the same."""
    data = b"\xef\xbb\xbf" + json.dumps(BASE).encode()
    assert Notebook.parse(data).cells[0].id == "one"


def test_size_is_refused_before_parsing(tmp_path: Path) -> None:
    """A file over the cap is named with its size, and its bytes are never parsed."""
    path = tmp_path / "big.ipynb"
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(InvalidFile, match=r"50\.0 MB, more than the 20 MB") as caught:
        Notebook.read(path)
    assert "clear the outputs" in (caught.value.next_step or "")


def test_missing_file_pipe_and_folder(tmp_path: Path) -> None:
    """A missing file is not found; a pipe is refused without blocking, and so is a folder."""
    with pytest.raises(NotFound):
        Notebook.read(tmp_path / "none.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    for path in (tmp_path / "pipe.ipynb", tmp_path):
        assert [flaw.code for flaw in examine(path).flaws] == ["not-a-file"]


def test_all_faults_at_once_with_their_places() -> None:
    """Several unrelated faults are listed together, each with cell and member."""
    broken = copy.deepcopy(BASE)
    broken["metadata"] = "text"
    broken["cells"][0]["metadata"]["tags"] = "parameters"
    del broken["cells"][1]["source"]
    text = json.dumps(broken).replace('"id": "two"', '"id": "two", "id": "two"')
    with pytest.raises(InvalidFile) as caught:
        Notebook.parse(text.encode(), "n.ipynb")
    places = [fault["where"] for fault in caught.value.details["faults"]]
    assert places == ["cell 2", "cell 1: metadata.tags", "cell 2: source", "metadata"]


def test_twins_inside_a_replaced_value_are_still_named() -> None:
    """A twin in an object that a later twin replaced is reported too."""
    text = b'{"cells": {"a": 1, "a": 2}, "cells": [], "nbformat": 4}'
    with pytest.raises(InvalidFile, match=r"(?s)'cells' appears twice.*'a' appears twice"):
        Notebook.parse(text)


def test_lone_surrogate_is_refused_and_emoji_is_not() -> None:
    """Half a surrogate pair cannot be saved again; an escaped pair is an emoji."""
    good = json.dumps({**BASE, "metadata": {"title": "\U0001f600"}}, ensure_ascii=True)
    assert Notebook.parse(good.encode()).metadata["title"] == "\U0001f600"
    with pytest.raises(InvalidFile, match="surrogate"):
        Notebook.parse(good.replace("\\ude00", "").encode())


def test_missing_and_duplicate_ids_are_remarked_and_repaired() -> None:
    """Ids are filled in the same way every time, so the digest is stable."""
    broken = copy.deepcopy(BASE)
    broken["cells"] += copy.deepcopy(broken["cells"])
    del broken["cells"][0]["id"]
    data = json.dumps(broken).encode()
    first, second = Notebook.parse(data), Notebook.parse(data)
    assert [r.code for r in first.remarks] == ["duplicate-cell-id", "missing-cell-id"]
    assert len({cell.id for cell in first.cells}) == 4
    assert first.digest == second.digest


def test_format_4_4_with_and_without_ids_reads(document) -> None:
    """Format 4.4 has no ids; files that carry them anyway are common and fine."""
    made = document("x = 1", nbformat_minor=4)
    assert Notebook.parse(json.dumps(made).encode()).cells[0].id == "c1"
    del made["cells"][0]["id"]
    assert Notebook.parse(json.dumps(made).encode()).cells[0].id


def test_no_kernel_is_a_remark(document) -> None:
    """A notebook without a kernel is readable and says so."""
    made = Notebook.parse(json.dumps(document("x = 1", metadata={})).encode())
    assert [remark.code for remark in made.remarks] == ["no-kernelspec"]
    assert made.kernel is None


@pytest.mark.parametrize(
    ("spec", "info", "language"),
    [
        ({"name": "ir", "display_name": "R", "language": "R"}, None, "r"),
        ({"name": "python3", "display_name": "x"}, None, "python"),
        ({"name": "conda-env-a-py", "display_name": "x"}, None, "python"),
        ({"name": "other", "display_name": "x"}, {"name": "Python"}, "python"),
        ({"name": "other", "display_name": "x"}, None, None),
    ],
)
def test_language_comes_from_kernel_or_language_info(spec, info, language, notebook) -> None:
    """The language is the kernel's, in lower case, and ``None`` when nothing says it."""
    metadata = {"kernelspec": spec, **({"language_info": info} if info else {})}
    assert notebook("1", metadata=metadata).language == language


@given(st.binary(max_size=200))
@QUICK
def test_any_bytes_end_in_a_notebook_or_invalid_file(data: bytes) -> None:
    """No bytes raise anything else."""
    _read_all(data)


@given(JSON)
@QUICK
def test_any_json_ends_in_a_notebook_or_invalid_file(value: object) -> None:
    """No JSON raises anything else, whether it stands alone, as cells or as metadata."""
    _read_all(json.dumps(value).encode())
    _read_all(json.dumps({**BASE, "cells": value}).encode())
    _read_all(json.dumps({**BASE, "metadata": value}).encode())


def _places(node: object, at: tuple = ()) -> list[tuple]:
    found = [at]
    if isinstance(node, dict):
        return found + [p for k, v in node.items() for p in _places(v, (*at, k))]
    if isinstance(node, list):
        return found + [p for k, v in enumerate(node) for p in _places(v, (*at, k))]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict:
    made = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_places(made)[1:] or [("cells",)]))
        node = made
        for part in place[:-1]:
            node = node[part]
        if draw(st.booleans()) and place[-1] in (node if isinstance(node, dict) else ()):
            del node[place[-1]]
        else:
            node[place[-1]] = draw(JSON)
    return made


@given(mutated())
@QUICK
def test_mutated_notebooks_end_in_a_notebook_or_invalid_file(value: dict) -> None:
    """Whatever is changed in a valid notebook, reading ends and analysis never raises."""
    _read_all(json.dumps(value).encode())


def _read_all(data: bytes) -> None:
    try:
        made = Notebook.parse(data)
    except InvalidFile:
        return
    made.normalised()
    assert (made.schema, made.results, made.definitions, made.routes) is not None


@given(mutated())
@QUICK
def test_validity_agrees_with_nbformat(value: dict) -> None:
    """What nbformat's own validator accepts is accepted, what it refuses is refused."""
    text = json.dumps(value)
    try:
        json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    except ValueError:
        return  # NaN: nbformat takes it, we do not
    major, minor = value.get("nbformat"), value.get("nbformat_minor")
    if type(major) is not int or type(minor) is not int or major != 4 or minor != 5:
        return
    missing_ids = isinstance(value.get("cells"), list) and any(
        isinstance(cell, dict) and "id" not in cell for cell in value["cells"]
    )
    valid = not list(get_validator(4, 5).iter_errors(value))
    try:
        Notebook.parse(text.encode())
        ours = True
    except InvalidFile:
        ours = False
    assert ours == valid or (ours and missing_ids)
