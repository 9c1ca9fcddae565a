"""Recorded calls decided again: what a changed bundle would have denied, allowed or asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.policy.bundle import PolicyBundle
from toolkit.policy.types import PolicyRequest
from toolkit.values import Decision, Verdict

__all__ = ["Change", "Changed", "Example", "PastCall", "Simulation", "merged", "simulate"]

_MILDER = (Verdict.ALLOW, Verdict.ASK, Verdict.DENY)
_MOST_GROUPS = 1_000


class Change(StrEnum):
    """How a verdict differs from the recorded one."""

    NEWLY_DENIED = "newly denied"
    NEWLY_ASKED = "newly asked"
    NEWLY_ALLOWED = "newly allowed"


_CHANGES = {
    Verdict.DENY: Change.NEWLY_DENIED,
    Verdict.ASK: Change.NEWLY_ASKED,
    Verdict.ALLOW: Change.NEWLY_ALLOWED,
}


@dataclass(frozen=True, slots=True)
class PastCall:
    """One recorded call as a question.

    Attributes:
        call_id: ``run/key/generation``.
        request: The question.
        verdict: What policy said then.
        unknown: Members of the context (facts, ``provider``, ``model``) that the record does not
            hold.
        others: The same question about further targets of a model call: it goes to those that
            policy allows, so the mildest verdict counts.
    """

    call_id: str
    request: PolicyRequest
    verdict: Verdict
    unknown: frozenset[str] = frozenset()
    others: tuple[PolicyRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One call whose verdict differs.

    Attributes:
        call_id: ``run/key/generation``.
        user: Who made it.
        before, after: The verdicts.
        reasons: Why it would be so now.
    """

    call_id: str
    user: str
    before: Verdict
    after: Verdict
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Changed:
    """The calls of one resource that differ in one way, by the same policies.

    Attributes:
        change, action, resource: What differs.
        policies: Ids of the policies that decide now.
        calls: How many.
        examples: The first of them.
    """

    change: Change
    action: str
    resource: str
    policies: tuple[str, ...]
    calls: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Simulation:
    """What a bundle says about recorded calls.

    Attributes:
        policy_digest: The bundle.
        calls: Calls that were decided again.
        same: Calls whose verdict is as it was.
        not_told: Calls that policies decide by facts which the record does not hold, by action
            and resource; nothing is said about them.
        changed: The rest.
        more: Changed calls beyond the groups that are kept.
    """

    policy_digest: str
    calls: int = 0
    same: int = 0
    not_told: dict[tuple[str, str], int] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)
    more: int = 0

    def count(self, change: Change) -> int:
        """Return how many calls differ in one way (of the groups that are kept)."""
        return sum(each.calls for each in self.changed if each.change is change)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "policy_digest": self.policy_digest,
            "calls": self.calls,
            "same": self.same,
            "not_told": [
                {"action": action, "resource": resource, "calls": calls}
                for (action, resource), calls in sorted(self.not_told.items())
            ],
            "counts": {change.value.replace(" ", "_"): self.count(change) for change in Change},
            "more": self.more,
            "changed": [_changed_json(each) for each in self.changed],
        }


def _changed_json(changed: Changed) -> dict[str, Any]:
    return {
        "change": changed.change.value,
        "action": changed.action,
        "resource": changed.resource,
        "policies": list(changed.policies),
        "calls": changed.calls,
        "examples": [
            {
                "call_id": example.call_id,
                "user": example.user,
                "before": example.before.value,
                "after": example.after.value,
                "reasons": list(example.reasons),
            }
            for example in changed.examples
        ],
    }


def simulate(calls: Iterable[PastCall], bundle: PolicyBundle, *, examples: int = 3) -> Simulation:
    """Decide calls again under a bundle and compare with what was recorded.

    Args:
        calls: In any order; they are read once.
        bundle: The bundle to try.
        examples: How many calls of each difference are kept.
    """
    found = Simulation(bundle.digest)
    groups: dict[tuple[Any, ...], Changed] = {}
    for call in calls:
        request = call.request
        found.calls += 1
        if call.unknown and _depends(bundle, request, call.unknown):
            place = (request.action, request.resource)
            found.not_told[place] = found.not_told.get(place, 0) + 1
            continue
        decision = _decided(bundle, call)
        if decision.verdict is call.verdict:
            found.same += 1
            continue
        change = _CHANGES[decision.verdict]
        key = (change, request.action, request.resource, decision.policies)
        group = groups.get(key)
        if group is None:
            if len(groups) >= _MOST_GROUPS:
                found.more += 1
                continue
            group = groups[key] = Changed(*key)
        group.calls += 1
        if len(group.examples) < examples:
            group.examples.append(
                Example(
                    call.call_id, request.user, call.verdict, decision.verdict, decision.reasons
                )
            )
    found.changed = _ordered(groups.values())
    return found


def merged(parts: Sequence[Simulation], *, examples: int = 3) -> Simulation:
    """Put together what several processes found, each about other runs.

    Raises:
        ValueError: There are none, or they are about different bundles.
    """
    if len({part.policy_digest for part in parts}) != 1:
        msg = "simulations of one bundle are needed"
        raise ValueError(msg)
    found = Simulation(parts[0].policy_digest)
    groups: dict[tuple[Any, ...], Changed] = {}
    for part in parts:
        found.calls += part.calls
        found.same += part.same
        found.more += part.more
        for place, calls in part.not_told.items():
            found.not_told[place] = found.not_told.get(place, 0) + calls
        for each in part.changed:
            key = (each.change, each.action, each.resource, each.policies)
            group = groups.setdefault(key, Changed(*key))
            group.calls += each.calls
            group.examples = [*group.examples, *each.examples][:examples]
    found.changed = _ordered(groups.values())
    return found


def _ordered(groups: Iterable[Changed]) -> list[Changed]:
    order = list(Change)
    return sorted(groups, key=lambda group: (order.index(group.change), -group.calls))


def _decided(bundle: PolicyBundle, call: PastCall) -> Decision:
    """Decide as the door does: by the first target that is allowed, else that a person may allow."""
    found = [bundle.decide(request) for request in (call.request, *call.others)]
    return min(found, key=lambda each: _MILDER.index(each.verdict))


def _depends(bundle: PolicyBundle, request: PolicyRequest, unknown: frozenset[str]) -> bool:
    looked_at = bundle.reads(request.action, request.resource).context
    return looked_at is None or bool(unknown & looked_at)
