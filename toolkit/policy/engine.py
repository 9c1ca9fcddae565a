"""One question to its answer: policies parsed once, cut to the resource, answers remembered.

For each (action, resource) only the policies whose scope can admit it are asked: a policy whose
scope does not match neither decides nor fails.  Only the members of the context that those
policies look at are built.  Cedar is a function of (policies, entities, request), so an equal
question has an equal answer, and is not asked twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import or_
from typing import Any

import cedarpy
import orjson

from toolkit.errors import Fault
from toolkit.policy.analysis import Reads
from toolkit.policy.cedar import CedarPolicy
from toolkit.policy.schema import CATALOG_ID
from toolkit.policy.tools import ToolCatalog
from toolkit.policy.types import PolicyRequest

__all__ = ["Engine", "Ruling", "Slice", "compile_policies"]

_POSITIONAL = re.compile(r"\bpolicy([0-9]+)\b")
_MOST_ENTITIES = 4_096
_MOST_ANSWERS = 8_192
_MOST_CONTEXT = 4_096
_NOBODY = frozenset[tuple[str, str]]()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What Cedar answered.

    Attributes:
        allowed: Cedar's decision, and no policy failed.
        policies: The policies that decided, empty for a default deny.
        failures: What could not be evaluated, one sentence each.
        evaluated: ``False`` when the question itself could not be put to Cedar.
        ask: Whether a person may allow it: nothing but ``@ask`` policies stands against it.
        shadow: Sentences about policies in shadow mode.
        misfits: What does not fit the tool catalog, one sentence each.
    """

    allowed: bool
    policies: tuple[CedarPolicy, ...] = ()
    failures: tuple[str, ...] = ()
    evaluated: bool = True
    ask: bool = False
    shadow: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()

    @classmethod
    def unasked(cls, *failures: str) -> Ruling:
        """The question could not be put to Cedar, so it is not allowed."""
        return cls(allowed=False, failures=failures, evaluated=False)


class _Set:
    """Some policies, parsed together; Cedar names them by their position."""

    def __init__(self, policies: Sequence[CedarPolicy]) -> None:
        self._policies = tuple(policies)
        self._handle = cedarpy.PolicySet.from_str("\n".join(p.text for p in policies))

    def ask(self, question: dict[str, Any], entities: Any) -> Ruling:
        """Put one question to Cedar.

        Cedar skips a policy that fails to evaluate, and a skipped ``forbid`` would open the
        door; so any failure means *not allowed*, whatever the other policies say.
        """
        try:
            result = cedarpy.is_authorized(question, self._handle, entities)
        except Exception as error:  # fails closed on whatever the vendor raises
            return Ruling.unasked(f"{type(error).__name__} in the policy engine")
        errors = result.diagnostics.errors
        if result.decision is cedarpy.Decision.NoDecision:
            return Ruling.unasked(*(errors or ["the policy engine gave no decision"]))
        if errors:
            failures = tuple(map(self._readable, errors))
            return Ruling(allowed=False, policies=self._named(errors), failures=failures)
        return Ruling(result.allowed, self._named(result.diagnostics.reasons))

    def _named(self, texts: Sequence[str]) -> tuple[CedarPolicy, ...]:
        """The policies that Cedar mentions by position, in the order of the files."""
        numbers = {int(n) for text in texts for n in _POSITIONAL.findall(text)}
        return tuple(self._policies[n] for n in sorted(numbers) if n < len(self._policies))

    def _readable(self, error: str) -> str:
        return _POSITIONAL.sub(
            lambda m: self._policies[int(m[1])].id if int(m[1]) < len(self._policies) else m[0],
            error,
        )


@dataclass(frozen=True)
class Slice:
    """The policies that one (action, resource) can meet.

    Attributes:
        policies: Those in force and those in shadow mode, in the order of the files.
        reads: What they look at.
    """

    policies: tuple[CedarPolicy, ...]
    reads: Reads = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", reduce(or_, (p.reads for p in self.policies), Reads()))

    def ask(self, question: dict[str, Any], entities: Any) -> Ruling:
        """Answer by the policies in force, with what those in shadow mode would have said."""
        ruling = self._in_force.ask(question, entities)
        if not ruling.allowed and ruling.policies and not ruling.failures:
            ruling = self._weigh(ruling, question, entities)
        if not self._has_shadow:
            return ruling
        shadow = (
            *self._would(question, entities, "forbid"),
            *self._would(question, entities, "permit"),
        )
        return Ruling(
            ruling.allowed, ruling.policies, ruling.failures, ruling.evaluated, ruling.ask, shadow
        )

    def _weigh(self, ruling: Ruling, question: dict[str, Any], entities: Any) -> Ruling:
        """Tell what a person may allow from what nobody may."""
        plain = tuple(policy for policy in ruling.policies if policy.ask is None)
        if plain:
            return Ruling(allowed=False, policies=plain)
        rest = self._without_asks.ask(question, entities)
        if rest.allowed:
            return Ruling(allowed=False, policies=ruling.policies, ask=True)
        if rest.failures:
            return rest
        # Saying yes would not help: nothing permits it.
        return Ruling(allowed=False, policies=rest.policies)

    def _would(self, question: dict[str, Any], entities: Any, effect: str) -> list[str]:
        policies = self._shadow_forbids if effect == "forbid" else self._shadow_permits
        if policies is None:
            return []
        ruling = policies.ask(question, entities)
        if ruling.failures:
            return [f"in shadow mode, could not be evaluated: {each}" for each in ruling.failures]
        return [_shadow_sentence(policy) for policy in ruling.policies]

    @cached_property
    def _in_force(self) -> _Set:
        return _Set([p for p in self.policies if p.shadow is None])

    @cached_property
    def _without_asks(self) -> _Set:
        return _Set([p for p in self.policies if p.shadow is None and p.ask is None])

    @cached_property
    def _has_shadow(self) -> bool:
        return any(policy.shadow is not None for policy in self.policies)

    @cached_property
    def _shadow_forbids(self) -> _Set | None:
        return self._shadows("forbid")

    @cached_property
    def _shadow_permits(self) -> _Set | None:
        return self._shadows("permit")

    def _shadows(self, effect: str) -> _Set | None:
        found = [p for p in self.policies if p.shadow is not None and p.effect == effect]
        return _Set(found) if found else None


def _shadow_sentence(policy: CedarPolicy) -> str:
    would = "forbid" if policy.effect == "forbid" else "permit"
    verb = f"ask {policy.ask} about" if policy.ask is not None else would
    notes = [text for text in (policy.reason, policy.shadow) if text and text != "true"]
    why = f": {'; '.join(notes)}" if notes else ""
    return f"policy {policy.id} ({policy.place}) would {verb} it{why}"


class Engine:
    """A parsed policy set; safe to share between threads."""

    def __init__(self, policies: Sequence[CedarPolicy], tools: ToolCatalog) -> None:
        self._policies = tuple(policies)
        self._tools = tools
        self._named = {uid for policy in policies for uid in policy.entities}
        self._slices: dict[tuple[str, str, str | None], Slice] = {}
        self._entities: dict[tuple[Any, ...], Any] = {}
        self._answers: dict[tuple[Any, ...], Ruling] = {}

    def slice(self, action: str, kind: str, name: str) -> Slice:
        """Return the policies that a call of this resource can meet."""
        listed = kind == "Tool" and name in self._tools
        key = (action, kind, name if listed or (kind, name) in self._named else None)
        found = self._slices.get(key)
        if found is None:
            parents = self._parents(kind, name)
            found = self._slices[key] = Slice(
                tuple(
                    policy
                    for policy in self._policies
                    if (policy.actions is None or action in policy.actions)
                    and policy.resource.admits(kind, name, parents)
                )
            )
        return found

    def ask(
        self, part: Slice, request: PolicyRequest, action: str, kind: str, context: dict[str, Any]
    ) -> Ruling:
        """Put one question to Cedar.  Never raises: what cannot be answered is not allowed."""
        try:
            text = orjson.dumps(context, option=orjson.OPT_SORT_KEYS)
        except (TypeError, ValueError):
            return Ruling.unasked("the call holds text or numbers that cannot be put to Cedar")
        who = (request.user, request.team, request.roles, action, kind, request.resource)
        key = (*who, text)
        known = self._answers.get(key)
        if known is not None:
            return known
        try:
            entities = self._entities_of(request, kind)
        except Exception as error:  # noqa: BLE001 - fails closed on whatever the vendor raises
            return Ruling.unasked(f"{type(error).__name__} while reading who calls what")
        question = {
            "principal": {"type": "User", "id": request.user},
            "action": {"type": "Action", "id": action},
            "resource": {"type": kind, "id": request.resource},
            "context": text.decode(),
        }
        ruling = part.ask(question, entities)
        if len(text) <= _MOST_CONTEXT and ruling.evaluated:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[key] = ruling
        return ruling

    def _entities_of(self, request: PolicyRequest, kind: str) -> Any:
        key = (request.user, request.team, request.roles, kind, request.resource)
        found = self._entities.get(key)
        if found is None:
            parents = self._parents(kind, request.resource)
            own = [("Role", role) for role in request.roles]
            if request.team is not None:
                own.append(("Team", request.team))
            text = orjson.dumps(
                [
                    _entity("User", request.user, own),
                    _entity(kind, request.resource, sorted(parents)),
                ]
            )
            found = cedarpy.Entities.from_json_str(text.decode())
            if len(self._entities) >= _MOST_ENTITIES:
                self._entities.clear()
            self._entities[key] = found
        return found

    def _parents(self, kind: str, name: str) -> frozenset[tuple[str, str]]:
        if kind != "Tool" or name not in self._tools:
            return _NOBODY
        groups = (("Group", group) for group in self._tools[name].groups)
        return frozenset({("Catalog", CATALOG_ID), *groups})


def _entity(kind: str, name: str, parents: Sequence[tuple[str, str]]) -> dict[str, Any]:
    listed = [{"type": parent, "id": each} for parent, each in parents]
    return {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": listed}


def compile_policies(
    policies: Sequence[CedarPolicy], tools: ToolCatalog
) -> tuple[Engine | None, list[Fault]]:
    """Build the engine of a bundle whose policies have no faults."""
    try:
        handle = cedarpy.PolicySet.from_str("\n".join(policy.text for policy in policies))
    except ValueError as error:
        return None, [Fault("*.cedar", f"do not parse together: {error}")]
    if len(handle) != len(policies):  # positions would name the wrong policies
        return None, [Fault("*.cedar", f"hold {len(handle)} policies, read {len(policies)}")]
    return Engine(policies, tools), []
