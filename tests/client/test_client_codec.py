"""What may cross the gateway, and that it comes back as what it was."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import warnings
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from toolkit.client.codec import (
    MAX_TABLE_ROWS,
    decoder,
    encode,
    json_schema,
    signature_schema,
    validate,
    written,
)
from toolkit.errors import UsageError
from toolkit.values import canonical_bytes


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 - how it was written before 3.11
    BLUE = "blue"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float
    when: date | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Order(BaseModel):
    number: int
    lines: list[Point] = []
    colour: Colour = Colour.RED
    total: Decimal = Decimal("0.10")
    ships_to: str = Field(default="home", alias="shipsTo")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
WHOLE = st.integers(-(2**63) + 1, 2**63 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
POINTS = st.builds(Point, x=WHOLE, y=NUMBERS, when=st.none() | st.dates())


def over_the_wire(value: Any) -> Any:
    """Return what the other end reads: JSON bytes in between."""
    return json.loads(canonical_bytes(encode(value)))


@given(JSON)
def test_json_values_cross_unchanged(value):
    """Any JSON value is its own record."""
    assert encode(value) == value
    assert over_the_wire(value) == value or "e" in str(value)


@settings(max_examples=50)
@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (int, WHOLE),
        (float, NUMBERS),
        (str, TEXT),
        (bool, st.booleans()),
        (list[float], st.lists(NUMBERS, max_size=4)),
        (dict[str, list[int]], st.dictionaries(TEXT, st.lists(WHOLE, max_size=3), max_size=3)),
        (dict[int, str], st.dictionaries(WHOLE, TEXT, max_size=3)),
        (tuple[int, str], st.tuples(WHOLE, TEXT)),
        (set[int], st.sets(WHOLE, max_size=4)),
        (frozenset[str], st.frozensets(TEXT, max_size=4)),
        (date, st.dates()),
        (datetime, st.datetimes() | st.datetimes(timezones=st.just(timezone(timedelta(hours=2))))),
        (Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=6)),
        (Colour, st.sampled_from(Colour)),
        (OldColour, st.sampled_from(OldColour)),
        (dict[OldColour, int], st.dictionaries(st.sampled_from(OldColour), WHOLE)),
        (Level, st.sampled_from(Level)),
        (Point, POINTS),
        (list[Point] | None, st.none() | st.lists(POINTS, max_size=3)),
        (Pair, st.builds(Pair, left=WHOLE, right=TEXT)),
        (
            Order,
            st.builds(
                Order,
                number=WHOLE,
                lines=st.lists(POINTS, max_size=2),
                total=st.decimals(-(10**6), 10**6, places=4),
                shipsTo=TEXT,
            ),
        ),
        (Path, st.just(Path("a/b"))),
    ],
    ids=str,
)
@given(data=st.data())
def test_a_recorded_answer_comes_back_as_what_it_was(annotation, values, data):
    """The same type and an equal value, for every type that may be recorded."""
    value = data.draw(values)
    back = decoder(annotation)(over_the_wire(value))
    assert back == value
    if not hasattr(annotation, "__args__"):
        assert type(back) is type(value)


TABLES = st.lists(st.tuples(WHOLE, NUMBERS, TEXT, st.booleans()), max_size=5)


@settings(max_examples=50)
@given(TABLES)
def test_a_table_comes_back_as_a_table(rows):
    """Columns, order and values of a DataFrame survive."""
    table = pd.DataFrame(rows, columns=["n", "f", "s", "b"])
    back = decoder(pd.DataFrame)(over_the_wire(table))
    assert isinstance(back, pd.DataFrame)
    pd.testing.assert_frame_equal(back, table)


def test_what_tables_hold_beyond_json():
    """Missing values are null, times are ISO text, numpy numbers are numbers, names are text."""
    table = pd.DataFrame(
        {
            "when": pd.to_datetime(["2026-01-02", None]),
            "n": pd.array([1, None], dtype="Int64"),
            3: np.array([1.5, np.nan]),
        }
    )
    assert encode(table) == {
        "type": "table",
        "columns": ["when", "n", "3"],
        "types": [str(kind) for kind in table.dtypes],
        "rows": [["2026-01-02T00:00:00", 1, 1.5], [None, None, None]],
    }
    back = decoder(pd.DataFrame)(over_the_wire(table))
    pd.testing.assert_frame_equal(back, table.rename(columns=str))


def test_numpy_values_are_their_plain_values():
    """What pandas and numpy hand out is recorded as Python's own."""
    value = {"n": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "a": np.arange(3)}  # noqa: FBT003
    assert encode(value) == {"n": 3, "f": 0.5, "b": True, "a": [0, 1, 2]}
    assert encode(pd.Series([1, 2])) == [1, 2]


class Opaque:
    """Nothing that can be recorded."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Opaque(), "value is a Opaque, which cannot be recorded"),
        ({"a": [1, Opaque()]}, r"value\.a\[1\] is a Opaque"),
        (b"bytes", "value is a bytes"),
        (math.nan, "value is nan, which JSON cannot hold"),
        ([math.inf], r"value\[0\] is inf"),
        (np.float64("nan"), "value is nan"),
        (2**63, "more than 63 bits"),
        ({(1, 2): 3}, "has the key"),
        ({1: "a", "1": "b"}, "same as text"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (open, "cannot be recorded"),
        (Point, "cannot be recorded"),
        (Order, "cannot be recorded"),
        (Point(1, math.nan), r"value\.y is nan"),
        (lambda: 1, "cannot be recorded"),
    ],
    ids=lambda v: str(v)[:30] if isinstance(v, str) else type(v).__name__,
)
def test_what_cannot_be_recorded_is_refused_with_its_place(value, message):
    """Never silently turned into something else, and never another kind of error."""
    with pytest.raises(UsageError, match=message):
        encode(value)


def test_depth_is_bounded():
    """A value that holds itself ends with a sentence."""
    endless: list = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested deeper"):
        encode(endless)


def test_large_tables_are_refused_before_they_are_walked():
    """A ledger is no data store."""
    with pytest.raises(UsageError, match=f"at most {MAX_TABLE_ROWS}") as caught:
        encode(pd.DataFrame({"a": range(MAX_TABLE_ROWS + 1)}))
    assert "summary" in (caught.value.next_step or "")


def test_every_misfit_of_a_value_is_named():
    """One error tells all that does not fit, without repeating the values."""
    with pytest.raises(UsageError) as caught:
        validate({"x": "secret-a", "y": "secret-b"}, Point, "the parameter p")
    assert "the parameter p does not fit Point" in caught.value.message
    assert "x: " in caught.value.message
    assert "y: " in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], np.ndarray])
def test_a_type_that_no_record_can_hold_is_told(annotation):
    """A sentence of ours, not pydantic's."""
    with pytest.raises(UsageError, match="cannot be rebuilt from a record"):
        decoder(annotation)


def test_schemas_of_types_and_schemas():
    """A class becomes its JSON Schema; a schema stays what it is."""
    given_schema = {"type": "object", "properties": {}}
    assert json_schema(given_schema) is given_schema
    made = json_schema(Point)
    assert made["required"] == ["x", "y"]
    assert json_schema(list[int]) == {"type": "array", "items": {"type": "integer"}}


def test_the_schema_of_a_functions_parameters():
    """What a model is told about a tool: names, types, defaults, and what is required."""

    def order(number: int, lines: list[Point], note: str = "none", *, urgent: bool = False) -> str:
        return ""

    made = signature_schema(order)
    assert made["type"] == "object"
    assert made["required"] == ["number", "lines"]
    assert made["properties"]["number"]["type"] == "integer"
    assert made["properties"]["note"]["default"] == "none"
    assert made["properties"]["urgent"]["type"] == "boolean"


@pytest.mark.parametrize(
    "name", ["schema", "json", "copy", "model_config", "_hidden", "self_", "dict"]
)
def test_any_name_may_be_a_parameter_of_a_tool(name):
    """pydantic's own names are nobody else's business."""
    space: dict[str, Any] = {}
    exec(f"def f({name}: int) -> int: ...", space)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = signature_schema(space["f"])
    assert list(made["properties"]) == [name]
    assert made["required"] == [name]


def test_paths_and_enums_are_written_as_people_write_them():
    """Text where text is meant."""
    assert encode([PurePosixPath("a/b"), Colour.RED, OldColour.BLUE, Level.HIGH]) == [
        "a/b", "red", "blue", 3,
    ]  # fmt: skip


def test_what_cannot_be_written_is_told_in_words():
    """A schema of 100 levels, or one that holds a set, is a mistake of the caller."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        deep = {"properties": {"a": deep}}
    for arguments, why in (
        ({"schema": deep}, "nested deeper than 64 levels"),
        ({"schema": {"enum": {1}}}, "schema.enum is a set"),
        ({"x": math.nan}, "x is nan"),
    ):
        with pytest.raises(UsageError, match=why) as told:
            written(arguments)
        assert told.value.next_step
    assert written({"b": 1, "a": [1.0]}) == canonical_bytes({"a": [1], "b": 1})
