"""A run's parameter values against the declared schema."""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from toolkit.document.shape import describe, violations
from toolkit.errors import UsageError

__all__ = ["check_parameters", "default_values", "parse_value"]

_MAX_DEPTH = 32


def check_parameters(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``values`` if they fit, else name everything that is wrong.

    Types are strict: ``"20"`` is not a whole number and ``true`` is not ``1``.  Defaults are not
    filled in; see :func:`default_values`.

    Args:
        schema: ``Notebook.schema``.
        values: JSON values by parameter name.

    Raises:
        UsageError: Unknown, missing or wrongly typed parameters, all at once; values are never
            part of the message.
    """
    known = schema.get("properties", {})
    faults: list[str] = []
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            faults.append(f"{ascii(name)[:80]} is not a parameter{hint}")
        elif _too_deep(value):
            faults.append(f"{name} is nested deeper than {_MAX_DEPTH} levels")
        else:
            given[name] = value
    faults += [f"{name} is missing" for name in schema.get("required", ()) if name not in values]
    for name, value in given.items():
        for at, message in violations(known[name], value, root=schema):
            place = "".join(f"[{part!r}]" for part in at)
            faults.append(f"{name}{place} {message}")
    if faults:
        count = "1 parameter is" if len(faults) == 1 else f"{len(faults)} parameters are"
        raise UsageError(
            f"{count} wrong: {'; '.join(faults)}",
            where="parameters",
            next_step=_usage(known),
            details={"faults": faults},
        )
    return copy.deepcopy(given)


def _usage(known: Mapping[str, Any]) -> str:
    if not known:
        return "the notebook declares no parameters"
    listed = "; ".join(f"{name}: {describe(item)}" for name, item in known.items())
    return f"the notebook declares {listed}"


def _too_deep(value: Any) -> bool:
    """Whether nesting goes past the cap; iterative, so it ends for values that hold themselves."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def default_values(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of every parameter that has one."""
    return {
        name: copy.deepcopy(item["default"])
        for name, item in schema.get("properties", {}).items()
        if "default" in item
    }


def parse_value(text: str, schema: Mapping[str, Any], *, name: str = "the value") -> Any:
    """Read the text behind ``-p name=`` as the JSON value that ``schema`` asks for.

    Text stays as it is; lists are JSON or, for plain items, separated by commas; objects are JSON.

    Args:
        text: What the user typed.
        schema: ``Notebook.schema["properties"][name]``.
        name: For the message.

    Raises:
        UsageError: The text cannot be read so; the text is not part of the message.
    """
    try:
        value = _read(text, schema)
    except ValueError:
        raise UsageError(
            f"{name} must be {describe(schema)}", where=name, next_step=_example(name, schema)
        ) from None
    if any(True for _ in violations(schema, value)):
        raise UsageError(
            f"{name} must be {describe(schema)}", where=name, next_step=_example(name, schema)
        )
    return value


def _example(name: str, schema: Mapping[str, Any]) -> str:
    examples = {
        "integer": "20",
        "number": "0.5",
        "boolean": "true",
        "array": "a,b or a JSON list",
        "object": "'{\"key\": 1}'",
    }
    if schema.get("enum"):
        return f"write -p {name}={schema['enum'][0]}"
    return f"write -p {name}={examples.get(schema.get('type', ''), '…')}"


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    if "anyOf" in schema:
        return _read_any(text, schema["anyOf"])
    if "enum" in schema:
        for option in schema["enum"]:
            shown = option if isinstance(option, str) else json.dumps(option)
            if text == shown:
                return option
        raise ValueError(text)
    return _READERS[schema.get("type", "string")](text, schema)


def _read_any(text: str, options: list[Mapping[str, Any]]) -> Any:
    # Text accepts everything, so it comes last.
    for option in sorted(options, key=lambda o: o.get("type") == "string" and "enum" not in o):
        try:
            value = _read(text, option)
        except ValueError:
            continue
        if not any(True for _ in violations(option, value)):
            return value
    raise ValueError(text)


def _integer(text: str, _: Mapping[str, Any]) -> int:
    if not re.fullmatch(r"[+-]?\d{1,300}", text.strip(), re.ASCII):
        raise ValueError(text)
    return int(text)


def _number(text: str, _: Mapping[str, Any]) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text.strip(), re.ASCII):
        raise ValueError(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _boolean(text: str, _: Mapping[str, Any]) -> bool:
    word = text.strip().lower()
    if word not in {"true", "false"}:
        raise ValueError(text)
    return word == "true"


def _null(text: str, _: Mapping[str, Any]) -> None:
    if text.strip().lower() not in {"null", "none"}:
        raise ValueError(text)


def _array(text: str, schema: Mapping[str, Any]) -> list[Any]:
    if text.lstrip().startswith("["):
        value = _json(text)
        if not isinstance(value, list):
            raise ValueError(text)
        return value
    items = schema.get("items", {})
    if items.get("type") in {"array", "object"}:
        raise ValueError(text)
    return [_read(part.strip(), items) for part in text.split(",")] if text.strip() else []


def _object(text: str, _: Mapping[str, Any]) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError(text)  # noqa: TRY004 - the caller reports unreadable text
    return value


def _json(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):
            raise ValueError("twin keys")
        return dict(items)

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("too deep") from None
    if _too_deep(value):
        raise ValueError("too deep")
    return value


_READERS: dict[str, Any] = {
    "string": lambda text, _: text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "null": _null,
    "array": _array,
    "object": _object,
}
