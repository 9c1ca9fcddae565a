"""A tool catalog as the text of ``tools.yaml``: what :class:`ToolCatalog` reads back equal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from toolkit.policy.signature import Argument, ArgumentType
from toolkit.policy.tools import ToolEntry

__all__ = ["catalog_text"]


def catalog_text(entries: Iterable[ToolEntry]) -> str:
    """Return the text of a catalog with these entries."""
    tools = {entry.name: _entry(entry) for entry in entries}
    return yaml.safe_dump({"tools": tools}, sort_keys=False, allow_unicode=False, width=100)


def _entry(entry: ToolEntry) -> dict[str, Any]:
    facts = {**entry.labels.to_json(), "entries": list(entry.entries)}
    labels = {name: value for name, value in facts.items() if value}
    found: dict[str, Any] = {"effect": entry.effect.value, "description": entry.description}
    optional: dict[str, Any] = {
        "idempotent": entry.idempotent or None,
        "groups": list(entry.groups) or None,
        "external": entry.external or None,
        "labels": {n: [str(v) for v in values] for n, values in labels.items()} or None,
        "view": entry.view,
        "timeout_s": entry.timeout_s,
    }
    if entry.checker is not None:
        roles = {a.name: a.role for a in (entry.arguments or {}).values() if a.role}
        optional |= {"schema": entry.checker.schema, "roles": roles or None}
    elif entry.arguments is not None:
        found["arguments"] = {a.name: _argument(a) for a in entry.arguments.values()}
    return {**found, **{name: value for name, value in optional.items() if value is not None}}


def _argument(argument: Argument) -> Any:
    found: dict[str, Any] = {"type": argument.type.value}
    optional: dict[str, Any] = {
        "optional": argument.optional or None,
        "role": argument.role,
        "enum": None if argument.enum is None else list(argument.enum),
        "pattern": argument.pattern,
        "minimum": argument.minimum,
        "maximum": argument.maximum,
    }
    found |= {name: value for name, value in optional.items() if value is not None}
    if argument.items is not None and argument.items != Argument("", ArgumentType.STRING):
        found["items"] = _argument(argument.items)
    if argument.fields is not None:
        found["fields"] = {field.name: _argument(field) for field in argument.fields}
    return found["type"] if len(found) == 1 else found
