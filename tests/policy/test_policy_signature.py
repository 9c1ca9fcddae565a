"""Arguments are declared once, checked before Cedar, and shown safely."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.policy import ToolCatalog
from toolkit.policy.arguments import to_record
from toolkit.policy.signature import Argument, ArgumentType
from toolkit.policy.tools_text import catalog_text
from toolkit.values import DataClass, Source

CATALOG = """\
tools:
  pay:
    effect: write
    description: Pays a bill.
    groups: [payments]
    external: true
    labels: {sources: [internal], classes: [confidential]}
    view: "Pay {amount} to {recipient}"
    timeout_s: 20
    arguments:
      recipient: {type: string, role: destination, pattern: "[A-Z]{2}[0-9]+"}
      amount: {type: number, role: amount, minimum: 0, maximum: 1000}
      kind: {type: string, enum: [bill, gift], optional: true}
      tags: {type: list, optional: true}
      lines: {type: list, optional: true, items: {type: object, fields: {sku: string, count: integer}}}
      extra: {type: any, optional: true}
  search:
    effect: read
    description: Searches.
    schema:
      type: object
      properties:
        query: {type: string, description: What to look for.}
        limit: {type: integer, minimum: 1, maximum: 50, default: 10}
        kind: {anyOf: [{const: news}, {const: web}]}
      required: [query]
      additionalProperties: false
    roles: {query: content}
"""
GOOD = {"recipient": "DE12", "amount": 12.5}


@pytest.fixture
def catalog(tmp_path: Path) -> ToolCatalog:
    path = tmp_path / "tools.yaml"
    path.write_text(CATALOG)
    return ToolCatalog.load(path)


def test_entries_carry_what_the_catalog_says(catalog):
    """Labels, groups, external, timeout and roles of arguments are there for the gateway."""
    pay = catalog["pay"]
    assert (pay.external, pay.timeout_s, pay.groups) == (True, 20.0, ("payments",))
    assert pay.labels.sources == {Source.INTERNAL}
    assert pay.labels.classes == {DataClass.CONFIDENTIAL}
    assert pay.arguments["recipient"].role == "destination"
    assert catalog["search"].arguments["query"].role == "content"
    assert catalog.groups == {"payments": ("pay",)}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (GOOD, None),
        ({**GOOD, "kind": None, "tags": ["a"], "extra": [1, {}]}, None),
        ({**GOOD, "lines": [{"sku": "a", "count": 2.0}]}, None),
        ({"recipient": "DE12"}, "amount is missing"),
        ({**GOOD, "amount": None}, "amount is missing (it is null)"),
        ({**GOOD, "amount": "12"}, "amount is text, not a finite number"),
        ({**GOOD, "amount": True}, "amount is true or false"),
        ({**GOOD, "amount": float("nan")}, "amount is a number, not a finite number"),
        ({**GOOD, "amount": -1}, "amount is below 0"),
        ({**GOOD, "amount": 1000.01}, "amount is above 1000"),
        ({**GOOD, "recipient": "DE12; DROP"}, "recipient does not match"),
        ({**GOOD, "recipient": "DE12\n"}, "recipient does not match"),
        ({**GOOD, "kind": "theft"}, "kind is none of the 2 values"),
        ({**GOOD, "tags": ["a", 1]}, "tags[1] is a number, not text"),
        ({**GOOD, "lines": [{"sku": "a"}]}, "lines[0].count is missing"),
        ({**GOOD, "memo": "x"}, "memo is not declared"),
        ([1], "have no names"),
        (None, "amount is missing"),
    ],
)
def test_arguments_that_do_not_fit_are_named(catalog, given, fault):
    """Each fault names its argument, and never repeats a value."""
    found = catalog["pay"].check_arguments(given)
    assert bool(found) == (fault is not None)
    if fault:
        assert any(fault in each for each in found), found
        assert "DROP" not in str(found)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"query": "x"}, None),
        ({"query": "x", "limit": 3, "kind": "web"}, None),
        ({"query": "x", "limit": 51}, "limit is above 50"),
        ({"query": "x", "kind": "gossip"}, "kind does not fit the schema's anyOf"),
        ({"query": "x", "more": 1}, "more is not declared"),
        ({}, "query is missing"),
    ],
)
def test_a_json_schema_is_checked_in_full(catalog, given, fault):
    """What Cedar's types cannot say is checked by the schema itself."""
    found = catalog["search"].check_arguments(given)
    assert bool(found) == (fault is not None)
    assert fault is None or any(fault in each for each in found), found


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("arguments: {a: text}", "arguments.a.type"),
        ("arguments: {'a b': string}", "cannot name an argument"),
        ("arguments: {a: {type: integer, pattern: x}}", "has pattern, which only text have"),
        ("arguments: {a: {type: string, pattern: '(?=x)'}}", "is not a regular expression"),
        ("arguments: {a: {type: string, enum: [1]}}", "values that are not text"),
        ("arguments: {a: {type: string, role: 'a b'}}", "cannot name a role"),
        ('view: "{a.__class__}"', "plain {name} only"),
        ('view: "{a!r}"', "plain {name} only"),
        ('view: "{0}", arguments: {a: string}', "is not an argument"),
        ('view: "{b}", arguments: {a: string}', "shows {b}, which is not an argument"),
        ("schema: {type: string}", "does not say `type: object`"),
        ("schema: {type: object, properties: {a: {type: 3}}}", "is not a JSON Schema"),
        ("schema: {type: object, properties: {a: {$ref: 'http://x/y'}}}", "only references inside"),
        ("roles: {a: destination}", "roles without a schema"),
        ("arguments: {}, schema: {type: object}", "both arguments and schema"),
        ("groups: ['a b']", "cannot name a group"),
        ("timeout_s: 0", "timeout_s"),
        ("labels: {sources: [martian]}", "labels.sources"),
    ],
)
def test_a_wrong_entry_is_a_fault_of_the_file(tmp_path, entry, fault):
    """Nothing in the catalog is silently ignored."""
    path = tmp_path / "tools.yaml"
    path.write_text(f"tools:\n  t: {{effect: read, description: T., {entry}}}\n")
    with pytest.raises(InvalidFile) as caught:
        ToolCatalog.load(path)
    assert fault in str(caught.value)


def test_every_member_is_part_of_the_digest(tmp_path):
    """Whatever changes in an entry changes the catalog's digest."""
    base = "{effect: read, description: T., arguments: {a: string}%s}"
    variants = ["", ", external: true", ", groups: [g]", ", labels: {classes: [pii]}", ", timeout_s: 3",
                ', view: "{a}"', ", idempotent: true"]  # fmt: skip
    texts = [base % each for each in variants]
    texts.append("{effect: read, description: T., arguments: {a: {type: string, optional: true}}}")
    texts.append("{effect: read, description: T., schema: {type: object, properties: {a: {}}}}")
    digests = set()
    for text in texts:
        (tmp_path / "tools.yaml").write_text(f"tools:\n  t: {text}\n")
        digests.add(ToolCatalog.load(tmp_path / "tools.yaml").digest)
    assert len(digests) == len(texts)


def test_a_catalog_that_is_written_reads_back_equal(catalog, tmp_path):
    """Mining writes catalogs; nothing is lost on the way."""
    path = tmp_path / "again.yaml"
    path.write_text(catalog_text(catalog.values()))
    assert ToolCatalog.load(path).digest == catalog.digest


def test_a_view_shows_values_and_interprets_nothing(catalog):
    """A value cannot pose as another part of the line, nor move the cursor."""
    shown = catalog["pay"].render_view(
        {"amount": 5, "recipient": "x\x1b[2J\u202e {amount} " + "y" * 999}
    )
    assert shown.startswith('Pay 5 to "x\\u001b[2J\\u202e {amount} yyy')
    assert shown.endswith("…")
    assert len(shown) < 300
    assert catalog["pay"].render_view({}) == "Pay – to –"
    assert catalog["search"].render_view({"query": "a"}) == 'search(query="a")'
    assert catalog["search"].render_view("a") == 'search(value="a")'


def test_tools_that_others_offer_are_in_the_catalog(tmp_path):
    """As server.tool, with labels and effect; a name is listed once."""
    path = tmp_path / "tools.yaml"
    text = (
        "tools: {a.b: {effect: read, description: A.}}\n"
        "servers: {wiki: {transport: http, url: x, tools: {search: {effect: read, external: true, "
        "labels: {sources: [untrusted]}, digest: x}}}}\n"
        "http: {crm: {openapi: crm.yaml, operations: {create: {effect: write}}}}\n"
    )
    path.write_text(text)
    catalog = ToolCatalog.load(path)
    assert list(catalog) == ["a.b", "crm.create", "wiki.search"]
    assert catalog["wiki.search"].external
    assert catalog["wiki.search"].labels.sources == {Source.UNTRUSTED}
    path.write_text(text.replace("wiki:", "a:").replace("search:", "b:"))
    with pytest.raises(InvalidFile) as caught:
        ToolCatalog.load(path)
    assert "a.b" in str(caught.value)


NUMBER = {"n": Argument("n", ArgumentType.NUMBER, optional=True)}


@given(st.integers(-(10**14), 10**14) | st.floats(-1e14, 1e14))
def test_numbers_are_decimals_within_half_of_the_last_place(value):
    """A declared number is always a decimal; if it is not exact, policy is told."""
    record, omitted = to_record({"n": value}, NUMBER)
    shown = Decimal(record["n"]["__extn"]["arg"])
    exact = Decimal(repr(value))
    assert abs(shown - exact) <= Decimal("0.00005")
    assert (omitted == []) == (shown == exact)


def test_null_for_an_optional_argument_is_the_same_as_none_given():
    """It is neither there nor left out."""
    assert to_record({"n": None}, NUMBER) == ({}, [])
    assert to_record({"n": None}) == ({}, ["n"])


@given(
    st.dictionaries(
        st.sampled_from(["recipient", "amount", "kind", "tags", "lines", "extra", "__entity", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=8,
        ),
    )
)
def test_checking_and_showing_never_raise(given):
    """Whatever a notebook sends, there is a verdict and a line for a person."""
    tool = PAY
    found = tool.check_arguments(given)
    record, _ = to_record(given, tool.arguments)
    assert json.dumps(record).isascii()
    assert found or set(given) <= set(tool.arguments)
    assert tool.render_view(given).isprintable()


def _pay() -> ToolCatalog:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tools.yaml"
        path.write_text(CATALOG)
        return ToolCatalog.load(path)


PAY = _pay()["pay"]
