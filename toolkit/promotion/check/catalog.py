"""Tools, routes and results: what the notebook promises against what the registry knows."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterator

from toolkit.document import Cell
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]


_DATA = {"toolkit.data", "toolkit.client.data"}


def _cell(subject: Subject, number: int) -> Cell:
    return subject.notebook.cells[number - 1]


def _known(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(sorted(known)[:10]) or 'none'}"


def _unknown_tools(subject: Subject) -> Iterator[Hit]:
    tools = subject.catalog.tools
    for found in subject.notebook.definitions if tools is not None else ():
        if found.kind == "tool" and found.name not in (tools or ()):
            hint = _known(found.name, tools or ())
            fix = f"add {found.name} to registry/tools.yaml, or correct the name ({hint})"
            message = f"the tool {found.name} is not in the catalog"
            yield Hit(message, _cell(subject, found.cell), found.line, fix)


def _effects(subject: Subject) -> Iterator[Hit]:
    tools = subject.catalog.tools or {}
    for found in subject.notebook.definitions:
        wanted = tools.get(found.name) if found.kind == "tool" else None
        if wanted is not None and found.effect is not None and found.effect != wanted:
            message = f"the tool {found.name} says effect {found.effect!r}, the catalog {wanted!s}"
            fix = f"write effect={str(wanted)!r}, or correct registry/tools.yaml"
            yield Hit(message, _cell(subject, found.cell), found.line, fix)


def _limits(subject: Subject) -> Iterator[Hit]:
    for found in subject.notebook.definitions:
        if found.kind == "tool" and found.name in subject.catalog.timed and not found.awaited:
            message = f"the tool {found.name} has a timeout_s and is a plain function"
            yield Hit(message, _cell(subject, found.cell), found.line)


def _unknown_routes(subject: Subject) -> Iterator[Hit]:
    routes = subject.catalog.routes
    for found in subject.notebook.route_uses if routes is not None else ():
        if found.name not in (routes or ()):
            shown = ascii(found.name)[1:-1][:60]
            fix = f"use a route of registry/models.yaml ({_known(found.name, routes or ())})"
            message = f"the model route {shown} is not in the catalog"
            yield Hit(message, _cell(subject, found.cell), found.line, fix)


def _unknown_sources(subject: Subject) -> Iterator[Hit]:
    known = subject.catalog.sources
    for cell in subject.code if known is not None else ():
        for call in subject.names.calls(cell):
            if not (call.args and subject.names.means(call.func, _DATA)):
                continue
            name = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
            if isinstance(name, str) and name not in (known or ()):
                shown = ascii(name)[1:-1][:60]
                fix = f"add it to registry/data.yaml, or correct it ({_known(name, known or ())})"
                yield Hit(f"the data source {shown} is not in the catalog", cell, call.lineno, fix)


def _no_budget(subject: Subject) -> Iterator[Hit]:
    if subject.catalog.budgeted is False:
        yield Hit("the production policy limits neither money nor tokens nor calls of this job")


def _no_results(subject: Subject) -> Iterator[Hit]:
    notebook = subject.notebook
    if notebook.language not in (None, "python") or notebook.result_uses:
        return
    if subject.catalog.require_results:
        yield Hit("no cell publishes a result")


def _open_results(subject: Subject) -> Iterator[Hit]:
    for use in subject.notebook.result_uses:
        if use.name is None:
            message = "result(**…) publishes names that only a run shows"
            yield Hit(message, _cell(subject, use.cell), use.line)


RULES = (
    Rule(
        "unknown-tool",
        Severity.ERROR,
        "policy allows tools by their catalog entry; a tool without one is denied in production",
        "add the tool to registry/tools.yaml",
        _unknown_tools,
    ),
    Rule(
        "tool-effect",
        Severity.WARNING,
        "after a crash a reading tool is repeated and a writing one is not; the stricter one wins",
        "declare the effect that the catalog states",
        _effects,
    ),
    Rule(
        "tool-timeout",
        Severity.ERROR,
        "nothing can end a plain function after its time, so each call is refused",
        "write it as `async def`, or remove timeout_s from its entry in registry/tools.yaml",
        _limits,
    ),
    Rule(
        "unknown-route",
        Severity.ERROR,
        "the gateway cannot route the call, so the run would fail here",
        "use a route of registry/models.yaml",
        _unknown_routes,
    ),
    Rule(
        "unknown-source",
        Severity.ERROR,
        "the gateway reads only sources that the registry names, so the run would fail here",
        "add the source to registry/data.yaml",
        _unknown_sources,
    ),
    Rule(
        "no-budget",
        Severity.ERROR,
        "a job runs unattended: a loop that asks a model for ever costs until somebody notices",
        "set usd, tokens or calls under `budget` in registry/policies/production/policy.yaml, or a"
        " rule under `budgets` for the job (docs/budgets.md)",
        _no_budget,
    ),
    Rule(
        "no-results",
        Severity.ERROR,
        "a run counts as succeeded only when its declared results have arrived",
        "publish what the job is for: toolkit.result(name=value)",
        _no_results,
    ),
    Rule(
        "open-results",
        Severity.WARNING,
        "a run cannot be held to results that are not declared by name",
        "write toolkit.result(name=value) with the names spelled out",
        _open_results,
    ),
)
