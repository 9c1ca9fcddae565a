"""The tree of errors: as drawn, and whole after every journey."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import errors
from toolkit.errors import (
    Fault,
    InfrastructureError,
    InvalidFile,
    ProviderError,
    ToolFailed,
    ToolkitError,
    error_from_json,
    is_infrastructure,
)


def tree(root: type[ToolkitError]) -> dict[str, str | None]:
    """Return each class's name with its parent's, from the classes."""
    found: dict[str, str | None] = {root.__name__: None}
    todo = [root]
    while todo:
        parent = todo.pop()
        for child in parent.__subclasses__():
            found[child.__name__] = parent.__name__
            todo.append(child)
    return found


def drawing() -> tuple[dict[str, str | None], dict[str, int]]:
    """Return the same from the drawing in the module's docstring, with the exit codes in it."""
    parents: dict[str, str | None] = {}
    codes: dict[str, int] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ]*(?:[├└]── )?)([A-Z]\w+)(?: .*?(?:exit (\d+))?)?$", line)
        if match is None:
            continue
        column, name = len(match[1]), match[2]
        while stack and stack[-1][0] >= column:
            stack.pop()
        parents[name] = stack[-1][1] if stack else None
        stack.append((column, name))
        if match[3]:
            codes[name] = int(match[3])
    return parents, codes


CLASSES = [
    getattr(errors, name)
    for name in errors.__all__
    if name not in ("Fault", "error_from_json", "is_infrastructure")
]


def test_the_drawing_is_the_tree():
    """What the docstring draws is what the classes are."""
    assert drawing()[0] == tree(ToolkitError)
    assert set(drawing()[0]) == {kind.__name__ for kind in CLASSES}


def test_the_exit_codes_of_the_drawing_hold_for_whole_branches():
    """A code beside a branch is the code of every class under it, unless one has its own."""
    parents, codes = drawing()
    assert set(codes.values()) == {1, 2, 75, 78, 143}
    for kind in CLASSES:
        name: str | None = kind.__name__
        while name is not None and name not in codes:
            name = parents[name]
        if name is not None:
            assert kind.exit_code == codes[name], kind


def test_every_class_has_its_own_code():
    """The code on the wire names one class."""
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


TEXT = st.text(max_size=30)
FACTS = st.dictionaries(
    TEXT, st.none() | st.integers() | TEXT | st.lists(TEXT, max_size=3), max_size=3
)


@given(st.sampled_from(CLASSES), TEXT, st.none() | TEXT, st.none() | TEXT, FACTS)
def test_an_error_survives_every_journey(kind, message, where, next_step, details):
    """Pickle, copy, deep copy and JSON give the same class with the same fields."""
    error = kind(message, where=where, next_step=next_step, details=details)
    for back in (
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        copy.deepcopy(error),
        error_from_json(json.loads(json.dumps(error.to_json()))),
    ):
        assert type(back) is kind
        assert back.to_json() == error.to_json()
        assert str(back) == message


def test_an_unknown_code_is_still_an_error():
    """A newer gateway's reply is told, not lost."""
    error = error_from_json({"code": "from-the-future", "message": "no"})
    assert type(error) is ToolkitError
    assert str(error) == "no"
    assert str(error_from_json({})) == "unknown error"


def test_one_error_tells_every_fault_of_a_file():
    """All faults at once, each with its place; each fix once."""
    faults = [
        Fault("a.b", "is missing", "add it"),
        Fault("a.c", "is not a number"),
        Fault("x", "is odd", "add it"),
    ]
    error = InvalidFile.of("policy.yaml", faults)
    assert str(error).splitlines() == [
        "policy.yaml has 3 faults:", "  a.b: is missing", "  a.c: is not a number", "  x: is odd",
    ]  # fmt: skip
    assert (error.where, error.next_step) == ("policy.yaml", "add it")
    assert [fault["where"] for fault in error.details["faults"]] == ["a.b", "a.c", "x"]
    assert "1 fault:" in str(InvalidFile.of("f", faults[:1]))


def test_details_are_the_errors_own():
    """Changing the caller's mapping afterwards changes nothing."""
    facts = {"a": 1}
    error = ToolkitError("x", details=facts)
    facts["a"] = 2
    assert error.details == {"a": 1}


def test_errors_are_exceptions_that_only_say_their_message():
    """``raise`` and ``str`` work as everywhere."""
    with pytest.raises(ToolkitError, match=r"^plain$"):
        raise errors.CallDenied("plain", where="there", next_step="do")


def test_what_may_be_back_later_is_told_from_what_an_answer_is():
    """By the recorded code alone, with every kind below; unknown codes and nothing are not."""
    assert is_infrastructure(ProviderError("away").to_json())
    assert is_infrastructure({"code": InfrastructureError.code})
    assert not is_infrastructure(ToolFailed("it raised").to_json())
    assert not is_infrastructure({"code": "from-the-future"})
    assert not is_infrastructure(None)
