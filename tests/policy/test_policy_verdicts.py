"""Ask and shadow: what a person decides, and what is only tried out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.errors import InvalidFile
from toolkit.policy import PolicyBundle, PolicyRequest
from toolkit.values import Environment, Verdict

PERMIT = '@id("all") permit(principal, action, resource);\n'
ASK = (
    '@id("ask") @reason("pushes need a person") @ask("approver") '
    'forbid(principal, action == Action::"call_tool", resource == Tool::"push");\n'
)
PUSH = PolicyRequest("ana", "call_tool", "push", Environment.PRODUCTION, arguments={})


@pytest.fixture
def load(write_bundle):
    return lambda text, **more: PolicyBundle.load(write_bundle(text, **more))


def test_a_person_is_asked_where_only_ask_policies_stand_against_it(load, limits_text):
    """The role, the reason and the time come from the policy, else from policy.yaml."""
    decision = load(PERMIT + ASK).decide(PUSH)
    assert decision.verdict is Verdict.ASK
    assert not decision
    assert (decision.policies, decision.approver) == (("ask",), "approver")
    assert decision.reasons == ("pushes need a person",)
    assert decision.expires_s == 86_400
    hour = ASK.replace("@ask", '@expires("1h") @ask')
    assert load(PERMIT + hour).decide(PUSH).expires_s == 3_600
    limits = limits_text + "approvals: {expires: 30m}\n"
    assert load(PERMIT + ASK, limits=limits).decide(PUSH).expires_s == 1_800


def test_the_first_role_by_file_order_is_asked_and_all_reasons_are_kept(load):
    """Several policies may ask; one person decides, knowing why."""
    other = ASK.replace('"ask"', '"second"').replace("approver", "boss").replace("pushes", "all")
    decision = load({"b.cedar": other, "a.cedar": PERMIT + ASK}).decide(PUSH)
    assert decision.approver == "approver"
    assert decision.policies == ("ask", "second")
    assert decision.reasons == ("pushes need a person", "all need a person")


def test_nobody_is_asked_about_what_nothing_permits(load):
    """A yes would not help, so the call is denied, and the reason says what is missing."""
    decision = load(ASK).decide(PUSH)
    assert decision.verdict is Verdict.DENY
    assert "no policy of production permits" in decision.reasons[0]


def test_a_plain_forbid_beats_a_question(load):
    """Nobody may allow what policy forbids outright."""
    no = '@id("no") @reason("never") forbid(principal, action, resource);'
    decision = load(PERMIT + ASK + no).decide(PUSH)
    assert decision.verdict is Verdict.DENY
    assert "never" in decision.reasons


def test_a_failing_policy_is_no_question(load):
    """What cannot be evaluated denies, also beside a policy that asks."""
    broken = (
        '@id("broken") forbid(principal, action, resource) '
        "when { context.arguments has n && context.arguments.n > 1 };"
    )
    decision = load(PERMIT + ASK + broken).decide(replace(PUSH, arguments={"n": "x"}))
    assert decision.verdict is Verdict.DENY
    assert "could not be evaluated" in decision.reasons[0]


def test_warn_mode_keeps_a_question_a_question(load, limits_text):
    """The sandbox warns about denials; what it asks, it asks."""
    limits = limits_text.replace("production", "sandbox").replace("enforce", "warn")
    bundle = load(PERMIT + ASK, limits=limits, environment="sandbox")
    assert bundle.decide(PUSH).verdict is Verdict.ASK
    silent = load(ASK, limits=limits, environment="sandbox")
    assert silent.decide(PUSH).verdict is Verdict.ALLOW
    assert silent.evaluate(PUSH).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("annotations", "effect", "message"),
    [
        ('@ask("approver")', "permit", "has @ask on a permit"),
        ('@ask("")', "forbid", "names no role"),
        ('@ask("two words")', "forbid", "names no role"),
        ('@expires("1h")', "forbid", "has @expires without @ask"),
        ('@ask("a") @expires("tomorrow")', "forbid", "that is no time"),
        ('@ask("a") @expires("0h")', "forbid", "that is no time"),
        ('@shadow("false")', "forbid", "@shadow that says no"),
    ],
)
def test_wrong_annotations_are_faults(load, annotations, effect, message):
    """An annotation that would be ignored is a fault of the file."""
    with pytest.raises(InvalidFile) as caught:
        load(f'@id("x") {annotations} {effect}(principal, action, resource);')
    assert message in str(caught.value)


def test_a_shadow_policy_says_what_it_would_do_and_does_nothing(load):
    """Forbids, questions and permits are tried out on real calls, with their reasons."""
    forbid = (
        '@id("f") @shadow("from May on") @reason("too risky") forbid(principal, action, resource);'
    )
    ask = ASK.replace('@ask("', '@shadow("true") @ask("')
    decision = load(PERMIT + forbid + "\n" + ask).decide(PUSH)
    assert decision.verdict is Verdict.ALLOW
    assert decision.policies == ("all",)
    assert decision.shadow == (
        "policy f (all.cedar:2) would forbid it: too risky; from May on",
        "policy ask (all.cedar:3) would ask approver about it: pushes need a person",
    )
    alone = load(PERMIT.replace("permit", '@shadow("new") permit')).decide(PUSH)
    assert alone.verdict is Verdict.DENY
    assert alone.shadow == ("policy all (all.cedar:1) would permit it: new",)


def test_a_shadow_policy_that_fails_changes_nothing(load):
    """Its failure is told, and the call goes on."""
    text = (
        '@id("f") @shadow("x") forbid(principal, action, resource) '
        "when { context.arguments has n && context.arguments.n > 1 };"
    )
    decision = load(PERMIT + text).decide(replace(PUSH, arguments={"n": "x"}))
    assert decision.verdict is Verdict.ALLOW
    assert "could not be evaluated" in decision.shadow[0]
