from __future__ import annotations

import json
import keyword
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.document import Notebook, check_parameters, default_values, parse_value
from toolkit.errors import UsageError

EXAMPLE = """
import datetime
from typing import Literal, Optional
limit: int = 20  # how many files
only: list[str] = []
allowed: list[str] = ["MIT", "Apache-2.0"]  # licences, comma separated
depth: int | None = None
mode: Literal["fast", "full"] = "fast"
weights: dict[str, int] = {"a": 1}
rate: float = 1
dry: bool = False
since: datetime.date = datetime.date(2026, 1, 31)
url: str = "https://host/?a=b&c=#fff"
a: int = 1; b: int = 2  # second
old: Optional[str] = None
need: str
"""


def test_schema_of_every_supported_type(parameters_cell) -> None:
    """Annotations become JSON Schema, literals become defaults, comments become descriptions."""
    made = parameters_cell(EXAMPLE)
    assert not made.declared.flaws
    assert made.declared.way == "cell"
    assert made.schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["need"],
        "additionalProperties": False,
        "properties": {
            "limit": {"type": "integer", "default": 20, "description": "how many files"},
            "only": {"type": "array", "items": {"type": "string"}, "default": []},
            "allowed": {
                "type": "array",
                "items": {"type": "string"},
                "default": ["MIT", "Apache-2.0"],
                "description": "licences, comma separated",
            },
            "depth": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "mode": {"enum": ["fast", "full"], "type": "string", "default": "fast"},
            "weights": {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "default": {"a": 1},
            },
            "rate": {"type": "number", "default": 1},
            "dry": {"type": "boolean", "default": False},
            "since": {"type": "string", "format": "date", "default": "2026-01-31"},
            "url": {"type": "string", "default": "https://host/?a=b&c=#fff"},
            "a": {"type": "integer", "default": 1},
            "b": {"type": "integer", "default": 2, "description": "second"},
            "old": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "need": {"type": "string"},
        },
    }
    jsonschema.Draft202012Validator.check_schema(made.schema)


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("x: int = 1\nlimit = 20", "untyped-parameter", 2),
        ("limit: int = 10 * 2", "bad-parameter-default", 1),
        ("limit: int = f()", "bad-parameter-default", 1),
        ("limit: int = '20'", "bad-parameter-default", 1),
        ("limit: int = True", "bad-parameter-default", 1),
        ("name: str = f'{x}'", "bad-parameter-default", 1),
        ("pair: list[int] = (1, 2)", "bad-parameter-default", 1),
        ("when: datetime.date = datetime.date(2026, 2, 30)", "bad-parameter-default", 1),
        ("pair: tuple[int, int] = (1, 2)", "bad-parameter-type", 1),
        ("items: list = []", "bad-parameter-type", 1),
        ("frame: pd.DataFrame = None", "bad-parameter-type", 1),
        ("by: dict[int, str] = {}", "bad-parameter-type", 1),
        ("_hidden: int = 1", "bad-parameter-name", 1),
        ("match: int = 1", "bad-parameter-name", 1),
        ("x: int = 1\n\nx: int = 2", "duplicate-parameter", 3),
        ("x: int = 1\nprint(x)", "code-in-parameters", 2),
        ("x: int = 1\n!ls", "code-in-parameters", 2),
    ],
)
def test_every_wrong_declaration_names_line_and_fix(source, code, line, parameters_cell) -> None:
    """A declaration that a run could not fill is a flaw with its line and a fix."""
    flaws = parameters_cell(source).declared.flaws
    assert [(flaw.code, flaw.line) for flaw in flaws] == [(code, line)]
    assert flaws[0].fix


def test_harmless_statements_are_allowed(parameters_cell) -> None:
    """Imports, texts and ``pass`` may stand beside parameters."""
    made = parameters_cell('"""What."""\nimport datetime\nfrom typing import Literal\npass\n')
    assert made.declared.flaws == ()
    assert made.declared.cell == 1


def test_look_alike_names_are_what_python_makes_of_them(parameters_cell) -> None:
    """Python folds a full-width letter to the ASCII one, and so does the declaration."""
    assert [p.name for p in parameters_cell("ｘ: int = 1").parameters] == ["x"]


def test_comment_on_the_first_line_of_a_long_default(parameters_cell) -> None:
    """A list over several lines is described behind its opening bracket, or at its end."""
    made = parameters_cell(
        "a: list[int] = [  # first\n    1,  # one\n]\nb: list[int] = [\n 1]  # end"
    )
    assert [p.description for p in made.parameters] == ["first", "end"]


def test_quoted_and_annotated_types(parameters_cell) -> None:
    """A quoted type is read; ``Annotated`` gives the description."""
    made = parameters_cell('a: "int | None" = 1\nb: Annotated[int, "how many"] = 2')
    assert made.parameters[0].schema["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert made.parameters[1].description == "how many"


def test_several_tagged_cells(notebook) -> None:
    """papermill fills one cell, so a second tagged one is a flaw; the first one counts."""
    tagged = {"metadata": {"tags": ["parameters"]}}
    made = notebook({**tagged, "source": "a: int = 1"}, {**tagged, "source": "b: int = 1"})
    assert [p.name for p in made.parameters] == ["a"]
    assert [(f.code, f.cell) for f in made.declared.flaws] == [("several-parameter-cells", 2)]


@pytest.mark.parametrize(
    "call",
    [
        "import toolkit\np = toolkit.parameters(P)",
        "import toolkit as tk\np = tk.parameters(P)",
        "from toolkit import parameters as get\np = get(P)",
        "p = parameters(P)",
    ],
)
def test_class_declares_parameters(call: str, notebook) -> None:
    """Fields of the class that a cell passes to ``toolkit.parameters`` are the parameters."""
    source = """
class Base:
    limit: int = 20  # from the base
class P(Base):
    kind: ClassVar[int] = 1
    name: str
    ids: list[int] = field(default_factory=list)
    share: float = Field(0.5, ge=0, le=1, description="of all")
    def method(self): ...
"""
    made = notebook("import os", source, call)
    assert not made.declared.flaws
    assert (made.declared.way, made.declared.cell) == ("class", 3)
    properties = made.schema["properties"]
    assert list(properties) == ["limit", "name", "ids", "share"]
    assert properties["limit"]["description"] == "from the base"
    assert properties["ids"]["default"] == []
    assert properties["share"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.5,
        "description": "of all",
    }
    assert made.schema["required"] == ["name"]


def test_class_from_elsewhere_is_a_flaw(notebook) -> None:
    """A class that the notebook does not define cannot be read without running code."""
    made = notebook("from mine import P\nimport toolkit\ntoolkit.parameters(P)")
    assert [f.code for f in made.declared.flaws] == ["unknown-parameter-class"]


def test_no_declaration(notebook) -> None:
    """A notebook without parameters has an empty schema that refuses every name."""
    made = notebook("x = 1")
    assert made.declared.cell is None
    with pytest.raises(UsageError, match="'x' is not a parameter"):
        check_parameters(made.schema, {"x": 1})


def test_all_faults_of_values_at_once_and_no_value_shown(parameters_cell) -> None:
    """Unknown, missing and wrongly typed are one error, which never repeats a value."""
    schema = parameters_cell(EXAMPLE).schema
    with pytest.raises(UsageError) as caught:
        check_parameters(
            schema, {"limt": 1, "limit": "20", "only": ["a", 7], "dry": 1, "since": "hunter2"}
        )
    assert caught.value.details["faults"] == [
        "'limt' is not a parameter (did you mean limit?)",
        "need is missing",
        "limit must be a whole number, not text",
        "only[1] must be text, not a whole number",
        "dry must be true or false, not a whole number",
        "since must be a date (2026-01-31)",
    ]
    assert "hunter2" not in str(caught.value)


def test_good_values_are_copied(parameters_cell) -> None:
    """The result is a copy: changing it does not change what the caller gave."""
    schema = parameters_cell(EXAMPLE).schema
    given_values = {"need": "x", "only": ["a"]}
    checked = check_parameters(schema, given_values)
    checked["only"].append("b")
    assert given_values == {"need": "x", "only": ["a"]}
    assert default_values(schema)["limit"] == 20


def test_endless_value_is_refused(parameters_cell) -> None:
    """A value that holds itself is refused, not walked for ever."""
    endless: list = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested deeper"):
        check_parameters(parameters_cell("x: list[str] = []").schema, {"x": endless})


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("int", "20", 20),
        ("int", "-3", -3),
        ("float", "1e-3", 0.001),
        ("float", "2", 2.0),
        ("bool", "True", True),
        ("str", "20", "20"),
        ("str", "a=b&c", "a=b&c"),
        ("list[str]", "MIT,Apache-2.0", ["MIT", "Apache-2.0"]),
        ("list[str]", '["a,b"]', ["a,b"]),
        ("list[int]", "1, 2", [1, 2]),
        ("list[int]", "", []),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
        ("int | None", "null", None),
        ("int | None", "7", 7),
        ("str | None", "none", None),
        ("str | None", "nothing", "nothing"),
        ("int | str", "7", 7),
        ("Literal['a', 1]", "1", 1),
        ("datetime.date", "2026-01-31", "2026-01-31"),
    ],
)
def test_text_is_read_by_type(annotation, text, value, parameters_cell) -> None:
    """``-p name=text`` gives the value that the declared type asks for."""
    schema = parameters_cell(f"x: {annotation}").schema["properties"]["x"]
    parsed = parse_value(text, schema, name="x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("int", "2.0"),
        ("int", "٣"),
        ("int", "9" * 400),
        ("float", "nan"),
        ("float", "1e999"),
        ("bool", "1"),
        ("list[int]", "1,a"),
        ("list[list[int]]", "1,2"),
        ("dict[str, int]", '{"a": 1, "a": 2}'),
        ("dict[str, int]", "[" * 5000),
        ("Literal['a', 'b']", "c"),
        ("datetime.date", "31.1.2026"),
    ],
)
def test_wrong_text_names_what_is_asked(annotation, text, parameters_cell) -> None:
    """Text of another type is a usage error that shows how to write it, not the text."""
    schema = parameters_cell(f"x: {annotation}").schema["properties"]["x"]
    with pytest.raises(UsageError, match="x must be") as caught:
        parse_value(text, schema, name="x")
    assert "-p x=" in (caught.value.next_step or "")


PLAIN = st.one_of(
    st.tuples(st.just("int"), st.integers(-(10**9), 10**9)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("str"), st.text(st.characters(codec="utf-8"), max_size=12)),
    st.tuples(st.just("list[str]"), st.lists(st.text(st.characters(codec="utf-8")), max_size=3)),
    st.tuples(st.just("float"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("dict[str, bool]"), st.dictionaries(st.text("ab#="), st.booleans())),
    st.tuples(st.just("int | None"), st.none() | st.integers(0, 9)),
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and not keyword.issoftkeyword(name)
)


@given(st.dictionaries(NAMES, PLAIN, max_size=4))
@settings(max_examples=150)
def test_declared_defaults_come_back_and_pass_their_own_schema(declared: dict) -> None:
    """Writing typed defaults as Python and reading them gives the same values, and they fit."""
    lines = [f"{name}: {kind} = {value!r}" for name, (kind, value) in declared.items()]
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {"tags": ["parameters"]},
        "source": "\n".join(lines),
        "outputs": [],
        "execution_count": None,
    }
    document = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    made = Notebook.parse(json.dumps(document).encode())
    assert not made.declared.flaws
    values = {name: value for name, (_, value) in declared.items()}
    assert default_values(made.schema) == values
    assert check_parameters(made.schema, values) == values
    assert jsonschema.Draft202012Validator(made.schema).is_valid(values)


@given(st.text(max_size=30), st.sampled_from(["int", "float", "bool", "list[int]", "int | None"]))
@settings(max_examples=200)
def test_any_text_is_a_fitting_value_or_a_usage_error(text: str, annotation: str) -> None:
    """Parsing ends with a value that fits the schema, or with a usage error."""
    schema = {
        "int": {"type": "integer"},
        "float": {"type": "number"},
        "bool": {"type": "boolean"},
        "list[int]": {"type": "array", "items": {"type": "integer"}},
        "int | None": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    }[annotation]
    try:
        value = parse_value(text, schema)
    except UsageError:
        refused = True
    else:
        refused = False
    if refused:
        assert not re.fullmatch(r"\d{1,200}", text, re.ASCII) or annotation == "bool"
        return
    assert jsonschema.Draft202012Validator(schema).is_valid(value)
