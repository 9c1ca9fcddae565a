"""Arguments become a Cedar record; what does not fit is named, and nothing can be forged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.policy import PolicyBundle, PolicyRequest
from toolkit.policy.arguments import to_record
from toolkit.values import Environment


@pytest.mark.parametrize(
    ("value", "record", "omitted"),
    [
        (None, {}, []),
        ({"a": 1, "b": "x", "c": True, "d": [1, "y"], "e": {"f": -2}},) * 2 + ([],),
        ({"a": 2.0, "b": 0.25}, {"a": 2, "b": {"__extn": {"fn": "decimal", "arg": "0.25"}}}, []),
        ({"a": 0.123456, "b": 1e-9}, {"a": "0.123456", "b": "1e-09"}, []),
        ({"a": None, "b": [1, None]}, {"b": [1]}, ["a", "b[1]"]),
        ({"a": 2**63, "b": -(2**63)}, {"b": -(2**63)}, ["a"]),
        ([1, 2], {"value": [1, 2]}, []),
        ("text", {"value": "text"}, []),
        ({"a": "x" * 9000}, {}, ["a"]),
        ({"a": float("nan")}, {}, ["a"]),
        ({"a": "\ud800"}, {}, ["a"]),
    ],
)
def test_json_becomes_cedar(value, record, omitted):
    """Each JSON type has its Cedar type; the rest is left out by name."""
    assert to_record(value) == (record, omitted)


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
def test_cedar_escapes_cannot_be_passed_as_arguments(write_bundle, name):
    """An argument that imitates an entity is left out, so it can never satisfy a policy."""
    text = (
        '@id("x") permit(principal, action, resource) when '
        '{ context.arguments has who && context.arguments.who == User::"root" };'
    )
    bundle = PolicyBundle.load(write_bundle(text))
    forged = {"who": {name: {"type": "User", "id": "root"}}}
    request = PolicyRequest("ana", "call_tool", "look", Environment.PRODUCTION, arguments=forged)
    assert not bundle.decide(request)
    assert to_record(forged)[0] == {"who": {}}
    assert len(to_record(forged)[1]) == 1


def test_a_policy_sees_that_something_is_missing(write_bundle):
    """`context.omitted` lets a policy insist on having seen every argument."""
    text = '@id("x") permit(principal, action, resource) when { context.omitted.isEmpty() };'
    bundle = PolicyBundle.load(write_bundle(text))
    ask = lambda value: bundle.decide(  # noqa: E731
        PolicyRequest("ana", "call_tool", "look", Environment.PRODUCTION, arguments=value)
    )
    assert ask({"a": 1})
    assert not ask({"a": None})


def test_wide_and_deep_arguments_are_cut():
    """Size and depth are bounded; the cut is reported."""
    wide, omitted = to_record({str(n): n for n in range(10_000)})
    assert len(wide) < 5_000
    assert "*" in omitted
    assert len(to_record({str(n): None for n in range(500)})[1]) == 100
    deep: object = 1
    for _ in range(500):
        deep = {"d": deep}
    assert to_record(deep)[1]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_records_are_json_that_cedar_can_read(value):
    """Whatever comes in, the record has no null, float, surrogate or foreign escape."""
    record, _ = to_record(value)
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    assert text.encode()
    assert clean(record)


def clean(value: object) -> bool:
    if isinstance(value, dict):
        if set(value) == {"__extn"}:
            return value["__extn"]["fn"] == "decimal"
        return all(not name.startswith("__") and clean(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(clean, value))
    return isinstance(value, str | bool) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def test_a_cut_leaves_a_mark_that_a_policy_can_see():
    """However large an argument is, being cut is never silent."""
    for value in ([0] * 5_000, {"a": [0] * 5_000}, {str(n): 0 for n in range(5_000)}):
        assert to_record(value)[1]
