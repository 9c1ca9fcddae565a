"""Results out, parameters in, evaluation cases through."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from toolkit.client import approvals, wire
from toolkit.client.codec import encode, validate
from toolkit.client.connection import current
from toolkit.client.functions import case
from toolkit.errors import ToolFailed, ToolkitError, UsageError
from toolkit.values import CallKind, check_parameter_name

__all__ = ["parameters", "result", "serve_cases"]

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


def serve_cases(function: Callable[..., Any]) -> int:
    """Answer every case of the running evaluation with ``function``; return how many.

    The kernel sees inputs only.  Labels stay with the evaluator, and what counts is what the
    gateway recorded, not what this process prints.
    """
    connection = current()
    answered, reset = 0, True
    while True:
        item = connection.post(wire.NEXT_CASE, {"reset": reset})
        if item.get("case_id") is None:
            if reset:
                return answered
            # A case whose reply was lost with its gateway was handed out to nobody: it goes again.
            reset = True
            continue
        reset = False
        answer: dict[str, Any] = {"case_id": item["case_id"]}
        try:
            with case(item["case_id"]):
                answer["output"] = encode(function(**item["inputs"]), "the agent's answer")
        except ToolkitError as error:
            answer["error"] = error.to_json()
        except Exception as error:  # noqa: BLE001 - one failed case must not end the evaluation
            text = f"{type(error).__name__}: {error}"[:2000]
            answer["error"] = ToolFailed(f"the agent raised {text}").to_json()
        connection.post(wire.ANSWER_CASE, answer)
        answered += 1
