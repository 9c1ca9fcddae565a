"""The Cedar schema of the gateway: which principals, actions, resources and context exist.

Every bundle is validated against it, so a misspelt action, entity type or context key is a
fault of the file and not a rule that silently never matches.
Format: https://docs.cedarpolicy.com/schema/human-readable-schema.html
"""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["ACTIONS", "CATALOG_ID", "action_named", "schema_text"]

# `arguments` is declared empty because a catalog does not type arguments: a policy may read
# `context.arguments.x` only behind `context.arguments has x`, which is what keeps it from
# failing on a call without x.
_CONTEXT = """{
    environment: String,
    effect: String,
    arguments: {},
    omitted: Set<String>,
    job?: String,
    version?: Long,
    purpose?: String,
    route?: String,
    provider?: String,
    model?: String,
}"""

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


def action_named(name: str) -> str | None:
    """Return the action's Cedar name (``call_result`` is ``publish_result``), else ``None``."""
    known = "publish_result" if name == "call_result" else name
    return known if known in ACTIONS else None


def schema_text() -> str:
    """Return the schema in Cedar's own syntax."""
    entities = ["entity Team;", "entity Role;", "entity User in [Team, Role];", "entity Catalog;"]
    entities.extend(
        "entity Tool in [Catalog];" if kind == "Tool" else f"entity {kind};"
        for kind in ACTIONS.values()
    )
    actions = [
        f'action "{action}" appliesTo {{ principal: User, resource: {kind}, context: Call }};'
        for action, kind in ACTIONS.items()
    ]
    return "\n".join([*entities, f"type Call = {_CONTEXT};", *actions]) + "\n"
