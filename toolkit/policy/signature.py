"""The declared arguments of a tool: their types, what they mean, and what does not fit them.

In ``registry/tools.yaml`` an argument is the name of a type, or a mapping::

    pay:
      arguments:
        recipient: {type: string, role: destination, pattern: "[A-Z]{2}[0-9A-Z]{13,32}"}
        amount: {type: number, role: amount, minimum: 0, maximum: 100000}
        date: {type: string, optional: true}
        lines: {type: list, items: {type: object, fields: {sku: string, count: integer}}}

``pattern`` has to match the whole text; it is a regular expression of Rust's ``regex`` crate
(https://docs.rs/regex), which needs linear time and so knows no look-around and no
back-references.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import SchemaError

from toolkit.policy.people import is_word

__all__ = [
    "Argument",
    "ArgumentSpec",
    "ArgumentType",
    "check_names",
    "faults_of",
    "is_argument_name",
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MAX_FAULTS = 20
_MAX_NESTING = 8


class ArgumentType(StrEnum):
    """What a value is.  ``any`` is not checked, and policies read it behind ``has`` only."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Argument:
    """One declared argument, or one part of it.

    Attributes:
        name: Its name; ``""`` for the items of a list.
        type: See :class:`ArgumentType`.
        optional: Whether it may be left out (or be null, which is the same).
        role: What it means to the world: ``destination``, ``amount``, ``content`` … Policies see
            the roles of arguments that untrusted data had a part in.
        enum: The only values that it may have.
        pattern: What the whole text has to match.
        minimum, maximum: Bounds of a number, inclusive.
        items: What a list holds; lists without it hold text.
        fields: What an object holds; ``None`` means anything.
    """

    name: str
    type: ArgumentType
    optional: bool = False
    role: str | None = None
    enum: tuple[Any, ...] | None = None
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    items: Argument | None = None
    fields: tuple[Argument, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything that is set, as JSON values."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        nested = {
            "items": None if self.items is None else self.items.to_json(),
            "fields": None if self.fields is None else [f.to_json() for f in self.fields],
            "enum": None if self.enum is None else list(self.enum),
        }
        plain = {"role": self.role, "pattern": self.pattern, "optional": self.optional or None}
        found = {**plain, **bounds, **nested}
        known = {name: value for name, value in found.items() if value is not None}
        return {"name": self.name, "type": self.type.value, **known}

    def faults(self, value: Any, path: str) -> Iterator[str]:
        """Yield what does not fit, one sentence each; values are never repeated."""
        if self.type is ArgumentType.ANY:
            return
        if not _IS[self.type](value):
            yield f"argument {path} is {_kind(value)}, not {_ARTICLE[self.type]}"
            return
        if self.enum is not None and value not in self.enum:
            yield f"argument {path} is none of the {len(self.enum)} values that the catalog lists"
        if self.pattern is not None and not _matches(self.pattern, value):
            yield f"argument {path} does not match the catalog's pattern"
        if self.minimum is not None and value < self.minimum:
            yield f"argument {path} is below {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            yield f"argument {path} is above {self.maximum:g}"
        if self.items is not None:
            for number, item in enumerate(value):
                yield from self.items.faults(item, f"{path}[{number}]")
        if self.fields is not None:
            yield from faults_of({f.name: f for f in self.fields}, value, prefix=f"{path}.")


def faults_of(
    declared: Mapping[str, Argument],
    given: Mapping[str, Any],
    *,
    prefix: str = "",
    more: bool = False,
) -> Iterator[str]:
    """Yield what does not fit the declared arguments; ``more`` lets unknown names pass."""
    for name, argument in declared.items():
        value = given.get(name)
        if value is not None:
            yield from argument.faults(value, f"{prefix}{name}")
        elif not argument.optional and (name not in given or argument.type is not ArgumentType.ANY):
            yield f"argument {prefix}{name} is missing" + (" (it is null)" if name in given else "")
    if not more and len(given) > sum(name in given for name in declared):
        for name in given:
            if name not in declared:
                known = ", ".join(declared) or "none"
                yield f"argument {prefix}{ascii(str(name))[1:-1]} is not declared (known: {known})"


def is_argument_name(name: str) -> bool:
    """Whether a tool's argument may have that name."""
    return _NAME.fullmatch(name) is not None


def check_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be an argument's.

    Raises:
        ValueError: The names, and what a name looks like.
    """
    bad = [ascii(name) for name in names if not is_argument_name(name) or name.startswith("__")]
    if bad:
        msg = f"{', '.join(bad)} cannot name an argument: use letters, digits, '_', '-' and '.'"
        raise ValueError(msg)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < _TOO_LARGE


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):  # 2.0 and 2 are one number in JSON
        return value.is_integer() and abs(value) < 2**53
    return isinstance(value, int) and -(2**63) <= value < 2**63


# A Cedar decimal is a 64-bit integer of ten-thousandths.
_TOO_LARGE = 2**63 // 10_000
_IS: dict[ArgumentType, Callable[[Any], bool]] = {
    ArgumentType.STRING: _is_text,
    ArgumentType.INTEGER: _is_integer,
    ArgumentType.NUMBER: _is_number,
    ArgumentType.BOOLEAN: _is_flag,
    ArgumentType.LIST: _is_list,
    ArgumentType.OBJECT: _is_object,
}
_ARTICLE = {
    ArgumentType.STRING: "text",
    ArgumentType.INTEGER: "an integer of 64 bits",
    ArgumentType.NUMBER: "a finite number below 9e14",
    ArgumentType.BOOLEAN: "true or false",
    ArgumentType.LIST: "a list",
    ArgumentType.OBJECT: "an object",
}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a list" if isinstance(value, list | tuple) else "no JSON value")


@lru_cache(4096)
def _adapter(pattern: str) -> TypeAdapter[str]:
    return TypeAdapter(Annotated[str, StringConstraints(pattern=rf"\A(?:{pattern})\z")])


def _matches(pattern: str, value: str) -> bool:
    try:
        _adapter(pattern).validate_python(value)
    except ValidationError:
        return False
    return True


_Bound = Annotated[float, Field(allow_inf_nan=False, strict=False)]


class ArgumentSpec(BaseModel):
    """An argument as ``tools.yaml`` writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Annotated[ArgumentType, Field(strict=False)]
    optional: bool = False
    role: str | None = None
    enum: Annotated[list[str | int | bool], Field(min_length=1, max_length=200)] | None = None
    pattern: Annotated[str, Field(max_length=500)] | None = None
    minimum: _Bound | None = None
    maximum: _Bound | None = None
    items: ArgumentSpec | None = None
    fields: dict[str, ArgumentSpec] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("role")
    @classmethod
    def _role(cls, role: str | None) -> str | None:
        if role is not None and not is_word(role):
            msg = f"{role!a} cannot name a role: use letters, digits, '_', '-' and '.'"
            raise ValueError(msg)
        return role

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                _adapter(pattern)
            except (SchemaError, ValueError) as error:
                msg = "is not a regular expression of Rust's regex crate (no look-around)"
                raise ValueError(msg) from error
        return pattern

    @field_validator("fields")
    @classmethod
    def _names(cls, fields: dict[str, ArgumentSpec] | None) -> dict[str, ArgumentSpec] | None:
        check_names(fields or ())
        return fields

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        text, number = ArgumentType.STRING, (ArgumentType.INTEGER, ArgumentType.NUMBER)
        wrong = [
            (self.pattern is not None and self.type is not text, "pattern", "text"),
            (self.items is not None and self.type is not ArgumentType.LIST, "items", "lists"),
            (self.fields is not None and self.type is not ArgumentType.OBJECT, "fields", "objects"),
            (self.minimum is not None and self.type not in number, "minimum", "numbers"),
            (self.maximum is not None and self.type not in number, "maximum", "numbers"),
        ]
        for found, member, kind in wrong:
            if found:
                msg = f"has {member}, which only {kind} have"
                raise ValueError(msg)
        if self.enum is not None:
            self._check_enum(self.enum)
        return self

    def _check_enum(self, values: list[Any]) -> None:
        if self.type not in (ArgumentType.STRING, ArgumentType.INTEGER):
            msg = "has an enum, which only text and integers have"
            raise ValueError(msg)
        if not all(_IS[self.type](value) for value in values):
            msg = f"has an enum with values that are not {_ARTICLE[self.type]}"
            raise ValueError(msg)

    def argument(self, name: str, depth: int = 0) -> Argument:
        """Return the value that this text stands for.

        Raises:
            ValueError: It is nested too deeply.
        """
        if depth > _MAX_NESTING:
            msg = f"is nested deeper than {_MAX_NESTING} levels"
            raise ValueError(msg)
        items = None if self.items is None else self.items.argument("", depth + 1)
        if items is None and self.type is ArgumentType.LIST:
            items = Argument("", ArgumentType.STRING)
        fields = None
        if self.fields is not None:
            fields = tuple(spec.argument(n, depth + 1) for n, spec in sorted(self.fields.items()))
        return Argument(
            name,
            self.type,
            self.optional,
            self.role,
            None if self.enum is None else tuple(self.enum),
            self.pattern,
            self.minimum,
            self.maximum,
            items,
            fields,
        )
