"""Arguments from a JSON Schema, as MCP servers and OpenAPI documents describe their tools.

What has a counterpart in :class:`~toolkit.policy.signature.Argument` becomes one, and is typed in
Cedar; the rest (``anyOf``, ``$ref``, ``const`` …) becomes ``any`` there and is checked by the
schema itself (draft 2020-12, https://json-schema.org/draft/2020-12).
"""

from __future__ import annotations

from typing import Any

from toolkit.policy.signature import Argument, ArgumentSpec, ArgumentType, is_argument_name
from toolkit.settings import SCHEMA_FORMATS, absent

with absent(*SCHEMA_FORMATS):
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

__all__ = ["arguments_of_schema", "checker_of", "schema_fault"]

_TYPES = {"string", "integer", "number", "boolean", "object"}
_NOTES = {"title", "description", "default", "examples", "deprecated", "$schema", "$id", "$comment"}
_TAKEN = {"type", "enum", "minimum", "maximum", "items", "properties", "required"}
_MAX_FAULTS = 10


def schema_fault(schema: dict[str, Any]) -> str | None:
    """Return why a value cannot describe a tool's arguments, ``None`` if it can."""
    if schema.get("type") != "object":
        return "does not say `type: object`"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is not a JSON Schema: {'.'.join(map(str, error.absolute_path))} {error.validator}"
    for reference in _references(schema):
        if not reference.startswith("#"):  # nothing is fetched while a call waits
            return f"refers to {reference[:80]!a}; only references inside the schema are followed"
    names = [name for name in schema.get("properties", {}) if not is_argument_name(name)]
    return f"names the property {names[0]!a}, which policy cannot name" if names else None


def arguments_of_schema(schema: dict[str, Any], roles: dict[str, str]) -> tuple[Argument, ...]:
    """Return the top-level properties as arguments; ``roles`` by name of the argument."""
    required = schema.get("required", [])
    return tuple(
        _argument(name, sub, roles.get(name), 0, optional=name not in required)
        for name, sub in sorted(schema.get("properties", {}).items())
    )


def checker_of(schema: dict[str, Any]) -> Draft202012Validator | None:
    """Return what checks the members that arguments cannot hold; ``None`` if they hold all."""
    plain = set(schema) <= _TAKEN | _NOTES | {"additionalProperties"}
    known = isinstance(schema.get("additionalProperties", True), bool)
    held = all(_held(sub) for sub in schema.get("properties", {}).values())
    return None if plain and known and held else Draft202012Validator(schema)


def _references(node: Any) -> list[str]:
    found, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            for name, value in each.items():
                if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                    found.append(value)
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return found


def _held(schema: Any) -> bool:
    """Whether an :class:`Argument` says all that a schema says."""
    if not isinstance(schema, dict) or set(schema) - _TAKEN - _NOTES:
        return False
    kind = schema.get("type")
    if kind == "array":
        return "items" in schema and _held(schema["items"])
    if kind == "object":
        # Fields that are not listed may come, too, which `fields` would refuse.
        return "properties" not in schema
    return kind in _TYPES and _enum_fits(schema)


def _enum_fits(schema: dict[str, Any]) -> bool:
    if "enum" not in schema:
        return True
    kind = {"string": str, "integer": int}.get(schema["type"])
    return kind is not None and all(type(value) is kind for value in schema["enum"])


def _argument(
    name: str, schema: Any, role: str | None, depth: int, *, optional: bool = False
) -> Argument:
    if not _held(schema) or depth > 4:
        kind = schema.get("type") if isinstance(schema, dict) else None
        typed = kind if kind in _TYPES else ArgumentType.ANY
        return Argument(name, ArgumentType(typed), optional, role)
    if schema["type"] == "array":
        items = _argument("", schema["items"], None, depth + 1)
        return Argument(name, ArgumentType.LIST, optional, role, items=items)
    members = {key: schema[key] for key in ("type", "enum", "minimum", "maximum") if key in schema}
    if members["type"] not in ("integer", "number"):
        members = {key: value for key, value in members.items() if key in ("type", "enum")}
    spec = ArgumentSpec.model_validate({**members, "optional": optional, "role": role})
    return spec.argument(name)
