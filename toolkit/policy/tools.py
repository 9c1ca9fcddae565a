"""The tool catalog: which tools exist, what they take, and what they do to the world.

``registry/tools.yaml``::

    tools:
      read_inbox:
        effect: read
        description: The newest messages.
        arguments: {limit: {type: integer, optional: true, minimum: 1}}
        labels: {sources: [untrusted], classes: [pii]}
      pay:
        effect: write
        description: Pays a bill.
        groups: [payments]
        external: true
        arguments:
          recipient: {type: string, role: destination}
          amount: {type: number, role: amount, minimum: 0}
        view: "Pay {amount} to {recipient}"
        timeout_s: 20

See :mod:`toolkit.policy.signature` for arguments; ``schema`` takes a JSON Schema instead, with
``roles: {recipient: destination}`` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from toolkit.policy.json_schema import arguments_of_schema, checker_of, schema_fault
from toolkit.policy.people import is_word
from toolkit.policy.signature import Argument, ArgumentSpec, check_names, faults_of
from toolkit.policy.view import render_view, view_fault
from toolkit.settings import read_model
from toolkit.values import NO_LABELS, DataClass, Digest, Effect, Labels, Source, digest_json

__all__ = ["ToolCatalog", "ToolEntry"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MAX_FAULTS = 10


class _Checker(Protocol):
    """A JSON Schema that is ready to check values."""

    schema: Any

    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """One tool.

    Attributes:
        name: The function's name.
        effect: ``read`` leaves the world as it is; ``write`` changes it.
        description: One sentence for people and models.
        idempotent: Calling twice does what calling once does.
        arguments: By name; ``None`` where the catalog does not declare them.
        labels: What every answer of the tool is.
        entries: Members of its answer whose whole values our own system lists; ``*``: all.
        external: Whether data that is given to it leaves the house.
        view: How a person sees a call; see :mod:`toolkit.policy.view`.
        timeout_s: Seconds after which the gateway gives up on a tool of others, and a kernel cancels
            an ``async`` function; a plain one, which nothing can end, is refused.
        groups: ``Group::"…"`` in policies.
        open_arguments: Whether names that are not declared may be given, too.
    """

    name: str
    effect: Effect
    description: str
    idempotent: bool = False
    arguments: Mapping[str, Argument] | None = None
    labels: Labels = NO_LABELS
    external: bool = False
    view: str | None = None
    timeout_s: float | None = None
    groups: tuple[str, ...] = ()
    open_arguments: bool = False
    entries: tuple[str, ...] = ()
    checker: _Checker | None = field(default=None, repr=False, compare=False)

    @property
    def repeatable(self) -> bool:
        """Whether the call may be repeated when its outcome is not known."""
        return self.idempotent or self.effect is Effect.READ

    def check_arguments(self, arguments: Any) -> list[str]:
        """Return what does not fit the declared arguments, one sentence each, without values."""
        if self.arguments is None:
            return []
        given = {} if arguments is None else arguments
        if not isinstance(given, dict):
            return [f"the arguments of {self.name} have no names"]
        found: list[str] = []
        for fault in faults_of(self.arguments, given, more=self.open_arguments):
            found.append(fault)
            if len(found) >= _MAX_FAULTS:
                return found
        if not found and self.checker is not None:
            for error in self.checker.iter_errors(given):
                place = ".".join(map(str, error.absolute_path)) or "(all)"
                found.append(f"argument {place[:100]} does not fit the schema's {error.validator}")
                if len(found) >= _MAX_FAULTS:
                    break
        return found

    def with_effect(self, effect: Effect) -> ToolEntry:
        """Return the entry with another effect."""
        return replace(self, effect=effect)

    def with_arguments(self, arguments: Mapping[str, Argument] | None) -> ToolEntry:
        """Return the entry with these arguments, and no others."""
        held = None if arguments is None else MappingProxyType(dict(sorted(arguments.items())))
        view = self.view
        if view is not None and view_fault(view, None if held is None else frozenset(held)):
            view = None
        return replace(self, arguments=held, view=view, open_arguments=False, checker=None)

    def render_view(self, arguments: Any) -> str:
        """Return one line about a call for the person who decides about it."""
        return render_view(self.name, self.view, arguments)

    def to_json(self) -> dict[str, Any]:
        """Return everything that policy depends on, as JSON values."""
        declared = self.arguments
        return {
            "name": self.name,
            "effect": self.effect.value,
            "description": self.description,
            "idempotent": self.idempotent,
            "arguments": None if declared is None else [a.to_json() for a in declared.values()],
            "labels": self.labels.to_json(),
            "external": self.external,
            "view": self.view,
            "timeout_s": self.timeout_s,
            "groups": list(self.groups),
            "open": self.open_arguments,
            "schema": None if self.checker is None else self.checker.schema,
            **({"entries": list(self.entries)} if self.entries else {}),
        }


class _Labels(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sources: list[Annotated[Source, Field(strict=False)]] = []
    classes: list[Annotated[DataClass, Field(strict=False)]] = []
    entries: list[Annotated[str, Field(min_length=1, max_length=128)]] = []


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    effect: Annotated[Effect, Field(strict=False)]
    description: Annotated[str, Field(min_length=1, max_length=1_000)]
    idempotent: bool = False
    arguments: dict[str, ArgumentSpec] | None = None
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    roles: dict[str, str] | None = None
    labels: _Labels = _Labels()
    external: bool = False
    view: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400, strict=False)] | None = None
    groups: list[str] = []

    @field_validator("arguments")
    @classmethod
    def _names(cls, arguments: dict[str, ArgumentSpec] | None) -> dict[str, ArgumentSpec] | None:
        check_names(arguments or ())
        return arguments

    @field_validator("groups")
    @classmethod
    def _words(cls, groups: list[str]) -> list[str]:
        if bad := [ascii(group) for group in groups if not is_word(group)]:
            msg = f"{', '.join(bad)} cannot name a group: use letters, digits, '_', '-' and '.'"
            raise ValueError(msg)
        return groups

    @field_validator("json_schema")
    @classmethod
    def _schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        fault = None if schema is None else schema_fault(schema)
        if fault:
            raise ValueError(fault)
        return schema

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.arguments is not None and self.json_schema is not None:
            msg = "has both arguments and schema; keep one of the two"
            raise ValueError(msg)
        if self.roles is not None and self.json_schema is None:
            msg = "has roles without a schema; write the role into the argument itself"
            raise ValueError(msg)
        names = self._argument_names()
        unknown = sorted(set(self.roles or {}) - (names or frozenset()))
        if unknown:
            msg = f"gives a role to {unknown[0]!a}, which is not a property of the schema"
            raise ValueError(msg)
        if self.view is not None and (fault := view_fault(self.view, names)):
            msg = f"has a view that {fault}"
            raise ValueError(msg)
        return self

    def _argument_names(self) -> frozenset[str] | None:
        if self.json_schema is not None:
            return frozenset(self.json_schema.get("properties", {}))
        return None if self.arguments is None else frozenset(self.arguments)

    def entry(self, name: str) -> ToolEntry:
        declared: tuple[Argument, ...] | None = None
        schema = self.json_schema
        if schema is not None:
            declared = arguments_of_schema(schema, self.roles or {})
        elif self.arguments is not None:
            declared = tuple(spec.argument(n) for n, spec in sorted(self.arguments.items()))
        return ToolEntry(
            name,
            self.effect,
            self.description,
            self.idempotent,
            None if declared is None else MappingProxyType({a.name: a for a in declared}),
            Labels(frozenset(self.labels.sources), frozenset(self.labels.classes)),
            self.external,
            self.view,
            self.timeout_s,
            tuple(sorted(set(self.groups))),
            schema is not None and schema.get("additionalProperties", True) is not False,
            tuple(sorted(set(self.labels.entries))),
            None if schema is None else checker_of(schema),
        )


class _RemoteEntry(_Entry):
    """A tool of a server or service, which describes it itself when it is asked."""

    description: Annotated[str, Field(min_length=1, max_length=1_000)] = ""
    digest: str | None = None


class _Server(BaseModel):
    """An MCP server; how it is reached is kept for the digest, and checked by the tools room."""

    model_config = ConfigDict(extra="allow", strict=True)

    tools: dict[str, _RemoteEntry] = {}


class _Service(BaseModel):
    """A service with an OpenAPI document; see :class:`_Server`."""

    model_config = ConfigDict(extra="allow", strict=True)

    operations: dict[str, _RemoteEntry] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tools: dict[str, _Entry]
    servers: dict[str, _Server] = {}
    http: dict[str, _Service] = {}

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [name for name, _ in self.entries()]
        bad = [ascii(name) for name in names if not _NAME.fullmatch(name)]
        if bad:
            msg = (
                f"{', '.join(bad)} cannot name a tool: use letters, digits, '_', '-' and '.', "
                "starting with a letter, at most 64 characters"
            )
            raise ValueError(msg)
        if twice := sorted({ascii(name) for name in names if names.count(name) > 1}):
            msg = f"{', '.join(twice)} is listed twice; give one of the two another name"
            raise ValueError(msg)
        return self

    def entries(self) -> list[tuple[str, _Entry]]:
        """Every tool; those of a server or service as ``server.tool``."""
        found = list(self.tools.items())
        for server, reached in self.servers.items():
            found += [(f"{server}.{name}", entry) for name, entry in reached.tools.items()]
        for service, described in self.http.items():
            found += [(f"{service}.{name}", e) for name, e in described.operations.items()]
        return found

    def reached(self) -> Any:
        """How servers and services are reached, and their pinned descriptions."""
        parts = {**self.servers, **self.http}
        facts = [[name, part.model_dump(mode="json")] for name, part in sorted(parts.items())]
        return facts or None


class ToolCatalog(Mapping[str, ToolEntry]):
    """The tools by name; immutable.

    Attributes:
        digest: Digest over every entry, and over how servers and services are reached.
        groups: The tools of each group, sorted.
    """

    def __init__(self, tools: Mapping[str, ToolEntry], reached: Any = None) -> None:
        self._tools = MappingProxyType(dict(sorted(tools.items())))
        self._reached: list[list[Any]] = reached or []
        facts: list[Any] = [tool.to_json() for tool in self._tools.values()]
        self.digest: Digest = digest_json(facts if reached is None else [*facts, reached])
        groups: dict[str, list[str]] = {}
        for tool in self._tools.values():
            for group in tool.groups:
                groups.setdefault(group, []).append(tool.name)
        self.groups: Mapping[str, tuple[str, ...]] = MappingProxyType(
            {name: tuple(members) for name, members in sorted(groups.items())}
        )

    @classmethod
    def load(cls, path: Path) -> ToolCatalog:
        """Read a catalog.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The file has faults (all are named).
        """
        parsed = read_model(
            path,
            _File,
            "tool catalog",
            missing=f"create {path} with a `tools:` mapping (it may be empty: `tools: {{}}`)",
        ).value
        return cls({n: entry.entry(n) for n, entry in parsed.entries()}, parsed.reached())

    def manifest(self) -> dict[str, Any]:
        """Return the catalog as JSON values that tell which tool differs from another catalog's.

        ``tools`` has every entry by name, with the pinned digest of a remote tool's own description;
        ``servers`` the digest of how each server and service is reached: addresses stay here.
        """
        tools = {name: tool.to_json() for name, tool in self._tools.items()}
        for server, part in self._reached:
            described = {**part.get("tools", {}), **part.get("operations", {})}
            for name, entry in described.items():
                tools[f"{server}.{name}"]["pinned"] = entry.get("digest")
        return {
            "schema": "tools/1",
            "digest": self.digest,
            "tools": tools,
            "servers": {name: digest_json(part) for name, part in self._reached},
        }

    def __getitem__(self, name: str) -> ToolEntry:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)
