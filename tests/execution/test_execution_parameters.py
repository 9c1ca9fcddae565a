"""Parameters become assignments of literals, and nothing else."""

from __future__ import annotations

import ast
import json
from typing import Any

import nbformat
import pytest
from execution_notebooks import notebook_bytes
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from toolkit.errors import UsageError
from toolkit.execution.facts import Execution
from toolkit.execution.preparation import parameters_source, prepare
from toolkit.values import Environment, RunKind, RunRecord

NASTY = st.sampled_from(
    [
        "x = 1\nimport os; os.system('id') #",
        "a; b",
        "a, b",
        "a.b",
        "a[0]",
        "*a",
        "a: int",
        "None",
        "class",
        "match",
        "_",
        "__builtins__",
        "ｘ",
        "x\u200b",
        "",
        " x",
        "x ",
        "%run",
        "!ls",
        "x?",
        "x\\\n",
    ]
)
GOOD = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text() | st.sampled_from(
    ["'", '"""', "\\", "{x}", "\n!id\n", "%magic", "?", "\x1b[0m", "\u2028", "\ud800", "\x00", "\r"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NASTY | GOOD | st.text(), VALUES, max_size=5))
def test_whatever_the_names_only_assignments_of_literals_come_out(parameters: dict[str, Any]):
    """Names are refused, or every statement assigns one given name its exact JSON value."""
    try:
        source = parameters_source(parameters)
    except UsageError:
        return
    statements = ast.parse(source).body
    assert [type(s) for s in statements] == [ast.Assign] * len(parameters)
    for statement, (name, value) in zip(statements, parameters.items(), strict=True):
        assert [t.id for t in statement.targets] == [name]
        assert ast.literal_eval(statement.value) == value


@given(st.dictionaries(GOOD, VALUES, max_size=5))
def test_ipython_sees_the_same_code_as_python(parameters: dict[str, Any]):
    """No value is read as a magic, a shell command or a question by IPython."""
    try:
        source = parameters_source(parameters)
    except UsageError:
        return
    assert TransformerManager().transform_cell(source) == source + "\n"


@given(NASTY, VALUES)
def test_names_that_are_not_plain_identifiers_are_refused(name: str, value: Any):
    """papermill would write such a name into the code as it is."""
    with pytest.raises(UsageError, match="not a valid parameter name"):
        parameters_source({name: value})


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: 2}, object(), {"a": {3}}, b"x", 10**5000],
    ids=["nan", "infinity", "member 1", "object", "set", "bytes", "5000 digits"],
)
def test_values_that_are_not_json_are_refused(value):
    """What could not be written exactly is not written."""
    with pytest.raises(UsageError, match="the parameter p cannot be written"):
        parameters_source({"p": value})


def _prepare(notebook: bytes, parameters: dict[str, Any]) -> Any:
    record = RunRecord("run-1", RunKind.RUN, Environment.PRODUCTION, "ana", notebook="a.ipynb")
    return prepare(
        Execution(
            run=record,
            ledger="",
            notebook=notebook,
            parameters=parameters,
            folder=None,  # type: ignore[arg-type]  # nothing is written here
            gateway_socket=None,
            token="",
            timeout_s=None,
            extra_cells=("served = 1",),
        )
    )


def test_values_go_behind_the_tagged_cell_and_replace_an_earlier_injection():
    """A notebook that was papermill's output before does not get its old values back."""
    cells = [
        ("x = 1", ["parameters"]),
        ("x = 0", ["injected-parameters"]),
        ("banner", ["papermill-error-cell-tag"]),
        "print(x)",
    ]
    prepared = _prepare(notebook_bytes(*cells), {"x": 5})
    sources = [cell.source for cell in prepared.node.cells]
    assert sources == ["x = 1", "# Parameters\nx = 5", "print(x)", "served = 1"]
    assert prepared.origins == [0, None, 2, None]
    assert prepared.labels == ["cell 1", "the injected parameters", "cell 3", "extra cell 1"]
    assert prepared.node.cells[1].metadata.tags == ["injected-parameters"]


def test_without_a_tagged_cell_nothing_is_injected():
    """The values then come by TOOLKIT_PARAMETERS only."""
    prepared = _prepare(notebook_bytes("print(1)"), {"x": 5})
    assert [cell.source for cell in prepared.node.cells] == ["print(1)", "served = 1"]


def test_traces_of_earlier_executions_do_not_survive():
    """Outputs, counts, states and widgets of whoever ran the notebook before are gone."""
    node = json.loads(notebook_bytes("1"))
    node["cells"][0] |= {"execution_count": 3, "outputs": [], "metadata": {"tags": "no list"}}
    node["cells"][0]["metadata"] |= {"papermill": {"status": "completed"}, "execution": {}}
    node["metadata"] |= {"papermill": {"exception": True}, "widgets": {"a": 1}}
    cell = _prepare(json.dumps(node).encode(), {}).node.cells[0]
    assert cell.execution_count is None
    assert cell.metadata == {"tags": []}


def test_cells_without_ids_get_the_same_ids_each_time():
    """Runs of one old notebook can be compared cell by cell."""
    node = json.loads(notebook_bytes("1", "2"))
    node["nbformat_minor"] = 4
    for cell in node["cells"]:
        del cell["id"]
    data = json.dumps(node).encode()
    first, second = ([cell.id for cell in _prepare(data, {}).node.cells] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3
    assert nbformat.validator.isvalid(_prepare(data, {}).node)
