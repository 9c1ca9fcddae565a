"""The beginning of a ``tools.yaml``: what a suite's tools take, and what a person has to add."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["skeleton"]

_TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
}
_HEAD = """\
# {suite}: answer the six questions of docs/policy.md for each tool, and check every line.
# effect is `write` wherever nobody has looked yet; labels, roles, external and groups are missing.
tools:
"""


def skeleton(suite: str, tools: dict[str, dict[str, Any]]) -> str:
    """Return the text of a tool catalog with typed arguments, made from descriptions and schemas.

    Args:
        suite: Its name.
        tools: By name ``{"description": …, "schema": JSON Schema of the arguments}``.
    """
    lines = [_HEAD.format(suite=suite)]
    for name, tool in tools.items():
        lines.append(f"  {name}:\n    effect: write\n")
        lines.append(f"    description: {json.dumps(_one_line(tool['description']))}\n")
        properties = tool["schema"].get("properties", {})
        if not properties:
            lines.append("    arguments: {}\n")
            continue
        required = set(tool["schema"].get("required", ()))
        lines.append("    arguments:\n")
        for argument, schema in properties.items():
            about = _one_line(schema.get("description", ""))
            spec = _type(schema, tool["schema"], optional=argument not in required)
            lines.append(f"      {argument}: {spec}{f'  # {about}' if about else ''}\n")
    return "".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _type(schema: dict[str, Any], root: dict[str, Any], *, optional: bool = False) -> str:
    """Return an argument as ``tools.yaml`` writes it; what it cannot say is ``any``."""
    schema = _resolved(schema, root)
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    optional = optional or len(kinds) != len(schema.get("anyOf", [schema]))
    parts = ["type: any"]
    if len(kinds) == 1:
        kind = _resolved(kinds[0], root)
        parts = [f"type: {_TYPES.get(str(kind.get('type')), 'any')}"]
        texts = [value for value in kind.get("enum", ()) if isinstance(value, str)]
        if texts and len(texts) == len(kind["enum"]):
            parts.append(f"enum: {json.dumps(texts)}")
        if kind.get("type") == "array" and "items" in kind:
            parts.append(f"items: {_type(kind['items'], root)}")
    if optional:
        parts.append("optional: true")
    return "{" + ", ".join(parts) + "}"


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within the schema (``#/$defs/Name``)."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return root.get("$defs", {}).get(name, schema) if name else schema
