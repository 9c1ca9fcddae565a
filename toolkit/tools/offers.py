"""What every server and service offers this room: tools with a schema, and a way to call them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolkit.errors import ToolFailed, UsageError
from toolkit.values import digest_json

__all__ = ["Caller", "Offer", "check_arguments"]

_MAX_FAULTS = 5


@dataclass(frozen=True)
class Offer:
    """A tool as its server describes it.

    Attributes:
        name: The server's own name for it.
        description: The server's words; somebody else wrote them.
        parameters: JSON Schema of the arguments, an object.
        answer: JSON Schema of the answer, if the server declares one.
    """

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    answer: dict[str, Any] | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Digest of all that a person approves and a model reads."""
        return digest_json([self.name, self.description, self.parameters, self.answer])

    @functools.cached_property
    def checker(self) -> Any:
        """The schema of the arguments, ready to check; made once, as that takes milliseconds.

        Nothing is ever fetched for it.

        Raises:
            jsonschema.SchemaError: It is no JSON Schema.
        """
        from jsonschema import Draft202012Validator
        from jsonschema.validators import validator_for
        from referencing import Registry

        kind = validator_for(self.parameters, default=Draft202012Validator)
        kind.check_schema(self.parameters)
        # With no registry, jsonschema would fetch references from the network.
        return kind(self.parameters, registry=Registry())


class Caller(Protocol):
    """One server or service."""

    def host(self) -> str | None:
        """Return the host that is asked, ``None`` for a process of this machine."""
        ...

    async def offers(self, *, fresh: bool = False) -> Mapping[str, Offer]:
        """Return what it offers, by its own names.

        Raises:
            ToolFailed, ConfigurationError: It cannot be asked.
        """
        ...

    async def call(
        self,
        offer: Offer,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        repeatable: bool,
        key: str | None = None,
        trace: str | None = None,
    ) -> Any:
        """Call a tool and return its answer as a JSON value.

        ``key`` tells the other side that two requests are one call, and ``trace`` because of which
        one it is asked (W3C ``traceparent``).

        Raises:
            CallInDoubt: Nobody knows whether it happened, and it may not be repeated.
            ToolFailed, CallDenied, ConfigurationError: It did not succeed.
        """
        ...

    async def close(self) -> None:
        """Give back connections and processes."""
        ...


def check_arguments(tool: str, offer: Offer, arguments: Any) -> dict[str, Any]:
    """Return the arguments if they fit a tool's schema.

    Nothing is fetched: a schema that refers to another document is not usable.

    Raises:
        UsageError: They do not fit; up to five reasons are named, values are not repeated.
        ToolFailed: The schema itself is not usable.
    """
    given = {} if arguments is None else arguments
    if not isinstance(given, dict):
        raise UsageError(f"the arguments of {tool} are no object with named values")
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        faults = [
            fault for fault, _ in zip(_faults(offer, given), range(_MAX_FAULTS), strict=False)
        ]
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise ToolFailed(
            f"the schema that the server gives for {tool} cannot be used: {type(error).__name__}"
        ) from error
    if faults:
        raise UsageError(
            f"the arguments do not fit {tool}: {'; '.join(faults)}",
            next_step="see the tool's parameters",
        )
    return given


def _faults(offer: Offer, given: dict[str, Any]) -> Iterator[str]:
    for error in offer.checker.iter_errors(given):
        place = ".".join(map(str, error.absolute_path))
        if error.validator == "required":
            wanted: Any = error.validator_value
            instance: Any = error.instance
            missing = [name for name in wanted if name not in instance]
            yield f"{', '.join(sorted(missing))} is missing"
        elif error.validator == "additionalProperties":
            yield f"{place or 'an argument'} has a name that is not known"
        else:
            yield f"{place or 'they'} does not fit the schema's {error.validator}"
