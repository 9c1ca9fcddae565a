"""The committed bundles say what a few lines of Python say (a differential test)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.policy import PolicyBundle, PolicyRequest, ToolCatalog
from toolkit.values import Effect, Environment, Money, Verdict

REGISTRY = Path(__file__).parents[2] / "registry"
PRODUCTION = PolicyBundle.load(REGISTRY / "policies" / "production")
SANDBOX = PolicyBundle.load(REGISTRY / "policies" / "sandbox")
CATALOG = ToolCatalog.load(REGISTRY / "tools.yaml")
ACTIONS = [
    "call_model", "call_tool", "call_agent", "call_data", "call_job", "call_human",
    "publish_result",
]  # fmt: skip
HUGE = 2**80  # an argument that Cedar cannot hold

REQUESTS = st.builds(
    PolicyRequest,
    user=st.sampled_from(["ana", "bo"]),
    action=st.sampled_from(ACTIONS),
    resource=st.sampled_from(["default", "licence", "other", "secret_tool", *CATALOG]),
    environment=st.sampled_from(Environment),
    team=st.sampled_from([None, "legal"]),
    job=st.sampled_from([None, "licence-register", "licence-review"]),
    version=st.sampled_from([None, 1]),
    effect=st.sampled_from(Effect),
    arguments=st.sampled_from(
        [None, {}, {"n": HUGE}, [1, 2], {"name": "x"}, {"name": "x", "characters": 600}]
    ),
)
FITTING = {  # which of these arguments the committed catalog takes
    "list_distributions": [None, {}],
    "match_spdx": [{"name": "x"}],
    "read_licence": [{"name": "x", "characters": 600}],
}


def fits(request: PolicyRequest) -> bool:
    """Whether a listed tool is called as the catalog declares it."""
    if request.action != "call_tool" or request.resource not in FITTING:
        return True
    return request.arguments in FITTING[request.resource]


def production_says(request: PolicyRequest) -> bool:
    """The production rules, once more in Python."""
    if request.action in ("call_agent", "publish_result"):
        return True
    if request.action == "call_model":
        return request.resource in ("default", "licence")
    if request.action != "call_tool" or request.resource not in CATALOG:
        return False
    if not fits(request):
        return False
    return request.effect is Effect.READ or request.job == "licence-register"


@settings(max_examples=400)
@given(REQUESTS)
def test_production_agrees_with_the_oracle(request_):
    """Cedar and the oracle give the same verdict for every kind of call."""
    decision = PRODUCTION.decide(request_)
    assert bool(decision) is production_says(request_), decision


@settings(max_examples=200)
@given(REQUESTS)
def test_the_sandbox_lets_go_on_and_warns_about_writes(request_):
    """Every call goes on; whatever is not a plain read carries a warning."""
    decision = SANDBOX.decide(request_)
    assert decision.verdict is Verdict.ALLOW
    plain = request_.effect is Effect.READ and fits(request_)
    assert bool(decision.reasons) is not plain


def test_the_numbers_of_production():
    """A version has to show 0.75 with confidence, and no loss; a run may spend a dollar."""
    assert PRODUCTION.budget.usd == Money.of_usd("1.00")
    gate, wrong, paired = PRODUCTION.gates["licence-review"]
    assert (wrong.scorer, wrong.maximum, wrong.confidence) == ("wrong_claims", 0.15, 0.95)
    assert (gate.scorer, gate.minimum, gate.confidence) == ("correct", 0.75, 0.95)
    assert (paired.non_inferior_to, paired.margin, paired.confidence) == ("production", 0.05, 0.95)
    assert (PRODUCTION.unknown_price, PRODUCTION.require_results) == ("deny", True)
    assert (PRODUCTION.mode, SANDBOX.mode) == ("enforce", "warn")


@pytest.mark.parametrize("bundle", [PRODUCTION, SANDBOX], ids=["production", "sandbox"])
def test_every_forbid_tells_its_reason(bundle):
    """Who is denied by a committed policy reads why."""
    assert all(policy.reason for policy in bundle.policies if policy.effect == "forbid")


def test_the_example_tools_are_reads():
    """The catalog holds the three tools of the example."""
    assert {name: str(tool.effect) for name, tool in CATALOG.items()} == {
        "list_distributions": "read",
        "match_spdx": "read",
        "read_licence": "read",
    }
