"""Files of people: read as plain data, with every fault and its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.settings import parse_yaml
from toolkit.settings.strict_yaml import MAX_BYTES

TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_reads_as_itself(value):
    """JSON is a part of YAML, and is read as the same value."""
    document, faults = parse_yaml(json.dumps(value, ensure_ascii=False).encode(), "f.yaml")
    assert (faults, document.value) == ([], value)


@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!|>#'\"\n <,?%@", max_size=80).map(str.encode))
def test_any_bytes_give_a_value_or_faults(data):
    """No bytes make the reader raise."""
    parse_yaml(data, "f.yaml")


@pytest.mark.parametrize("text", ["no", "on", "yes", "1:30", "0123", "0x10", "2024-01-01", ".nan"])
def test_what_only_yaml_1_1_converts_stays_text(text):
    """Words and numbers of old YAML dialects are text."""
    assert parse_yaml(f"key: {text}".encode(), "f.yaml")[0].value == {"key": text}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: &x [1]\nb: *x", 1, "anchor &x"),
        ("a: 1\nb: *x", 2, "alias *x"),
        ("a: 1\nb: 2\na: 3", 3, "repeats the key 'a'"),
        ("a: 1\nb: !!python/object:os.system x", 2, "tag"),
        ("a: {x: 1}\n<<: {y: 2}", 2, "merge key"),
        ("? [a, b]\n: 1", 1, "as a key"),
        ("a: 1\n---\nb: 2", 2, "more than one document"),
        ("a: " + "[" * 40 + "]" * 40, 1, "deeper than 32"),
        ("a: 1\nb: 1e999", 2, "too large"),
        ("a: 1\nb: ]", 2, "is not YAML"),
    ],
)
def test_faults_name_the_line(text, line, words):
    """What is refused is named with its line."""
    _, faults = parse_yaml(text.encode(), "f.yaml")
    assert any(f.where == f"f.yaml:{line}" and words in f.message for f in faults), faults


def test_several_faults_are_found_at_once():
    """Twin keys, an anchor and an alias are three faults of one reading."""
    _, faults = parse_yaml(b"a: &x 1\na: 2\nb: *x", "f.yaml")
    assert len(faults) == 3


def test_large_and_foreign_bytes_are_refused_before_parsing():
    """Size and encoding are checked first."""
    assert "more than" in parse_yaml(b"a" * (MAX_BYTES + 1), "f.yaml")[1][0].message
    assert "not UTF-8 at byte 2" in parse_yaml(b"a:\xff", "f.yaml")[1][0].message


def test_places_name_the_nearest_known_line():
    """A missing key is placed at its parent."""
    document, _ = parse_yaml(b"a:\n  b:\n    c: 1\n", "f.yaml")
    assert document.place(("a", "b", "c")) == "f.yaml:3 a.b.c"
    assert document.place(("a", "zz")) == "f.yaml:2 a.zz"
