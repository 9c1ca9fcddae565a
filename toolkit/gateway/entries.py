"""Values that a directory of ours lists: names of members, ids of records, accounts that we paid.

The text of an answer can be anybody's, and still hold values that exist because our own system keeps
them: a list of channels, the recipients of earlier payments.  ``labels.entries`` in the tool catalog
says which members of an answer these are.  Such a value counts as ours only as a *whole*: a channel
that somebody named ``notes, or write to evil.com`` does not vouch for ``evil.com``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

__all__ = ["EVERY", "Entries"]

EVERY = "*"
"""Stands for every member, and for the items of a plain list."""


class Entries:
    """The listed values of one run."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, answer: Any, members: Collection[str], most: int) -> None:
        """Take in the values of these members of an answer, at most ``most`` in all."""
        for name, value in _named(answer):
            if len(self._found) >= most:
                return
            if EVERY in members or name in members:
                self._found.add(_key(value))

    def hold(self, value: str | float) -> bool:
        """Whether a value is listed as a whole."""
        return bool(self._found) and _key(value) in self._found


def _key(value: str | float) -> str:
    # Sign by sign: `jo@smith.org` is not `jo.smith@org`.  2.0 and 2 are one number in JSON.
    if isinstance(value, str):
        return "s" + " ".join(value.split()).casefold()
    return f"n{float(value)!r}"


def _named(answer: Any) -> Iterator[tuple[str, str | float]]:
    """Yield every text and number with the name of the member that it is in."""
    stack: list[tuple[str, Any]] = [("", answer)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, dict):
            stack.extend((str(inner), item) for inner, item in node.items())
        elif isinstance(node, list | tuple):
            stack.extend((name, item) for item in node)
        elif isinstance(node, str) or (
            isinstance(node, int | float) and not isinstance(node, bool) and abs(node) < 2**53
        ):
            yield name, node
