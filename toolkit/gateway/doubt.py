"""Writes of which nobody knows whether they happened: a person is asked, and says which it was.

The question is a call of its own (kind ``human``, name ``in-doubt``), made inside of the call that
it is about, and goes through the same desk as approvals.  Of each attempt at a call there is at
most one question.  The person may say

* *it did not happen* (approve with ``{"happened": false}``): the call is made, once, by whoever
  asks for it next;
* *it happened* (approve with ``{"happened": true, "answer": …}``): the call ends with that answer;
* nothing of the kind (reject, stop, or no answer in time): the call stays in doubt, and the run
  that needs it fails.

Asked is who has the role that policy names.  Of a sandbox session the user may answer as well, who
could make the call again anyway, unless a person had to allow the call itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import CallInDoubt, Conflict
from toolkit.gateway.approvals import Approvals, Question
from toolkit.gateway.desk import OWN_SESSION
from toolkit.ledger import Approval, ApprovalState, Ledger
from toolkit.policy import PolicyBundle
from toolkit.values import (
    IN_DOUBT,
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Effect,
    Intent,
    Labels,
    Outcome,
    RunKind,
    RunRecord,
    Source,
    Verdict,
    iso_utc,
)

__all__ = ["Doubts", "in_doubt"]

_MOST = 10_000


@dataclass
class Doubts:
    """Asks people what became of writes.

    Attributes:
        ledger: Where calls are recorded.
        approvals: Takes the question past a person.
        bundle: Returns the policies that hold for a run.
    """

    ledger: Ledger
    approvals: Approvals
    bundle: Callable[[RunRecord], PolicyBundle]
    _taken: OrderedDict[str, str] = field(default_factory=OrderedDict)

    async def settle(
        self,
        run: RunRecord,
        call: CallRecord,
        asking: Intent,
        repeat: Callable[[int], Awaitable[CallRecord]],
    ) -> tuple[CallRecord, Any]:
        """Return the call to be made again, or the call and the answer it is to end with.

        Args:
            run: The caller.
            call: The call in doubt.
            asking: The request for it.
            repeat: Records another attempt, the one after so many; what it raises leaves the call
                in doubt, and the person's word stands.

        Returns:
            The call, and ``None`` (make it) or ``{"answer": …}`` (it happened).

        Raises:
            ApprovalPending: Nobody has said yet; the same call may be sent again at any time.
            CallInDoubt: Nobody may be asked, or who was asked did not say that it may go on.
            CallDenied: What was said has to be signed, and is not as it must be.
            Conflict: Another request makes the call at this moment.
            LedgerError: The ledger cannot tell or record.
        """
        if self._taken.get(call.call_id) == asking.request_id:
            return call, None  # the reply to the request that makes it was lost
        if not self._askable(run, call):
            role = self.bundle(run).approvals.in_doubt
            raise in_doubt(call.intent, f"nobody has the role {role}, which would be asked")
        question = await self._ask(run, call, "nobody recorded how it ended")
        if not question["happened"]:
            again = await repeat(_attempt(call))
            while len(self._taken) >= _MOST:
                self._taken.popitem(last=False)
            self._taken[call.call_id] = asking.request_id
            return again, None
        return call, {"answer": question["answer"]}

    async def broke_off(self, run: RunRecord, call: CallRecord, error: CallInDoubt) -> Outcome:
        """Ask about a write that was sent and not answered, as if this process had died in it.

        Raises:
            ApprovalPending: Somebody is asked; the same call may be sent again at any time.
            CallInDoubt: Nobody may be asked, which ends the call with ``error``.
            LedgerError: The ledger cannot tell or record.
        """
        if not self._askable(run, call):
            raise error
        told = await self._ask(run, call, error.message)
        if not told["happened"]:
            raise error
        return Outcome(CallState.OK, answer=told["answer"])

    def _askable(self, run: RunRecord, call: CallRecord) -> bool:
        role = self.bundle(run).approvals.in_doubt
        return _is_own(run, call) or bool(self.approvals.desk.people().with_role(role))

    async def _ask(self, run: RunRecord, call: CallRecord, why: str) -> dict[str, Any]:
        """Return what a person said: ``happened``, and ``answer`` where it did."""
        policies = self.bundle(run)
        own = _is_own(run, call)
        begun_at = f"begun at {iso_utc(call.started_us)[:19]}; {why}"
        decision = Decision(
            Verdict.ASK,
            policies=(IN_DOUBT, *[OWN_SESSION] * own),
            reasons=(begun_at, *["whose session it is may answer, too"] * own),
            policy_digest=policies.digest,
            approver=policies.approvals.in_doubt,
            expires_s=policies.approvals.expires_s,
        )
        begun = await asyncio.to_thread(self.ledger.begin, _question(run, call), decision)
        asked = Question(decide=lambda _: decision)
        begun = await self.approvals.settle(run, begun, asked)
        question = begun.call
        if question.outcome is not None and question.outcome.state is not CallState.OK:
            error = question.outcome.error or {}
            raise in_doubt(call.intent, str(error.get("message") or "nobody said what happened"))
        # The person's word, and not the record of it: where it is signed, that is what counts.
        said = await asyncio.to_thread(self._said, run, question)
        if question.outcome is None:
            answer = {**said.arguments, "by": said.decided_by}
            labels = Labels(frozenset({Source.USER}))
            outcome = Outcome(CallState.OK, answer=answer, labels=labels)
            await asyncio.to_thread(self.ledger.finish, question, outcome)
        told: dict[str, Any] = said.arguments
        return told

    def _said(self, run: RunRecord, question: CallRecord) -> Approval:
        approval = self.approvals.proven(run, question)
        if approval is None or approval.state is not ApprovalState.CHANGED:
            raise Conflict(f"the question {question.call_id} has no answer", next_step="ask again")
        return approval


def _is_own(run: RunRecord, call: CallRecord) -> bool:
    """Whether the run's user may answer: alone in a sandbox session, and with the call."""
    return run.kind is RunKind.SESSION and call.decision.approver is None


def _question(run: RunRecord, call: CallRecord) -> Intent:
    """Return the question about one attempt at a call; the same one every time."""
    attempt = _attempt(call)
    about = {
        "tool": f"{call.intent.kind} {call.intent.name}",
        "arguments": call.intent.arguments,
        "begun": iso_utc(call.started_us),
        "attempt": attempt,
        "idempotency_key": call.idempotency_key,
    }
    return Intent(
        run_id=run.run_id,
        kind=CallKind.HUMAN,
        name=IN_DOUBT,
        arguments=about,
        parent=call.key,
        request_id=f"{IN_DOUBT}/{call.key}/{call.generation}/{attempt}",
        effect=Effect.READ,
        cell=call.intent.cell,
        case_id=call.intent.case_id,
        agent=call.intent.agent,
        labels=call.intent.labels and {"arguments": _union(call.intent.labels)},
    )


def _union(labels: dict[str, Labels]) -> Labels:
    found = Labels(frozenset(), frozenset())
    for each in labels.values():
        found |= each
    return found


def _attempt(call: CallRecord) -> int:
    return int(call.tags.get("restarts", "0"))


def in_doubt(intent: Intent, why: str | None = None) -> CallInDoubt:
    """Return the error of a write that was begun before, and of which nobody knows how it ended."""
    return CallInDoubt(
        f"{intent.name!r} was started at an earlier attempt and has no recorded outcome; "
        f"as a write it is not repeated{f' ({why})' if why else ''}",
        next_step=f"find out what happened, then decide: toolkit show {intent.run_id}",
    )
