"""A bundle that asks, people with roles, and a caller that does what the door does with a call."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.gateway.approvals import Approvals, Question
from toolkit.gateway.desk import Answer, Choice, Desk
from toolkit.gateway.work import Worst
from toolkit.ledger import Approval, Begun, Ledger
from toolkit.policy import People, PolicyBundle, PolicyRequest
from toolkit.values import (
    CallKind,
    CallRecord,
    Clock,
    Decision,
    Effect,
    Environment,
    Intent,
    ManualClock,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
)

TOOLS = """
tools:
  pay:
    effect: write
    description: Pays a bill.
    arguments:
      recipient: {type: string}
      amount: {type: number, minimum: 0}
    view: "Pay {amount} to {recipient}"
  look:
    effect: read
    description: Looks.
"""

RULES = """
@id("tools") permit(principal, action == Action::"call_tool", resource in Catalog::"tools");
@id("large-payments") @reason("payments need a second pair of eyes") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay");
@id("never-mallory") @reason("mallory is not paid")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay")
when { context.arguments.recipient == "mallory" };
"""

POLICY = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1.00", tokens: 100000, calls: 200, seconds: 120}
gates: {}
approvals: {expires: 1h%s}
"""

PEOPLE = """
people:
  anna: {roles: [approver]}
  ben: {roles: [approver, director]}
  carl: {roles: []}
  dora: {roles: [director]}
"""


def write_registry(root: Path, *, approvals: str = "", rules: str = RULES) -> Path:
    """Write a registry with one bundle for both environments."""
    for environment in ("production", "sandbox"):
        folder = root / "policies" / environment
        folder.mkdir(parents=True, exist_ok=True)
        text = (POLICY % approvals).replace(
            "environment: production", f"environment: {environment}"
        )
        (folder / "policy.yaml").write_text(textwrap.dedent(text))
        (folder / "rules.cedar").write_text(rules)
    (root / "tools.yaml").write_text(TOOLS)
    (root / "people.yaml").write_text(PEOPLE)
    return root


@dataclass
class World:
    """One ledger, one registry, and any number of gateways over them."""

    root: Path
    url: str
    clock: Clock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.url, clock=self.clock)
        self.registry = self.root / "registry"

    def bundle(self, environment: Environment) -> PolicyBundle:
        return PolicyBundle.load(self.registry / "policies" / environment.value)

    def people(self) -> People:
        return People.load(self.registry / "people.yaml")

    def judge(
        self, run: RunRecord, intent: Intent, facts: dict[str, Any] | None = None
    ) -> Decision:
        request = PolicyRequest(
            user=run.user,
            action=f"call_{intent.kind.value}",
            resource=intent.name,
            environment=run.environment,
            effect=intent.effect,
            arguments=intent.arguments,
            facts=facts or {},
        )
        return self.bundle(run.environment).decide(request)

    def desk(self) -> Desk:
        return Desk(self.ledger, self.people, self.bundle, self.judge, self.clock)

    def gateway(self) -> Approvals:
        return Approvals(self.ledger, self.desk(), clock=self.clock)

    def run(self, run_id: str = "run-1", **facts: Any) -> RunRecord:
        made = {"kind": RunKind.RUN, "environment": Environment.PRODUCTION, "user": "emil", **facts}
        return self.ledger.create_run(RunRecord(run_id=run_id, state=RunState.RUNNING, **made))

    def only(self) -> Approval:
        """Return the one request that there is."""
        (found,) = self.ledger.approvals()
        return found

    def say(self, choice: Choice, by: str = "anna", **facts: Any) -> Approval:
        """Answer the one request, as the command line does."""
        asked = self.only()
        digest = facts.pop("digest", asked.digest)
        return self.desk().answer(asked.id, Answer(choice, digest, **facts), by=by)

    def close(self) -> None:
        self.ledger.close()


def payment(run: RunRecord, request_id: str = "first", **arguments: Any) -> Intent:
    """A call of the tool that a person is asked about."""
    given = {"recipient": "ben ltd", "amount": 120, **arguments}
    return Intent(
        run.run_id, CallKind.TOOL, "pay", given, request_id=request_id, effect=Effect.WRITE
    )


async def attempt(
    world: World,
    gateway: Approvals,
    run: RunRecord,
    intent: Intent,
    *,
    switches: tuple[str, ...] = (),
    judge: Callable[[RunRecord, Intent], Decision] | None = None,
    **question: Any,
) -> Begun:
    """Do what the door does with a call before it is executed."""
    decide = judge or world.judge
    decision = decide(run, intent)
    begun = world.ledger.begin(intent, decision)
    asked = Question(
        lambda changed: decide(run, changed),
        switches=switches,
        worst=Worst(),
        **question,
    )
    return await gateway.settle(run, begun, asked)


def allowed(call: CallRecord) -> bool:
    """Whether a call may be made now."""
    return call.outcome is None and call.decision.verdict is Verdict.ALLOW
