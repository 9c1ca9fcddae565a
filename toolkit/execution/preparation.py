"""The notebook that is run: the one that was given, its parameters, and the added cells.

nbformat is used here because papermill and nbclient take its nodes.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import Fault, InvalidFile, UsageError
from toolkit.execution.facts import Execution
from toolkit.execution.vendors import nbformat
from toolkit.values import canonical_bytes, check_parameter_name

__all__ = ["Prepared", "parameters_source", "prepare"]

_PARAMETERS = "parameters"
_INJECTED = "injected-parameters"
_EXTRA = "toolkit-extra"
_ERROR_MARKER = "papermill-error-cell-tag"


@dataclass(slots=True)
class Prepared:
    """A notebook that is ready to run.

    Attributes:
        node: The nbformat node.
        origins: For each cell its position in the notebook that was given, ``None`` if added.
        labels: For each cell its name in messages.
    """

    node: Any
    origins: list[int | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def parameters_source(parameters: Mapping[str, Any]) -> str:
    """Return Python source that assigns each parameter its JSON value, and does nothing else.

    Raises:
        UsageError: A name may not be assigned, or a value is not JSON.
    """
    lines = ["# Parameters"]
    for name, value in parameters.items():
        lines.append(f"{check_parameter_name(name)} = {_literal(name, value)}")
    source = "\n".join(lines)
    _check_assignments(source, parameters)
    return source


def _literal(name: str, value: Any) -> str:
    try:
        canonical_bytes(value)
        # The round trip leaves exact types only: a str or int of a subclass has another repr.
        return repr(json.loads(json.dumps(value)))
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the parameter {name} cannot be written as a JSON value: {error}",
            where=f"parameters.{name}",
            next_step="pass numbers, texts, true, false, null, lists and objects",
        ) from error


def _check_assignments(source: str, parameters: Mapping[str, Any]) -> None:
    body = ast.parse(source).body
    targets = [
        statement.targets[0].id
        for statement in body
        if isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    ]
    if len(targets) != len(body) or targets != list(parameters):
        raise UsageError("the parameters do not form plain assignments", where="parameters")
    for statement in body:
        if isinstance(statement, ast.Assign):
            ast.literal_eval(statement.value)


def prepare(execution: Execution) -> Prepared:
    """Read the notebook, put the parameters behind the tagged cell, and add the extra cells.

    Raises:
        InvalidFile: The bytes are not a notebook.
        UsageError: A parameter is not assignable.
    """
    node = _read(execution)
    source = parameters_source(execution.parameters)
    given = [cell for cell in node.cells if _ERROR_MARKER not in _tags(cell)]
    tagged = next((i for i, cell in enumerate(given) if _PARAMETERS in _tags(cell)), None)
    prepared = Prepared(node)
    cells: list[Any] = []

    def add(cell: Any, origin: int | None, label: str) -> None:
        cells.append(cell)
        prepared.origins.append(origin)
        prepared.labels.append(label)

    for index, cell in enumerate(given):
        # A cell that papermill injected into an earlier output would undo today's parameters.
        if tagged is None or _INJECTED not in _tags(cell):
            add(cell, index, f"cell {index + 1}")
        if index == tagged and execution.parameters:
            add(_added(source, _INJECTED, "injected-parameters"), None, "the injected parameters")
    for number, text in enumerate(execution.extra_cells, 1):
        add(_added(text, _EXTRA, f"toolkit-extra-{number}"), None, f"extra cell {number}")
    node.cells = cells
    _reset_metadata(node, execution)
    return prepared


def _read(execution: Execution) -> Any:
    path = execution.run.notebook or "the notebook"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = nbformat.reads(execution.notebook.decode("utf-8"), as_version=4)
    # nbformat reports broken files by whatever its readers stumble over.
    except Exception as error:
        raise InvalidFile.of(path, [Fault("file", f"it is not a notebook: {error}")]) from error
    node.nbformat, node.nbformat_minor = 4, max(5, int(node.nbformat_minor))
    for index, cell in enumerate(node.cells):
        cell.setdefault("id", f"cell-{index}")
        cell.metadata["tags"] = [tag for tag in _tags(cell) if isinstance(tag, str)]
    return node


def _tags(cell: Any) -> list[str]:
    tags = cell.metadata.get("tags", [])
    return tags if isinstance(tags, list) else []


def _added(source: str, tag: str, identity: str) -> Any:
    cell = nbformat.v4.new_code_cell(source=source, id=identity)
    cell.metadata["tags"] = [tag]
    cell.metadata["toolkit"] = {"added": True}
    return cell


def _reset_metadata(node: Any, execution: Execution) -> None:
    """Remove what an earlier execution wrote, and name this one."""
    node.metadata["papermill"] = {
        "default_parameters": {},
        "parameters": dict(execution.parameters),
        "environment_variables": {},
        "input_path": execution.run.notebook,
        "output_path": None,
    }
    node.metadata["toolkit"] = {"run_id": execution.run.run_id, "state": "running"}
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
