"""Does a JSON value fit a JSON Schema: every violation, each with its place.

Covers the keywords that nbformat's own schema files (draft 4) and our parameter schemas (draft
2020-12) use; tests compare the verdicts with the ``jsonschema`` package on both.  The package
itself is not used here because importing it costs a second, and because it prints the values
that it refuses, which may be secrets.  Stricter than the standard in one point: ``1.0`` is not an
integer (as in draft 4) and a number is finite.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Place", "describe", "type_name", "violations"]

Place = tuple[str | int, ...]
Violation = tuple[Place, str]
Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_FORMATS = {"date": "a date (2026-01-31)", "date-time": "a time (2026-01-31T09:00:00)"}


def type_name(value: Any) -> str:
    """Return what a JSON value is, in words; never the value."""
    if isinstance(value, bool):
        return _WORDS["boolean"]
    if isinstance(value, float):
        return "a number with a fraction" if math.isfinite(value) else "not a finite number"
    for name, kinds in _TYPES.items():
        if isinstance(value, kinds):
            return _WORDS[name]
    return f"a Python {type(value).__name__}"


def describe(schema: Schema) -> str:
    """Return what a schema asks for, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return f"one of {', '.join(map(repr, schema['enum']))}"
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if list(kinds) == ["array"] and "items" in schema:
        return f"a list, each item {describe(schema['items'])}"
    if list(kinds) == ["object"] and isinstance(schema.get("additionalProperties"), Mapping):
        return f"an object, each member {describe(schema['additionalProperties'])}"
    return " or ".join(_WORDS[kind] for kind in kinds) or "any value"


def violations(schema: Schema, value: Any, *, root: Schema | None = None) -> Iterator[Violation]:
    """Yield (place, what is wrong) for everything in ``value`` that ``schema`` forbids.

    Args:
        schema: The schema of ``value``.
        value: A JSON value.
        root: Where ``$ref`` looks names up; the schema itself by default.
    """
    return _check(schema, value, (), root or schema)


def _check(schema: Schema, value: Any, at: Place, root: Schema) -> Iterator[Violation]:
    if "$ref" in schema:
        schema = _resolve(schema["$ref"], root)
    if "oneOf" in schema:
        yield from _one_of(schema["oneOf"], value, at, root)
    if "anyOf" in schema:
        options = schema["anyOf"]
        if all(any(True for _ in _check(option, value, at, root)) for option in options):
            yield at, f"must be {describe(schema)}, not {type_name(value)}"
        return
    if "not" in schema and not any(True for _ in _check(schema["not"], value, at, root)):
        yield at, "has a value that is not allowed here"
    if "type" in schema and not _has_type(schema["type"], value):
        yield at, f"must be {describe(schema)}, not {type_name(value)}"
        return
    if "enum" in schema and not any(_same(value, option) for option in schema["enum"]):
        yield at, f"must be {describe(schema)}"
        return
    if isinstance(value, dict):
        yield from _members(schema, value, at, root)
    elif isinstance(value, list):
        yield from _items(schema, value, at, root)
    elif isinstance(value, str):
        yield from _text(schema, value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(schema, value, at)


def _resolve(reference: str, root: Schema) -> Schema:
    node: Any = root
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    found: Schema = node
    return _resolve(found["$ref"], root) if "$ref" in found else found


def _same(value: Any, option: Any) -> bool:
    # True == 1 in Python; in JSON they are different values.
    return type(value) is type(option) and bool(value == option)


def _has_type(wanted: str | list[str], value: Any) -> bool:
    for kind in [wanted] if isinstance(wanted, str) else wanted:
        if not isinstance(value, _TYPES[kind]):
            continue
        if isinstance(value, bool) and kind != "boolean":
            continue
        if isinstance(value, float) and not math.isfinite(value):
            continue
        return True
    return False


def _one_of(options: list[Schema], value: Any, at: Place, root: Schema) -> Iterator[Violation]:
    branches = [_resolve(o["$ref"], root) if "$ref" in o else o for o in options]
    tag = _discriminator(branches)
    if tag is not None and isinstance(value, dict):
        for branch in branches:
            if value.get(tag) in branch["properties"][tag]["enum"]:
                yield from _check(branch, value, at, root)
                return
        known = ", ".join(branch["properties"][tag]["enum"][0] for branch in branches)
        yield (*at, tag), f"must be one of {known}"
        return
    passing = sum(not any(True for _ in _check(b, value, at, root)) for b in branches)
    if passing != 1:
        wanted = " or ".join(dict.fromkeys(map(describe, branches)))
        yield at, f"must be {wanted}"


def _discriminator(branches: list[Schema]) -> str | None:
    """Return the member whose single allowed value tells the branches apart."""
    for name in ("cell_type", "output_type"):
        if all("enum" in b.get("properties", {}).get(name, {}) for b in branches):
            return name
    return None


def _members(schema: Schema, value: dict[str, Any], at: Place, root: Schema) -> Iterator[Violation]:
    for name in schema.get("required", ()):
        if name not in value:
            yield (*at, name), "is missing"
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    extra = schema.get("additionalProperties", True)
    for name, item in value.items():
        matched = [p for p in patterns if re.search(p, name)]
        if name in known:
            yield from _check(known[name], item, (*at, name), root)
        for pattern in matched:
            yield from _check(patterns[pattern], item, (*at, name), root)
        if name in known or matched:
            continue
        if extra is False:
            yield (*at, name), "is not a member that belongs here"
        elif isinstance(extra, Mapping):
            yield from _check(extra, item, (*at, name), root)


def _items(schema: Schema, value: list[Any], at: Place, root: Schema) -> Iterator[Violation]:
    items = schema.get("items")
    if items == {"type": "string"} and all(type(item) is str for item in value):
        items = None  # the lines of a long output, checked in one go
    if items is not None:
        for index, item in enumerate(value):
            yield from _check(items, item, (*at, index), root)
    if schema.get("uniqueItems"):
        texts = [item for item in value if isinstance(item, str)]
        if len(set(texts)) < len(texts):
            yield at, "holds the same item twice"


def _text(schema: Schema, value: str, at: Place) -> Iterator[Violation]:
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield at, f"must match {schema['pattern']}"
    if len(value) < schema.get("minLength", 0):
        yield at, f"must have at least {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", math.inf):
        yield at, f"must have at most {schema['maxLength']} characters"
    if schema.get("format") in _FORMATS and not _is_time(value, schema["format"]):
        yield at, f"must be {_FORMATS[schema['format']]}"


def _is_time(value: str, kind: str) -> bool:
    try:
        if kind == "date":
            return dt.date.fromisoformat(value).isoformat() == value
        dt.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _number(schema: Schema, value: float, at: Place) -> Iterator[Violation]:
    if value < schema.get("minimum", -math.inf):
        yield at, f"must be at least {schema['minimum']}"
    if value > schema.get("maximum", math.inf):
        yield at, f"must be at most {schema['maximum']}"
    if value <= schema.get("exclusiveMinimum", -math.inf):
        yield at, f"must be more than {schema['exclusiveMinimum']}"
    if value >= schema.get("exclusiveMaximum", math.inf):
        yield at, f"must be less than {schema['exclusiveMaximum']}"
