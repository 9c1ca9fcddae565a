"""Hidden state and early ends: does the notebook mean the same when run from the top?"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.flow import Flow
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_EXITS = {"sys.exit", "os._exit", "os.abort", "exit", "quit", "builtins.exit", "builtins.quit"}


def _undefined(subject: Subject) -> Iterator[Hit]:
    declared = subject.notebook.declared
    late = {p.name for p in declared.parameters} if declared.way == "cell" else set()
    flow = Flow(subject.catalog.known_names, parameters_cell=declared.cell)
    for cell in subject.code:
        flow.cell(cell)
    for missing in flow.missing():
        cell = subject.notebook.cells[missing.cell - 1]
        if missing.name in late and missing.defined_in is not None:
            continue  # parameter-used-before says it better
        if missing.defined_in is None:
            message = f"{missing.name} is used and no cell defines it"
        elif missing.defined_in == missing.cell:
            message = f"{missing.name} is used before this cell defines it"
        else:
            message = f"{missing.name} is used before cell {missing.defined_in} defines it"
        yield Hit(message, cell, missing.line)


def _exits(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        for node in subject.names.nodes(cell):
            if isinstance(node, ast.Call) and subject.names.dotted(node.func) in _EXITS:
                name = subject.names.dotted(node.func)
                yield Hit(f"{name}() ends the kernel", cell, node.lineno)
            elif isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if subject.names.dotted(raised) == "SystemExit":
                    yield Hit("raise SystemExit ends the kernel", cell, node.lineno)


RULES = (
    Rule(
        "undefined-name",
        Severity.ERROR,
        "it worked in the author's kernel, which remembers deleted and later cells; a run from"
        " the top stops here",
        "define it in a cell above, then choose Kernel > Restart Kernel and Run All Cells",
        _undefined,
    ),
    Rule(
        "exit-call",
        Severity.ERROR,
        "an exit fails the run here, other runners take it for success, and the cells below never run",
        "raise an exception to fail, or use if/else to skip the rest",
        _exits,
    ),
)
