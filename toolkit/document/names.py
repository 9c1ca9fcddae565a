"""What dotted names in a notebook mean, by its imports."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence

from toolkit.document.cells import Cell

__all__ = ["Names"]


class Names:
    """The imports and definitions of a notebook's cells.

    ``toolkit.result``, ``tk.result`` after ``import toolkit as tk``, and ``result`` after ``from
    toolkit import result`` (or when nothing in the notebook defines ``result``) mean the same.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._imported: dict[str, str] = {}
        self._bound: set[str] = set()
        self._nodes: dict[int, list[ast.AST]] = {}
        self._calls: dict[int, list[ast.Call]] = {}
        self._found_imports: dict[int, list[tuple[str, int]]] = {}
        for cell in cells:
            nodes = list(ast.walk(cell.code.tree)) if cell.code.tree else []
            self._nodes[cell.index] = nodes
            self._calls[cell.index] = [n for n in nodes if isinstance(n, ast.Call)]
            for node in nodes:
                self._note(node)

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self._imported[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                self._imported[alias.asname or alias.name] = f"{module}.{alias.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._bound.add(node.id)

    def nodes(self, cell: Cell) -> list[ast.AST]:
        """Return every node of a cell, outer ones first."""
        return self._nodes.get(cell.index, [])

    def calls(self, cell: Cell) -> list[ast.Call]:
        """Return every call of a cell."""
        return self._calls.get(cell.index, [])

    def dotted(self, node: ast.expr) -> str:
        """Return ``os.path.join`` for a name by its import; empty for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self._imported.get(node.id, node.id), *reversed(parts)])

    def means(self, node: ast.expr, wanted: Collection[str]) -> bool:
        """Whether a name is one of the ``toolkit.…`` names in ``wanted``."""
        dotted = self.dotted(node)
        if dotted in wanted:
            return True
        return (
            isinstance(node, ast.Name)
            and dotted == node.id
            and node.id not in self._bound
            and any(name.rpartition(".")[2] == node.id for name in wanted)
        )

    def imports(self, cell: Cell) -> list[tuple[str, int]]:
        """Return (module or ``module.name``, line) of every import, dynamic ones included."""
        if cell.index not in self._found_imports:
            self._found_imports[cell.index] = list(self._imports(cell))
        return self._found_imports[cell.index]

    def _imports(self, cell: Cell) -> Iterator[tuple[str, int]]:
        for node in self.nodes(cell):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", node.lineno
            elif isinstance(node, ast.Call) and node.args:
                called = self.dotted(node.func)
                first = node.args[0]
                if called in {"__import__", "importlib.import_module"} and isinstance(
                    first, ast.Constant
                ):
                    yield str(first.value), node.lineno
