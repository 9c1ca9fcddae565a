"""A prompt with ``{expressions}``, filled from the notebook's names.

The rules are those of f-strings (``{name}``, ``{order["id"]}``, ``{price:.2f}``, ``{name!r}``, ``{{`` and
``}}`` for braces), but quotes and backslashes may appear anywhere, and every mistake names its line.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UsageError

__all__ = ["fill", "look_up"]

_BRACE = re.compile(r"\{\{|\}\}|[{}]")
_TAIL = re.compile(r"(?:\s*!(?P<conversion>[rsa]))?\s*(?::(?P<format>[^{}]*))?", re.DOTALL)
_CONVERSIONS: dict[str, Callable[[Any], str]] = {"r": repr, "a": ascii, "s": str}
_REFUSED = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_BRACES = "write {{ and }} for braces that belong to the text"


@dataclass(frozen=True, slots=True)
class _Field:
    expression: str
    conversion: str | None
    format: str
    line: int


def fill(template: str, names: Mapping[str, Any], what: str = "the prompt") -> str:
    """Return ``template`` with its ``{expressions}`` evaluated in ``names``.

    Raises:
        UsageError: A brace is unbalanced, an expression does not parse, a name is unknown, or the
            evaluation fails; the message names the expression, ``where`` its line.
    """
    return "".join(
        part if isinstance(part, str) else _value(part, names, what)
        for part in _split(template, what)
    )


def look_up(expression: str, names: Mapping[str, Any], what: str) -> Any:
    """Return the value of one expression (``Order``, ``list[Order]``) that an option names.

    Raises:
        UsageError: It does not parse, a name is unknown, or the evaluation fails.
    """
    if not _parses(expression):
        raise UsageError(f"{what} {expression!r} is not a Python expression")
    return _evaluate(expression, names, what, what)


def _split(template: str, what: str) -> Iterator[str | _Field]:
    position = 0
    while brace := _BRACE.search(template, position):
        yield template[position : brace.start()]
        position = brace.end()
        line = template.count("\n", 0, brace.start()) + 1
        if len(brace[0]) == 2:
            yield brace[0][0]
        elif brace[0] == "{":
            field, position = _field(template, position, line, what)
            yield field
        else:
            raise UsageError(
                f"{what} has a closing brace without an opening one",
                where=f"{what}, line {line}",
                next_step=_BRACES,
            )
    yield template[position:]


def _field(template: str, start: int, line: int, what: str) -> tuple[_Field, int]:
    """Read one field: up to the first closing brace that makes the text before it an expression."""
    end = template.find("}", start)
    while end != -1:
        if found := _read(template[start:end], line):
            return found, end + 1
        end = template.find("}", end + 1)
    shown = template[start - 1 : start + 30].partition("\n")[0]
    raise UsageError(
        f"{what} has a brace that begins no expression: {shown}",
        where=f"{what}, line {line}",
        next_step=_BRACES,
    )


def _read(text: str, line: int) -> _Field | None:
    if _parses(text):
        return _Field(text.strip(), None, "", line)
    for cut in re.finditer(r"[!:]", text):
        expression, tail = text[: cut.start()], _TAIL.fullmatch(text[cut.start() :])
        # `{"a": 1}` is JSON that somebody forgot to escape, not the text "a" in the format " 1".
        if tail and _parses(expression) and not isinstance(_tree(expression), ast.Constant):
            return _Field(expression.strip(), tail["conversion"], tail["format"] or "", line)
    return None


def _tree(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _parses(text: str) -> bool:
    try:
        tree = _tree(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return not any(isinstance(node, _REFUSED) for node in ast.walk(tree))


def _value(field: _Field, names: Mapping[str, Any], what: str) -> str:
    place = f"{what}, line {field.line}"
    value = _evaluate(field.expression, names, what, place)
    if field.conversion:
        value = _CONVERSIONS[field.conversion](value)
    try:
        return format(value, field.format)
    except Exception as error:
        raise UsageError(
            f"{{{field.expression}:{field.format}}} cannot be formatted: {error}", where=place
        ) from error


def _evaluate(expression: str, names: Mapping[str, Any], what: str, place: str) -> Any:
    try:
        # The person's own expression in the person's own kernel: as free as the cell around it.
        return eval(expression, {"__builtins__": builtins, **names})  # noqa: S307
    except NameError as error:
        name = error.name or expression
        raise UsageError(
            f"{what} uses the name {name!r}, which is not defined",
            where=place,
            next_step=f"define {name} in a cell above, or {_BRACES}",
        ) from error
    except Exception as error:
        raise UsageError(
            f"{{{expression}}} failed: {type(error).__name__}: {error}", where=place
        ) from error
