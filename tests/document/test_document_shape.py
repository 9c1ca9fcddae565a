from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.document.shape import describe, violations

KNOWN = {
    *("$ref", "$schema", "additionalProperties", "description", "definitions", "enum", "items"),
    *("maxLength", "maximum", "minLength", "minimum", "not", "oneOf", "pattern", "type"),
    *("patternProperties", "properties", "required", "uniqueItems"),
}
# Written by mistake in nbformat's files and ignored by every validator.
TYPOS = {"item", "source_hidden", "outputs_hidden"}

SCALARS = st.sampled_from(
    [
        {"type": "integer"},
        {"type": "number", "minimum": 0},
        {"type": "string", "minLength": 1},
        {"type": "boolean"},
        {"enum": ["a", "b"], "type": "string"},
        {"enum": [1, None]},
        {"type": "integer", "exclusiveMinimum": 1, "maximum": 5},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda s: {"type": "array", "items": s}),
        inner.map(lambda s: {"type": "object", "additionalProperties": s}),
        inner.map(lambda s: {"anyOf": [s, {"type": "null"}]}),
    ),
    max_leaves=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 6) | st.sampled_from(["", "a", "b", 0.5, -0.5]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(SCHEMAS, VALUES)
@settings(max_examples=400)
def test_verdict_agrees_with_jsonschema(schema: dict[str, Any], value: Any) -> None:
    """Valid for us is valid for the reference implementation, and the other way round."""
    ours = not list(violations(schema, value))
    assert ours == jsonschema.Draft202012Validator(schema).is_valid(value)


def _keywords(schema: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        for name, inner in schema.items():
            found.add(name)
            if name in {"properties", "patternProperties"}:
                for item in inner.values():
                    found |= _keywords(item)
            elif name == "definitions":
                for item in [*inner.values(), *inner["misc"].values()]:
                    found |= _keywords(item) if item is not inner["misc"] else set()
            elif name not in {"enum", "required", "type"}:
                found |= _keywords(inner)
    elif isinstance(schema, list):
        for item in schema:
            found |= _keywords(item)
    return found


@pytest.mark.parametrize("minor", range(6))
def test_every_keyword_of_nbformats_schema_is_understood(minor: int) -> None:
    """A new keyword in a new nbformat would be ignored silently; here it fails."""
    file = Path(nbformat.__file__).parent / "v4" / f"nbformat.v4.{minor}.schema.json"
    assert _keywords(json.loads(file.read_text("utf-8"))) <= KNOWN | TYPOS


def test_messages_name_place_and_kind_never_the_value() -> None:
    """A wrong value may be a secret, so only its kind is shown."""
    schema = {"type": "array", "items": {"type": "integer"}}
    assert list(violations(schema, [1, "hunter2"])) == [
        ((1,), "must be a whole number, not text"),
    ]


@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf"), True])
def test_integers_are_strict(value: Any) -> None:
    """``1.0``, ``true`` and infinities are not whole numbers."""
    assert list(violations({"type": "integer"}, value))


def test_dates_are_checked() -> None:
    """``format: date`` takes one spelling only; ``date-time`` takes ISO 8601."""
    schema = {"type": "string", "format": "date"}
    assert not list(violations(schema, "2026-02-28"))
    assert list(violations(schema, "2026-02-30"))
    assert list(violations(schema, "20260228"))
    assert not list(violations({"type": "string", "format": "date-time"}, "2026-02-28T09:00:00Z"))
    assert describe(schema) == "a date (2026-01-31)"
