"""A policy against the schema of the tools in its scope."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

import cedarpy

from toolkit.errors import Fault
from toolkit.policy.analysis import Reads, ResourceScope
from toolkit.policy.schema import CATALOG_ID, Union, schema_text, union_of
from toolkit.policy.tools import ToolCatalog, ToolEntry

__all__ = ["Checker"]

_TOOLS_ONLY = frozenset({"call_tool"})


class Checker:
    """Validates policies; keeps the schemas that it made."""

    def __init__(self, tools: ToolCatalog) -> None:
        self._tools = tools
        self._schemas: dict[tuple[str, ...], cedarpy.Schema] = {}
        self._unions: dict[tuple[str, ...], Union] = {}

    def faults(
        self,
        text: str,
        place: str,
        actions: frozenset[str] | None,
        resource: ResourceScope,
        reads: Reads,
    ) -> Iterator[Fault]:
        """Yield what Cedar's validator and the catalog say about one policy."""
        names = self._in_scope(resource)
        union = self._union(names)
        found = list(self._unknown(place, actions, reads, union))
        if found:  # Cedar would say less, and of the same places
            yield from found
            return
        for finding in cedarpy.validate_policies(text, self._schema(names)).errors:
            message = finding.error.removeprefix("for policy `policy0`, ")
            yield Fault(place, message, _hint(message))

    def _in_scope(self, resource: ResourceScope) -> tuple[str, ...]:
        """The tools that a scope can admit, by name."""
        entity = resource.entity
        if entity is None or entity == ("Catalog", CATALOG_ID):
            return tuple(self._tools)
        if entity[0] == "Tool":
            return (entity[1],) if entity[1] in self._tools else ()
        return self._tools.groups.get(entity[1], ()) if entity[0] == "Group" else ()

    def _entries(self, names: Iterable[str]) -> list[ToolEntry]:
        return [self._tools[name] for name in names]

    def _union(self, names: tuple[str, ...]) -> Union:
        if names not in self._unions:
            self._unions[names] = union_of(self._entries(names))
        return self._unions[names]

    def _schema(self, names: tuple[str, ...]) -> cedarpy.Schema:
        if names not in self._schemas:
            self._schemas[names] = cedarpy.Schema.from_str(schema_text(self._entries(names)))
        return self._schemas[names]

    def _unknown(
        self, place: str, actions: frozenset[str] | None, reads: Reads, union: Union
    ) -> Iterator[Fault]:
        """Names behind ``has``, which Cedar takes to be absent for ever and does not check."""
        for name in sorted(reads.arguments or ()):
            if name in union.conflicts:
                kinds = ", ".join(f"{kind} in {tool}" for tool, kind in union.conflicts[name][:4])
                message = f"reads the argument {name}, whose type differs between tools ({kinds})"
                step = 'write one policy per tool, with resource == Tool::"…" in its scope'
                yield Fault(place, message, step)
        if actions != _TOOLS_ONLY or union.open or not union.names:
            return
        for name in sorted((reads.arguments or frozenset()) | (reads.origin or frozenset())):
            if name not in union.names:
                near = difflib.get_close_matches(name, union.names, 1)
                known = ", ".join(sorted(union.names)[:12])
                step = f"did you mean {near[0]}?" if near else f"known arguments: {known}"
                yield Fault(
                    place, f"reads the argument {name}, which no tool in its scope has", step
                )


def _hint(message: str) -> str | None:
    if "optional attribute `arguments." in message or "optional attribute `origin." in message:
        return (
            "ask first (`context.arguments has x && …`), or name the tool in the policy's scope: "
            "its required arguments need no `has`"
        )
    if "decimal" in message:
        return 'numbers are decimals: context.arguments.x.greaterThan(decimal("100.0"))'
    if "optional attribute" in message:
        return "ask first: `context has x && …`"
    return None
