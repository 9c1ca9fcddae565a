"""JSON that crosses the gateway comes out as it went in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.values import read_json, write_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab1", max_size=3), inner),
)


def same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(VALUES)
def test_what_is_written_is_read_again(value):
    """Integers of any size among it: none becomes a float."""
    assert same(read_json(write_json(value)), value)


@given(VALUES)
def test_it_reads_what_the_standard_library_writes(value):
    """Whoever wrote it."""
    assert same(read_json(json.dumps(value).encode()), value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"NaN", b"[Infinity]", b'"\xff"', b'{"a": 1234567890123456789012, "b": NaN}', b"1" * 5000],
    ids=["nothing", "cut", "NaN", "infinity", "no UTF-8", "long and NaN", "5,000 digits"],
)  # fmt: skip
def test_what_is_no_json_is_refused(data):
    """Also beside a long integer, where another parser helps."""
    with pytest.raises(ValueError):
        read_json(data)


def test_what_has_no_json_form_is_refused():
    """It is not written as something else."""
    with pytest.raises(TypeError):
        write_json({"a": object()})
