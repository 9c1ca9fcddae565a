"""Names that are safe in a path, a URL, a policy and on a screen.

ASCII only: Unicode look-alikes survive normalisation, so they are refused, not folded.
"""

from __future__ import annotations

import keyword
import re
import secrets
from dataclasses import dataclass

from toolkit.errors import UsageError

__all__ = ["JobRef", "check_name", "check_parameter_name", "new_id"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_REF = re.compile(r"([a-z0-9][a-z0-9._-]{0,63})(?:@([A-Za-z0-9._-]{1,64}))?", re.ASCII)
_RESERVED = {"con", "prn", "aux", "nul", ".", ".."}


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it may name a job, route, tool set or file; else raise.

    Raises:
        UsageError: The name is not ``[a-z0-9][a-z0-9._-]{0,63}`` or is reserved.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED or ".." in name or name.endswith("."):
        raise UsageError(
            f"{name!a} is not a valid {what}",
            next_step="use lower-case letters, digits, '-', '_' and '.', at most 64 characters",
        )
    return name


def check_parameter_name(name: str) -> str:
    """Return ``name`` if it may be assigned in a parameters cell; else raise.

    papermill writes parameter names into source code without escaping them, so this check is
    what stands between a parameter name and code injection.

    Raises:
        UsageError: The name is not an ASCII identifier, or is a keyword or a dunder.
    """
    if (
        not name.isascii()
        or not name.isidentifier()
        or keyword.iskeyword(name)
        or keyword.issoftkeyword(name)
        or name.startswith("_")
    ):
        raise UsageError(
            f"{name!a} is not a valid parameter name",
            next_step="use an ASCII identifier that is not a keyword and has no leading underscore",
        )
    return name


def new_id(prefix: str) -> str:
    """Return a fresh identifier, ``prefix-`` and 20 hex digits of randomness."""
    return f"{prefix}-{secrets.token_hex(10)}"


@dataclass(frozen=True, slots=True)
class JobRef:
    """``licence-review``, ``licence-review@3`` or ``licence-review@production``.

    Attributes:
        name: The job.
        selector: A version number or an alias; ``None`` means the alias ``production``.
    """

    name: str
    selector: str | None = None

    @classmethod
    def parse(cls, text: str) -> JobRef:
        """Read a reference.

        Raises:
            UsageError: The text is not ``name``, ``name@number`` or ``name@alias``.
        """
        match = _REF.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!a} is not a job reference",
                next_step="write NAME, NAME@3 or NAME@production",
            )
        return cls(check_name(match[1], "job name"), match[2])

    @property
    def version(self) -> int | None:
        """The version number, if the selector is one."""
        return int(self.selector) if self.selector and self.selector.isdigit() else None

    def __str__(self) -> str:
        return self.name if self.selector is None else f"{self.name}@{self.selector}"
