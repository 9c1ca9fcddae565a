"""What a notebook defines and uses of the toolkit: tools, agents, model routes, results."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.document.cells import Cell
from toolkit.document.names import Names
from toolkit.document.signature import Signature, signature_of
from toolkit.document.syntax import Magic

__all__ = ["Definition", "ResultUse", "RouteUse", "definitions", "results", "routes"]

_KINDS: dict[Literal["tool", "agent"], set[str]] = {
    "tool": {"toolkit.tool", "toolkit.client.tool"},
    "agent": {"toolkit.agent", "toolkit.client.agent"},
}
_RESULT = {"toolkit.result", "toolkit.client.result"}
_ROUTED = {
    *("toolkit.model", "toolkit.client.model"),
    *("toolkit.agent", "toolkit.client.agent", "toolkit.tool", "toolkit.client.tool"),
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool or agent that a notebook defines.

    Attributes:
        kind: Which of the two.
        name: Its name in policy and catalog.
        effect: ``read`` or ``write`` as declared; ``None`` when it cannot be read statically.
        cell, line: 1-based place.
        awaited: Whether it is an ``async def``.
        signature: Its arguments; ``None`` where another decorator may have changed them.
    """

    kind: Literal["tool", "agent"]
    name: str
    effect: str | None
    cell: int
    line: int
    awaited: bool = False
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class RouteUse:
    """A model route that a notebook names.

    Attributes:
        name: The route.
        cell, line: 1-based place.
    """

    name: str
    cell: int
    line: int


@dataclass(frozen=True, slots=True)
class ResultUse:
    """A result that a notebook publishes.

    Attributes:
        name: Its name; ``None`` for ``result(**values)``, whose names show only in a run.
        cell, line: 1-based place.
    """

    name: str | None
    cell: int
    line: int


def definitions(cells: Sequence[Cell], names: Names) -> tuple[Definition, ...]:
    """Return tools and agents, by decorator and by ``%%tool`` and ``%%agent``."""
    found: list[Definition] = []
    for cell in cells:
        for node in names.nodes(cell):
            if isinstance(node, _Function):
                found.extend(_decorated(cell, node, names))
        for magic in cell.code.magics:
            if magic.kind == "cell" and magic.name in _KINDS:
                found.extend(_by_magic(cell, magic, found))
    return tuple(found)


def _decorated(cell: Cell, node: _Function, names: Names) -> Iterator[Definition]:
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        target = call.func if call else decorator
        for kind, wanted in _KINDS.items():
            if names.means(target, wanted):
                name = _keyword(call, "name") or node.name
                effect = _keyword(call, "effect", default="read")
                awaited = isinstance(node, ast.AsyncFunctionDef)
                signature = signature_of(node) if len(node.decorator_list) == 1 else None
                yield Definition(kind, name, effect, cell.number, node.lineno, awaited, signature)


def _keyword(call: ast.Call | None, name: str, default: str | None = None) -> str | None:
    for keyword in call.keywords if call else ():
        if keyword.arg == name:
            value = keyword.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
            # ``Effect.WRITE`` and alike
            if isinstance(value, ast.Attribute) and value.attr in {"READ", "WRITE"}:
                return value.attr.lower()
            return None
    return default


def _by_magic(cell: Cell, magic: Magic, known: list[Definition]) -> Iterator[Definition]:
    """The functions at the top level of the magic's body; ``--name`` and ``--effect`` count."""
    words = _words(magic.args)
    effect = _option(words, "--effect") or "read"
    body = cell.code.tree.body if cell.code.tree else []
    functions = [node for node in body if isinstance(node, _Function)]
    decorated = {(d.cell, d.line) for d in known}
    for node in functions:
        if (cell.number, node.lineno) not in decorated and not node.name.startswith("_"):
            only = _option(words, "--name") if len(functions) == 1 else None
            kind: Literal["tool", "agent"] = "tool" if magic.name == "tool" else "agent"
            awaited = isinstance(node, ast.AsyncFunctionDef)
            signature = None if node.decorator_list else signature_of(node)
            yield Definition(
                kind, only or node.name, effect, cell.number, node.lineno, awaited, signature
            )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _option(words: list[str], name: str) -> str | None:
    for index, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and index + 1 < len(words):
            return words[index + 1]
    return None


def routes(cells: Sequence[Cell], names: Names) -> tuple[RouteUse, ...]:
    """Return the routes named by ``%%model ROUTE`` and ``model(…, route="…")``."""
    found: list[RouteUse] = []
    for cell in cells:
        for magic in cell.code.magics:
            if magic.kind == "cell" and magic.name == "model":
                words = _words(magic.args)
                named = _option(words, "--route")
                first = words[0] if words and re.match(r"\w", words[0]) else None
                if named or first:
                    found.append(RouteUse(str(named or first), cell.number, magic.line))
        for call in names.calls(cell):
            if not names.means(call.func, _ROUTED):
                continue
            for keyword in call.keywords:
                route = _keyword(call, "route") if keyword.arg == "route" else None
                if route:
                    found.append(RouteUse(route, cell.number, keyword.value.lineno))
    return tuple(found)


def results(cells: Sequence[Cell], names: Names) -> tuple[ResultUse, ...]:
    """Return the keywords of every ``toolkit.result(…)``."""
    return tuple(
        ResultUse(keyword.arg, cell.number, call.lineno)
        for cell in cells
        for call in names.calls(cell)
        if names.means(call.func, _RESULT)
        for keyword in call.keywords
    )
