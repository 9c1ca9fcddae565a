"""Calls that a person decides about: asked once, waited for without holding anything, done once.

A call whose decision is ``ASK`` is recorded, then a request is stored beside it and the call answers
:class:`~toolkit.errors.ApprovalPending`.  Whoever made it sends the same call again, now or after the
death of kernel and gateway: it finds its request, and once that is decided the call goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from toolkit.client import wire
from toolkit.errors import ApprovalPending, CallDenied, Conflict, NotFound, UsageError
from toolkit.gateway.asked import (
    approval_reply,
    denied,
    pending,
    refusal_of,
    request_facts,
    with_change,
)
from toolkit.gateway.bell import Bell
from toolkit.gateway.desk import FACTS, Answer, Choice, Desk
from toolkit.gateway.proofs import check_proof, check_same
from toolkit.gateway.views import describe_call
from toolkit.gateway.webhooks import Webhooks
from toolkit.gateway.work import FREE, Worst
from toolkit.ledger import Approval, ApprovalState, Begun, Ledger
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Clock,
    Decision,
    Environment,
    Intent,
    Outcome,
    RunRecord,
    SystemClock,
    Verdict,
)

__all__ = ["Approvals", "Question"]

T = TypeVar("T")

_LONGEST_LOOK_S = 25.0


@dataclass(frozen=True, slots=True)
class Question:
    """What the door knows about a call beside its record.

    Attributes:
        decide: Says what policy thinks of the call now, or of it with other arguments.
        switches: Scopes whose stop would refuse it.
        worst: The most that it can cost.
        origins: By argument: names of the calls whose answers it was found in.
        facts: What else policy is told of it; kept with the request, for whoever decides.
    """

    decide: Callable[[Intent], Decision]
    switches: Sequence[str] = ()
    worst: Worst = FREE
    origins: Mapping[str, Iterable[str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class _Refused(Exception):
    """The call ends here, with this error."""

    def __init__(self, error: CallDenied) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Approvals:
    """Requests to people, from the gateway's side.

    Attributes:
        ledger: Where requests are kept.
        desk: Where answers are checked.
        webhooks: Tells other systems; also of ``policy.yaml``'s ``approvals.webhook``.
        bell: Tells when something was decided, here or by another process.
    """

    ledger: Ledger
    desk: Desk
    webhooks: Webhooks = field(default_factory=Webhooks)
    clock: Clock = field(default_factory=SystemClock)
    bell: Bell = field(init=False)
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bell = Bell(self.ledger, self.clock)

    # -- what the door asks -------------------------------------------------------------------

    async def settle(self, run: RunRecord, begun: Begun, question: Question) -> Begun:
        """Take a call that was begun past its person.

        A call that nobody has to be asked about is returned as it is.

        Returns:
            ``fresh=True``: this request is the one that now makes the call, with the arguments in
            the record's intent (a person may have changed them; ``key`` stays the call's own).
            ``fresh=False``: it was allowed to go on before, or has ended (rejected, expired …).

        Raises:
            ApprovalPending: Nobody has decided yet; the same call may be sent again at any time.
            LedgerError: The ledger cannot tell or record.
        """
        if begun.call.outcome is not None or begun.call.decision.approver is None:
            return begun
        # Of two requests for one call (an old kernel's, a new one's) one makes it.
        lock = self._turns.setdefault(begun.call.call_id, asyncio.Lock())
        async with lock:
            return await self._in_turn(run, begun.call, question)

    def uncovered(self, run: RunRecord, call: CallRecord, asked: Decision) -> str | None:
        """Return why what a person said about a call is no answer to what policy asks about it today.

        ``None``: it is one.

        Raises:
            ToolkitError: Nobody can tell now.
        """
        approval = self.ledger.approval_of(call)
        if (
            approval is None
            or refusal_of(call, approval) is not None
            or asked.approver not in self._roles(approval)
        ):
            return f"policy now asks the role {asked.approver} about it"
        try:
            self.prove(run, call, approval)
        except CallDenied as error:
            return error.message
        return None

    def prove(self, run: RunRecord, call: CallRecord, approval: Approval) -> None:
        """Verify the signatures that an approval stands on, where it needs any.

        Raises:
            CallDenied: The approval does not count.
            ToolkitError: Nobody can tell now; the call stays as it is.
        """
        if not self.desk.proofs.needed(run.environment):
            return
        try:
            check_proof(self.desk, run, approval)
        except CallDenied as error:
            said = f"the answer of {approval.decided_by} about {call.intent.name!r} does not count"
            refusal = denied(call, approval, f"{said}: {error.message}")
            refusal.next_step = f"see who signed what: toolkit decide {approval.id}"
            raise refusal from error

    def proven(self, run: RunRecord, call: CallRecord) -> Approval | None:
        """Return the request about a call, ``None`` if nobody was asked; an answer to it counts.

        Raises:
            CallDenied: The answer has to be signed, and is not as it must be.
            ToolkitError: Nobody can tell now.
        """
        approval = self.ledger.approval_of(call)
        if approval is not None and approval.lets_in:
            self.prove(run, call, approval)
        return approval

    def _roles(self, approval: Approval) -> tuple[str, ...]:
        """Return the roles that an answer stands for."""
        held = self.desk.people().roles(approval.decided_by or "")
        return (approval.role, approval.decider, *held)

    async def patiently(self, timeout_s: float, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may have to wait for a person; for doors whose clients cannot.

        Args:
            timeout_s: How long to wait for people, altogether.
            attempt: Makes the call; the same one each time (same ``request_id``).

        Raises:
            ApprovalPending: Nobody decided in time.  (And what ``attempt`` raises.)
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                return await attempt()
            except ApprovalPending as told:
                left = deadline - loop.time()
                if left <= 0:
                    raise
                approval = told.details["approval"]
                await self.bell.wait(str(approval["id"]), left)

    async def close(self, timeout_s: float) -> None:
        """Let notifications under way be delivered, for a while; requests stay in the ledger."""
        await self.webhooks.settle(timeout_s)
        await self.bell.close()

    # -- what kernels ask ---------------------------------------------------------------------

    def handlers(
        self,
    ) -> dict[str, Callable[[RunRecord, dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """Return the handlers of the wire, by path."""
        return {wire.APPROVAL: self.look, wire.ANSWER_APPROVAL: self.answer}

    async def look(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Answer where a request of the caller's own run stands, after at most ``wait_s`` seconds."""
        approval = await self._own(run, body)
        wait_s = min(float(body.get("wait_s") or 0.0), _LONGEST_LOOK_S)
        if approval.state.waiting and wait_s > 0:
            await self.bell.wait(approval.id, wait_s)
            approval = await self._own(run, body)
        return {"approval": await asyncio.to_thread(self._reply, approval)}

    async def answer(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        """Record what a person said with the buttons of a sandbox notebook.

        The person is whoever the session belongs to: a kernel's word, which is worth something
        only where the kernel is that person's own.  In production people decide elsewhere; a job
        may only take its own request back.
        """
        approval = await self._own(run, body)
        try:
            choice = Choice(str(body.get("choice")))
        except ValueError:
            known = ", ".join(Choice)
            raise UsageError(f"an answer is one of: {known}") from None
        if run.environment is not Environment.SANDBOX and choice is not Choice.REJECT:
            raise CallDenied(
                "a job cannot decide about its own calls",
                next_step=f"toolkit decide {approval.id}",
            )
        given = Answer(
            choice,
            digest=str(body.get("digest")),
            reason=body.get("reason"),
            arguments=body.get("arguments"),
            role=body.get("role"),
        )
        decided = await self.decide(approval.id, given, by=run.user)
        return {"approval": await asyncio.to_thread(self._reply, decided)}

    async def decide(self, approval_id: str, answer: Answer, *, by: str) -> Approval:
        """Record an answer and wake who waits for it; see :meth:`Desk.answer` for errors."""
        decided = await asyncio.to_thread(self.desk.answer, approval_id, answer, by=by)
        self.bell.ring(approval_id)
        return decided

    async def _own(self, run: RunRecord, body: dict[str, Any]) -> Approval:
        approval_id = str(body.get("id"))
        approval = await asyncio.to_thread(self.ledger.approval, approval_id)
        if approval.run_id != run.run_id:  # another run's: as if it were not there
            raise NotFound(f"there is no request {approval_id[:80]!a} of this run")
        return approval

    def _reply(self, approval: Approval) -> dict[str, Any]:
        return approval_reply(approval, self._call(approval), self.clock.now_us())

    def _call(self, approval: Approval) -> CallRecord:
        return self.ledger.get_call(approval.run_id, approval.call_key, approval.generation)

    # -- one call in its turn -----------------------------------------------------------------

    async def _in_turn(self, run: RunRecord, call: CallRecord, question: Question) -> Begun:
        call = await asyncio.to_thread(self._again, call)
        if call.outcome is not None:
            return Begun(call, fresh=False)
        approval = await asyncio.to_thread(self._request, run, call, question)
        if call.decision.verdict is not Verdict.ASK:  # it was allowed to go on before
            await asyncio.to_thread(self.prove, run, call, approval)
            return Begun(with_change(call, approval), fresh=False)
        if approval.state.waiting:
            approval = await asyncio.to_thread(self.desk.lapse, approval)
        if approval.state.waiting:
            self._announce(run, approval)
            raise pending(approval, call, self.clock.now_us())
        return await asyncio.to_thread(self._go_on, run, call, approval, question)

    def _go_on(
        self, run: RunRecord, call: CallRecord, approval: Approval, question: Question
    ) -> Begun:
        """Let a call that was decided about be made, or end it."""
        try:
            allowed = self._allowed(run, call, approval, question)
        except _Refused as refused:
            outcome = Outcome(CallState.DENIED, error=refused.error.to_json())
            return Begun(self.ledger.finish(call, outcome), fresh=False)
        try:
            call = self.ledger.decide(call, allowed)
        except Conflict:
            again = self._again(call)
            if again.outcome is None and again.decision.verdict is Verdict.ASK:
                # Its run was parked in this very moment; whoever resumes it makes the call.
                raise pending(approval, again, self.clock.now_us()) from None
            return Begun(with_change(again, approval), fresh=False)  # another gateway was first
        return Begun(with_change(call, approval), fresh=True)

    def _again(self, call: CallRecord) -> CallRecord:
        return self.ledger.get_call(call.intent.run_id, call.key, call.generation)

    def _request(self, run: RunRecord, call: CallRecord, question: Question) -> Approval:
        """Return the call's request, stored now if it was not before."""
        if (known := self.ledger.approval_of(call)) is not None:
            return known
        bundle = self.desk.bundle(run.environment)
        policy = bundle.approvals
        view = describe_call(
            run,
            call,
            tool=bundle.tools.get(call.intent.name) if call.intent.kind is CallKind.TOOL else None,
            worst=question.worst,
            origins=question.origins,
        )
        if question.facts:
            view[FACTS] = dict(question.facts)
        lasts_us = round((call.decision.expires_s or policy.expires_s) * 1_000_000)
        until_us = self.clock.now_us() + lasts_us
        if policy.on_expiry == "escalate" and policy.escalate_to is not None:
            # The digest binds one expiry, so the second role's time is in it from the start.
            view["escalates"] = {"at_us": until_us, "to": policy.escalate_to}
            until_us += lasts_us
        role = str(call.decision.approver)
        return self.ledger.ask(call, role=role, view=view, expires_us=until_us)

    def _allowed(
        self, run: RunRecord, call: CallRecord, approval: Approval, question: Question
    ) -> Decision:
        """Return the decision with which a decided call goes on.

        Raises:
            _Refused: The person, the time, the policy of today or a stop switch said no.
        """
        # 1 the person's word, and that it was about this call
        if error := refusal_of(call, approval):
            raise _Refused(error)
        try:
            check_same(run, call, approval)
        except CallDenied as error:
            raise _Refused(denied(call, approval, error.message)) from error
        try:
            self.prove(run, call, approval)
        except CallDenied as error:
            raise _Refused(error) from error
        # 2 what is switched off meanwhile stays off
        stops = {stop.scope: stop for stop in self.ledger.stops()}
        if hit := next((stops[scope] for scope in question.switches if scope in stops), None):
            raise _Refused(
                denied(call, approval, f"{hit.scope} was stopped by {hit.by}: {hit.reason}")
            )
        # 3 policy as it is now, about the arguments as they are now
        now = question.decide(with_change(call, approval).intent)
        if now.verdict is Verdict.DENY:
            said = "; ".join(now.reasons) or "no policy allows it"
            raise _Refused(denied(call, approval, f"policy denies it after the approval: {said}"))
        if now.verdict is Verdict.ASK and now.approver not in self._roles(approval):
            text = f"policy now asks the role {now.approver}, which {approval.decided_by} lacks"
            raise _Refused(denied(call, approval, text))
        said = f"{approval.decided_by} ({approval.decider}) approved it"
        if approval.state is ApprovalState.CHANGED:
            said += " with other arguments"
        reasons = (
            *call.decision.reasons,
            f"{said}: {approval.reason}" if approval.reason else said,
        )
        return replace(call.decision, verdict=Verdict.ALLOW, reasons=reasons)

    def _announce(self, run: RunRecord, approval: Approval) -> None:
        """Tell the policy's webhook, once per request and process; never fails."""
        hook = self.desk.bundle(run.environment).approvals.webhook
        name = f"{approval.id}/{approval.decider}"
        if hook is None or name in self._told:
            return
        self._told.add(name)

        async def lost(why: str) -> None:
            tags = {"webhook": f"not delivered: {why}"[:200]}
            await asyncio.to_thread(self.ledger.tag, self._call(approval), tags)

        # An escalated request is news for its new role: the id says which of the two it is.
        message = approval.id if approval.escalated_to is None else f"{approval.id}.escalated"
        body = {"approval": request_facts(approval, self.clock.now_us())}
        self.webhooks.send(hook, message, "approval.requested", body, lost=lost)
