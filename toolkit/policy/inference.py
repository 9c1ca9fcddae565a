"""Types and bounds of arguments from the values that were seen."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from toolkit.policy.signature import Argument, ArgumentType, is_argument_name

__all__ = ["cedar_text", "conditions", "infer_arguments"]

_FEW = 8
_SHORT = 80
_MOST_INTEGER = 2**62
_MOST_NUMBER = 9 * 10**13
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = {"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"}
_PLACES = Decimal("0.0001")


def cedar_text(text: str) -> str:
    """Return text for the inside of a Cedar string literal."""
    plain = {"\\": "\\\\", '"': '\\"'}
    return "".join(plain.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)


def infer_arguments(given: Sequence[Any]) -> dict[str, Argument] | None:
    """Return a declaration that all of these arguments fit; ``None`` if there is none."""
    calls = [{} if each is None else each for each in given]
    if not all(isinstance(each, dict) for each in calls):
        return None
    names = sorted({name for each in calls for name in each})
    if not all(is_argument_name(name) and not name.startswith("__") for name in names):
        return None
    found = {}
    for name in names:
        values = [each[name] for each in calls if each.get(name) is not None]
        optional = len(values) < len(calls)
        found[name] = _argument(name, values, optional=optional)
    return found


def _argument(name: str, values: Sequence[Any], *, optional: bool = False) -> Argument:
    kind = _type(values)
    if kind is not ArgumentType.LIST:
        return Argument(name, kind, optional)
    inside = [item for value in values for item in value]
    if any(item is None for item in inside) or not inside:
        return Argument(name, kind, optional, items=Argument("", ArgumentType.ANY))
    return Argument(name, kind, optional, items=_argument("", inside))


def _type(values: Sequence[Any]) -> ArgumentType:
    if values:
        for kind, fits in _TESTS:
            if all(fits(value) for value in values):
                return kind
    return ArgumentType.ANY


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_INTEGER


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < _MOST_NUMBER


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_TESTS: tuple[tuple[ArgumentType, Callable[[Any], bool]], ...] = (
    (ArgumentType.BOOLEAN, _is_flag),
    (ArgumentType.INTEGER, _is_integer),
    (ArgumentType.NUMBER, _is_number),
    (ArgumentType.STRING, _is_text),
    (ArgumentType.LIST, _is_list),
    (ArgumentType.OBJECT, _is_object),
)


def conditions(
    declared: Mapping[str, Argument], given: Sequence[Any]
) -> tuple[list[str], list[str]]:
    """Return Cedar conditions that hold the arguments to what was seen, and the names left free."""
    calls = [each if isinstance(each, dict) else {} for each in given]
    wanted: list[str] = []
    free: list[str] = []
    for name, argument in declared.items():
        values = [each[name] for each in calls if each.get(name) is not None]
        place, has = _place(name)
        if argument.optional and not values:
            wanted.append(f"!({has})")
            continue
        limit = _limit(argument, values, place)
        if limit is None:
            free.append(name)
        elif argument.optional:
            wanted.append(f"if {has} then {limit} else true")
        else:
            wanted.append(limit)
    return wanted, free


def _place(name: str) -> tuple[str, str]:
    """Return how Cedar reads an argument, and how it asks whether there is one."""
    if _IDENTIFIER.fullmatch(name) and name not in _RESERVED:
        return f"context.arguments.{name}", f"context.arguments has {name}"
    quoted = f'"{cedar_text(name)}"'
    return f"context.arguments[{quoted}]", f"context.arguments has {quoted}"


def _limit(argument: Argument, values: Sequence[Any], place: str) -> str | None:
    if argument.type is ArgumentType.BOOLEAN:
        seen = set(values)
        return None if len(seen) != 1 else f"{place} == {'true' if seen.pop() else 'false'}"
    if argument.type is ArgumentType.INTEGER and values:
        least, most = int(min(values)), int(max(values))
        if max(abs(least), abs(most)) < _MOST_INTEGER:
            return f"{place} >= {least} && {place} <= {most}"
    if argument.type is ArgumentType.NUMBER and values:
        return _between(values, place)
    if argument.type is ArgumentType.STRING:
        texts = _few(values)
        return None if texts is None else f"{texts}.contains({place})"
    items = argument.items
    if argument.type is ArgumentType.LIST and items and items.type is ArgumentType.STRING:
        texts = _few([item for value in values for item in value])
        return None if texts is None else f"{texts}.containsAll({place})"
    return None


def _between(values: Sequence[Any], place: str) -> str:
    exact = [Decimal(repr(value)) for value in values]
    least = min(exact).quantize(_PLACES, ROUND_FLOOR)
    most = max(exact).quantize(_PLACES, ROUND_CEILING)
    return (
        f'{place}.greaterThanOrEqual(decimal("{least:f}")) && '
        f'{place}.lessThanOrEqual(decimal("{most:f}"))'
    )


def _few(values: Sequence[Any]) -> str | None:
    """Return a Cedar set of the texts, ``None`` if they are many, long, or not Cedar's."""
    texts = sorted({value for value in values if isinstance(value, str)})
    usable = all(len(t) <= _SHORT and not any("\ud800" <= c <= "\udfff" for c in t) for t in texts)
    if not texts or len(texts) > _FEW or not usable:
        return None
    return "[" + ", ".join(f'"{cedar_text(text)}"' for text in texts) + "]"
