"""What a policy looks at: so that nothing else is built, and misspelt names are found.

Works on the typed nodes of :mod:`cedarpy.pst`.  When in doubt a policy is taken to look at
everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cedarpy import pst

__all__ = ["Reads", "ResourceScope", "actions_of", "reads_of", "resource_of"]

_NAMED = ("arguments", "origin")


@dataclass(frozen=True, slots=True)
class Reads:
    """Names that are looked at; ``None`` stands for all.

    Attributes:
        context: Members of the context.
        arguments, origin: Members of ``context.arguments`` and ``context.origin``.
    """

    context: frozenset[str] | None = frozenset()
    arguments: frozenset[str] | None = frozenset()
    origin: frozenset[str] | None = frozenset()

    def __or__(self, other: Reads) -> Reads:
        return Reads(
            _both(self.context, other.context),
            _both(self.arguments, other.arguments),
            _both(self.origin, other.origin),
        )

    def has(self, member: str) -> bool:
        """Whether a member of the context is looked at."""
        return self.context is None or member in self.context


def _both(one: frozenset[str] | None, two: frozenset[str] | None) -> frozenset[str] | None:
    return None if one is None or two is None else one | two


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """Which resources a policy's scope admits.

    Attributes:
        kind: The entity type, ``None`` for any.
        entity: ``(type, id)`` that the resource is or is in, ``None`` for any.
        exact: Whether it has to be the entity itself.
    """

    kind: str | None = None
    entity: tuple[str, str] | None = None
    exact: bool = False

    def admits(self, kind: str, name: str, parents: frozenset[tuple[str, str]]) -> bool:
        """Whether a resource with these ancestors is in the scope."""
        if self.kind is not None and self.kind != kind:
            return False
        if self.entity is None or self.entity == (kind, name):
            return True
        return not self.exact and self.entity in parents


def resource_of(policy: Any) -> ResourceScope:
    """Return the scope of a policy's resource."""
    scope = policy.resource
    match scope:
        case pst.ScopeEq(entity=pst.EntityUid() as uid):
            return ResourceScope(entity=(str(uid.type), uid.id), exact=True)
        case pst.ScopeIn(entity=pst.EntityUid() as uid):
            return ResourceScope(entity=(str(uid.type), uid.id))
        case pst.ScopeIs(entity_type=kind):
            return ResourceScope(kind=str(kind))
        case pst.ScopeIsIn(entity_type=kind, entity=pst.EntityUid() as uid):
            return ResourceScope(kind=str(kind), entity=(str(uid.type), uid.id))
    return ResourceScope()


def actions_of(policy: Any) -> frozenset[str] | None:
    """Return the actions of a policy's scope, ``None`` for any."""
    match policy.action:
        case pst.ActionEq(entity=uid):
            return frozenset({uid.id})
        case pst.ActionIn(entities=uids):
            return frozenset(uid.id for uid in uids)
    return None


def reads_of(clauses: Iterable[Any]) -> Reads:
    """Return what the conditions of a policy look at."""
    found = Reads()
    waiting: list[Any] = list(clauses)
    while waiting:
        node = waiting.pop()
        path = _path(node)
        if path is not None:
            found = found | _read(path)
        elif isinstance(node, Mapping):
            waiting.extend(node.values())
        elif isinstance(node, tuple):
            waiting.extend(node)
        elif dataclasses.is_dataclass(node) and not isinstance(node, type):
            waiting.extend(getattr(node, field.name) for field in dataclasses.fields(node))
    return found


def _path(node: Any) -> tuple[str, ...] | None:
    """Return ``("arguments", "x")`` for ``context.arguments.x``; ``()`` for ``context`` itself."""
    steps: list[str] = []
    while True:
        match node:
            case pst.GetAttr(base=base, attr=attr):
                steps.append(attr)
                node = base
            case pst.HasAttr(base=base, attrs=attrs):
                steps.extend(reversed(attrs))
                node = base
            case pst.Var(name="context"):
                return tuple(reversed(steps))
            case _:
                return None


def _read(path: tuple[str, ...]) -> Reads:
    if not path:  # the whole context: `context == {…}`
        return Reads(None, None, None)
    member, rest = path[0], path[1:]
    named: dict[str, frozenset[str] | None] = {"arguments": frozenset(), "origin": frozenset()}
    if member in _NAMED:
        named[member] = frozenset(rest[:1]) if rest else None
    return Reads(frozenset({member}), named["arguments"], named["origin"])
