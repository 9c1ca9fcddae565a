"""An answer that was asked to fit a JSON Schema: parse it, check it, or say why not."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from functools import cache
from typing import Any

from toolkit.errors import InvalidAnswer, UsageError
from toolkit.providers.types import ModelAnswer, ModelRequest, Route
from toolkit.settings import SCHEMA_FORMATS, absent

__all__ = ["check_answer", "check_schema", "first_misfit", "invalid"]

_MAX_SHOWN = 500
_MAX_DEPTH = 60
_MAX_SCHEMA_DEPTH = 60


@cache
def _jsonschema() -> Any:
    with absent(*SCHEMA_FORMATS):
        return importlib.import_module("jsonschema")


def _validator(schema: dict[str, Any]) -> Any:
    from referencing import Registry

    # An empty registry: a $ref to an address is an error, never a request.
    return _jsonschema().Draft202012Validator(schema, registry=Registry())


def check_schema(schema: dict[str, Any]) -> None:
    """Check that a schema is one, before money is spent on it.

    Raises:
        UsageError: It is not a JSON Schema (draft 2020-12), or is nested too deeply.
    """
    problem = None
    if _depth(schema, _MAX_SCHEMA_DEPTH) > _MAX_SCHEMA_DEPTH:
        problem = f"it is nested deeper than {_MAX_SCHEMA_DEPTH} levels"
    else:
        try:
            _jsonschema().Draft202012Validator.check_schema(schema)
        except _jsonschema().SchemaError as error:
            problem = f"at {_path(error.absolute_path)}: {error.message[:_MAX_SHOWN]}"
    if problem:
        raise UsageError(
            f"the schema of the model call is not a JSON Schema: {problem}",
            where="the argument schema",
            next_step="pass a pydantic model, a type, or a JSON Schema (draft 2020-12)",
        )


def check_answer(route: Route, request: ModelRequest, answer: ModelAnswer) -> ModelAnswer:
    """Return the answer with ``data`` parsed and checked, or raise.

    Answers that are calls of tools are left as they are: the schema is for the final answer.

    Raises:
        InvalidAnswer: The text is not JSON or does not fit the schema; the details hold the
            usage, which was spent all the same.
        UsageError: The schema refers to something that is not in it.
    """
    if request.schema is None or answer.tool_calls:
        return answer
    try:
        data = json.loads(answer.text or "", parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise _invalid(route, answer, "it is nested too deeply") from None
    except ValueError as error:
        raise _invalid(route, answer, f"it is not JSON: {error}") from None
    if _depth(data, _MAX_DEPTH) > _MAX_DEPTH:
        raise _invalid(route, answer, f"it is nested deeper than {_MAX_DEPTH} levels")
    reason = first_misfit(request.schema, data)
    if reason:
        raise _invalid(route, answer, reason)
    return replace(answer, data=data)


def first_misfit(schema: dict[str, Any], data: Any) -> str | None:
    """Return the first reason why a value does not fit a JSON Schema, ``None`` if it does.

    Raises:
        UsageError: The schema refers to something that is not in it.
    """
    from referencing.exceptions import Unresolvable

    try:
        errors = sorted(_validator(schema).iter_errors(data), key=lambda e: list(map(str, e.path)))
    except Unresolvable as error:
        raise UsageError(
            f"the schema of the model call refers to {error.ref!a}, which is not in it",
            where="the argument schema",
            next_step="put the definition into the schema's $defs",
            details={"billed": True},
        ) from None
    except RecursionError:
        return "the schema refers to itself without end"
    if not errors:
        return None
    return f"at {_path(errors[0].absolute_path)}: {errors[0].message[:_MAX_SHOWN]}"


def _invalid(route: Route, answer: ModelAnswer, reason: str) -> InvalidAnswer:
    step = "make the schema or the prompt simpler, or use a more capable model"
    if answer.finish_reason == "length":
        reason = f"it was cut off after {route.max_tokens} tokens at most, so {reason}"
        step = f"raise max_tokens of the route {route.name}, or ask for less"
    problem = "does not fit the schema"
    return invalid(route, answer, problem, reason, kind="invalid_answer", step=step)


def invalid(
    route: Route, answer: ModelAnswer, problem: str, reason: str, *, kind: str, step: str
) -> InvalidAnswer:
    """Build the error for an answer that was paid for and is not good enough."""
    usage = answer.usage
    return InvalidAnswer(
        f"the answer of {route.target} {problem}: {reason}",
        where=f"registry/models.yaml: routes.{route.name}",
        next_step=step,
        details={
            "kind": kind,
            "reason": reason,
            "text": (answer.text or "")[:_MAX_SHOWN],
            "finish_reason": answer.finish_reason,
            "provider": answer.provider,
            "model": answer.model,
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
            },
        },
    )


def _no_constant(name: str) -> Any:
    msg = f"{name} is not a JSON value"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"the number {text[:40]} is too large"
        raise ValueError(msg)
    return number


def _path(path: Any) -> str:
    return ".".join(map(str, path)) or "the top"


def _depth(value: Any, limit: int) -> int:
    """Levels of nesting, counted without recursion and no further than ``limit`` + 1."""
    level, depth = [value], 0
    while level and depth <= limit:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1
    return depth
