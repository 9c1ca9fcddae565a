"""The Cedar schema of the gateway: which principals, actions, resources and context exist.

It is made from the tool catalog, so ``context.arguments`` is typed.  Every policy is validated
against it: a misspelt action, entity type, context key or argument, and a comparison that cannot
be, are faults of the file and not rules that silently never match.
Format: https://docs.cedarpolicy.com/schema/human-readable-schema.html

A policy whose scope is one tool is checked against that tool's arguments: the required ones may
be read as they are.  Any other policy is checked against all tools of its scope together: every
argument is optional (``context.arguments has x`` first), and one that has different types in two
of the tools can only be read by policies that name the tool.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from toolkit.policy.signature import Argument, ArgumentType
from toolkit.policy.tools import ToolEntry

__all__ = [
    "ACTIONS",
    "CATALOG_ID",
    "FACTS",
    "MEMBERS",
    "Union",
    "action_named",
    "schema_text",
    "union_of",
]

FACTS = MappingProxyType(
    {
        "source": "text",  # data: the source in registry/data.yaml
        "tables": "texts",  # data: the tables that a query reads or writes
        "columns": "texts",  # data: the columns, as the gateway names them
        "write": "flag",  # data: whether the query changes something
        "host": "text",  # HTTP: the host that is connected to
        "region": "text",  # models and data: where it is processed
        "allowed_classes": "texts",  # models: the data classes that the target may see
        "external": "flag",  # whether what is given leaves the house
    }
)
"""Facts that the gateway puts: name and kind (``text``, ``texts``, ``flag``)."""

_MEMBERS = {
    "environment": "String",
    "effect": "String",
    "external": "Bool",
    "omitted": "Set<String>",
    "sources": "Set<String>",
    "classes": "Set<String>",
    "session": "Labels",
    "tainted": "Set<String>",
    "tainted_roles": "Set<String>",
    "unnamed_roles": "Set<String>",
    "tables": "Set<String>",
    "columns": "Set<String>",
    "allowed_classes": "Set<String>",
    "write": "Bool",
}
_OPTIONAL = {
    "job": "String",
    "version": "Long",
    "agent": "String",
    "purpose": "String",
    "route": "String",
    "provider": "String",
    "model": "String",
    "source": "String",
    "host": "String",
    "region": "String",
}
MEMBERS = ("arguments", "origin", *_MEMBERS, *_OPTIONAL)
"""Every member of the context."""

ACTIONS = MappingProxyType(
    {
        "call_model": "Route",
        "call_tool": "Tool",
        "call_agent": "Agent",
        "call_data": "Data",
        "call_job": "Job",
        "call_human": "Human",
        "publish_result": "Result",
    }
)
"""Resource type of every action."""

CATALOG_ID = "tools"
"""``Catalog::"tools"`` is the parent of every tool of ``registry/tools.yaml``."""

_PLAIN = {
    ArgumentType.STRING: "String",
    ArgumentType.INTEGER: "Long",
    ArgumentType.NUMBER: "decimal",
    ArgumentType.BOOLEAN: "Bool",
}


def action_named(name: str) -> str | None:
    """Return the action's Cedar name (``call_result`` is ``publish_result``), else ``None``."""
    known = "publish_result" if name == "call_result" else name
    return known if known in ACTIONS else None


@dataclass(frozen=True, slots=True)
class Union:
    """The arguments of several tools together.

    Attributes:
        types: Cedar type by name; arguments of type ``any`` are not there.
        required: The names that need no ``has``: only where there is one tool.
        conflicts: ``(tool, type)`` of the names that are left out because their types differ.
        names: Every declared name.
        open: Whether one of the tools takes arguments that are not declared.
    """

    types: dict[str, str]
    required: frozenset[str]
    conflicts: dict[str, tuple[tuple[str, str], ...]]
    names: frozenset[str]
    open: bool


def union_of(tools: Iterable[ToolEntry]) -> Union:
    """Put the declared arguments of tools together."""
    found: dict[str, dict[str, str]] = {}
    names: set[str] = set()
    entries = list(tools)
    for tool in entries:
        for argument in (tool.arguments or {}).values():
            names.add(argument.name)
            kind = _type(argument)
            if kind is not None:
                found.setdefault(argument.name, {})[tool.name] = kind
    conflicts = {
        name: tuple(kinds.items()) for name, kinds in found.items() if len(set(kinds.values())) > 1
    }
    types = {name: next(iter(k.values())) for name, k in found.items() if name not in conflicts}
    required: frozenset[str] = frozenset()
    if len(entries) == 1:
        declared = (entries[0].arguments or {}).values()
        required = frozenset(a.name for a in declared if not a.optional)
    undeclared = any(tool.arguments is None or tool.open_arguments for tool in entries)
    return Union(types, required, conflicts, frozenset(names), undeclared)


def _type(argument: Argument) -> str | None:
    """Return the Cedar type of an argument, ``None`` if it has none."""
    if argument.type is ArgumentType.LIST:
        inner = None if argument.items is None else _type(argument.items)
        return None if inner is None else f"Set<{inner}>"
    if argument.type is ArgumentType.OBJECT:
        typed = [(field, _type(field)) for field in argument.fields or ()]
        return _record({f.name: (kind, not f.optional) for f, kind in typed if kind is not None})
    return _PLAIN.get(argument.type)


def _record(members: dict[str, tuple[str, bool]]) -> str:
    shown = (
        f'"{name}"{"" if needed else "?"}: {kind}'
        for name, (kind, needed) in sorted(members.items())
    )
    return "{" + ", ".join(shown) + "}"


def schema_text(tools: Iterable[ToolEntry] = ()) -> str:
    """Return the schema in Cedar's own syntax, with the arguments of these tools."""
    union = union_of(tools)
    entities = [
        "entity Team;",
        "entity Role;",
        "entity User in [Team, Role];",
        "entity Catalog;",
        "entity Group;",
    ]
    entities.extend(
        "entity Tool in [Catalog, Group];" if kind == "Tool" else f"entity {kind};"
        for kind in ACTIONS.values()
    )
    typed = _record({n: (kind, n in union.required) for n, kind in union.types.items()})
    origin = _record({n: ("Labels", n in union.required) for n in union.names})
    actions = []
    for action, kind in ACTIONS.items():
        shown, sources = (typed, origin) if kind == "Tool" else ("{}", "{}")
        actions.append(
            f'action "{action}" appliesTo {{ principal: User, resource: {kind}, '
            f"context: {_context(shown, sources)} }};"
        )
    labels = "type Labels = {sources: Set<String>, classes: Set<String>};"
    return "\n".join([*entities, labels, *actions]) + "\n"


def _context(arguments: str, origin: str) -> str:
    always = {"arguments": arguments, "origin": origin, **_MEMBERS}
    members = [f"{name}: {kind}" for name, kind in always.items()]
    members += [f"{name}?: {kind}" for name, kind in _OPTIONAL.items()]
    return "{" + ", ".join(members) + "}"
