"""What is decided about a call, and about another attempt at one that is in doubt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from toolkit.errors import CallDenied
from toolkit.gateway.approvals import Approvals
from toolkit.gateway.flow import Flow
from toolkit.gateway.governance import Governance
from toolkit.gateway.modelling import price_missing
from toolkit.gateway.scopes import check_call_budget, reservation, switches
from toolkit.gateway.shadowing import Shadows
from toolkit.gateway.work import FREE, IN_KERNEL, Facts, Work, Worst
from toolkit.ledger import Ledger, Reservation
from toolkit.values import (
    CallKind,
    CallRecord,
    Clock,
    Decision,
    Intent,
    RunRecord,
    Verdict,
)

__all__ = ["Deciding"]


@dataclass(frozen=True)
class Deciding:
    """Decides about calls.

    Attributes:
        ledger: Where attempts are recorded.
        governance: Policies.
        approvals: Knows what people have allowed.
        shadows: Knows which writes are recorded and not done.
        flow: Knows what a run has read.
        clock: Decides which period's budget it is.
    """

    ledger: Ledger
    governance: Governance
    approvals: Approvals
    shadows: Shadows
    flow: Flow
    clock: Clock

    def decide(self, run: RunRecord, intent: Intent, facts: Facts, worst: Worst) -> Decision:
        """Return what policy says about a call, its price included."""
        if intent.kind is CallKind.VALUE:  # nothing comes in and nothing goes out
            return Decision(Verdict.ALLOW, policies=("journaled-value",))
        session = self.flow.session(run.run_id)
        decision = self.governance.decide(run, intent, facts, session)
        if worst.cost is not None or decision.verdict is Verdict.DENY:
            return decision
        bundle = self.governance.bundle(run.environment)
        if bundle.unknown_price == "allow":
            return decision
        return Decision(
            Verdict.DENY,
            policies=("unknown-price",),
            reasons=(price_missing(facts.route),),
            policy_digest=bundle.digest,
        )

    def outright(self, run: RunRecord, intent: Intent, facts: Facts, worst: Worst) -> Decision:
        """Return the decision with which a call is recorded: of a shadow's writes, that they are held."""
        return self.shadows.decided(run, intent, self.decide(run, intent, facts, worst))

    def reserved(self, run: RunRecord, intent: Intent, worst: Worst) -> Reservation:
        """Return what an allowed call holds.

        Raises:
            BudgetExceeded: It could use more than one call may.
        """
        check_call_budget(self.governance.bundle(run.environment), intent, worst)
        return reservation(self.governance.bundle, run, intent, worst, self.clock.now_us())

    async def believed(self, run: RunRecord, call: CallRecord, intent: Intent) -> None:
        """Check that nobody had to be asked about a call of a kernel that another gateway began.

        Where answers are signed, the ledger's word that policy allowed it outright is not enough.

        Raises:
            CallDenied: Policy asks somebody about it, and nobody was asked.
        """
        needed = self.approvals.desk.proofs.needed
        if call.decision.approver is not None or not await asyncio.to_thread(
            needed, run.environment
        ):
            return
        decision = self.decide(run, intent, IN_KERNEL.facts, IN_KERNEL.worst)
        if decision.verdict is Verdict.ASK:
            why = f"policy asks the role {decision.approver} about it, and nobody was asked"
            raise _not_repeated(call, decision, why)

    async def repeated(
        self, run: RunRecord, call: CallRecord, work: Work, attempt: int | None = None
    ) -> CallRecord:
        """Record another attempt at a call in doubt: decided and paid for like a new one.

        A refusal leaves the call in doubt, because nobody knows whether it was made before.

        Args:
            run: The caller.
            call: The call, with the arguments that hold.
            work: What it takes, as policy and catalogs are today.
            attempt: How often it was repeated, as the caller knows it; default: as ``call`` says.

        Raises:
            CallDenied: Policy denies it today, asks somebody who was not asked, or it is stopped.
            BudgetExceeded: What it may use is not there any more.
            Conflict: Somebody else makes it, or its run waits for a person or has ended.
        """
        decision = self.outright(run, call.intent, work.facts, work.worst)
        if decision.verdict is Verdict.DENY:
            raise _not_repeated(
                call, decision, "; ".join(decision.reasons) or "no policy allows it"
            )
        if decision.verdict is Verdict.ASK:
            why = await asyncio.to_thread(self.approvals.uncovered, run, call, decision)
            if why is not None:
                raise _not_repeated(call, decision, why)
        again = await asyncio.to_thread(
            self.ledger.restart,
            call,
            switches=switches(run, call.intent, work.facts),
            attempt=int(call.tags.get("restarts", "0")) if attempt is None else attempt,
            decision=decision,
            reserve=self.reserved(run, call.intent, work.worst),
            spent=work.worst != FREE,
        )
        # Arguments that a person chose are kept with the request, not in the call's record.
        return replace(again, intent=call.intent, tags={**call.tags, **again.tags})


def _not_repeated(call: CallRecord, decision: Decision, why: str) -> CallDenied:
    return CallDenied(
        f"the call is in doubt and is not repeated: {why}",
        where=call.call_id,
        next_step="ask the owner of the policy, or start another run",
        details={"policies": list(decision.policies), "reasons": [why]},
    )
