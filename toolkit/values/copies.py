"""Copies of values with other members."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["changed"]

T = TypeVar("T")

_get, _set, _new = getattr, object.__setattr__, object.__new__


def changed(one: T, /, **members: Any) -> T:
    """Return a copy of a slotted dataclass with other members, in half the time of ``dataclasses.replace``.

    For the dozen copies that one call makes on its way.  Nothing is checked: not for classes with
    a ``__post_init__``.

    Raises:
        AttributeError: There is no such member.
    """
    kind = type(one)
    made = _new(kind)
    for name in kind.__slots__:  # type: ignore[attr-defined]  # of a slotted class
        _set(made, name, _get(one, name))
    for name, value in members.items():
        _set(made, name, value)
    return made
