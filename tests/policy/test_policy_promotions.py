"""The ``promotion`` of ``policy.yaml``."""

from __future__ import annotations

import pytest

from toolkit.policy import CanaryRule, PromotionPolicy, PromotionRule
from toolkit.policy.limits import parse_limits

BASE = """
environment: production
mode: enforce
budget: {usd: null, tokens: null, calls: null, seconds: null}
unknown_price: allow
minimum_isolation: none
require_results: false
"""


def read(text: str) -> PromotionPolicy:
    limits, faults = parse_limits((BASE + text).encode(), "policy.yaml")
    assert not faults, faults
    assert limits is not None
    return limits.promotion


def test_nothing_said_needs_nobody() -> None:
    """The default of every job: no approvals, no canary rule."""
    assert read("").of("any") == PromotionRule()
    assert PromotionRule().approvals == 0


def test_a_job_says_only_what_differs() -> None:
    """What a job leaves out is the default's."""
    policy = read("""
promotion:
  approvals: 2
  from: [reviewer, owner]
  expires: 3d
  canary: {runs: 50, cost: 1.5, then: promote}
  jobs:
    triage: {approvals: 1}
    demo: {approvals: 0, canary: null}
""")
    rule = CanaryRule(runs=50, failures=0.05, cost=1.5, then="promote")
    assert policy.of("x") == PromotionRule(2, ("reviewer", "owner"), 259_200.0, rule)
    assert policy.of("triage") == PromotionRule(1, ("reviewer", "owner"), 259_200.0, rule)
    assert policy.of("demo") == PromotionRule(0, ("reviewer", "owner"), 259_200.0, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("promotion: {approvals: 2}", "from nobody"),
        ("promotion: {jobs: {a: {approvals: 1}}}", "from nobody"),
        ("promotion: {approvals: -1}", "promotion.approvals"),
        ("promotion: {approvals: 1, from: ['a b']}", "cannot name a role"),
        ("promotion: {expires: soon}", "is not a time"),
        ("promotion: {canary: {failures: null}}", "bounds nothing"),
        ("promotion: {canary: {failures: 2}}", "failures"),
        ("promotion: {approval: 2}", "promotion.approval"),
    ],
)
def test_what_makes_no_sense_is_a_fault(text: str, told: str) -> None:
    """Each with its place."""
    limits, faults = parse_limits((BASE + text).encode(), "policy.yaml")
    assert limits is None
    assert told in f"{faults[0].where} {faults[0].message}"
