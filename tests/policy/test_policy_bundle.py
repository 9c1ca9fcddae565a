"""A bundle is read with all its faults, and answers questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile, NotFound
from toolkit.policy import Isolation, PolicyBundle, PolicyRequest, ToolCatalog, schema_text
from toolkit.policy.cedar import read_policies
from toolkit.policy.limits import parse_limits
from toolkit.values import Effect, Environment, Money, Verdict

LOOK = PolicyRequest("ana", "call_tool", "look", Environment.PRODUCTION)
BUNDLE = PolicyBundle.load(Path(__file__).parents[2] / "registry" / "policies" / "production")
LIMITS = """\
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1.00", tokens: 1000, calls: 10, seconds: 60}
"""
PERMIT = '@id("all") permit(principal, action, resource);\n'


def faults(folder):
    with pytest.raises(InvalidFile) as caught:
        PolicyBundle.load(folder)
    return [(f["where"], f["message"]) for f in caught.value.details["faults"]]


# -- deciding ---------------------------------------------------------------------------------


def test_an_empty_bundle_denies_and_says_what_to_add(write_bundle):
    """Without a permit nothing is allowed; the reason holds the policy that would allow it."""
    decision = PolicyBundle.load(write_bundle()).decide(LOOK)
    assert decision.verdict is Verdict.DENY
    assert decision.policies == ()
    permit = 'permit(principal, action == Action::"call_tool", resource == Tool::"look");'
    assert permit in decision.reasons[0]


def test_the_suggested_policy_allows_the_call(write_bundle):
    """What a default deny suggests is a policy, and it works."""
    reason = PolicyBundle.load(write_bundle()).decide(LOOK).reasons[0]
    suggested = reason[reason.index("@id") :].replace("…", "suggested")
    assert PolicyBundle.load(write_bundle(suggested)).decide(LOOK).policies == ("suggested",)


def test_forbid_wins_and_gives_its_reason(write_bundle):
    """A forbid beats every permit; its @reason is what the user reads."""
    forbid = '@id("no") @reason("not today") forbid(principal, action, resource);'
    decision = PolicyBundle.load(write_bundle(PERMIT + forbid)).decide(LOOK)
    assert (decision.verdict, decision.policies, decision.reasons) == (
        Verdict.DENY,
        ("no",),
        ("not today",),
    )


def test_a_forbid_without_reason_is_named_with_its_place(write_bundle):
    """Without @reason the policy's id and line are the reason."""
    text = PERMIT + '\n@id("no") forbid(principal, action, resource);'
    reasons = PolicyBundle.load(write_bundle(text)).decide(LOOK).reasons
    assert reasons == ("policy no (all.cedar:3) forbids it",)


def test_a_policy_that_fails_to_evaluate_denies(write_bundle):
    """Cedar skips a failing forbid, which would open the door; here it closes it."""
    forbid = (
        '@id("big") forbid(principal, action, resource) '
        "when { context.arguments has n && context.arguments.n > 10 };"
    )
    bundle = PolicyBundle.load(write_bundle(PERMIT + forbid))
    assert bundle.decide(replace(LOOK, arguments={"n": 3})).verdict is Verdict.ALLOW
    assert bundle.decide(replace(LOOK, arguments={"n": 11})).verdict is Verdict.DENY
    failed = bundle.decide(replace(LOOK, arguments={"n": "11"}))
    assert failed.verdict is Verdict.DENY
    assert failed.policies == ("big",)
    assert "could not be evaluated" in failed.reasons[0]
    assert "big" in failed.reasons[0]


@pytest.mark.parametrize("bad", [{"resource": "a\ud800"}, {"user": "\udfff"}, {"action": "fly"}])
def test_a_question_that_cannot_be_asked_is_denied_even_in_warn_mode(
    write_bundle, bad, limits_text
):
    """Warn mode softens verdicts, not the lack of one."""
    limits = limits_text.replace("production", "sandbox").replace("enforce", "warn")
    folder = write_bundle(PERMIT, limits=limits, environment="sandbox")
    assert PolicyBundle.load(folder).decide(replace(LOOK, **bad)).verdict is Verdict.DENY


def test_warn_mode_lets_a_denied_call_go_on_with_its_reasons(write_bundle, limits_text):
    """In the sandbox a deny becomes a warning; `evaluate` still gives the verdict itself."""
    limits = limits_text.replace("production", "sandbox").replace("enforce", "warn")
    bundle = PolicyBundle.load(write_bundle(limits=limits, environment="sandbox"))
    decision = bundle.decide(LOOK)
    assert decision.verdict is Verdict.ALLOW
    assert decision.reasons[0].startswith("would be denied: no policy of sandbox permits")
    assert bundle.evaluate(LOOK).verdict is Verdict.DENY


def test_teams_and_roles_are_parents_of_the_user(write_bundle):
    """`principal in Team` and `principal in Role` work; a job is part of the context."""
    text = (
        '@id("team") permit(principal in Team::"legal", action, resource);'
        '@id("role") permit(principal in Role::"lead", action, resource);'
        '@id("job") permit(principal, action, resource) '
        'when { context has job && context.job == "nightly" && context.version >= 3 };'
    ).replace("context.version >= 3", "context has version && context.version >= 3")
    bundle = PolicyBundle.load(write_bundle(text))
    assert not bundle.decide(LOOK)
    assert bundle.decide(replace(LOOK, team="legal")).policies == ("team",)
    assert bundle.decide(replace(LOOK, roles=("lead", "x"))).policies == ("role",)
    assert bundle.decide(replace(LOOK, job="nightly", version=3)).policies == ("job",)
    assert not bundle.decide(replace(LOOK, job="nightly", version=2))


def test_the_catalog_makes_an_effect_stricter_never_milder(write_bundle):
    """A notebook that calls a write a read is not believed; the other way round it is."""
    text = (
        '@id("reads") permit(principal, action, resource in Catalog::"tools") '
        'when { context.effect == "read" };'
    )
    bundle = PolicyBundle.load(write_bundle(text))
    assert bundle.decide(LOOK)
    assert not bundle.decide(replace(LOOK, effect=Effect.WRITE))
    assert not bundle.decide(replace(LOOK, resource="push", effect=Effect.READ))
    assert not bundle.decide(replace(LOOK, resource="unlisted"))


def test_a_bundle_answers_for_its_own_environment(write_bundle):
    """The production bundle can be asked about a call of the sandbox."""
    text = '@id("p") permit(principal, action, resource) when {context.environment=="production"};'
    bundle = PolicyBundle.load(write_bundle(text))
    assert bundle.decide(replace(LOOK, environment=Environment.SANDBOX))


def test_call_result_and_publish_result_are_one_action(write_bundle):
    """The call kind `result` is Cedar's `publish_result`."""
    text = '@id("r") permit(principal, action == Action::"publish_result", resource);'
    bundle = PolicyBundle.load(write_bundle(text))
    assert bundle.decide(replace(LOOK, action="call_result"))
    assert bundle.decide(replace(LOOK, action="publish_result"))


NAMES = st.text(max_size=12)
REQUESTS = st.builds(
    PolicyRequest,
    user=NAMES,
    action=st.sampled_from(["call_tool", "call_model", "publish_result", "nonsense"]),
    resource=NAMES | st.sampled_from(["look", "push"]),
    environment=st.sampled_from(Environment),
    team=st.none() | NAMES,
    roles=st.lists(NAMES, max_size=2).map(tuple),
    job=st.none() | NAMES,
    version=st.none() | st.integers(-(2**70), 2**70),
    effect=st.sampled_from(Effect),
    arguments=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=8) | st.just("__entity"), inner, max_size=3)
        ),
    ),
)


@given(REQUESTS)
def test_deciding_never_raises_and_is_deterministic(request_):
    """Equal questions get equal answers, whatever is in them; a deny always has a reason."""
    first, second = BUNDLE.decide(request_), BUNDLE.decide(replace(request_))
    assert first == second
    assert first.policy_digest == BUNDLE.digest
    assert first.verdict is Verdict.ALLOW or first.reasons


# -- reading ----------------------------------------------------------------------------------


def test_yaml_and_cedar_faults_are_reported_together(write_bundle, limits_text):
    """One loading names what is wrong in every file, with lines."""
    limits = limits_text.replace("mode: enforce", "mode: maybe\nsurprise: 1")
    cedar = {
        "a.cedar": '// a comment; with "semicolon\n@id("a") permit(principal action, resource);\n',
        "b.cedar": (
            '@id("typo") permit(principal, action == Action::"call_tol", resource);\n'
            "permit(principal, action, resource);\n"
            '\n@id("ctx") forbid(principal, action, resource)\nwhen { context.nope == 1 };\n'
            '@id("tool") permit(principal, action, resource == Tool::"lok");\n'
            '@id("typo") @raeson("x") permit(principal, action, resource);\n'
            '@id("tpl") permit(principal == ?principal, action, resource);\n'
        ),
    }
    found = faults(write_bundle(cedar, limits=limits))
    text = "\n".join(f"{where} {message}" for where, message in found)
    for expected in [
        "policy.yaml:2 mode",
        "policy.yaml:3 surprise is not a known key",
        "a.cedar:2 is not a Cedar policy: unexpected token `action`",
        'b.cedar:1 unrecognized action `Action::"call_tol"`',
        "b.cedar:2 has no @id",
        "b.cedar:4 attribute `nope` in context",
        'b.cedar:6 names Tool::"lok"',
        "b.cedar:7 has the unknown annotation @raeson",
        'b.cedar:7 repeats @id("typo") of b.cedar:1',
        "b.cedar:8 is a template",
    ]:
        assert expected in text, text


@pytest.mark.parametrize(
    "body",
    [
        "(" * 5000 + "true" + ")" * 5000,
        "if true then " * 3000 + "true" + " else false" * 3000,
        "true" + " && true" * 5000,
        "context has a" + ".a" * 5000,
    ],
)
def test_nested_text_is_refused_before_the_vendor_sees_it(write_bundle, body):
    """2,000 nested brackets end a process inside cedarpy; here they are a fault of the file."""
    found = faults(write_bundle(f'@id("x") permit(principal, action, resource) when {{ {body} }};'))
    assert "than" in found[0][1]


@given(st.text('permit(principal,action,resource);@id"x\\/{}[]\n when=:', max_size=120))
def test_any_cedar_text_gives_policies_or_faults(text):
    """No text makes the reader raise."""
    read_policies({"x.cedar": text.encode()})


def test_statements_keep_semicolons_in_text_and_comments(write_bundle):
    """A semicolon in a string or comment ends nothing; lines count through both."""
    text = (
        '@id("a;b") @reason("x;\\";y") permit(principal, action, resource) // no; end\n'
        '// comment; "\nwhen { context.effect == "a;b" };\n// end;\n@id("c")\n'
        "permit(principal, action, resource);"
    )
    bundle = PolicyBundle.load(write_bundle(text))
    assert [(p.id, p.place) for p in bundle.policies] == [
        ("a;b", "all.cedar:1"),
        ("c", "all.cedar:5"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('usd: "1.00"', "usd: .nan", "budget.usd"),
        ('usd: "1.00"', 'usd: "1e99"', "budget.usd"),
        ('usd: "1.00"', "usd: -1", "budget.usd"),
        ('usd: "1.00", ', "", "budget.usd is missing"),
        ("tokens: 1000", "tokens: 1000.5", "budget.tokens"),
        ("calls: 10", "calls: true", "budget.calls"),
        ("seconds: 60", "seconds: 0", "budget.seconds"),
        ("unknown_price: deny\n", "", "unknown_price is missing"),
        ("minimum_isolation: limits", "minimum_isolation: magic", "minimum_isolation"),
        ("mode: enforce", "mode: warn", "only the sandbox may do"),
        ("environment: production", "environment: sandbox", "folder is named production"),
        ("budget:", "gates: {s: [{scorer: correct}]}\nbudget:", "could never fail"),
        ("budget:", "gates: {s: [{scorer: c, minimum: 2, maximum: 1}]}\nbudget:", "never pass"),
        ("budget:", "gates: {s: []}\nbudget:", "gates.s"),
    ],
)
def test_limits_that_make_no_sense_are_faults(write_bundle, limits_text, old, new, words):
    """Budgets, gates and switches are strict: nothing is guessed."""
    assert old in limits_text
    found = faults(write_bundle(limits=limits_text.replace(old, new)))
    assert any(words in f"{where} {message}" for where, message in found), found


@given(st.integers(0, 10**18 - 1))
def test_dollars_are_exact(nanos):
    """Money written as text is read to the last nano-dollar."""
    text = f"{nanos // 10**9}.{nanos % 10**9:09d}"
    limits, found = parse_limits(LIMITS.replace("1.00", text).encode(), "policy.yaml")
    assert not found
    assert limits.budget.usd == Money(nanos)


def test_no_limit_has_to_be_written_down(write_bundle, limits_text):
    """null means no limit; leaving a budget out is a fault."""
    text = limits_text.replace('usd: "1.00"', "usd: null").replace("seconds: 60", "seconds: null")
    budget = PolicyBundle.load(write_bundle(limits=text)).budget
    assert (budget.usd, budget.tokens, budget.seconds) == (None, 1000, None)


def test_the_digest_covers_every_file_and_the_tools(write_bundle, limits_text):
    """Any change of bytes, and any change of a tool, is another bundle; the same is the same."""
    load = PolicyBundle.load
    base = load(write_bundle(PERMIT)).digest
    assert load(write_bundle(PERMIT)).digest == base
    tools = "tools: {look: {effect: read, description: Looks again.}}"
    others = {
        load(write_bundle(PERMIT + "// note")).digest,
        load(write_bundle(PERMIT, limits=limits_text + "# note")).digest,
        load(write_bundle(PERMIT, tools=tools)).digest,
        load(write_bundle({"all.cedar": PERMIT, "more.cedar": ""})).digest,
    }
    assert len(others | {base}) == 5


def test_a_missing_bundle_names_itself(tmp_path):
    """A folder that is not there is NotFound with a next step."""
    with pytest.raises(NotFound) as caught:
        PolicyBundle.load(tmp_path / "production")
    assert "policy.yaml" in caught.value.next_step


def test_tool_catalog_reports_all_faults(tmp_path):
    """Wrong effects, unknown keys and bad names are found together."""
    path = tmp_path / "tools.yaml"
    path.write_text(
        "tools:\n  a: {effect: fly, description: A.}\n  b: {effect: read}\n"
        "  c: {effect: read, description: C., colour: red}\n"
    )
    with pytest.raises(InvalidFile) as caught:
        ToolCatalog.load(path)
    assert len(caught.value.details["faults"]) == 3
    path.write_text("tools:\n  'a b': {effect: read, description: A.}\n")
    with pytest.raises(InvalidFile, match="cannot name a tool"):
        ToolCatalog.load(path)
    with pytest.raises(NotFound):
        ToolCatalog.load(tmp_path / "none.yaml")


def test_reads_and_idempotent_tools_are_repeatable(tmp_path):
    """A write may be repeated only when the catalog says that twice is once."""
    path = tmp_path / "tools.yaml"
    path.write_text(
        "tools:\n  r: {effect: read, description: R.}\n  w: {effect: write, description: W.}\n"
        "  i: {effect: write, description: I., idempotent: true}\n"
    )
    catalog = ToolCatalog.load(path)
    assert [catalog[name].repeatable for name in "rwi"] == [True, False, True]


def test_isolation_levels_are_ordered():
    """Each level covers itself and the ones before it."""
    levels = list(Isolation)
    assert all(a.covers(b) is (i >= j) for i, a in enumerate(levels) for j, b in enumerate(levels))


def test_the_schema_names_every_action():
    """The published schema has the seven actions."""
    assert schema_text().count("appliesTo") == 7
