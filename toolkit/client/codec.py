"""Python values to JSON values and back, so that a replayed answer equals the first one.

Only what can be recorded may cross the gateway: JSON values, dates, decimals, paths, enums,
dataclasses, pydantic models and pandas tables.  Everything else is refused with its place.
pydantic and pandas are looked at only when a value or an annotation asks for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from toolkit.errors import UsageError
from toolkit.values import canonical_bytes

__all__ = ["decoder", "encode", "json_schema", "signature_schema", "validate", "written"]

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
        return _members(value, where, depth)
    if isinstance(value, list | tuple):
        return [encode(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((encode(v, where, depth + 1) for v in value), key=repr)
    return _encode_object(value, where, depth)


def written(value: Any) -> bytes:
    """Return the bytes that are sent, and whose digest is a call's key.

    Raises:
        UsageError: It is no JSON value, or nested deeper than the 64 levels that are recorded.
    """
    try:
        return canonical_bytes(value)
    except ValueError as error:
        raise UsageError(
            f"the call cannot be recorded: {error}",
            next_step="pass plain JSON values, and deeply nested ones as text",
        ) from None


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
            f"{where} is {float(value)!r}, which JSON cannot hold",
            next_step="use None for a missing number",
        )
    return float(value)


def _members(value: dict[Any, Any], where: str, depth: int) -> dict[str, Any]:
    made = {_member(k, where): encode(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if len(made) < len(value):
        raise UsageError(f"{where} has two keys that are the same as text (1 and '1')")
    return made


def _member(key: Any, where: str) -> str:
    plain = key.value if isinstance(key, Enum) else key
    if not isinstance(plain, str | int):
        raise UsageError(
            f"{where} has the key {key!r}; only text and whole numbers can be recorded as keys",
            next_step="turn the keys into text",
        )
    return _string(str(plain), f"a key of {where}")


def _encode_object(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, type):
        raise _unrecordable(f"{where} is the class {value.__name__}")
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal | PurePath):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {
            f.name: encode(getattr(value, f.name), f"{where}.{f.name}", depth + 1)
            for f in dataclasses.fields(value)
        }
    if hasattr(value, "model_dump"):
        return encode(value.model_dump(mode="json", by_alias=True), where, depth + 1)
    if _is_table(value):
        return _encode_table(value, where)
    if hasattr(value, "item") and callable(value.item) and getattr(value, "ndim", 1) == 0:
        return encode(value.item(), where, depth + 1)  # a numpy scalar
    if hasattr(value, "tolist") and callable(value.tolist):
        return encode(value.tolist(), where, depth + 1)  # a numpy array or pandas column
    raise _unrecordable(f"{where} is a {type(value).__name__}")


def _unrecordable(what: str) -> UsageError:
    return UsageError(
        f"{what}, which cannot be recorded",
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
        "types": [str(kind) for kind in table.dtypes],
        "rows": [
            [encode(cell, f"{where}[{i}]") for cell in row]
            for i, row in enumerate(frame.itertuples(index=False, name=None))
        ],
    }


def _decode_table(frame: Any, value: Any, where: str) -> Any:
    """Rebuild a table with its column types; without them 1.0 and times would come back as others."""
    if not isinstance(value, dict) or value.get("type") != "table":
        raise UsageError(f"{where} does not fit DataFrame: it is no table")
    table = frame(value["rows"], columns=value["columns"])
    for place, kind in enumerate(value.get("types") or ()):
        if kind != "object" and str(table.dtypes.iloc[place]) != kind:
            with contextlib.suppress(ValueError, TypeError):
                table.isetitem(place, table.iloc[:, place].astype(kind))
    return table


_RECORDED = "the recorded answer"


def decoder(annotation: Any) -> Callable[..., Any]:
    """Return what rebuilds answers as the annotated type, from a value and what errors call it.

    Raises:
        UsageError: The type cannot be rebuilt from a record.  (What the returned function raises
            too, when a recorded value does not fit the type.)
    """
    if annotation in (inspect.Parameter.empty, Any, None, type(None)):
        return lambda value, _where=_RECORDED: value
    if getattr(annotation, "__name__", "") == "DataFrame":
        return lambda value, where=_RECORDED: _decode_table(annotation, value, where)
    adapter = _adapter(annotation)
    return lambda value, where=_RECORDED: _fit(adapter, value, annotation, where)


def validate(value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` as ``annotation``; JSON-ish input is allowed (ISO dates, lists for tuples).

    Raises:
        UsageError: The value does not fit; every misfit is named.
    """
    return _fit(_adapter(annotation), value, annotation, where)


def _adapter(annotation: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(annotation)
    except PydanticUserError as error:
        raise UsageError(
            f"{_name(annotation)} cannot be rebuilt from a record",
            next_step="annotate with JSON types, dates, dataclasses, pydantic models or DataFrame",
        ) from error


def _fit(adapter: Any, value: Any, annotation: Any, where: str) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
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
    made: dict[str, Any] = _adapter(annotation).json_schema()
    return made


def signature_schema(function: Any) -> dict[str, Any]:
    """Return the JSON Schema of a function's parameters (an object schema)."""
    made: dict[str, Any] = _adapter(function).json_schema()
    return made


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
