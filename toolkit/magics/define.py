"""Run a cell that defines one function, with a decorator put on that function first."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from toolkit.errors import UsageError

__all__ = ["define"]

_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")
_HIDDEN = "__toolkit_decorate__"
Function = Callable[..., Any]


def define(shell: Any, source: str, decorate: Callable[[Function], Function], magic: str) -> Any:
    """Run ``source`` in the shell's namespace and return its one function, decorated.

    The decorator is put into the syntax tree, so that statements after the function already see
    the governed one.  Line numbers are those of the cell (the magic itself is line 1).

    Args:
        shell: An IPython shell.
        source: The cell's body; imports, classes and assignments may stand beside the function.
        decorate: What makes the function governed.
        magic: The magic's name, for messages.

    Raises:
        UsageError: The body has no function, several, or one that is governed already.
        SyntaxError: The body is not Python.
    """
    # IPython drops leading blank lines; they are put back so that lines count as the reader does.
    above = 1 + _BLANK_LINES.match(source)[0].count("\n")  # type: ignore[index]  # it matches any text
    text = "\n" * above + shell.transform_cell(source)
    name = shell.compile.cache(text)
    tree = ast.parse(text, name)
    function = _only_function(tree, magic)
    mark = ast.copy_location(ast.Name(_HIDDEN, ast.Load()), function)
    function.decorator_list.insert(0, mark)
    namespace: dict[str, Any] = shell.user_ns

    def once(target: Function) -> Function:
        if hasattr(target, "__toolkit_kind__"):
            raise UsageError(
                f"{function.name} is decorated already",
                where=f"{magic}, line {function.lineno}",
                next_step=f"keep one of the two: the decorator, or {magic}",
            )
        return decorate(target)

    namespace[_HIDDEN] = once
    try:
        exec(shell.compile(tree, name, "exec"), namespace)  # noqa: S102 - this is what a cell is for
    finally:
        namespace.pop(_HIDDEN, None)
    return namespace[function.name]


def _only_function(tree: ast.Module, magic: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} functions: {', '.join(f.name for f in found)}" if found else "no function"
    raise UsageError(
        f"{magic} needs a cell with exactly one function at its top level; this one has {what}",
        where=magic,
        next_step="write one def per cell; helpers go into a cell of their own",
    )
