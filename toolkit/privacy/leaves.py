"""The texts in a JSON value, taken out and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.errors import UsageError
from toolkit.privacy.names import is_secret_name

__all__ = ["Leaves"]

_MOST_LEVELS = 64
_LONG_NUMBER = 10**7  # shorter whole numbers are no account, card or telephone number


class Leaves:
    """All texts of one JSON value in the order of a walk: names of members before their values.

    Attributes:
        texts: The texts; a whole number of eight or more digits counts as one.
        named: Index of a text → the name of its member, where that name says *secret*.
        groups: Name of a member → indexes of the texts below it, wherever it occurs.

    Raises:
        UsageError: The value is nested deeper than 64 levels.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self.texts: list[str] = []
        self.named: dict[int, str] = {}
        self.groups: dict[str, list[int]] = {}
        self._collect(value, "", 0)

    def _collect(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, str):
            self._leaf(value, name)
        elif isinstance(value, dict):
            _check(depth)
            for member, item in value.items():
                self.texts.append(member)
                if isinstance(item, str):
                    if is_secret_name(member):
                        self.named[len(self.texts)] = member
                    self._leaf(item, member)
                else:
                    self._collect(item, member, depth + 1)
        elif isinstance(value, list | tuple):
            _check(depth)
            for item in value:
                self._collect(item, name, depth + 1)
        elif _is_long_number(value):
            self._leaf(str(value), name)

    def _leaf(self, text: str, name: str) -> None:
        self.groups.setdefault(name, []).append(len(self.texts))
        self.texts.append(text)

    def replaced(self, changes: dict[int, str]) -> Any:
        """Return the value with other texts in some places; nothing of the original is changed."""
        return self._rebuild(self.value, changes, iter(range(len(self.texts))))

    def _rebuild(self, value: Any, changes: dict[int, str], order: Iterator[int]) -> Any:
        if isinstance(value, str) or _is_long_number(value):
            return changes.get(next(order), value)
        if isinstance(value, dict):
            built: dict[str, Any] = {}
            for member, item in value.items():
                name = str(changes.get(next(order), member))
                while name in built:  # two names became one: keep both values
                    name += "'"
                built[name] = self._rebuild(item, changes, order)
            return built
        if isinstance(value, list | tuple):
            return [self._rebuild(item, changes, order) for item in value]
        return value

    def places(self, changes: dict[int, str]) -> list[tuple[str, ...]]:
        """Return where each text is, with changed names as they are after the change."""
        found: list[tuple[str, ...]] = []
        order = iter(range(len(self.texts)))

        def walk(value: Any, place: tuple[str, ...]) -> None:
            if isinstance(value, str) or _is_long_number(value):
                next(order)
                found.append(place)
            elif isinstance(value, dict):
                for member, item in value.items():
                    here = (*place, str(changes.get(next(order), member)))
                    found.append(here)
                    walk(item, here)
            elif isinstance(value, list | tuple):
                for index, item in enumerate(value):
                    walk(item, (*place, str(index)))

        walk(self.value, ())
        return found


def _is_long_number(value: Any) -> bool:
    return isinstance(value, int) and not -_LONG_NUMBER < value < _LONG_NUMBER


def _check(depth: int) -> None:
    if depth >= _MOST_LEVELS:
        raise UsageError(
            f"a value is nested deeper than {_MOST_LEVELS} levels",
            next_step="send the inner part as text, or flatten it",
        )
