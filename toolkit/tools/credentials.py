"""Secrets of servers and services: read from the gateway's environment, cut out of what returns.

A service that repeats its caller's headers in an answer, or a server that prints its token in an
error, would carry a secret into ledger and kernel.  Values shorter than eight characters are not
looked for: they would be found everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.errors import ConfigurationError

__all__ = ["Secrets", "auth_headers", "secret_of"]

_SHORTEST = 8
_HIDDEN = "[secret]"


class Secrets:
    """Values that may not leave the gateway."""

    def __init__(self, values: Iterable[str]) -> None:
        known = {value for value in values if len(value) >= _SHORTEST}
        known |= {base64.b64encode(value.encode()).decode() for value in known}
        self._values = sorted(known, key=len, reverse=True)

    def conceal_text(self, text: str) -> str:
        """Return the text with every known value replaced."""
        for value in self._values:
            if value in text:
                text = text.replace(value, _HIDDEN)
        return text

    def conceal(self, value: Any) -> Any:
        """Return a JSON value with every known value replaced, also in its keys."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.conceal_text(value)
        if isinstance(value, list):
            return [self.conceal(item) for item in value]
        if isinstance(value, dict):
            return {self.conceal_text(str(k)): self.conceal(v) for k, v in value.items()}
        return value


def secret_of(environ: Mapping[str, str], name: str, whose: str) -> str:
    """Read one variable of the gateway's environment.

    Raises:
        ConfigurationError: It is not set, or cannot stand in a header.
    """
    value = environ.get(name, "")
    if not value:
        raise ConfigurationError(
            f"{whose} needs the environment variable {name}, which the gateway does not have",
            where="registry/tools.yaml",
            next_step=f"set {name} where the gateway is started, and start it again",
        )
    if not value.isprintable():
        raise ConfigurationError(
            f"the environment variable {name} holds a line end or another control character",
            where="registry/tools.yaml",
            next_step=f"set {name} to the plain value",
        )
    return value


def auth_headers(kind: str, name: str | None, value: str) -> dict[str, str]:
    """Return the header that shows a credential (RFC 6750, RFC 7617, or a header of its own)."""
    if kind == "bearer":
        return {"authorization": f"Bearer {value}"}
    if kind == "basic":
        return {"authorization": "Basic " + base64.b64encode(value.encode()).decode()}
    return {str(name).lower(): value}
