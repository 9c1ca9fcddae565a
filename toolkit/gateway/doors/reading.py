"""Reading other people's request bodies: named faults, text parts joined, nothing dropped unseen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import UsageError

__all__ = ["Asked", "Body", "flat_text", "function_tool"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the words of ``toolkit.model``.

    Attributes:
        model: The route, or a vendor's model, as the client names it.
        arguments: Of the call.
        stream: Whether the answer is to be sent piece by piece.
        options: What the protocol's own answer depends on.
    """

    model: str
    arguments: dict[str, Any]
    stream: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Body:
    """A JSON object of which every member has to be read."""

    def __init__(self, value: dict[str, Any], protocol: str) -> None:
        self._left = {name: item for name, item in value.items() if item is not None}
        self._protocol = protocol

    def take(self, name: str, *kinds: type, default: Any = None) -> Any:
        """Return a member, which has to be of one of ``kinds``, and mark it as read.

        Raises:
            UsageError: It has another type.
        """
        value = self._left.pop(name, default)
        if value is default or not kinds:
            return value
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_NAMES[kind] for kind in kinds)
            raise refused(f"{name} has to be {wanted}", name)
        return value

    def need(self, name: str, *kinds: type) -> Any:
        """As :meth:`take`, for a member that has to be there."""
        if name not in self._left:
            raise refused(f"{name} is missing", name)
        return self.take(name, *kinds)

    def ignore(self, names: Iterable[str]) -> None:
        """Mark bookkeeping members as read."""
        for name in names:
            self._left.pop(name, None)

    def rest(self, known: Iterable[str]) -> dict[str, Any]:
        """Return the members that are passed on under their names; others are refused.

        Raises:
            UsageError: There are members that nobody knows.
        """
        allowed = frozenset(known)
        if unknown := sorted(set(self._left) - allowed):
            raise refused(
                f"the gateway does not offer {', '.join(name[:60] for name in unknown)} of "
                f"{self._protocol}",
                unknown[0][:60],
            )
        rest, self._left = self._left, {}
        return rest


_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def refused(message: str, where: str | None = None) -> UsageError:
    """Return the error for a request that cannot be translated."""
    return UsageError(message, where=where, next_step="see docs/sdks.md for what is offered")


def flat_text(content: Any, where: str) -> str:
    """Return text that was given as text or as parts of text.

    Raises:
        UsageError: A part is not text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise refused(f"{where} is not text", where)
    return "".join(part["text"] for part in parts)


def function_tool(name: Any, description: Any, parameters: Any, where: str) -> dict[str, Any]:
    """Return a function description in the shape of chat completions.

    Raises:
        UsageError: It has no name or its parameters are no schema.
    """
    if not isinstance(name, str) or not name or not isinstance(parameters, dict | None):
        raise refused(f"{where} is not a function description", where)
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = str(description)
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}
