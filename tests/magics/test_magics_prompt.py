"""Prompts are filled like f-strings, and every mistake is named with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.magics.prompt import fill, look_up

NAMES = {"name": "Ana", "order": {"id": 7, "a}b": "brace"}, "price": 2.5, "many": [1, 2]}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Hello {name}!", "Hello Ana!"),
        ('{order["id"]} and {order["a}b"]}', "7 and brace"),
        ("{price:.2f} {name!r} {name!r:>7}", "2.50 'Ana'   'Ana'"),
        ("{{literal}} {{{name}}}", "{literal} {Ana}"),
        ("{', '.join(str(n) for n in many)}", "1, 2"),
        ("{ {'k': name}['k'] }", "Ana"),
        ("{len(many) + 1}", "3"),
        ("no fields, a : colon and a ! bang", "no fields, a : colon and a ! bang"),
    ],
)
def test_expressions_are_filled(template, filled):
    """Names, items, calls, conversions and formats work as in an f-string."""
    assert fill(template, NAMES) == filled


@given(st.text())
def test_text_with_doubled_braces_comes_out_as_it_was(text):
    """Any text at all can be written by doubling its braces."""
    assert fill(text.replace("{", "{{").replace("}", "}}"), {}) == text


@given(st.text(), st.text())
def test_a_value_is_never_read_as_a_template(before, value):
    """What a variable holds is inserted as it is, braces included."""
    template = before.replace("{", "{{").replace("}", "}}") + "{value}"
    assert fill(template, {"value": value}) == before + value


def test_an_unknown_name_is_named_with_its_line():
    """The error says which name, which line, and what to do."""
    with pytest.raises(UsageError, match="'nmae', which is not defined") as caught:
        fill("one\ntwo {nmae}", NAMES)
    assert caught.value.where == "the prompt, line 2"
    assert "define nmae" in caught.value.next_step


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('answer as {"spdx": 1}', "begins no expression"),
        ("open { brace", "begins no expression"),
        ("{}", "begins no expression"),
        ("closing } brace", "closing brace"),
        ("{(x := 1)}", "begins no expression"),
        ("{order['nothing']}", "KeyError"),
        ("{price:zz}", "cannot be formatted"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(template, message):
    """Braces that begin no expression and failing expressions are usage errors."""
    with pytest.raises(UsageError, match=message):
        fill(template, NAMES)


def test_an_option_names_any_expression():
    """--schema may be a generic type, not only a class name."""
    assert look_up("list[int]", {}, "--schema") == list[int]
    with pytest.raises(UsageError, match="not a Python expression"):
        look_up("list[", {}, "--schema")
    with pytest.raises(UsageError, match="'Ordr', which is not defined"):
        look_up("Ordr", {}, "--schema")
