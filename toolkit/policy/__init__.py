"""May this happen: Cedar policies, typed limits, the tool catalog, people and their roles.

Rules
-----
* Default deny: an empty bundle denies everything; ``forbid`` wins over ``permit``.
* Fails closed: a policy that cannot be evaluated denies, also where Cedar would skip it.
* ``mode: warn`` exists in the sandbox only, and never lets a question pass that Cedar could not
  be asked at all.
* A person is asked only where nothing but ``@ask`` policies stands against a call that the rest
  permits.  A policy in shadow mode never decides.
* Arguments that do not fit their declared types are denied before Cedar sees them.
* Policies, schema and limits are parsed once, when a bundle is loaded; all faults at once.
* The tool catalog can make an effect stricter than the caller says, never milder.
* An equal question has an equal answer: a decision depends on the bundle and the request alone,
  so recorded calls can be decided again.
* This room owns cedarpy; no other room imports it.
"""

from __future__ import annotations

from toolkit.policy.analysis import Reads
from toolkit.policy.bundle import PolicyBundle
from toolkit.policy.cases import CASES_FILE, CaseResult, PolicyCase, read_cases, run_cases
from toolkit.policy.cedar import CedarPolicy
from toolkit.policy.isolation import IsolationPolicy
from toolkit.policy.mining import Mined, RunUse, SeenCall, mine
from toolkit.policy.people import People, Person
from toolkit.policy.promotions import CanaryRule, PromotionPolicy, PromotionRule
from toolkit.policy.rules import (
    ApprovalPolicy,
    BudgetRule,
    ConcurrencyRule,
    Per,
    Period,
    PrivacyPolicy,
    RateRule,
    Scope,
    Webhook,
)
from toolkit.policy.schema import FACTS, schema_text
from toolkit.policy.signature import Argument, ArgumentType
from toolkit.policy.simulation import (
    Change,
    Changed,
    Example,
    PastCall,
    Simulation,
    merged,
    simulate,
)
from toolkit.policy.tools import ToolCatalog, ToolEntry
from toolkit.policy.types import BudgetPolicy, Gate, Isolation, PolicyRequest

__all__ = [
    "CASES_FILE",
    "FACTS",
    "ApprovalPolicy",
    "Argument",
    "ArgumentType",
    "BudgetPolicy",
    "BudgetRule",
    "CanaryRule",
    "CaseResult",
    "CedarPolicy",
    "Change",
    "Changed",
    "ConcurrencyRule",
    "Example",
    "Gate",
    "Isolation",
    "IsolationPolicy",
    "Mined",
    "PastCall",
    "People",
    "Per",
    "Period",
    "Person",
    "PolicyBundle",
    "PolicyCase",
    "PolicyRequest",
    "PrivacyPolicy",
    "PromotionPolicy",
    "PromotionRule",
    "RateRule",
    "Reads",
    "RunUse",
    "Scope",
    "SeenCall",
    "Simulation",
    "ToolCatalog",
    "ToolEntry",
    "Webhook",
    "merged",
    "mine",
    "read_cases",
    "run_cases",
    "schema_text",
    "simulate",
]
