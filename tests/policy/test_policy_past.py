"""Cases beside a bundle, recorded calls decided again, bundles mined from what was seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.policy import (
    Change,
    PastCall,
    People,
    Person,
    PolicyBundle,
    PolicyRequest,
    RunUse,
    SeenCall,
    ToolCatalog,
    merged,
    mine,
    read_cases,
    run_cases,
    simulate,
)
from toolkit.values import CallKind, Effect, Environment, Money, Verdict

PERMIT = '@id("all") permit(principal, action, resource);\n'
RULES = (
    PERMIT
    + '@id("dest") forbid(principal, action, resource) when { context.tainted.contains("to") };\n'
    '@id("ask") @ask("approver") forbid(principal, action == Action::"call_tool", '
    'resource == Tool::"push") unless { principal in Role::"lead" };\n'
)
CASES = """\
- name: a lead may push
  request: {user: lea, tool: push, arguments: {to: x}}
  expect: allow
- name: others are asked about
  request: {user: ben, tool: push, arguments: {to: x}}
  expect: ask
  by: ask
  approver: approver
- name: untrusted data does not say where
  request:
    user: lea
    tool: push
    arguments: {to: x}
    origin: {to: {sources: [untrusted]}}
  expect: deny
  by: dest
- name: roles may be given
  request: {user: ben, roles: [lead], tool: push, arguments: {to: x}, facts: {host: h}}
  expect: allow
"""
PEOPLE = People({"lea": Person("lea", "legal", ("lead",))})


# -- cases ------------------------------------------------------------------------------------------


@pytest.fixture
def case_file(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "tests.yaml").write_text(text)
        return tmp_path / "tests.yaml"

    return write


def test_cases_pass_when_verdict_policy_and_role_are_as_expected(write_bundle, case_file):
    """Roles come from people.yaml unless the case gives them."""
    bundle = PolicyBundle.load(write_bundle(RULES))
    results = run_cases(bundle, read_cases(case_file(CASES)), PEOPLE)
    assert [result.faults for result in results] == [(), (), (), ()]


def test_a_failing_case_says_what_was_decided_instead(write_bundle, case_file):
    """Verdict, policy and role each fail on their own."""
    bundle = PolicyBundle.load(write_bundle(RULES))
    text = CASES.replace("expect: allow", "expect: deny").replace("by: dest", "by: ask")
    results = run_cases(
        bundle, read_cases(case_file(text.replace("approver: a", "approver: b"))), PEOPLE
    )
    told = [" ".join(result.faults) for result in results]
    assert told[0] == "is allow, expected deny"
    assert told[1] == "asks approver, expected bpprover"
    assert told[2] == "was decided by dest, expected ask"
    assert not any(results)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tool: push, arguments: {to: x}}\n  expect: allow", "tool: a, model: b}\n  expect: allow",
         "names 2 of"),
        ("a lead may push", "roles may be given", "two cases named"),
        ("host: h", "hots: h", "unknown fact"),
        ("host: h", "host: 3", "is not of the kind"),
        ("expect: ask", "expect: maybe", "expect"),
        ("sources: [untrusted]", "sources: [martian]", "sources"),
        (CASES, "[]", "has no case"),
    ],
)  # fmt: skip
def test_wrong_cases_are_faults(case_file, old, new, message):
    """A case that cannot test anything is refused."""
    with pytest.raises(InvalidFile) as caught:
        read_cases(case_file(CASES.replace(old, new)))
    assert message in str(caught.value)


# -- simulation ---------------------------------------------------------------------------------------


def past(resource: str, verdict: Verdict, number: int = 0, **more) -> PastCall:
    request = PolicyRequest("ana", "call_tool", resource, Environment.PRODUCTION)
    unknown = more.pop("unknown", frozenset())
    return PastCall(f"r/{number}/0", replace(request, **more), verdict, unknown)


def test_a_simulation_lists_what_changes_with_examples(write_bundle):
    """Newly denied, newly asked and newly allowed calls are counted by resource and policy."""
    text = RULES + '@id("no") @reason("gone") forbid(principal, action, resource == Tool::"look");'
    bundle = PolicyBundle.load(write_bundle(text))
    calls = [past("look", Verdict.ALLOW, n) for n in range(10)]
    calls += [
        past("push", Verdict.ALLOW),
        past("unlisted", Verdict.DENY),
        past("unlisted", Verdict.ALLOW),
    ]
    found = simulate(calls, bundle, examples=2)
    assert (found.calls, found.same) == (13, 1)
    shown = [(g.change, g.resource, g.policies, g.calls, len(g.examples)) for g in found.changed]
    assert shown == [
        (Change.NEWLY_DENIED, "look", ("no",), 10, 2),
        (Change.NEWLY_ASKED, "push", ("ask",), 1, 1),
        (Change.NEWLY_ALLOWED, "unlisted", ("all",), 1, 1),
    ]
    assert found.changed[0].examples[0].reasons == ("gone",)
    body = found.to_json()
    assert body["counts"] == {"newly_denied": 10, "newly_asked": 1, "newly_allowed": 1}


def test_nothing_is_said_about_calls_that_turn_on_facts_nobody_recorded(write_bundle):
    """A query's columns are not in the ledger; guessing would be worse than silence."""
    text = PERMIT + (
        '@id("c") forbid(principal, action == Action::"call_data", resource) '
        'when { context.columns.contains("x") };'
    )
    bundle = PolicyBundle.load(write_bundle(text))
    unknown = frozenset({"columns", "host"})
    query = past("db", Verdict.DENY, action="call_data", unknown=unknown)
    tool = past("look", Verdict.DENY, unknown=unknown)
    found = simulate([query, tool], bundle)
    assert found.not_told == {("call_data", "db"): 1}
    assert found.count(Change.NEWLY_ALLOWED) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["look", "push", "x"]), st.sampled_from(Verdict)), max_size=30
    )
)
def test_every_call_is_counted_once(calls):
    """Same, changed, not told and beyond: together all of them."""
    found = simulate([past(name, verdict) for name, verdict in calls], EMPTY)
    total = (
        found.same + sum(g.calls for g in found.changed) + sum(found.not_told.values()) + found.more
    )
    assert total == found.calls == len(calls)
    assert found.same == sum(verdict is Verdict.DENY for _, verdict in calls)


# -- mining -----------------------------------------------------------------------------------------------

USE = RunUse(Money.of_usd("0.10"), 0, 1000, 20, 3.2)
SEEN = [
    SeenCall(CallKind.MODEL, "default", arguments={"messages": []}),
    SeenCall(CallKind.AGENT, "clerk", arguments={"question": "x"}),
    SeenCall(CallKind.RESULT, "count", arguments={"value": 1}),
    SeenCall(CallKind.TOOL, "read", arguments={"path": "a/b", "limit": 5}),
    SeenCall(
        CallKind.TOOL, "read", arguments={"path": 'odd "\n\\ \u00e9', "limit": 9, "deep": None}
    ),
    SeenCall(CallKind.TOOL, "pay", Effect.WRITE, {"amount": 1.5, "to": "DE1", "urgent": False}),
    SeenCall(
        CallKind.TOOL, "pay", Effect.WRITE, {"amount": 20, "to": "DE2", "urgent": False, "if": 1}
    ),
    SeenCall(CallKind.TOOL, "tag", arguments={"names": ["a", "b"], "more": {"x": [1]}}),
    SeenCall(CallKind.TOOL, "tag", arguments={"names": []}),
]
ACTIONS = {CallKind.RESULT: "publish_result"}


def install(mined, folder: Path) -> PolicyBundle:
    for name, text in mined.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return PolicyBundle.load(folder / "policies" / "production")


def ask(bundle: PolicyBundle, call: SeenCall, **more):
    action = ACTIONS.get(call.kind, f"call_{call.kind.value}")
    request = PolicyRequest("ana", action, call.name, Environment.PRODUCTION, effect=call.effect)
    return bundle.decide(replace(request, arguments=call.arguments, **more))


def test_a_mined_bundle_allows_what_was_seen_and_nothing_beside_it(tmp_path):
    """Every recorded call, and no other tool, route, agent, value or range."""
    mined = mine(SEEN, [USE], ToolCatalog({}))
    bundle = install(mined, tmp_path)
    for call in SEEN:
        assert ask(bundle, call), (call, ask(bundle, call).reasons)
    read, pay, tag = SEEN[3], SEEN[5], SEEN[7]
    others = [
        replace(read, name="write"),
        SeenCall(CallKind.MODEL, "careful"),
        SeenCall(CallKind.AGENT, "other"),
        SeenCall(CallKind.RESULT, "secret"),
        SeenCall(CallKind.JOB, "read"),
        *(replace(read, arguments={**read.arguments, **new}) for new in (
            {"path": "/etc/passwd"}, {"limit": 4}, {"limit": 10}, {"more": 1}, {"deep": 1},
            {"path": 3}, {"path": None},
        )),
        *(replace(pay, arguments={**pay.arguments, **new}) for new in (
            {"amount": 1.4999}, {"amount": 20.0001}, {"to": "DE3"}, {"urgent": True},
            {"amount": "2"}, {"if": 2},
        )),
        replace(tag, arguments={"names": ["a", "c"]}),
    ]  # fmt: skip
    for call in others:
        assert not ask(bundle, call), call


def data(tables, columns, effect=Effect.READ, **more) -> SeenCall:
    read = None if tables is None else (frozenset(tables), frozenset(columns))
    return SeenCall(CallKind.DATA, "shop", effect, {"operation": "query"}, read=read, **more)


def reads(bundle: PolicyBundle, tables, columns, *, write: bool = False):
    facts = {"source": "shop", "tables": tables, "columns": columns, "write": write}
    return (
        bundle.decide(
            PolicyRequest("ana", "call_data", "shop", Environment.PRODUCTION, facts=facts)
        ).verdict
        is Verdict.ALLOW
    )


def test_a_mined_source_is_held_to_the_tables_and_columns_that_were_read(tmp_path):
    """What was read may be read again, in parts too; nothing beside it, and no write."""
    seen = [data(["orders"], ["orders.id", 'orders."odd"']), data(["items"], ["items.id"])]
    failed = data(None, None, answered=False)
    mined = mine([*seen, failed], [USE], ToolCatalog({}))
    assert not any("data shop" in note for note in mined.notes)
    bundle = install(mined, tmp_path)
    assert reads(bundle, ["orders"], ["orders.id", 'orders."odd"'])
    assert reads(bundle, ["orders", "items"], ["items.id"])
    assert not reads(bundle, ["orders"], ["orders.email"])
    assert not reads(bundle, ["salaries"], [])
    assert not reads(bundle, ["orders"], ["orders.id"], write=True)
    written = mine([*seen, data(["orders"], [], Effect.WRITE)], [USE], ToolCatalog({}))
    assert reads(install(written, tmp_path / "w"), ["orders"], ["orders.id"], write=True)


def test_what_is_not_known_of_a_source_is_told(tmp_path):
    """Calls of an older record limit nothing; a source that gave nothing permits no table."""
    old = mine([data(["orders"], []), data(None, None)], [USE], ToolCatalog({}))
    assert any("data shop: tables and columns of some calls" in note for note in old.notes)
    assert reads(install(old, tmp_path / "old"), ["salaries"], ["salaries.amount"])
    none = mine([data(None, None, answered=False)], [USE], ToolCatalog({}))
    assert any("no table is permitted" in note for note in none.notes)
    assert not reads(install(none, tmp_path / "none"), ["orders"], [])


def test_a_mined_budget_is_the_99th_percentile_and_a_quarter(tmp_path):
    """Results do not count, an unknown price is said, an hour of thinking does not either."""
    uses = [replace(USE, tokens=n, calls=1) for n in range(1, 101)]
    bundle = install(mine(SEEN, uses, ToolCatalog({})), tmp_path)
    assert bundle.budget.tokens == 124
    assert bundle.budget.usd == Money.of_usd("0.13")
    assert bundle.budget.calls == 2
    assert bundle.budget.seconds == 65
    assert bundle.unknown_price == "deny"
    unpriced = mine(SEEN, [replace(USE, unpriced_calls=1)], ToolCatalog({}))
    assert "unknown_price: allow" in unpriced.files["policies/production/policy.yaml"]
    assert any("price" in note for note in unpriced.notes)


def test_a_job_is_the_only_one_who_may(tmp_path):
    """With --job, the permits hold for that job alone."""
    bundle = install(mine(SEEN, [USE], ToolCatalog({}), job='the "job"'), tmp_path)
    assert not any(ask(bundle, call) for call in SEEN)
    assert all(ask(bundle, call, job='the "job"') for call in SEEN)


def test_what_the_catalog_knows_is_kept(tmp_path):
    """Labels, roles and views stay; arguments are declared anew only where calls did not fit."""
    (tmp_path / "tools.yaml").write_text(
        "tools:\n  pay: {effect: read, description: Pays., external: true, view: 'Pay {to}', "
        "arguments: {to: {type: string, role: destination}, amount: number, "
        "urgent: {type: boolean, optional: true}, if: {type: integer, optional: true}}}\n"
        "  tag: {effect: read, description: Tags., labels: {sources: [untrusted]}, "
        "arguments: {names: integer}}\n"
    )
    known = ToolCatalog.load(tmp_path / "tools.yaml")
    bundle = install(mine(SEEN, [USE], known), tmp_path / "out")
    pay, tag = bundle.tools["pay"], bundle.tools["tag"]
    assert (pay.effect, pay.external, pay.view) == (Effect.WRITE, True, "Pay {to}")
    assert pay.arguments["to"].role == "destination"
    assert tag.labels == known["tag"].labels
    assert all(ask(bundle, call) for call in SEEN)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CALLS = st.lists(
    st.builds(
        SeenCall,
        kind=st.just(CallKind.TOOL),
        name=st.sampled_from(["one", "two"]),
        effect=st.sampled_from(Effect),
        arguments=st.dictionaries(st.sampled_from(["a", "b-c", "if", "x y", "__entity"]), JSON)
        | JSON,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(calls=CALLS)
def test_whatever_was_recorded_the_mined_bundle_loads_and_allows_it(calls, tmp_path_factory):
    """Strange names, nulls, huge numbers, texts that end a literal."""
    bundle = install(mine(calls, [USE], ToolCatalog({})), tmp_path_factory.mktemp("mined"))
    for call in calls:
        assert ask(bundle, call), ask(bundle, call).reasons


def _empty() -> PolicyBundle:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        return install(mine([], [USE], ToolCatalog({})), Path(root))


EMPTY = _empty()


def test_parts_of_a_simulation_add_up(write_bundle):
    """What processes found about different runs is what one process would have found."""
    text = RULES + '@id("no") @reason("gone") forbid(principal, action, resource == Tool::"look");'
    bundle = PolicyBundle.load(write_bundle(text))
    calls = [past("look", Verdict.ALLOW, n) for n in range(10)]
    calls += [past("push", Verdict.ALLOW), past("unlisted", Verdict.ALLOW)]
    parts = [simulate(calls[n::3], bundle, examples=2) for n in range(3)]
    together, alone = merged(parts, examples=2), simulate(calls, bundle, examples=2)
    for found in (together, alone):
        for group in found.changed:
            assert len(group.examples) == min(2, group.calls)
            group.examples.clear()
    assert together.to_json() == alone.to_json()
