"""Is it a notebook, does every cell parse, and was it run from top to bottom?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from toolkit.document import Cell
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject, flaw_rule

__all__ = ["RULES"]


def _wrong_kernel(subject: Subject) -> Iterator[Hit]:
    language = subject.notebook.language
    if language not in (None, "python"):
        yield Hit(f"the kernel runs {ascii(language)[1:-1][:40]}, not Python")


def _unparsed(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        if cell.code.flaw is not None:
            yield Hit(cell.code.flaw.message, cell, cell.code.flaw.line)


def _empty(subject: Subject) -> Iterator[Hit]:
    if not any(c.kind == "code" and c.source.strip() for c in subject.notebook.cells):
        yield Hit("no cell holds code")


def _too_many_cells(subject: Subject) -> Iterator[Hit]:
    count, limit = len(subject.notebook.cells), subject.catalog.max_cells
    if count > limit:
        yield Hit(f"it has {count} cells, more than {limit}")


def _execution_order(subject: Subject) -> Iterator[Hit]:
    """Counts rise from cell to cell in a notebook that was run from top to bottom."""
    ran = [c for c in subject.notebook.cells if c.kind == "code" and c.source.strip()]
    counted = [c for c in ran if c.execution_count is not None]
    last = 0
    for cell in counted:
        count = cell.execution_count or 0
        if count <= last:
            yield Hit(f"it ran as number {count}, after a cell that ran as number {last}", cell)
            return
        last = count
    skipped = [c for c in ran if c.execution_count is None]
    if counted and skipped and skipped[0].index < counted[-1].index:
        yield Hit("it was not run, although later cells were", skipped[0])


def _error_outputs(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.cells:
        for output in cell.outputs:
            if output.get("output_type") == "error":
                yield Hit("its saved output is an error", cell)
                break


def _tagged_to_fail(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        if "raises-exception" in cell.tags:
            yield Hit("it is tagged raises-exception", cell)


def _injected(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        if "injected-parameters" in cell.tags:
            yield Hit("it holds the parameters of an earlier run", cell)


def _size(cell: Cell) -> int:
    return len(json.dumps(cell.outputs, ensure_ascii=False)) if cell.outputs else 0


def _outputs(subject: Subject) -> Iterator[Hit]:
    if subject.catalog.keep_outputs:
        return
    count = sum(bool(cell.outputs) for cell in subject.notebook.cells)
    if count:
        yield Hit("1 cell holds outputs" if count == 1 else f"{count} cells hold outputs")


def _large_outputs(subject: Subject) -> Iterator[Hit]:
    limit = subject.catalog.max_output_bytes
    if subject.notebook.size <= limit:
        return
    for cell in subject.notebook.cells:
        size = _size(cell)
        if size > limit:
            yield Hit(f"its outputs have {size / 1e6:.1f} MB, more than {limit / 1e6:g} MB", cell)


_UNREADABLE = "a job runs the bytes that were checked, so all readers must agree about them"
_IDS = "calls and findings name cells by id; without a stable one they cannot be compared"

RULES = (
    flaw_rule("not-a-file", Severity.ERROR, "there is nothing to check"),
    flaw_rule("too-large", Severity.ERROR, "large outputs belong in files, not in a version"),
    flaw_rule("not-utf8", Severity.ERROR, _UNREADABLE),
    flaw_rule("not-json", Severity.ERROR, _UNREADABLE),
    flaw_rule("not-a-number", Severity.ERROR, _UNREADABLE),
    flaw_rule("too-deep", Severity.ERROR, "deep nesting exhausts the stack of readers"),
    flaw_rule("twin-keys", Severity.ERROR, "a reviewer and the kernel may see different code"),
    flaw_rule("not-a-notebook", Severity.ERROR, "there is nothing to run"),
    flaw_rule("old-format", Severity.ERROR, "the tools of a run read format 4 only", fixable=True),
    flaw_rule("new-format", Severity.ERROR, "what is not understood cannot be checked"),
    flaw_rule("invalid-structure", Severity.ERROR, "the tools of a run stop on invalid notebooks"),
    flaw_rule(
        "no-kernelspec",
        Severity.ERROR,
        "nothing says which language it is",
        reads=True,
        fixable=True,
    ),
    flaw_rule("missing-cell-id", Severity.WARNING, _IDS, reads=True, fixable=True),
    flaw_rule("duplicate-cell-id", Severity.WARNING, _IDS, reads=True, fixable=True),
    Rule(
        "wrong-kernel",
        Severity.ERROR,
        "the gateway's client and the checks exist for Python only",
        "use a Python kernel",
        _wrong_kernel,
        waivable=False,
    ),
    Rule(
        "does-not-parse",
        Severity.ERROR,
        "the run would stop at this cell, after doing everything above it",
        "correct the cell, or make it a markdown or raw cell",
        _unparsed,
        waivable=False,
    ),
    Rule(
        "empty-notebook",
        Severity.ERROR,
        "a job must do something",
        "write a code cell",
        _empty,
        waivable=False,
    ),
    Rule(
        "too-many-cells",
        Severity.ERROR,
        "nobody can review such a notebook",
        "split it into several jobs, or move code into a package",
        _too_many_cells,
    ),
    Rule(
        "execution-order",
        Severity.WARNING,
        "what the author saw is not what a run from top to bottom shows",
        "choose Kernel > Restart Kernel and Run All Cells, look at the results, and save",
        _execution_order,
    ),
    Rule(
        "error-output",
        Severity.WARNING,
        "the author's own last run failed here",
        "correct the cell, run all cells, and save",
        _error_outputs,
    ),
    Rule(
        "raises-exception-tag",
        Severity.ERROR,
        "the run goes on after the exception and is reported as failed at its end",
        "catch the exception in the cell and remove the tag",
        _tagged_to_fail,
    ),
    Rule(
        "injected-parameters",
        Severity.ERROR,
        "this is the output of a run: its values, and any secret among them, would be sealed",
        "promote the notebook that was run, not its output; or delete this cell",
        _injected,
        fixable=True,
    ),
    Rule(
        "large-output",
        Severity.WARNING,
        "nobody reads it, and everybody who opens, stores or compares the notebook loads it",
        "write large results to a file or publish them, and clear the output",
        _large_outputs,
    ),
    Rule(
        "outputs-present",
        Severity.WARNING,
        "outputs are shared with the file and may show more than its readers may see; only"
        " `toolkit promote` wants them, to compare its own run with them",
        "clear them with `toolkit check --clear-outputs NOTEBOOK` before the file is shared",
        _outputs,
        fixable=True,
    ),
)
