"""Reading evaluation sets: what is accepted, and every fault of what is not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from evaluation_world import CASES, SET
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile, NotFound
from toolkit.evaluation import Case, EvaluationSet, Scorer, ScorerKind
from toolkit.evaluation.files import parse_json_line


def faults(folder: Path) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        EvaluationSet.load(folder)
    return [f"{f['where']}: {f['message']}" for f in caught.value.details["faults"]]


def test_a_good_set_is_read_with_its_cases_in_order(write_set):
    """A good set is read: names, scorers with their usual direction, cases in file order."""
    loaded = EvaluationSet.load(write_set())
    assert (loaded.name, loaded.agent, loaded.parameters) == ("capitals", "answer", {"limit": 0})
    assert [(s.name, s.kind, s.better) for s in loaded.scorers] == [
        ("correct", ScorerKind.EXACT, "yes"),
        ("wrong_claims", ScorerKind.WRONG_CLAIM, "no"),
    ]
    assert [case.id for case in loaded.cases] == ["fr", "it", "pt"]


def test_what_may_reach_a_kernel_holds_no_label(write_set):
    """``inputs()`` holds ids and inputs only."""
    assert EvaluationSet.load(write_set()).inputs() == [(c["id"], c["inputs"]) for c in CASES]


def test_a_missing_file_is_named_with_what_a_set_is(tmp_path):
    """A folder without set.yaml is answered with what a set consists of."""
    with pytest.raises(NotFound, match=r"set\.yaml") as caught:
        EvaluationSet.load(tmp_path)
    assert "cases.jsonl" in str(caught.value.next_step)


def test_all_faults_of_both_files_come_at_once_with_their_lines(write_set):
    """Faults of set.yaml and of several lines of the cases are reported together."""
    folder = write_set(
        agent="not a name",
        lines=[
            CASES[0],
            "{not json",
            "",
            {"id": "x y", "inputs": [], "expected": {}, "extra": 1},
            CASES[0],
        ],
    )
    found = faults(folder)
    assert any(re.match(r"set.yaml:[0-9]+ agent:", f) for f in found)
    assert any(f.startswith("cases.jsonl:2: is not JSON") for f in found)
    assert any(f.startswith("cases.jsonl:4: has the unknown member 'extra'") for f in found)
    assert any("the id 'x y' is not valid" in f for f in found)
    assert any("inputs must be an object" in f for f in found)
    assert "cases.jsonl:5: the id 'fr' is already in line 1" in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "id": "b", "inputs": {}, "expected": {}}', "the member 'id' twice"),
        ('{"id": "a", "inputs": {"x": NaN}, "expected": {}}', "NaN"),
        ('{"id": "a", "inputs": {"x": 1e999}, "expected": {}}', "too large"),
        ('{"id": "a", "inputs": {"a-b": 1}, "expected": {"city": "x"}}', "argument's name"),
        ("[1]", "must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": "a", "inputs": {}, "expected": {}}', "expected.city is missing"),
    ],
)
def test_a_line_that_cannot_be_a_case_is_refused(write_set, line, message):
    """Each kind of bad line is refused with its line number and reason."""
    found = faults(write_set(lines=[CASES[0], line]))
    assert any(f.startswith("cases.jsonl:2: ") and message in f for f in found), found


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"kind": "guess"}, "kind"),
        ({"kind": "abstained"}, "needs abstentions"),
        ({"kind": "exact", "tolerance": 0.1}, "has no tolerance"),
        ({"kind": "regex", "pattern": "("}, "not a regular expression"),
        ({"kind": "numeric", "tolerance": -1.0}, "greater than or equal to 0"),
        ({"kind": "exact", "abstentions": ["x"]}, "has no abstentions"),
        ({"kind": "exact", "surprise": 1}, "is not a known key"),
    ],
)
def test_a_scorer_that_makes_no_sense_is_refused(write_set, scorer, message):
    """A scorer whose options do not fit its kind is refused at its place."""
    found = faults(write_set(scorers=[{"name": "s", **scorer}]))
    assert any(re.match(r"set.yaml:[0-9]+ scorers.0", f) and message in f for f in found), found


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("numeric", {"city": "x"}, "needs a number"),
        ("numeric", {"city": True}, "needs a number"),
        ("one_of", {"city": "x"}, "must be a list"),
        ("one_of", {"city": []}, "must be a list of at least one"),
        ("regex", {"city": "("}, "is not a regular expression"),
        ("wrong_claim", {"city": []}, "every claim would be wrong"),
    ],
)
def test_an_expectation_that_its_scorer_cannot_use_is_refused(write_set, kind, expected, message):
    """Labels are checked against the scorers when the set is read, not when it is scored."""
    scorer = {"name": "s", "kind": kind, "field": "city", "expected_field": "city"}
    folder = write_set(scorers=[scorer], lines=[{"id": "a", "inputs": {}, "expected": expected}])
    assert any(message in f for f in faults(folder))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("name: a\nname: b\n", "set.yaml:2: repeats the key 'name'"),
        ("a: &x 1\nb: *x\n", "set.yaml:2: uses the alias"),
        ("? [1]\n: 2\n", "set.yaml:1: has a mapping or list as a key"),
        ("- 1\n", "set.yaml: must hold names and values"),
        ("a: [", "set.yaml:"),
        ("!!python/object:os.system {}\n", "set.yaml:1: "),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_line(write_set, header, message):
    """Twin keys, aliases, tags and broken YAML are refused."""
    assert any(f.startswith(message) for f in faults(write_set(header=header)))


def test_names_must_fit_together(write_set):
    """The folder's name, twin scorers, parameters and slices are checked."""
    found = faults(
        write_set(
            name="other",
            scorers=[SET["scorers"][0], dict(SET["scorers"][0])],
            parameters={"class": 1},
            slices={"west": "the west"},
        )
    )
    assert any("'other' in a folder named 'capitals'" in f for f in found)
    assert any("two scorers are named 'correct'" in f for f in found)
    assert any(re.match(r"set.yaml:[0-9]+ parameters.class", f) for f in found)
    assert "cases.jsonl:2: the slice 'south' is not declared" in found


@pytest.mark.parametrize("cases", ["../cases.jsonl", "/etc/passwd", "a/b.jsonl"])
def test_the_cases_stay_in_the_folder(write_set, cases):
    """``cases`` is a file name, not a path."""
    assert any(re.match(r"set.yaml:[0-9]+ cases", f) for f in faults(write_set(cases=cases)))


def test_bytes_that_are_not_utf8_are_refused_with_their_line(write_set):
    """A file in another encoding is refused where it stops being UTF-8."""
    folder = write_set()
    with (folder / "cases.jsonl").open("ab") as file:
        file.write(b'{"id": "caf\xe9"}\n')
    assert "cases.jsonl:4: is not UTF-8" in faults(folder)


def test_a_set_without_cases_is_refused(write_set):
    """An empty set would pass every gate by having nothing to fail."""
    assert "cases.jsonl: holds no case" in faults(write_set(lines=[]))


def test_a_line_separator_inside_a_text_does_not_cut_the_line(write_set):
    """U+2028 is legal inside a JSON text and ends no line."""
    line = '{"id": "a", "inputs": {"country": "x\u2028y"}, "expected": {"city": "z"}}'
    assert EvaluationSet.load(write_set(lines=[line])).cases[0].inputs["country"] == "x\u2028y"


def test_the_digest_ignores_layout_and_texts_for_people(write_set):
    """Order of lines, white space and the description do not change the digest."""
    first = EvaluationSet.load(write_set()).digest
    spaced = [json.dumps(case, indent=None, separators=(" , ", " : ")) for case in CASES]
    second = EvaluationSet.load(write_set(lines=["", *reversed(spaced)], description="new"))
    assert second.digest == first


@pytest.mark.parametrize(
    "change",
    [
        {"agent": "other"},
        {"parameters": {}},
        {"scorers": SET["scorers"][:1]},
        {"lines": CASES[:2]},
        {"lines": [*CASES[:2], {**CASES[2], "expected": {"city": "Porto"}}]},
        {"lines": [*CASES[:2], {**CASES[2], "slice": "north"}]},
    ],
)
def test_the_digest_changes_with_what_decides_the_result(write_set, change):
    """Agent, parameters, scorers, cases, labels and slices are part of the digest."""
    first = EvaluationSet.load(write_set()).digest
    assert EvaluationSet.load(write_set(**change)).digest != first


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_value_is_read_back_as_it_was(value):
    """The strict reader accepts all of JSON and changes nothing."""
    assert parse_json_line(json.dumps(value)) == value


def refusal(text: str) -> str | None:
    """Return why a line is refused, ``None`` if it is read; any other error passes through."""
    try:
        parse_json_line(text)
    except ValueError as error:
        return str(error)
    return None


@given(st.text(max_size=60))
def test_any_other_text_is_refused_with_a_value_error_and_nothing_else(text):
    """Whatever stands in a line, reading it ends in a value or in one kind of error."""
    assert refusal(text) != ""
    assert refusal("{" + text) != ""


@given(st.dictionaries(st.text(min_size=1), json_values, max_size=3), json_values)
def test_making_digests_leaves_the_case_as_it_was(inputs, expected):
    """A digest does not change what it is made of, and equal cases have equal digests."""
    case = Case("a", inputs, expected)
    before = copy.deepcopy((case.inputs, case.expected))
    assert case.digest == Case("b", copy.deepcopy(inputs), copy.deepcopy(expected)).digest
    assert (case.inputs, case.expected) == before


def test_a_scorer_says_what_it_is_in_json():
    """The scorer's JSON form holds every field that decides a judgement."""
    scorer = Scorer("s", ScorerKind.EXACT)
    usual = set(Scorer.__dataclass_fields__) - {"worst", "json_schema", "outside", "range"}
    assert set(scorer.to_json()) == usual
    schema = Scorer("s", ScorerKind.JSON_SCHEMA, json_schema={"type": "object"})
    assert set(schema.to_json()) == usual | {"json_schema"}
    number = Scorer("s", ScorerKind.VALUE, better="less", worst=9)
    assert set(number.to_json()) == usual | {"worst"}
