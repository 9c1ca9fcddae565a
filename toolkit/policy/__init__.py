"""May this happen: Cedar policies, typed limits, the tool catalog.

Rules
-----
* Default deny: an empty bundle denies everything; ``forbid`` wins over ``permit``.
* Fails closed: a policy that cannot be evaluated denies, also where Cedar would skip it.
* ``mode: warn`` exists in the sandbox only, and never lets a question pass that Cedar could not
  be asked at all.
* Policies, schema and limits are parsed once, when a bundle is loaded; all faults at once.
* The tool catalog can make an effect stricter than the caller says, never milder.
* This room owns cedarpy; no other room imports it.
"""

from __future__ import annotations

from toolkit.policy.bundle import PolicyBundle
from toolkit.policy.cedar import CedarPolicy
from toolkit.policy.schema import schema_text
from toolkit.policy.tools import ToolCatalog, ToolEntry
from toolkit.policy.types import BudgetPolicy, Gate, Isolation, PolicyRequest

__all__ = [
    "BudgetPolicy",
    "CedarPolicy",
    "Gate",
    "Isolation",
    "PolicyBundle",
    "PolicyRequest",
    "ToolCatalog",
    "ToolEntry",
    "schema_text",
]
