"""A call's arguments as a Cedar record.

Cedar (https://docs.cedarpolicy.com/policies/syntax-datatypes.html) holds booleans, 64-bit
integers, text, sets and records; it has no null and no floating-point numbers.

====================  =====================================================================
JSON                  Cedar
====================  =====================================================================
object                record
list                  set: order and repetition are lost
true, false, text     the same
integer               long; outside of 64 bits: left out
2.0                   long 2 (equal numbers have one canonical form)
0.25                  ``decimal("0.25")`` when four decimals hold it, else its text
null                  left out
anything that is not an object at the top   ``{"value": …}``
====================  =====================================================================

Where the tool catalog declares an argument, its type decides: a ``number`` is always a decimal
(``2`` is ``decimal("2.0")``; beyond four places it is rounded half to even, and named as left
out), and null for an optional argument is the same as not giving it.

What is left out is named by its path in ``context.omitted``, so that a policy can insist on
having seen everything: ``context.omitted.isEmpty()``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import islice
from types import MappingProxyType
from typing import Any

from toolkit.policy.signature import Argument, ArgumentType

__all__ = ["to_record"]

_MAX_DEPTH = 32
_MAX_PARTS = 4_096
_MAX_TEXT = 8 * 1024
_MAX_TOTAL_TEXT = 64 * 1024
_MAX_OMITTED = 100
_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1
_DECIMAL = re.compile(r"-?[0-9]{1,14}\.[0-9]{1,4}", re.ASCII)
_MAX_DECIMAL = Decimal(2**63 - 1) / 10_000
_PLACES = Decimal("0.0001")
_LEFT_OUT = object()
_NONE: Mapping[str, Argument] = MappingProxyType({})
_TYPED = {ArgumentType.NUMBER, ArgumentType.LIST, ArgumentType.OBJECT}


@dataclass
class _Conversion:
    parts: int = 0
    text: int = 0
    omitted: list[str] = field(default_factory=list)

    def omit(self, path: str) -> Any:
        if len(self.omitted) < _MAX_OMITTED:
            self.omitted.append(path or "value")
        return _LEFT_OUT

    def convert(self, value: Any, depth: int, path: str, declared: Argument | None = None) -> Any:
        self.parts += 1
        if declared is not None and declared.type in _TYPED:
            return self._typed(value, depth, path, declared)
        if depth > _MAX_DEPTH or self.parts > _MAX_PARTS:
            return self.omit(path)
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if _MIN_LONG <= value <= _MAX_LONG else self.omit(path)
        if isinstance(value, float):
            return self._float(value, path)
        if isinstance(value, dict):
            return self.record(value, depth, path)
        if isinstance(value, list | tuple):
            return self._set(value, depth, path)
        return self.omit(path)

    def _typed(self, value: Any, depth: int, path: str, declared: Argument) -> Any:
        """Convert a value by its declared type; what does not fit was refused before."""
        if declared.type is ArgumentType.NUMBER and _is_number(value):
            return self._decimal(value, path)
        if declared.type is ArgumentType.LIST and isinstance(value, list | tuple):
            return self._set(value, depth, path, declared.items)
        if declared.type is ArgumentType.OBJECT and isinstance(value, dict):
            fields = {field.name: field for field in declared.fields or ()}
            return self.record(value, depth, path, fields)
        return self.omit(path)

    def _decimal(self, value: float, path: str) -> Any:
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if abs(exact) >= _MAX_DECIMAL:
            return self.omit(path)
        rounded = exact.quantize(_PLACES, ROUND_HALF_EVEN)
        if rounded != exact:
            self.omit(path)  # it is there, but not as it was
        return {"__extn": {"fn": "decimal", "arg": f"{rounded:f}"}}

    def _text(self, value: str, path: str) -> Any:
        self.text += len(value)
        if len(value) > _MAX_TEXT or self.text > _MAX_TOTAL_TEXT or not _encodes(value):
            return self.omit(path)
        return value

    def _float(self, value: float, path: str) -> Any:
        if not math.isfinite(value):
            return self.omit(path)
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
        text = repr(value)
        if _DECIMAL.fullmatch(text):
            return {"__extn": {"fn": "decimal", "arg": text}}
        return text

    def _set(
        self,
        value: list[Any] | tuple[Any, ...],
        depth: int,
        path: str,
        declared: Argument | None = None,
    ) -> list[Any]:
        if len(value) > _MAX_PARTS:  # not worth looking at one by one
            self.omit(f"{path}[{_MAX_PARTS}:]")
        kept = enumerate(value[:_MAX_PARTS])
        items = (self.convert(item, depth + 1, f"{path}[{i}]", declared) for i, item in kept)
        return [item for item in items if item is not _LEFT_OUT]

    def record(
        self,
        value: dict[Any, Any],
        depth: int,
        path: str,
        declared: Mapping[str, Argument] = _NONE,
        only: AbstractSet[str] | None = None,
    ) -> dict[str, Any]:
        record = {}
        if len(value) > _MAX_PARTS:
            self.omit(f"{path}.*" if path else "*")
        for name, item in islice(value.items(), _MAX_PARTS):
            if only is not None and name not in only:
                continue
            known = declared.get(name)
            if item is None and known is not None and known.optional:
                continue
            # `__entity` and `__extn` are Cedar's escapes: a caller must not forge an entity.
            usable = isinstance(name, str) and not name.startswith("__") and _encodes(name)
            inner = f"{path}.{name}" if path else str(name)
            if not usable or len(name) > _MAX_TEXT:
                self.omit(ascii(inner[:200]))
                continue
            converted = self.convert(item, depth + 1, inner, known)
            if converted is not _LEFT_OUT:
                record[name] = converted
        return record


def _encodes(text: str) -> bool:
    """Whether the text is free of lone surrogates, which UTF-8 cannot hold."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def to_record(
    arguments: Any,
    declared: Mapping[str, Argument] | None = None,
    *,
    only: AbstractSet[str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return ``(record in Cedar's JSON form, paths that were left out)``.  Never raises.

    Args:
        arguments: Any JSON value.
        declared: What the tool catalog says about them.
        only: Names at the top that are wanted; the others are not looked at.
    """
    conversion = _Conversion()
    if arguments is None:
        return {}, []
    if isinstance(arguments, dict):
        conversion.parts = 1
        return (
            conversion.record(arguments, 0, "", declared or _NONE, only),
            conversion.omitted,
        )
    value = conversion.convert(arguments, 0, "value")
    return ({} if value is _LEFT_OUT else {"value": value}), conversion.omitted
