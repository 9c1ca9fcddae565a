"""Model calls that no model answers well enough: a person answers instead, where the route says so.

The question is a call of its own (kind ``human``, name ``answer``), made inside of the model call,
and goes through the same desk as approvals.  What the models' answers cost is kept with the model
call, so that they are not asked again when the same call is sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import CallDenied, UsageError
from toolkit.gateway.approvals import Approvals, Question
from toolkit.gateway.governance import Governance
from toolkit.gateway.modelling import Asking
from toolkit.ledger import Approval, ApprovalState, Ledger
from toolkit.values import (
    ANSWER,
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Intent,
    Labels,
    Money,
    Outcome,
    RunRecord,
    Source,
    Usage,
    Verdict,
)

__all__ = ["Persons", "waits_for_a_person"]

_SPENT = "models_failed"
"""Tag of a model call that a person answers: what its models said and cost, as JSON."""

Perform = Callable[[CallRecord, Any], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Persons:
    """Lets people answer model calls.

    Attributes:
        ledger: Where calls are recorded.
        approvals: Takes the question past a person.
        governance: The policies that hold for a run.
    """

    ledger: Ledger
    approvals: Approvals
    governance: Governance

    def behind(self, run: RunRecord, asking: Asking) -> Perform:
        """Return a way to make a model call: by its models, and by a person where the route ends so.

        What it returns raises ``ApprovalPending`` while nobody has answered; the same call may be
        sent again at any time.  Where nobody has the role that answers, the models' error stays.
        """
        if asking.route.rules.validation.otherwise != "person":
            return asking.perform
        role = self.governance.bundle(run.environment).approvals.answers

        async def perform(call: CallRecord, arguments: Any) -> Outcome:
            known = call.tags.get(_SPENT)
            if known is not None:
                return await self._ask(run, call, json.loads(known))
            outcome = await asking.perform(call, arguments)
            details = (outcome.error or {}).get("details") or {}
            if details.get("kind") != "needs_person" or not self._anybody(role):
                return outcome
            spent = _spent(outcome)
            text = json.dumps(spent)
            tagged = await asyncio.to_thread(self.ledger.tag, call, {_SPENT: text})
            return await self._ask(run, tagged, spent)

        return perform

    def _anybody(self, role: str) -> bool:
        return bool(self.approvals.desk.people().with_role(role))

    async def _ask(self, run: RunRecord, call: CallRecord, spent: dict[str, Any]) -> Outcome:
        policies = self.governance.bundle(run.environment)
        decision = Decision(
            Verdict.ASK,
            policies=(ANSWER,),
            reasons=(str(spent["message"]),),
            policy_digest=policies.digest,
            approver=policies.approvals.answers,
            expires_s=policies.approvals.expires_s,
        )
        begun = await asyncio.to_thread(self.ledger.begin, _question(run, call), decision)
        asked = Question(decide=lambda _: decision)
        begun = await self.approvals.settle(run, begun, asked)
        done = begun.call
        if done.outcome is None:
            said = await asyncio.to_thread(self._said, run, done)
            done = await asyncio.to_thread(self.ledger.finish, done, said)
        return _answered(done, spent)

    def _said(self, run: RunRecord, question: CallRecord) -> Outcome:
        approval = self.approvals.proven(run, question)
        if approval is None or approval.state is not ApprovalState.CHANGED:
            error = CallDenied(f"the question {question.call_id} was not answered")
            return Outcome(CallState.DENIED, error=error.to_json())
        labels = Labels(frozenset({Source.USER}))
        return Outcome(CallState.OK, answer=_body(approval), labels=labels)


def waits_for_a_person(call: CallRecord) -> bool:
    """Whether the models of a call have failed, and a person answers in their place."""
    return _SPENT in call.tags


def _question(run: RunRecord, call: CallRecord) -> Intent:
    """Return the question about a model call; the same one every time."""
    given = call.intent.arguments
    labels = [each for each in call.intent.labels.values() if each]
    union = Labels(frozenset(), frozenset())
    for each in labels:
        union |= each
    return Intent(
        run_id=run.run_id,
        kind=CallKind.HUMAN,
        name=ANSWER,
        arguments={
            "route": call.intent.name,
            "messages": given.get("messages"),
            "schema": given.get("schema"),
        },
        parent=call.key,
        request_id=f"{ANSWER}/{call.key}/{call.generation}",
        cell=call.intent.cell,
        case_id=call.intent.case_id,
        agent=call.intent.agent,
        labels={"messages": union} if labels else {},
    )


def _body(approval: Approval) -> dict[str, Any]:
    given = approval.arguments
    data = given.get("data")
    text = given["text"] if "text" in given else json.dumps(data, ensure_ascii=False)
    return {
        "text": text,
        "data": data,
        "tool_calls": [],
        "finish_reason": "stop",
        "response_id": approval.id,
    }


def _spent(outcome: Outcome) -> dict[str, Any]:
    """Return what the models' answers cost, as JSON values."""
    return {
        "message": (outcome.error or {}).get("message") or "no model's answer was good enough",
        "usage": None if outcome.usage is None else asdict(outcome.usage),
        "nanos": None if outcome.cost is None else outcome.cost.nanos,
        "attempts": [asdict(each) for each in outcome.attempts],
    }


def _answered(question: CallRecord, spent: dict[str, Any]) -> Outcome:
    """Return the outcome of the model call: the person's word, with what the models cost."""
    said = question.outcome
    if said is None:
        raise UsageError(f"the question {question.call_id} has no outcome")
    nanos, usage = spent["nanos"], spent["usage"]
    return Outcome(
        said.state,
        answer=said.answer,
        error=said.error,
        usage=None if usage is None else Usage(**usage),
        cost=None if nanos is None else Money(nanos),
        provider="person" if said.state is CallState.OK else None,
        model=None,
        attempts=tuple(Attempt(**each) for each in spent["attempts"]),
        labels=said.labels,
    )
