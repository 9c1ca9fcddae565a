"""Declared dependencies against what the notebook imports."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.document import Cell, guarded_lines
from toolkit.environments import Provided, provided
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject, flaw_rule

__all__ = ["RULES"]


def _imports(subject: Subject) -> Iterator[tuple[Cell, str, int]]:
    """Yield each imported top-level module at its first place, if it must be there."""
    seen: set[str] = set()
    for cell in subject.code:
        guarded = guarded_lines(cell.code.tree)
        found = [(name, line) for name, line in subject.names.imports(cell) if line not in guarded]
        found += [
            (magic.args.split()[0], magic.line)
            for magic in cell.code.magics
            if magic.kind == "line" and magic.name == "load_ext" and magic.args.split()
        ]
        for name, line in found:
            top = name.partition(".")[0]
            if top.isidentifier() and top not in seen:
                seen.add(top)
                yield cell, top, line


def _given(subject: Subject) -> Iterator[tuple[Cell, str, int, Provided]]:
    """Yield what provides each import; nothing for a notebook that declares nothing."""
    dependencies = subject.notebook.dependencies
    if not dependencies.declared or dependencies.flaws:
        return
    names = [one.name for one in dependencies.requirements]
    for cell, module, line in _imports(subject):
        yield cell, module, line, provided(module, names)


def _undeclared(subject: Subject) -> Iterator[Hit]:
    for cell, module, line, by in _given(subject):
        if by is Provided.NOBODY:
            yield Hit(f"no declared dependency provides the module {module}", cell, line)


def _indirect(subject: Subject) -> Iterator[Hit]:
    for cell, module, line, by in _given(subject):
        if by is Provided.INDIRECT:
            message = f"the module {module} comes only with another package's dependencies"
            yield Hit(message, cell, line)
        elif by is Provided.UNKNOWN:
            message = (
                f"the module {module} has the name of no declared dependency, and a declared one "
                "is not installed here, so nobody can look inside"
            )
            fix = "if it is part of one of them, leave it; the rehearsal will show it"
            yield Hit(message, cell, line, fix)


RULES = (
    flaw_rule(
        "bad-dependencies",
        Severity.ERROR,
        "what cannot be read cannot be locked, and the job would run with other packages",
        reads=True,
    ),
    flaw_rule(
        "several-dependencies",
        Severity.ERROR,
        "two declarations can contradict each other",
        reads=True,
    ),
    Rule(
        "undeclared-import",
        Severity.ERROR,
        "the version's environment holds the declared packages and no others",
        "add the package to the notebook's dependencies",
        _undeclared,
    ),
    Rule(
        "indirect-import",
        Severity.WARNING,
        "the other package may stop needing it",
        "add the package to the notebook's dependencies",
        _indirect,
    ),
)
