"""Python values to JSON values and back, so that a replayed answer equals the first one.

Only what can be recorded may cross the gateway: JSON values, dates, decimals, paths, enums,
dataclasses, pydantic models and pandas tables.  Everything else is refused with its place.
pydantic and pandas are looked at only when a value or an annotation asks for them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import typing
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from toolkit.errors import UsageError

__all__ = ["decode", "encode", "json_schema", "signature_schema", "validate"]

MAX_TABLE_ROWS = 10_000
_MAX_DEPTH = 60
# Readers of JSON turn larger numbers into floats, silently.
_MAX_BITS = 63


def encode(value: Any, where: str = "value", depth: int = 0) -> Any:
    """Return ``value`` as a JSON value.

    Raises:
        UsageError: The value (or a part of it, named in the message) cannot be recorded.
    """
    if depth > _MAX_DEPTH:
        raise UsageError(f"{where} is nested deeper than {_MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return encode(value.value, where, depth)
    if isinstance(value, str):
        return _string(value, where)
    if isinstance(value, int | float):
        return _number(value, where)
    if isinstance(value, dict):
        return {_member(k, where): encode(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((encode(v, where, depth + 1) for v in value), key=repr)
    return _encode_object(value, where, depth)


def _string(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where} holds half of a surrogate pair at character {error.start}",
            next_step="decode the text with the right encoding, or with errors='replace'",
        ) from error
    return str(value)


def _number(value: float, where: str) -> int | float:
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise UsageError(
                f"{where} is a whole number of more than {_MAX_BITS} bits",
                next_step="pass it as text",
            )
        return int(value)
    if not math.isfinite(value):
        raise UsageError(
            f"{where} is {value!r}, which JSON cannot hold",
            next_step="use None for a missing number",
        )
    return float(value)


def _member(key: Any, where: str) -> str:
    if not isinstance(key, str | int):
        raise UsageError(f"{where} has the key {key!r}; only strings can be recorded")
    return str(key)


def _encode_object(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal | PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: encode(getattr(value, f.name), f"{where}.{f.name}", depth + 1)
            for f in dataclasses.fields(value)
        }
    if hasattr(value, "model_dump"):
        return encode(value.model_dump(mode="json"), where, depth + 1)
    if _is_table(value):
        return _encode_table(value, where)
    if hasattr(value, "item") and callable(value.item) and getattr(value, "ndim", 1) == 0:
        return encode(value.item(), where, depth + 1)  # a numpy scalar
    if hasattr(value, "tolist") and callable(value.tolist):
        return encode(value.tolist(), where, depth + 1)  # a numpy array or pandas column
    raise UsageError(
        f"{where} is a {type(value).__name__}, which cannot be recorded",
        next_step="pass JSON values, dates, dataclasses, pydantic models or a DataFrame",
    )


def _is_table(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _encode_table(table: Any, where: str) -> dict[str, Any]:
    if len(table) > MAX_TABLE_ROWS:
        raise UsageError(
            f"{where} has {len(table)} rows; at most {MAX_TABLE_ROWS} can be recorded",
            next_step="publish a summary, or write the table to a governed data source",
        )
    frame = table.astype(object).where(table.notna(), None)
    return {
        "type": "table",
        "columns": [str(name) for name in frame.columns],
        "rows": [
            [encode(cell, f"{where}[{i}]") for cell in row]
            for i, row in enumerate(frame.itertuples(index=False, name=None))
        ],
    }


def decode(value: Any, annotation: Any) -> Any:
    """Rebuild a recorded answer as the annotated type.

    Raises:
        UsageError: The recorded value no longer fits the annotation.
    """
    if annotation in (inspect.Parameter.empty, Any, None, type(None)):
        return value
    if getattr(annotation, "__name__", "") == "DataFrame":
        return annotation(value["rows"], columns=value["columns"])
    return validate(value, annotation, "the recorded answer")


def validate(value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` as ``annotation``; JSON-ish input is allowed (ISO dates, lists for tuples).

    Raises:
        UsageError: The value does not fit; every misfit is named.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        misfits = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(f"{where} does not fit {_name(annotation)}: {misfits}") from error


def json_schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type, or the schema itself when one is given."""
    if isinstance(annotation, dict):
        return annotation
    from pydantic import TypeAdapter

    return TypeAdapter(annotation).json_schema()


def signature_schema(function: Any) -> dict[str, Any]:
    """Return the JSON Schema of a function's parameters (an object schema)."""
    from pydantic import create_model

    hints = typing.get_type_hints(function)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in inspect.signature(function).parameters.values()
    }
    holder: Any = create_model(function.__name__, **fields)
    made: dict[str, Any] = holder.model_json_schema()
    made.pop("title", None)
    return made


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
