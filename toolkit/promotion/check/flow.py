"""Which names a notebook uses before it defines them, when run from the top.

Built to stay silent when in doubt: both branches of an ``if`` define, a loop's body defines before
it uses, functions are looked into only for names that no cell defines at all, ``del`` is ignored,
and after ``from x import *``, ``exec``, ``globals()``, ``%run`` or a cell that does not parse
nothing more is reported.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from toolkit.document import Cell

__all__ = ["Flow", "Missing"]

_ALWAYS = frozenset(dir(builtins)) | {
    *("get_ipython", "display", "In", "Out", "exit", "quit", "_", "__", "___", "_i", "_ii"),
    *("_iii", "_ih", "_oh", "_dh", "_exit_code", "__name__", "__builtins__", "__builtin__"),
    *("__doc__", "__package__", "__loader__", "__spec__", "__annotations__", "__class__"),
    *("__session__", "__vsc_ipynb_file__", "__module__", "__qualname__"),
}
_HISTORY = re.compile(r"_i?\d+")
_OPENS = {"exec", "globals", "locals", "vars"}
_OPENING_MAGICS = {"run", "load", "loadpy", "pylab", "store", "reload_ext"}
_CATCHES = {"NameError", "Exception", "BaseException"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_LEAVES = (ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Loop = ast.For | ast.AsyncFor
_With = ast.With | ast.AsyncWith
Free = tuple[str, int, bool]  # name, line, only when a function is called


@dataclass(frozen=True, slots=True)
class Missing:
    """A name that is used too early.

    Attributes:
        name: The name.
        cell, line: 1-based place of its first early use.
        defined_in: 1-based cell that defines it later; ``None`` when none does.
    """

    name: str
    cell: int
    line: int
    defined_in: int | None


class Flow:
    """Goes through the cells in order and remembers what is defined."""

    def __init__(self, known: Iterable[str], *, parameters_cell: int | None = None) -> None:
        self._given = _ALWAYS | set(known)
        self._defined: dict[str, int] = {}
        self._early: list[tuple[str, int, int]] = []
        self._later: list[tuple[str, int, int]] = []
        self._open = False
        self._guarded = 0
        self._lazy_annotations = False
        self._parameters_cell = parameters_cell
        self._number = 0

    def cell(self, cell: Cell) -> None:
        """Take the next cell into account."""
        self._number = cell.number
        for magic in cell.code.magics:
            if magic.name in _OPENING_MAGICS:
                self._open = True
            # ``%%capture out``, ``%%sql rows <<``, ``%%bash --out text`` define names.
            if magic.kind in {"cell", "line"}:
                self._bind(re.findall(r"[A-Za-z_]\w*", magic.args))
        if cell.code.tree is None:
            self._open = True
            return
        try:
            self._run(cell.code.tree.body)
        except RecursionError:
            self._open = True

    def missing(self) -> list[Missing]:
        """Return every name once, at its first early use."""
        found: dict[str, Missing] = {}
        for name, cell, line in self._early:
            found.setdefault(name, Missing(name, cell, line, self._defined.get(name)))
        if not self._open:
            for name, cell, line in self._later:
                if name not in self._defined:
                    found.setdefault(name, Missing(name, cell, line, None))
        return sorted(found.values(), key=lambda missing: (missing.cell, missing.line))

    def _bind(self, names: Iterable[str]) -> None:
        for name in names:
            self._defined.setdefault(name, self._number)

    def _use(self, *nodes: ast.AST | None) -> None:
        """Note what expressions read now, what their lambdas read later, and walrus targets."""
        for node in nodes:
            if node is None:
                continue
            for name, line, deferred in _free(node, frozenset()):
                if name in _OPENS:
                    self._open = True
                if name in self._given or _HISTORY.fullmatch(name) or self._open or self._guarded:
                    continue
                if deferred:
                    self._later.append((name, self._number, line))
                elif name not in self._defined:
                    self._early.append((name, self._number, line))
            self._bind(_assigned([node]))

    def _run(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.If():
                self._use(node.test)
                self._run([*node.body, *node.orelse])
            case ast.For() | ast.AsyncFor():
                self._use(node.iter)
                self._bind(_assigned([node.target, *node.body]))
                self._run([*node.body, *node.orelse])
            case ast.While():
                self._bind(_assigned(node.body))
                self._use(node.test)
                self._run([*node.body, *node.orelse])
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._use(item.context_expr, item.optional_vars)
                self._run(node.body)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.Match():
                self._use(node.subject)
                for case in node.cases:
                    self._bind(_assigned([case.pattern]))
                    self._use(case.pattern, case.guard)
                    self._run(case.body)
            case _:
                self._simple(node)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        guarded = any(_catches_names(handler) for handler in node.handlers)
        self._guarded += guarded
        self._run(node.body)
        self._guarded -= guarded
        for handler in node.handlers:
            self._use(handler.type)
            self._bind([handler.name] if handler.name else [])
            self._run(handler.body)
        self._run([*node.orelse, *node.finalbody])

    def _simple(self, node: ast.stmt) -> None:
        match node:
            case ast.ImportFrom():
                self._open = self._open or any(alias.name == "*" for alias in node.names)
                self._lazy_annotations = self._lazy_annotations or node.module == "__future__"
                self._bind(_assigned([node]))
            case ast.AugAssign():
                if isinstance(node.target, ast.Name):
                    self._use(ast.copy_location(ast.Name(node.target.id, ast.Load()), node))
                self._use(node.value, node.target)
            case ast.AnnAssign():
                self._use(node.value, None if self._lazy_annotations else node.annotation)
                # A parameter without a default gets its value from the run.
                if node.value is not None or self._number == self._parameters_cell:
                    self._use(node.target)
            case ast.Delete():
                pass
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                # The name is known inside, for recursion and for methods.
                self._bind(_bindings([node], everywhere=True)[1])
                self._use(node)
            case _:
                self._use(node)


def _catches_names(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in _CATCHES for kind in kinds)


def _assigned(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that nodes bind in their own scope."""
    return _bindings(nodes)[0]


def _bindings(nodes: Iterable[ast.AST], *, everywhere: bool = False) -> tuple[set[str], set[str]]:
    """Return the names bound, and those declared ``global``, in the scope of the nodes.

    Args:
        nodes: Statements or expressions.
        everywhere: Also look into functions and classes.
    """
    names: set[str] = set()
    global_names: set[str] = set()
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in nodes]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, _NESTED):
            if not isinstance(node, ast.Lambda):
                names.add(node.name)
            if not everywhere:
                continue
        elif isinstance(node, ast.Global):
            global_names.update(node.names)
        elif isinstance(node, ast.NamedExpr):
            names.add(node.target.id)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and not inside:
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        # The targets of a comprehension are its own; a walrus inside is not.
        hidden = inside or isinstance(node, _Comprehension)
        stack.extend((child, hidden) for child in _children(node))
    return names, global_names


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield children that can hold names; the leaves that most nodes have are left out."""
    for field in node._fields:
        value = getattr(node, field, None)
        if type(value) is list:
            yield from (item for item in value if isinstance(item, ast.AST))
        elif isinstance(value, ast.AST) and not isinstance(value, _LEAVES):
            yield value


def _free(node: ast.AST, bound: frozenset[str], *, deferred: bool = False) -> Iterator[Free]:
    """Yield the names that a node reads and does not bind itself."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in bound:
            yield node.id, node.lineno, deferred
    elif isinstance(node, _Function | ast.Lambda):
        yield from _free_function(node, bound, bound, deferred=deferred)
    elif isinstance(node, ast.ClassDef):
        yield from _free_class(node, bound, deferred=deferred)
    elif isinstance(node, _Comprehension):
        yield from _free_comprehension(node, bound, deferred=deferred)
    else:
        for child in _children(node):
            yield from _free(child, bound, deferred=deferred)


def _free_function(
    node: _Function | ast.Lambda, around: frozenset[str], bound: frozenset[str], *, deferred: bool
) -> Iterator[Free]:
    """``around`` is seen by decorators and defaults, ``bound`` by the body."""
    arguments = node.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    outside: list[ast.AST | None] = [*arguments.defaults, *arguments.kw_defaults]
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
    if not isinstance(node, ast.Lambda):
        outside += node.decorator_list
        # Annotations are left out: strings, lazy ones and type variables make them unreliable.
    for item in outside:
        if item is not None:
            yield from _free(item, around, deferred=deferred)
    assigned, declared = _bindings(body)
    local = ({name.arg for name in names} | assigned) - declared
    inner = bound | local
    for item in body:
        yield from _free(item, inner, deferred=True)


def _free_class(node: ast.ClassDef, bound: frozenset[str], *, deferred: bool) -> Iterator[Free]:
    for item in [*node.decorator_list, *node.bases, *node.keywords]:
        yield from _free(item, bound, deferred=deferred)
    inner = bound | _assigned(node.body)
    for statement in node.body:
        if isinstance(statement, _Function):  # methods do not see the names of the class
            yield from _free_function(statement, inner, bound | {node.name}, deferred=deferred)
        else:
            yield from _free(statement, inner, deferred=deferred)


def _free_comprehension(
    node: _Comprehension, bound: frozenset[str], *, deferred: bool
) -> Iterator[Free]:
    yield from _free(node.generators[0].iter, bound, deferred=deferred)
    targets = {
        inner.id
        for generator in node.generators
        for inner in ast.walk(generator.target)
        if isinstance(inner, ast.Name)
    }
    local = bound | targets
    parts: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    for index, generator in enumerate(node.generators):
        parts += [*generator.ifs, *([generator.iter] if index else [])]
    for part in parts:
        yield from _free(part, local, deferred=deferred)
