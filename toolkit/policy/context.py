"""The context of one question to Cedar: only the members that a policy looks at are built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from toolkit.policy.analysis import Reads
from toolkit.policy.arguments import to_record
from toolkit.policy.schema import FACTS, MEMBERS
from toolkit.policy.tools import ToolEntry
from toolkit.policy.types import PolicyRequest
from toolkit.values import NO_LABELS, Effect, Environment, Labels, Source

__all__ = ["build_context", "fact_fault"]

_MAX_NAMES = 4_096
_NO_LABELS: Mapping[str, Labels] = MappingProxyType({})
_MAX_LIST = 4_096
_IS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "texts": lambda value: (
        isinstance(value, list | tuple | set | frozenset)
        and len(value) <= _MAX_LIST
        and all(isinstance(item, str) for item in value)
    ),
}


@dataclass(frozen=True, slots=True)
class _Question:
    request: PolicyRequest
    environment: Environment
    entry: ToolEntry | None
    labels: Mapping[str, Labels]

    @property
    def effect(self) -> str:
        """The stricter of what the caller and the catalog say: a notebook is not believed."""
        declared = self.entry.effect if self.entry is not None else self.request.effect
        return str(Effect.WRITE if Effect.WRITE in (declared, self.request.effect) else Effect.READ)

    @property
    def external(self) -> bool:
        """Likewise: the catalog or the gateway says that data leaves the house."""
        listed = self.entry is not None and self.entry.external
        return listed or bool(self.request.facts.get("external", False))

    def all_labels(self) -> Labels:
        found = NO_LABELS
        for labels in self.labels.values():
            found = found | labels
        return found

    def tainted(self) -> list[str]:
        return sorted(name for name, labels in self.labels.items() if labels.tainted)

    def tainted_roles(self) -> list[str]:
        return self._roles(self.tainted())

    def unnamed_roles(self) -> list[str]:
        """Roles of arguments of which the user did not name every part.

        No sources at all stand for a value that says nothing about its origin, such as ``13``.
        """
        by_user = {Source.USER}
        return self._roles(n for n, labels in self.labels.items() if labels.sources != by_user)

    def _roles(self, names: Iterable[str]) -> list[str]:
        declared = {} if self.entry is None else self.entry.arguments or {}
        found = (declared.get(name) for name in names)
        return sorted({a.role for a in found if a is not None and a.role is not None})

    def origin(self, only: frozenset[str] | None) -> dict[str, Any]:
        """Labels of every argument that is given; none are known for some."""
        given = self.request.arguments
        names = given if isinstance(given, dict) else ({} if given is None else {"value": given})
        return {
            name: _shown(self.labels.get(name, NO_LABELS))
            for name in list(names)[:_MAX_NAMES]
            if isinstance(name, str)
            and not name.startswith("__")
            and (only is None or name in only)
            and (names[name] is not None or self._needs(name))
        }

    def _needs(self, name: str) -> bool:
        declared = {} if self.entry is None else self.entry.arguments or {}
        return name not in declared or not declared[name].optional


@lru_cache(1024)
def _shown(labels: Labels) -> dict[str, list[str]]:
    return labels.to_json()


def _texts(name: str) -> Callable[[_Question], Any]:
    return lambda q: sorted(set(q.request.facts.get(name, ())))


def _fact(name: str) -> Callable[[_Question], Any]:
    return lambda q: q.request.facts.get(name)


_BUILD: dict[str, Callable[[_Question], Any]] = {
    "environment": lambda q: q.environment.value,
    "effect": lambda q: q.effect,
    "external": lambda q: q.external,
    "sources": lambda q: sorted(q.all_labels().sources),
    "classes": lambda q: sorted(q.all_labels().classes),
    "session": lambda q: _shown(q.request.session),
    "tainted": lambda q: q.tainted(),
    "tainted_roles": lambda q: q.tainted_roles(),
    "unnamed_roles": lambda q: q.unnamed_roles(),
    "tables": _texts("tables"),
    "columns": _texts("columns"),
    "allowed_classes": _texts("allowed_classes"),
    "write": lambda q: q.request.facts.get("write", False),
    "job": lambda q: q.request.job,
    "version": lambda q: q.request.version,
    "agent": lambda q: q.request.agent,
    "purpose": lambda q: q.request.purpose,
    "route": lambda q: q.request.route,
    "provider": lambda q: q.request.provider,
    "model": lambda q: q.request.model,
    "source": _fact("source"),
    "host": _fact("host"),
    "region": _fact("region"),
}


def fact_fault(facts: Mapping[str, Any]) -> str | None:
    """Return which fact is not of its kind; a policy must never see a wrong one."""
    for name, kind in FACTS.items():
        value = facts.get(name)
        if value is not None and not _IS[kind](value):
            return f"the gateway's fact {name} is not of the kind {kind!r}"
    return None


def build_context(
    request: PolicyRequest, environment: Environment, entry: ToolEntry | None, reads: Reads
) -> dict[str, Any]:
    """Return the context in Cedar's JSON form, with the members that ``reads`` names."""
    given = request.labels
    labels = given if "" not in given else {**given, "value": given[""]}
    if labels is not given:
        labels = {name: value for name, value in labels.items() if name}
    question = _Question(request, environment, entry, labels or _NO_LABELS)
    found: dict[str, Any] = {}
    wanted = MEMBERS if reads.context is None else reads.context
    for name in wanted:
        build = _BUILD.get(name)
        value = None if build is None else build(question)
        if value is not None:
            found[name] = value
    if reads.has("arguments") or reads.has("omitted"):
        # What is left out is known only when everything was looked at.
        only = None if reads.has("omitted") else reads.arguments
        declared = None if entry is None else entry.arguments
        found["arguments"], found["omitted"] = to_record(request.arguments, declared, only=only)
    if reads.has("origin"):
        found["origin"] = question.origin(reads.origin)
    return found
