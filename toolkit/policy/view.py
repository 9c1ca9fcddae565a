"""A call as one line that a person can read before deciding: ``Pay {amount} to {recipient}``.

Only plain ``{name}`` is known: no attributes, no indexes, no format specifications, so a template
can show nothing but the arguments themselves.  Values are shown as JSON (text in quotes, control
characters escaped), cut, and never interpreted.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

__all__ = ["render_view", "view_fault"]

_MAX_VALUE = 200
_MAX_ARGUMENTS = 20
_FORMATTER = string.Formatter()


def view_fault(template: str, names: frozenset[str] | None) -> str | None:
    """Return what is wrong with a template; ``names`` are the declared arguments, if any."""
    try:
        parts = list(_FORMATTER.parse(template))
    except ValueError as error:
        return f"is not a template: {error}"
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name or spec or conversion or any(char in name for char in ".[]!:"):
            return f"may hold plain {{name}} only, not {{{name}}} with a format or an attribute"
        if names is not None and name not in names:
            known = ", ".join(sorted(names)) or "none"
            return f"shows {{{name}}}, which is not an argument (known: {known})"
    return None


def render_view(name: str, template: str | None, arguments: Any) -> str:
    """Return one line about a call; without a template its name and all arguments."""
    given = arguments if isinstance(arguments, Mapping) else {"value": arguments}
    if template is None:
        shown = [f"{key}={_shown(value)}" for key, value in list(given.items())[:_MAX_ARGUMENTS]]
        rest = ["…"] if len(given) > _MAX_ARGUMENTS else []
        return f"{name}({', '.join([*shown, *rest])})"
    return "".join(
        text + ("" if field is None else _shown(given[field]) if field in given else "–")
        for text, field, _, _ in _FORMATTER.parse(template)
    )


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=True)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"
    # `json` leaves control characters beyond ASCII alone, and those that turn text around.
    safe = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: _MAX_VALUE + 1])
    return safe if len(text) <= _MAX_VALUE else safe[:_MAX_VALUE] + "…"
