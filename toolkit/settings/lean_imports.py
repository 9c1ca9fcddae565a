"""Others' packages, loaded without parts that nobody here uses and that cost much of a start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["SCHEMA_FORMATS", "absent"]

SCHEMA_FORMATS = (
    "fqdn",
    "isoduration",
    "rfc3986_validator",
    "rfc3987_syntax",
    "uri_template",
    "webcolors",
)
"""What jsonschema loads to check ``format``, which nobody here asks it to: more than a second."""


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Make the import of optional packages fail as long as the block lasts.

    Only for packages whose users expect that they may not be installed.  What is loaded stays.
    """
    missing = [name for name in names if name not in sys.modules]
    blocked: dict[str, ModuleType | None] = dict.fromkeys(missing)
    sys.modules.update(blocked)  # type: ignore[arg-type]  # None is how Python spells "absent"
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)
