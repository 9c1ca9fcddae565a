"""Results out, parameters in."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from toolkit.client import approvals, wire
from toolkit.client.codec import encode, validate
from toolkit.client.connection import current
from toolkit.errors import UsageError
from toolkit.values import CallKind, check_parameter_name

__all__ = ["parameters", "result"]

T = TypeVar("T")


def result(**values: Any) -> None:
    """Publish results through the gateway: numbers become metrics, tables become artifacts.

    A promoted notebook succeeds only when every result it declares has arrived.

    Raises:
        UsageError: A value cannot be recorded, or no value was given.
        CallDenied: Policy forbids the result.
    """
    if not values:
        raise UsageError("result() needs at least one name=value")
    connection = current()
    for name, value in values.items():
        check_parameter_name(name)
        request = connection.identify(
            CallKind.RESULT, name, {"value": encode(value, f"result({name})")}
        )
        reply = approvals.call(connection, wire.RESULT, request)
        connection.announce(reply, CallKind.RESULT, name)


def parameters(declared: type[T]) -> T:
    """Return the run's parameters as an instance of ``declared``.

    Args:
        declared: A class with annotated fields (plain, dataclass or pydantic).  In a job its
            values come from the run; in the sandbox from the defaults.

    Raises:
        UsageError: A value does not fit, is unknown, or has neither value nor default.
    """
    given = json.loads(os.environ.get(wire.ENV_PARAMETERS) or "{}")
    hints = {name for base in declared.__mro__ for name in getattr(base, "__annotations__", {})}
    unknown = sorted(set(given) - hints)
    if unknown:
        raise UsageError(
            f"unknown parameter {', '.join(unknown)}",
            next_step=f"the notebook declares {', '.join(sorted(hints)) or 'none'}",
        )
    if hasattr(declared, "model_fields") or hasattr(declared, "__dataclass_fields__"):
        made: T = validate(given, declared, "the parameters")
        return made
    return _fill_plain(declared, given)


def _fill_plain(declared: type[T], given: dict[str, Any]) -> T:
    import typing

    instance = declared()
    for name, annotation in typing.get_type_hints(declared).items():
        if name in given:
            setattr(instance, name, validate(given[name], annotation, f"the parameter {name}"))
        elif not hasattr(declared, name):
            raise UsageError(f"the parameter {name} has no value", next_step=f"pass -p {name}=…")
    return instance
