"""One cell, and the Python in it."""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from toolkit.document.flaws import Flaw
from toolkit.document.syntax import Magic, plain_python

__all__ = ["Cell", "CellCode"]

# ``warnings.catch_warnings`` changes state of the whole process.
_WARNINGS = threading.Lock()
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class CellCode:
    """A code cell's Python.

    Attributes:
        python: The source without IPython's additions; line numbers as in the cell.
        magics: What IPython adds: magics, shell commands, help.
        tree: The syntax tree; ``None`` when the cell does not parse.
        flaw: Why it does not.
    """

    python: str
    magics: tuple[Magic, ...]
    tree: ast.Module | None
    flaw: Flaw | None


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook.

    Attributes:
        index: 0-based position; people see :attr:`number`.
        id: nbformat's cell id; made from the content where the file has none or a duplicate.
        kind: What it holds.
        source: Its text.
        tags: Its tags, in the file's order.
        outputs: nbformat outputs as they are in the file.
        execution_count: The prompt number of the last execution.
        metadata: The cell's metadata as it is in the file.
        attachments: Images of a markdown cell.
    """

    index: int
    id: str
    kind: Literal["code", "markdown", "raw"]
    source: str
    tags: tuple[str, ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()
    execution_count: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attachments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """1-based position, as JupyterLab shows cells from the top."""
        return self.index + 1

    @cached_property
    def code(self) -> CellCode:
        """The Python of a code cell; empty for other kinds."""
        if self.kind != "code":
            return CellCode("", (), ast.Module([], []), None)
        plain = plain_python(self.source)
        try:
            tree = _parse(plain.python)
        except SyntaxError as error:
            line = min(max(error.lineno or 1, 1), self.source.count("\n") + 1)
            flaw = self.flaw("does-not-parse", f"line {line} is not Python: {error.msg}", line)
            return CellCode(plain.python, plain.magics, None, flaw)
        except (ValueError, MemoryError, RecursionError, OverflowError) as error:
            # Null bytes, and expressions nested deeper than Python's own parser goes.
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            flaw = self.flaw("does-not-parse", f"Python cannot read it: {reason}", 1)
            return CellCode(plain.python, plain.magics, None, flaw)
        return CellCode(plain.python, plain.magics, tree, None)

    def flaw(self, code: str, message: str, line: int | None, fix: str = "") -> Flaw:
        """Return a flaw that names this cell."""
        where = f"cell {self.number}" + (f" line {line}" if line else "")
        fix = fix or "correct the cell, or make it a markdown or raw cell"
        return Flaw(code, message, fix, where, self.number, self.id, line)


def _parse(source: str) -> ast.Module:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree: ast.Module = compile(source, "<cell>", "exec", _FLAGS)
        # Compiling to code finds what the grammar allows and Python does not: ``return`` outside
        # a function, two parameters of one name.  Nothing is executed.
        compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return tree
