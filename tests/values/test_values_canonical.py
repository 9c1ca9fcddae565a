"""One byte form for every JSON value, and digests that never change between versions."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.values import canonical_bytes, digest_bytes, digest_json

# Any code point, halves of surrogate pairs included: what a notebook may hold.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=25,
)


def read(data: bytes):
    """Parse canonical bytes, with whole numbers as Python reads them."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


def as_doubles(value):
    """Return the value with every number as the double that it is to other languages."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    if isinstance(value, dict):
        return {name: as_doubles(item) for name, item in value.items()}
    return float(value) if abs(value) < 2**1000 else value


@given(JSON)
def test_the_bytes_hold_the_value(value):
    """Nothing is lost: reading the bytes gives the value back."""
    assert as_doubles(read(canonical_bytes(value))) == as_doubles(value)


@given(JSON)
def test_canonical_is_idempotent(value):
    """The canonical form of what canonical bytes say is the same bytes."""
    once = canonical_bytes(value)
    assert canonical_bytes(read(once)) == once


@given(st.dictionaries(TEXT, JSON, min_size=2, max_size=6), st.randoms())
def test_the_order_of_members_does_not_matter(value, random):
    """Equal objects have equal bytes, in whatever order they were filled."""
    items = list(value.items())
    random.shuffle(items)
    assert canonical_bytes(dict(items)) == canonical_bytes(value)


@given(JSON)
def test_no_white_space_and_no_escape_that_is_not_needed(value):
    """Outside of strings there is no white space; inside only control characters are escaped."""
    text = canonical_bytes(value).decode("utf-8", "surrogatepass")
    outside, inside, escaped = [], False, False
    for char in text:
        if inside and not escaped and char == "\\":
            escaped = True
            continue
        if char == '"' and not escaped:
            inside = not inside
        elif not inside:
            outside.append(char)
        else:
            assert escaped or char >= " "
        escaped = False
    assert not set(outside) & set(" \t\r\n")


def test_members_are_sorted_by_utf16_code_units():
    """The example of RFC 8785, section 3.2.3: an emoji sorts before U+FB33."""
    value = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = ["Carriage Return", "One", "Control", "Latin Small Letter O With Diaeresis"]
    order += ["Euro Sign", "Emoji: Grinning Face", "Hebrew Letter Dalet With Dagesh"]
    assert list(read(canonical_bytes(value)).values()) == order


def test_the_example_of_the_rfc():
    """RFC 8785, section 3.2.2: literals, numbers and strings in one object."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert (
        canonical_bytes(value)
        == (
            '{"literals":[null,true,false],'
            '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        # The table of RFC 8785, appendix B: the double's bits and what is written.
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(bits, text):
    """Every implementation of RFC 8785 writes these doubles the same way."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_bytes(number) == text.encode()


@given(st.integers(-(2**53), 2**53))
def test_equal_numbers_have_equal_bytes(number):
    """1 and 1.0 are one value to JSON, so they have one digest."""
    assert canonical_bytes(float(number)) == canonical_bytes(number)


@given(st.integers())
def test_whole_numbers_are_exact_whatever_their_size(number):
    """Integers never pass through a double."""
    assert canonical_bytes(number) == str(number).encode()


@given(FLOATS)
def test_a_double_survives(number):
    """The shortest digits read back as the same double."""
    assert float(canonical_bytes(number)) == number


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_refused_with_its_place(number):
    """NaN and infinities have no JSON form."""
    with pytest.raises(ValueError, match=r"a\[1\]\.b is .*JSON cannot hold"):
        canonical_bytes({"a": [1, {"b": number}]})


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {("a",): 1}, {"a": {b"b": 1}}])
def test_only_text_names_members(value):
    """Python's own encoder would turn 1 and None into text, so that two keys become one."""
    with pytest.raises(ValueError, match="not a string"):
        canonical_bytes(value)


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), 1j, print])
def test_other_objects_are_refused_with_their_type(value):
    """No object is turned into text on the quiet."""
    with pytest.raises(ValueError, match=type(value).__name__):
        canonical_bytes([value])


@pytest.mark.parametrize("around", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,)])
def test_depth_is_bounded(around):
    """64 levels are written; the 65th, and a value that holds itself, are refused."""
    value = 1
    for _ in range(64):
        value = around(value)
    assert canonical_bytes(value)
    with pytest.raises(ValueError, match="deeper than 64"):
        canonical_bytes(around(value))
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deeper than 64"):
        canonical_bytes(endless)


def test_members_of_enums_are_their_values():
    """Kinds and states are written as what they stand for."""

    class Word(StrEnum):
        A = "a"

    class Number(IntEnum):
        ONE = 1

    assert canonical_bytes([Word.A, Number.ONE, {Word.A: 1}]) == b'["a",1,{"a":1}]'


@settings(max_examples=25)
@given(st.binary(max_size=64))
def test_a_digest_is_sha256_in_hex(data):
    """The form that every file and record uses."""
    assert digest_bytes(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        ({}, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (
            {"b": [1, 2.5, None, True], "a": "ä"},
            "sha256:26d99402c903f4cd8796458b9c84dff664e230343754991756438993a710b66a",
        ),
    ],
)
def test_digests_never_change(value, digest):
    """Golden digests: signatures, chains and keys of earlier versions rest on them."""
    assert digest_json(value) == digest
