"""Type annotations and literals of a parameters cell, as JSON Schema and JSON values."""

from __future__ import annotations

import ast
import datetime as dt
import math
from typing import Any

__all__ = ["Unfit", "literal_value", "schema_of_annotation"]

_PLAIN = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "None": {"type": "null"},
}
_USE_TYPES = (
    "use int, float, bool, str, datetime.date, list[…], dict[str, …], Literal[…] or … | None"
)
_KINDS = {str: "string", bool: "boolean", int: "integer"}


class Unfit(ValueError):
    """An annotation or a default that a parameter cannot have.

    Attributes:
        fix: What to write instead.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def schema_of_annotation(node: ast.expr) -> dict[str, Any]:
    """Return the JSON Schema of a type annotation.

    Raises:
        Unfit: The type cannot be given on a command line or in a schedule.
    """
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any_of([schema_of_annotation(node.left), schema_of_annotation(node.right)])
    if isinstance(node, ast.Subscript):
        return _subscript(node)
    name = _name(node)
    if name in _PLAIN:
        return dict(_PLAIN[name])
    if name == "date":
        return {"type": "string", "format": "date"}
    if name == "datetime":
        return {"type": "string", "format": "date-time"}
    if name in {"list", "List", "dict", "Dict"}:
        inner = "str" if name.lower() == "list" else "str, int"
        raise Unfit(f"{name} does not say what it holds", f"write {name}[{inner}]")
    raise Unfit(f"the type {ast.unparse(node)} cannot be a parameter", _USE_TYPES)


def _constant(node: ast.Constant) -> dict[str, Any]:
    if node.value is None:
        return {"type": "null"}
    if isinstance(node.value, str):
        try:
            return schema_of_annotation(ast.parse(node.value, mode="eval").body)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            if isinstance(error, Unfit):
                raise
    raise Unfit("the annotation is not a type", _USE_TYPES)


def _name(node: ast.expr) -> str:
    """Return the last part of a dotted name: ``datetime.date`` and ``date`` are the same."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _any_of(options: list[dict[str, Any]]) -> dict[str, Any]:
    flat: list[dict[str, Any]] = []
    for option in options:
        for item in option.get("anyOf", [option]):
            if item not in flat:
                flat.append(item)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _subscript(node: ast.Subscript) -> dict[str, Any]:
    name = _name(node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name in {"list", "List"} and len(items) == 1:
        return {"type": "array", "items": schema_of_annotation(items[0])}
    if name in {"dict", "Dict"} and len(items) == 2:
        if schema_of_annotation(items[0]) != {"type": "string"}:
            raise Unfit("the members of a JSON object have text names", "write dict[str, …]")
        return {"type": "object", "additionalProperties": schema_of_annotation(items[1])}
    if name == "Optional" and len(items) == 1:
        return _any_of([schema_of_annotation(items[0]), {"type": "null"}])
    if name == "Union":
        return _any_of([schema_of_annotation(item) for item in items])
    if name == "Annotated":
        schema = schema_of_annotation(items[0])
        notes = [n.value for n in items[1:] if isinstance(n, ast.Constant)]
        texts = [note for note in notes if isinstance(note, str)]
        return {**schema, "description": texts[0]} if texts else schema
    if name == "Literal":
        return _literal(items)
    fix = "write list[…]" if name in {"tuple", "Tuple", "set", "Set", "Sequence"} else _USE_TYPES
    raise Unfit(f"the type {ast.unparse(node)} cannot be a parameter", fix)


def _literal(items: list[ast.expr]) -> dict[str, Any]:
    values = [literal_value(item) for item in items]
    if not all(value is None or isinstance(value, str | int) for value in values):
        raise Unfit("Literal holds more than texts and whole numbers", "list texts or numbers")
    kinds = {type(value) for value in values}
    schema: dict[str, Any] = {"enum": values}
    if len(kinds) == 1 and (kind := _KINDS.get(kinds.pop())):
        schema["type"] = kind
    return schema


def literal_value(node: ast.expr) -> Any:
    """Return the JSON value of a default; dates become ISO text.

    Raises:
        Unfit: The expression is not a literal, or JSON cannot hold it.
    """
    moment = _moment(node)
    if moment is not None:
        return moment
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        fix = "write the value itself; compute what depends on it in the next cell"
        raise Unfit("the default is not a literal", fix) from None
    return _json(value)


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _json(item) for key, item in value.items()}
    kind = type(value).__name__
    fix = "use a list" if isinstance(value, tuple | set) else "use numbers, text, lists and objects"
    raise Unfit(f"the default holds a {kind} that JSON cannot hold", fix)


def _moment(node: ast.expr) -> str | None:
    """Return ISO text for ``date(2026, 1, 31)``, ``datetime.date.fromisoformat("…")`` and alike."""
    if not isinstance(node, ast.Call) or node.keywords:
        return None
    called, parsing = node.func, False
    if isinstance(called, ast.Attribute) and called.attr == "fromisoformat":
        called, parsing = called.value, True
    kind = {"date": dt.date, "datetime": dt.datetime}.get(_name(called))
    if kind is None:
        return None
    try:
        values = [ast.literal_eval(item) for item in node.args]
        moment = kind.fromisoformat(*values) if parsing else kind(*values)
    except (ValueError, TypeError, OverflowError, SyntaxError, MemoryError, RecursionError):
        raise Unfit("the default is not a valid date", "write datetime.date(2026, 1, 31)") from None
    return moment.isoformat()
