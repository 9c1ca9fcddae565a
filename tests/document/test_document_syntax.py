from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from toolkit.document.syntax import plain_python

LINES = [
    "x = 1",
    "x = !ls -l",
    "a, b = !cat f",
    "x.y = %who_ls int",
    "!pip install foo",
    "!!date",
    "%matplotlib inline",
    "%time f()",
    "%time y = f(1)",
    "%timeit -n 10 f()",
    "if x:",
    "    !echo hi",
    "    %time g()",
    "    y = !date",
    "    pass",
    'text = """\n!not a command\n%not a magic\n"""',
    "'''\nf?\n'''",
    "z = [1,\n2\n%d\n]",
    "f(a=1,\nb = 2)",
    "f(a,\n!b)",
    "s = 'it is 100%'",
    "s = '!x' % 3 # !y",
    "q = a % b",
    "w = 1 + \\",
    "!echo one \\",
    "two",
    "f?",
    "?f",
    "f.g??",
    "x == y",
    "x != y",
    "lambda: 1",
    "# comment ?",
    "'what?'",
    "'what?' # really?",
    "await f()",
    "async with a as b: pass",
    "",
    "def f(x='!a'):",
    "    return x",
    "/f x",
    ";f x",
    ",f x",
]
HEADS = ["%%time", "%%bash", "%%capture out", "%%timeit -n 3", "%%writefile a.txt", "%%html"]


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=7))
@settings(max_examples=600)
def test_parses_exactly_when_ipythons_own_transformation_parses(lines: list[str]) -> None:
    """For cells mixed from Python and IPython syntax the verdict is IPython's."""
    source = "\n".join(lines)
    theirs = TransformerManager().transform_cell(source + "\n")
    ours = plain_python(source).python
    assert _parses(ours) == _parses(theirs), (ours, theirs)


@given(st.lists(st.sampled_from(LINES + HEADS) | st.text(max_size=10), max_size=6))
@settings(max_examples=400)
def test_line_numbers_never_change(lines: list[str]) -> None:
    """Whatever the cell, the plain source has as many lines, so findings name the right one."""
    source = "\n".join(lines).replace("\r", "")
    assert plain_python(source).python.count("\n") == source.count("\n")


@given(st.text())
@settings(max_examples=200)
def test_any_text_is_survived(source: str) -> None:
    """Stripping never raises."""
    plain_python(source)


def _magics(source: str) -> list[tuple[int, str, str, str]]:
    return [(m.line, m.kind, m.name, m.args) for m in plain_python(source).magics]


def test_assigned_shell_command_keeps_the_name() -> None:
    """``x = !ls`` defines ``x`` and is a shell command."""
    plain = plain_python("a = 1\nx = !ls -l")
    assert plain.python == "a = 1\nx = None"
    assert _magics("a = 1\nx = !ls -l") == [(2, "shell", "!", "ls -l")]


def test_python_behind_time_stays() -> None:
    """``%time f()`` and the body of ``%%time`` are Python."""
    assert plain_python("%time f()").python == "f()"
    assert plain_python("%timeit -n 10 -r 3 f(x)").python == "f(x)"
    assert plain_python("%%time\ny = 1\n!ls").python == "\ny = 1\npass"


def test_foreign_bodies_are_blank_and_recorded() -> None:
    """The body of ``%%bash`` is no Python; it is kept as the magic's body."""
    plain = plain_python("\n%%bash -e\nrm -rf /\n")
    assert plain.python == "\n\n\n"
    assert (plain.magics[0].name, plain.magics[0].args) == ("bash", "-e")
    assert plain.magics[0].body == "rm -rf /\n"


def test_cell_magic_above_cell_magic() -> None:
    """``%%time`` over ``%%bash`` runs bash."""
    assert [m[2] for m in _magics("%%time\n%%bash\nls")] == ["time", "bash"]
    assert plain_python("%%time\n%%bash\nls").python.strip() == ""


def test_continued_command_is_one_magic() -> None:
    """A backslash continues a shell command; the next line is no Python."""
    source = "!echo one \\\n  two\nx = 1"
    assert _magics(source) == [(1, "shell", "!", "echo one two")]
    assert plain_python(source).python == "pass\n\nx = 1"


@pytest.mark.parametrize(
    "source",
    [
        's = """\n!x\n%y\n"""',
        "f(\n  '''\n!a\n'''\n)",
        "t = 'a \\\n%b'",
        "z = [5\n% 3]",
        "a = 1 \\\n% 2",
    ],
)
def test_signs_inside_strings_and_brackets_are_python(source: str) -> None:
    """A line of a string or an expression that begins with ``!`` or ``%`` is left alone."""
    assert plain_python(source).python == source
    assert not plain_python(source).magics


@pytest.mark.parametrize(
    "source", ["pip install x", "conda install -y x", "ls -l", "%pip install x"]
)
def test_automagic_is_recognised(source: str) -> None:
    """IPython runs a lone ``pip install x`` as a magic."""
    assert _magics(source)[0][1] == "line"


@pytest.mark.parametrize("source", ["run = 1", "ls.sort()", "time(3)", "env[1]", "cat + 1"])
def test_names_like_magics_stay_python(source: str) -> None:
    """A variable named like a magic is a variable."""
    assert plain_python(source).python == source
