"""The parameters that a notebook declares.

Two ways: a cell tagged ``parameters`` with annotated assignments, or a class that a cell passes
to ``toolkit.parameters``.  Both are read from the syntax tree; nothing is executed.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.document.annotations import Unfit, literal_value, schema_of_annotation
from toolkit.document.cells import Cell
from toolkit.document.flaws import Flaw
from toolkit.document.names import Names
from toolkit.document.shape import describe, type_name, violations
from toolkit.errors import UsageError
from toolkit.values import check_parameter_name

__all__ = ["PARAMETERS_TAG", "Declared", "Parameter", "declared_parameters", "parameter_schema"]

PARAMETERS_TAG = "parameters"
_LIMITS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
    "max_length": "maxLength",
}
_CALLED = {"toolkit.parameters", "toolkit.client.parameters"}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    Attributes:
        name: A Python identifier.
        annotation: The type as it is written.
        schema: Its JSON Schema, with ``default`` and ``description`` where declared.
        required: Whether a run must give it.
        default: JSON value of the default; ``None`` when required.
        description: The comment behind it.
        cell: 1-based cell.
        line: 1-based line in that cell.
    """

    name: str
    annotation: str
    schema: dict[str, Any]
    required: bool
    default: Any = None
    description: str | None = None
    cell: int = 1
    line: int = 1


@dataclass(frozen=True)
class Declared:
    """Everything a notebook says about its parameters.

    Attributes:
        parameters: The well-formed ones.
        flaws: What is wrong with the others.
        cell: 1-based cell that declares them; ``None`` when no cell does.
        way: ``cell`` (tagged, injected by papermill), ``class`` (read by the client) or ``None``.
    """

    parameters: tuple[Parameter, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    cell: int | None = None
    way: str | None = None


@dataclass
class _Found:
    parameters: dict[str, Parameter] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)


def parameter_schema(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a run's parameters."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {p.name: p.schema for p in parameters},
        "required": [p.name for p in parameters if p.required],
        "additionalProperties": False,
    }


def declared_parameters(cells: Sequence[Cell], names: Names) -> Declared:
    """Find the declaration and read it; wrong ones become flaws."""
    found = _Found()
    code = [cell for cell in cells if cell.kind == "code"]
    tagged = [cell for cell in code if PARAMETERS_TAG in cell.tags]
    for cell in tagged[1:]:
        fix = f"keep the tag on cell {tagged[0].number} only; papermill fills one cell"
        found.flaws.append(cell.flaw("several-parameter-cells", _SEVERAL, None, fix))
    classes = list(_class_calls(code, names))
    if tagged:
        _read_statements(tagged[0], found, names)
        for cell, call in classes:
            if cell is not tagged[0]:
                fix = "declare the parameters in one way: remove the tag, or the call"
                message = "parameters are declared in a tagged cell and in a class"
                found.flaws.append(cell.flaw("several-parameter-cells", message, call.lineno, fix))
        if not (classes and not found.parameters):
            return _declared(found, tagged[0], "cell")
    for cell, call in classes[1:]:
        fix = "keep one toolkit.parameters(…)"
        found.flaws.append(cell.flaw("several-parameter-cells", _SEVERAL, call.lineno, fix))
    if classes:
        cell, call = classes[0]
        _read_class(cell, call, code, found)
        return _declared(found, cell, "class")
    return _declared(found, None, None)


_SEVERAL = "parameters are declared a second time"


def _declared(found: _Found, cell: Cell | None, way: str | None) -> Declared:
    number = cell.number if cell else None
    return Declared(tuple(found.parameters.values()), tuple(found.flaws), number, way)


def _class_calls(cells: Sequence[Cell], names: Names) -> Iterator[tuple[Cell, ast.Call]]:
    for cell in cells:
        for node in names.calls(cell):
            if names.means(node.func, _CALLED) and len(node.args) == 1:
                yield cell, node


def _read_statements(cell: Cell, found: _Found, names: Names) -> None:
    """Read the annotated assignments of the tagged cell."""
    tree = cell.code.tree
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            _read_field(cell, statement, found)
        elif isinstance(statement, ast.Assign):
            shown = ", ".join(ast.unparse(target) for target in statement.targets)[:60]
            message, fix = f"{shown} has no type", f"write {shown}: TYPE = VALUE"
            found.flaws.append(cell.flaw("untyped-parameter", message, statement.lineno, fix))
        elif not _harmless(statement, names):
            message = "code in the parameters cell runs before the run's values are set"
            fix = "move it to the next cell"
            found.flaws.append(cell.flaw("code-in-parameters", message, statement.lineno, fix))
    for magic in cell.code.magics:
        message = "code in the parameters cell runs before the run's values are set"
        found.flaws.append(
            cell.flaw("code-in-parameters", message, magic.line, "move it to the next cell")
        )


def _harmless(statement: ast.stmt, names: Names) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | ast.ClassDef):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Constant):
        return True
    return isinstance(value, ast.Call) and names.means(value.func, _CALLED)


def _read_class(cell: Cell, call: ast.Call, code: Sequence[Cell], found: _Found) -> None:
    classes = {
        node.name: (owner, node)
        for owner in code
        for node in (owner.code.tree.body if owner.code.tree else ())
        if isinstance(node, ast.ClassDef)
    }
    wanted = call.args[0].id if isinstance(call.args[0], ast.Name) else ""
    if wanted not in classes:
        message = "the class passed to toolkit.parameters is not defined in this notebook"
        fix = "define the class at the top level of a cell of this notebook"
        found.flaws.append(cell.flaw("unknown-parameter-class", message, call.lineno, fix))
        return
    todo, seen = [wanted], set()
    chain = []
    while todo:
        name = todo.pop()
        if name in classes and name not in seen:
            seen.add(name)
            chain.append(classes[name])
            todo.extend(base.id for base in classes[name][1].bases if isinstance(base, ast.Name))
    for owner, node in reversed(chain):
        inherited, found.parameters = found.parameters, {}
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                if "ClassVar" not in ast.unparse(statement.annotation):
                    _read_field(owner, statement, found)
            elif isinstance(statement, ast.Assign):
                shown = ", ".join(ast.unparse(target) for target in statement.targets)[:60]
                message, fix = f"{shown} has no type", f"write {shown}: TYPE = VALUE"
                found.flaws.append(owner.flaw("untyped-parameter", message, statement.lineno, fix))
        found.parameters = {**inherited, **found.parameters}


def _read_field(cell: Cell, statement: ast.AnnAssign, found: _Found) -> None:
    name, line = ast.unparse(statement.target), statement.lineno
    if name in found.parameters:
        message, fix = f"{name} is declared twice", "delete one of the two"
        found.flaws.append(cell.flaw("duplicate-parameter", message, line, fix))
        return
    try:
        check_parameter_name(name)
    except UsageError as error:
        fix = error.next_step or "rename it"
        found.flaws.append(cell.flaw("bad-parameter-name", error.message, line, fix))
        return
    try:
        schema = schema_of_annotation(statement.annotation)
    except Unfit as error:
        message = f"{name}: {error}"
        found.flaws.append(cell.flaw("bad-parameter-type", message, line, error.fix))
        return
    try:
        required = _add_default(statement, schema)
    except Unfit as error:
        message = f"{name}: {error}"
        found.flaws.append(cell.flaw("bad-parameter-default", message, line, error.fix))
        return
    comment = _comment_behind(cell, statement)
    if comment and "description" not in schema:
        schema["description"] = comment
    found.parameters[name] = Parameter(
        name,
        ast.unparse(statement.annotation),
        schema,
        required,
        schema.get("default"),
        schema.get("description"),
        cell.number,
        line,
    )


def _add_default(statement: ast.AnnAssign, schema: dict[str, Any]) -> bool:
    """Put the default into ``schema``; return whether the parameter is required."""
    node = statement.value
    if isinstance(node, ast.Call) and _is_field(node.func):
        node = _read_field_call(node, schema)
    if node is None or (isinstance(node, ast.Constant) and node.value is ...):
        return True
    value = literal_value(node)
    wrong = next(violations(schema, value), None)
    if wrong:
        message = f"the default is {type_name(value)}, not {describe(schema)}"
        raise Unfit(message, "change the default or the type")
    schema["default"] = value
    return False


def _is_field(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in {"field", "Field"}


def _read_field_call(node: ast.Call, schema: dict[str, Any]) -> ast.expr | None:
    """Read ``field(default_factory=list)`` and pydantic's ``Field(20, ge=1, description="…")``."""
    default = node.args[0] if node.args else None
    for keyword in node.keywords:
        if keyword.arg == "default":
            default = keyword.value
        elif keyword.arg == "default_factory":
            default = _factory(keyword.value)
        elif keyword.arg == "description":
            schema["description"] = str(literal_value(keyword.value))
        elif keyword.arg in _LIMITS:
            schema[_LIMITS[keyword.arg]] = literal_value(keyword.value)
    return default


def _factory(node: ast.expr) -> ast.expr:
    empty: dict[str, ast.expr] = {"list": ast.List([], ast.Load()), "dict": ast.Dict([], [])}
    if isinstance(node, ast.Lambda):
        return node.body
    if isinstance(node, ast.Name) and node.id in empty:
        return empty[node.id]
    raise Unfit("the default is not a literal", "use default_factory=list or dict, or a literal")


def _comment_behind(cell: Cell, statement: ast.AnnAssign) -> str | None:
    """Return the comment at the statement's end, or at the end of its first line."""
    comments = _comments(cell)
    end_line = statement.end_lineno or statement.lineno
    comment = comments.get((end_line, statement.end_col_offset or 0))
    if comment is None and end_line > statement.lineno:
        first = [text for (line, _), text in comments.items() if line == statement.lineno]
        comment = first[0] if first else None
    return comment


def _comments(cell: Cell) -> dict[tuple[int, int], str]:
    """Return the comment behind each position (line, column in bytes) at which code ends."""
    comments: dict[tuple[int, int], str] = {}
    end = (0, 0)
    try:
        for token in tokenize.generate_tokens(io.StringIO(cell.code.python).readline):
            if token.type == tokenize.COMMENT:
                if end[0] == token.start[0] and (text := token.string.lstrip("#: ").strip()):
                    comments[end] = text
            elif token.string.strip() and token.string != ";":
                columns = len(token.line[: token.end[1]].encode("utf-8", "surrogatepass"))
                end = (token.end[0], columns)
    except (tokenize.TokenError, SyntaxError):  # it parsed, so this is about trailing lines
        pass
    return comments
