"""Does the notebook declare its parameters so that a run can set them?"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject, flaw_rule

__all__ = ["RULES"]


def _missing(subject: Subject) -> Iterator[Hit]:
    notebook = subject.notebook
    if not subject.catalog.require_parameters or notebook.language not in (None, "python"):
        return
    if notebook.declared.cell is None and not notebook.declared.flaws:
        yield Hit("no cell declares parameters")


def _used_before(subject: Subject) -> Iterator[Hit]:
    declared = subject.notebook.declared
    if declared.cell is None or declared.way != "cell":
        return
    waiting = {parameter.name for parameter in declared.parameters}
    for cell in subject.code:
        if cell.number >= declared.cell:
            return
        for node in subject.names.nodes(cell):
            if isinstance(node, ast.Name) and node.id in waiting:
                waiting.discard(node.id)
                yield Hit(f"{node.id} is used above the cell that declares it", cell, node.lineno)


def _overwritten(subject: Subject) -> Iterator[Hit]:
    declared = subject.notebook.declared
    if declared.way != "cell":
        return
    names = {parameter.name for parameter in declared.parameters}
    for cell in subject.code:
        if cell.number == declared.cell or cell.code.tree is None:
            continue
        for statement in cell.code.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                for target in statement.targets:
                    if isinstance(target, ast.Name) and target.id in names:
                        message = f"{target.id} is set again to a fixed value"
                        yield Hit(message, cell, statement.lineno)


_FILL = "a run can only set parameters whose name, type and default are known before it starts"

RULES = (
    Rule(
        "no-parameters",
        Severity.ERROR,
        "without declared parameters, every run does the same and no schedule can vary it",
        "tag one cell `parameters` (property inspector > Cell Tags) and write NAME: TYPE = VALUE"
        " in it; leave it empty if the job takes none",
        _missing,
    ),
    flaw_rule("several-parameter-cells", Severity.ERROR, "only one is filled", reads=True),
    flaw_rule("untyped-parameter", Severity.ERROR, _FILL, reads=True),
    flaw_rule("bad-parameter-name", Severity.ERROR, "names become source code", reads=True),
    flaw_rule("bad-parameter-type", Severity.ERROR, _FILL, reads=True),
    flaw_rule("bad-parameter-default", Severity.ERROR, _FILL, reads=True),
    flaw_rule("duplicate-parameter", Severity.ERROR, "the second hides the first", reads=True),
    flaw_rule("unknown-parameter-class", Severity.ERROR, _FILL, reads=True),
    flaw_rule(
        "code-in-parameters",
        Severity.ERROR,
        "the run's values are set in a new cell below this one, so this code sees the defaults",
        reads=True,
    ),
    Rule(
        "parameter-used-before",
        Severity.ERROR,
        "the run's value arrives below the parameters cell",
        "move the parameters cell to the top",
        _used_before,
    ),
    Rule(
        "parameter-overwritten",
        Severity.WARNING,
        "the value that a run gives is thrown away",
        "delete the assignment, or give it another name",
        _overwritten,
    ),
)
