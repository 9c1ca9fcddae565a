"""What policies see: typed arguments, where they came from, and what the gateway knows."""

from __future__ import annotations

import json
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.policy import PolicyBundle, PolicyRequest, Reads
from toolkit.policy.context import build_context
from toolkit.policy.engine import Engine
from toolkit.values import DataClass, Effect, Environment, Labels, Source, Verdict

TOOLS = """\
tools:
  pay:
    effect: write
    description: Pays.
    groups: [payments]
    external: true
    arguments:
      recipient: {type: string, role: destination}
      amount: {type: number, role: amount}
      memo: {type: string, optional: true}
  wire:
    effect: write
    description: Pays abroad.
    groups: [payments]
    arguments: {account: {type: string, role: destination}, amount: integer}
  look:
    effect: read
    description: Looks.
    arguments: {name: string, tags: {type: list, optional: true}}
"""
PERMIT = '@id("all") permit(principal, action, resource);\n'
TAINTED = Labels(frozenset({Source.UNTRUSTED}))
DERIVED = Labels(frozenset({Source.DERIVED}), frozenset({DataClass.PII}))
USER = Labels(frozenset({Source.USER}))
PAY = PolicyRequest(
    "ana",
    "call_tool",
    "pay",
    Environment.PRODUCTION,
    arguments={"recipient": "DE12", "amount": 12},
    labels={"recipient": USER, "amount": USER},
)


@pytest.fixture
def load(write_bundle):
    return lambda text, **more: PolicyBundle.load(write_bundle(text, tools=TOOLS, **more))


def faults(load, text):
    with pytest.raises(InvalidFile) as caught:
        load(text)
    return [(f["message"], f["next_step"] or "") for f in caught.value.details["faults"]]


def rule(condition, scope='resource == Tool::"pay"', effect="forbid"):
    return (
        f'@id("rule") {effect}(principal, action == Action::"call_tool", {scope}) '
        f"when {{ {condition} }};"
    )


# -- validation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        'context.arguments.amount.greaterThan(decimal("10.0"))',
        'context.arguments.recipient like "DE*"',
        'context.arguments has memo && context.arguments.memo == "x"',
        'context.origin.recipient.sources.contains("untrusted")',
        'context.origin has memo && context.origin.memo.classes.contains("pii")',
        'context.tainted.contains("recipient") || context.tainted_roles.contains("destination")',
        'context.session.classes.containsAny(["pii", "confidential"]) && context.external',
        'context.sources.contains("derived") && context.classes.isEmpty()',
        'context has agent && context.agent == "clerk"',
        'context has host && context.host == "x" && context.write',
        'context.tables.contains("orders") && context.allowed_classes.containsAll(context.classes)',
    ],
)
def test_what_the_guide_shows_is_valid(load, condition):
    """A policy that names its tool reads required arguments as they are."""
    assert load(PERMIT + rule(condition)).policies[1].id == "rule"


@pytest.mark.parametrize(
    ("condition", "scope", "message", "step"),
    [
        ("context.arguments.amount > 10", 'resource == Tool::"pay"', "expected Long", "greaterThan"),
        ("context.arguments.memo == 1", 'resource == Tool::"pay"', "unable to guarantee", "has x"),
        ("context.arguments has mem0 && context.arguments.mem0 == 1", 'resource == Tool::"pay"',
         "reads the argument mem0, which no tool", "did you mean memo?"),
        ("context.origin has name && true", 'resource == Tool::"pay"', "argument name", "known"),
        ("context.arguments has amount && context.arguments.amount == 1", "resource",
         "the argument amount, whose type differs", "one policy per tool"),
        ("context.arguments has amount && true", 'resource in Group::"payments"', "differs", ""),
        ('context.arguments.recipient == "x"', 'resource in Group::"payments"', "guarantee", "has x"),
        ("context.arguments has name && true", 'resource in Group::"payments"', "argument name", ""),
        ("context.tainted_rolls.isEmpty()", "resource", "tainted_rolls", ""),
        ('context.host == "x"', "resource", "unable to guarantee", "context has x"),
        ("true", 'resource in Group::"payment"', "in which registry/tools.yaml puts no tool",
         "payments"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_fault_with_its_fix(load, condition, scope, message, step):
    """Misspelt arguments, wrong types and ambiguous names never wait for a call."""
    found = faults(load, rule(condition, scope))
    assert any(message in m and step in s for m, s in found), found


# -- deciding -------------------------------------------------------------------------------------


def test_numbers_are_compared_as_decimals_however_they_were_written(load):
    """12, 12.0 and 12.5 are all decimals where the catalog says number."""
    bundle = load(PERMIT + rule('context.arguments.amount.greaterThan(decimal("12.1"))'))

    def ask(amount):
        return bundle.decide(replace(PAY, arguments={**PAY.arguments, "amount": amount})).verdict

    assert [ask(n) for n in (12, 12.0, 12.1, 12.1001, 13)] == [
        Verdict.ALLOW, Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY, Verdict.DENY,
    ]  # fmt: skip


def test_arguments_that_do_not_fit_are_denied_before_cedar(load):
    """However generous the policies are; the reason names the argument, and warn mode warns."""
    bad = replace(PAY, arguments={"recipient": 7, "amount": "much"})
    decision = load(PERMIT).decide(bad)
    assert decision.verdict is Verdict.DENY
    assert decision.policies == ("tool-arguments",)
    assert {r.split(" is ")[0] for r in decision.reasons} == {
        "pay: argument amount",
        "pay: argument recipient",
    }


@pytest.mark.parametrize("labels", [TAINTED, DERIVED, USER | TAINTED])
def test_one_rule_over_roles_holds_for_every_payment(load, labels):
    """Untrusted or derived data never chooses a destination, whatever the argument is called."""
    general = rule('context.tainted_roles.contains("destination")', 'resource in Group::"payments"')
    bundle = load(PERMIT + general)
    wire = replace(PAY, resource="wire", arguments={"account": "X", "amount": 1})
    assert bundle.decide(PAY)
    assert not bundle.decide(replace(PAY, labels={"recipient": labels}))
    assert bundle.decide(replace(PAY, labels={"amount": labels}))
    assert not bundle.decide(replace(wire, labels={"account": labels}))
    assert bundle.decide(
        replace(PAY, resource="look", arguments={"name": "x"}, labels={"name": labels})
    )


def test_data_classes_never_leave_by_an_external_tool(load):
    """`external` is the catalog's word or the gateway's; a session's classes count, too."""
    bundle = load(PERMIT + rule('context.external && context.classes.contains("pii")', "resource"))
    assert not bundle.decide(replace(PAY, labels={"memo": DERIVED}))
    assert bundle.decide(replace(PAY, resource="wire", arguments={"account": "x", "amount": 1},
                                 labels={"account": DERIVED}))  # fmt: skip
    session = load(PERMIT + rule('context.session.classes.contains("pii")', "resource"))
    assert session.decide(PAY)
    assert not session.decide(replace(PAY, session=DERIVED))


def test_facts_are_the_gateways_word_and_checked(load):
    """A fact of the wrong kind denies; an unknown one is not shown."""
    bundle = load(
        PERMIT + '@id("cols") forbid(principal, action == Action::"call_data", resource) '
        'when { context.columns.contains("orders.email") || context.write };'
    )
    query = PolicyRequest("ana", "call_data", "shop", Environment.PRODUCTION)
    assert bundle.decide(replace(query, facts={"columns": ["orders.id"], "nonsense": {}}))
    assert not bundle.decide(replace(query, facts={"columns": ["orders.email"]}))
    assert not bundle.decide(replace(query, facts={"write": True}))
    wrong = bundle.decide(replace(query, facts={"columns": "orders.id"}))
    assert not wrong
    assert "fact columns" in wrong.reasons[0]


def test_a_forged_origin_is_not_an_argument(load):
    """Labels come from the gateway; an argument that is named like one is only an argument."""
    bundle = load(PERMIT + rule('context.origin.recipient.sources.contains("untrusted")'))
    arguments = {**PAY.arguments, "origin": {"recipient": {"sources": []}}}
    assert not bundle.decide(replace(PAY, arguments=arguments, labels={"recipient": TAINTED}))


# -- cutting and remembering change nothing ---------------------------------------------------------

MANY = (
    PERMIT
    + rule('context.tainted_roles.contains("destination")', 'resource in Group::"payments"')
    + '@id("reads") permit(principal in Role::"r", action == Action::"call_tool", resource in '
    'Catalog::"tools") when { context.effect == "read" };'
    '@id("big") forbid(principal, action == Action::"call_tool", resource == Tool::"pay") when '
    '{ context.arguments.amount.greaterThan(decimal("100.0")) };'
    '@id("seen") forbid(principal, action, resource) when { context.effect == "write" } unless '
    "{ context.omitted.isEmpty() };"
    '@id("late") forbid(principal, action in [Action::"call_tool", Action::"call_model"], resource) '
    'when { context has purpose && context.purpose == "no" };'
    '@id("team") forbid(principal in Team::"t", action, resource is Tool) when '
    '{ context.session.sources.contains("untrusted") };'
    '@id("named") forbid(principal, action, resource == Route::"other");'
    '@id("whole") forbid(principal, action == Action::"call_data", resource) when '
    '{ context has source && context.source == "s" && context.tables.contains("t") };'
)
LABELS = st.sampled_from([USER, TAINTED, DERIVED, Labels()])
REQUESTS = st.builds(
    PolicyRequest,
    user=st.sampled_from(["ana", "ben"]),
    action=st.sampled_from(["call_tool", "call_tool", "call_model", "call_data", "publish_result"]),
    resource=st.sampled_from(["pay", "wire", "look", "unlisted", "other"]),
    environment=st.just(Environment.PRODUCTION),
    team=st.sampled_from([None, "t"]),
    roles=st.sampled_from([(), ("r",)]),
    purpose=st.sampled_from([None, "no", "yes"]),
    effect=st.sampled_from(Effect),
    arguments=st.fixed_dictionaries(
        {"recipient": st.just("x"), "amount": st.sampled_from([1, 100, 100.5, 101])},
        optional={"memo": st.sampled_from(["m", "m" * 9000]), "name": st.just("n")},
    ),
    labels=st.dictionaries(st.sampled_from(["recipient", "amount", "memo"]), LABELS),
    session=LABELS,
    facts=st.sampled_from([{}, {"source": "s", "tables": ["t"]}, {"write": True}]),
)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    folder = root / "policies" / "production"
    folder.mkdir(parents=True)
    (root / "tools.yaml").write_text(TOOLS)
    (folder / "policy.yaml").write_text(
        "environment: production\nmode: enforce\nunknown_price: deny\nminimum_isolation: limits\n"
        'require_results: true\nbudget: {usd: "1", tokens: 1, calls: 1, seconds: 1}\n'
    )
    (folder / "all.cedar").write_text(MANY)
    return PolicyBundle.load(folder)


@given(request_=REQUESTS)
def test_a_cut_policy_set_and_context_decide_like_the_whole(many, request_):
    """Cedar itself, asked with all policies and the whole context, gives the same verdict."""
    entry = many.tools.get(request_.resource) if request_.action == "call_tool" else None
    decision = many.decide(request_)
    assert decision == many.decide(replace(request_))
    if entry is not None and entry.check_arguments(request_.arguments):
        assert decision.verdict is Verdict.DENY
        return
    kinds = {"call_tool": "Tool", "call_model": "Route", "call_data": "Data"}
    kind = kinds.get(request_.action, "Result")
    parents = [("Catalog", "tools"), *(("Group", g) for g in entry.groups)] if entry else []
    entities = [
        {"uid": {"type": "User", "id": request_.user}, "attrs": {}, "parents": [
            *({"type": "Role", "id": r} for r in request_.roles),
            *([{"type": "Team", "id": request_.team}] if request_.team else []),
        ]},
        {"uid": {"type": kind, "id": request_.resource}, "attrs": {},
         "parents": [{"type": t, "id": i} for t, i in parents]},
    ]  # fmt: skip
    question = {
        "principal": {"type": "User", "id": request_.user},
        "action": {"type": "Action", "id": request_.action},
        "resource": {"type": kind, "id": request_.resource},
        "context": build_context(request_, many.environment, entry, Reads(None, None, None)),
    }
    whole = cedarpy.is_authorized(question, MANY, json.dumps(entities))
    allowed = whole.allowed and not whole.diagnostics.errors
    assert bool(decision) == allowed


def test_only_what_is_looked_at_is_built(many):
    """A model call's messages are not walked when no policy reads them."""
    reads = many.reads("call_data", "x")
    assert reads.context == {"effect", "omitted", "source", "tables"}
    tool = many.reads("call_tool", "look")
    assert tool.has("session")
    assert not tool.has("source")
    assert tool.arguments == frozenset()
    assert many.reads("fly", "x") == Reads()


def test_a_policy_that_reads_the_whole_context_gets_the_whole(load):
    """What analysis cannot follow is taken to look at everything."""
    bundle = load(PERMIT + rule("context == context", "resource"))
    assert bundle.reads("call_tool", "pay") == Reads(None, None, None)
    assert not bundle.decide(PAY)


def test_answers_are_remembered_within_bounds(load):
    """Many different callers and arguments do not make a bundle grow without end."""
    bundle = load(PERMIT + rule('context.arguments.recipient == "X"'))
    engine: Engine = bundle._engine
    for number in range(9_000):
        asked = replace(PAY, user=f"u{number}", arguments={"recipient": f"{number}", "amount": 1})
        assert bundle.decide(asked)
    assert len(engine._answers) <= 8_192
    assert len(engine._entities) <= 4_096
    assert not bundle.decide(replace(PAY, arguments={"recipient": "X", "amount": 1}))
