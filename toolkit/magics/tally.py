"""Counts of calls, tokens and money, for the line under a cell and the panel."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

from toolkit.client import CallEvent
from toolkit.values import CallKind, Money, Verdict

__all__ = ["Tally", "money_text"]

_OBJECTS = (Verdict.DENY, Verdict.ASK)


@dataclass
class Tally:
    """Sums over call events; tokens, money and models come from model calls only.

    Attributes:
        by_name: Calls by (kind, name).
        top: Calls by (kind, name) that were not made inside another one; a replay makes these
            again and no others, because a recorded outer call does not run.
        top_bad: Those of them that failed or were denied.
        top_objections: What production would say against them.
        models: Models that answered.
        input_tokens, output_tokens: Tokens of all model calls.
        cost: Sum of the known costs.
        unknown_cost: Model calls that were made and whose cost is not known.
        latency_s: Seconds of the top-level calls.
        failed, denied, replayed: Calls that ended so, or were answered from the ledger.
        objected: Calls that production would deny or ask about.
        objections: What production would say against calls that went through here, once each.
        trace_url: Of the last call that has one.
    """

    by_name: Counter[tuple[str, str]] = field(default_factory=Counter)
    top: Counter[tuple[str, str]] = field(default_factory=Counter)
    top_bad: int = 0
    top_objections: dict[str, None] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Money = field(default_factory=Money)
    unknown_cost: int = 0
    latency_s: float = 0.0
    failed: int = 0
    denied: int = 0
    replayed: int = 0
    objected: int = 0
    objections: dict[str, None] = field(default_factory=dict)
    trace_url: str | None = None

    @property
    def calls(self) -> int:
        """All calls."""
        return self.by_name.total()

    def copy(self) -> Tally:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def add(self, event: CallEvent) -> None:
        """Count one finished call."""
        self.by_name[event.kind, event.name] += 1
        self.failed += event.state == "error"
        self.denied += event.state == "denied"
        self.replayed += event.replayed
        self.trace_url = event.trace_url or self.trace_url
        if event.depth == 0:
            self.top[event.kind, event.name] += 1
            self.top_bad += event.state != "ok"
            self.latency_s += event.latency_s or 0.0
        if event.state != "denied" and event.production_verdict in _OBJECTS:
            self.objected += 1
            self.objections[objection(event)] = None
            if event.depth == 0:
                self.top_objections[objection(event)] = None
        if event.kind == CallKind.MODEL:
            self._add_model(event)

    def _add_model(self, event: CallEvent) -> None:
        self.input_tokens += event.input_tokens or 0
        self.output_tokens += event.output_tokens or 0
        if event.model:
            self.models[event.model] += 1
        if event.cost_usd is not None:
            self.cost += Money.of_usd(event.cost_usd)
        elif event.state == "ok":
            self.unknown_cost += 1


def objection(event: CallEvent) -> str:
    """Return what production would do with a call: ``production would deny tool x: reason``."""
    verb = "ask a person about" if event.production_verdict == Verdict.ASK else "deny"
    reasons = f": {'; '.join(event.reasons)}" if event.reasons else ""
    return f"production would {verb} {event.kind} {event.name}{reasons}"


def money_text(cost: Money, unknown: int) -> str:
    """Return ``$0.0012``, ``unknown``, or ``$0.0012 and 2 calls of unknown cost``."""
    if not unknown:
        return str(cost)
    if not cost:
        return "cost unknown"
    return f"{cost} and {unknown} call{'s' * (unknown != 1)} of unknown cost"
