"""Shadow runs: what they would change is recorded, and not done.

A run with the tag ``shadow_of`` stands beside the run that the tag names.  Its reads and model calls
are made like any other's.  A write (a tool, data, a job) is decided by policy; what policy permits, or
would ask a person about, is recorded with the decision ``shadow`` and answered without being done: with
the other run's answer where that run made the same call (the same key), else a tool with ``null``.
Other kinds of writes that the other run did not make are refused: nobody knows an answer that their
callers could read.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from toolkit.errors import CallDenied
from toolkit.gateway.governance import Governance
from toolkit.ledger import Begun, Ledger
from toolkit.values import CallKind, CallState, Decision, Intent, Outcome, RunRecord, Verdict

__all__ = ["Shadows"]

_TAG = "shadow_of"
_EFFECTS = (CallKind.TOOL, CallKind.DATA, CallKind.JOB)


class Shadows:
    """Answers the writes of shadow runs.

    Args:
        ledger: Where the other run's answers are.
        governance: Says what is a write.
    """

    def __init__(self, ledger: Ledger, governance: Governance) -> None:
        self._ledger = ledger
        self._governance = governance

    def _holds(self, run: RunRecord, intent: Intent) -> bool:
        if _TAG not in run.tags or intent.kind not in _EFFECTS:
            return False
        return self._governance.writes(run, intent)

    def decided(self, run: RunRecord, intent: Intent, decision: Decision) -> Decision:
        """Return the decision about a call, which asks nobody about what is not done."""
        if not self._holds(run, intent) or decision.verdict is Verdict.DENY:
            return decision
        asked = f", policy would ask {decision.approver}" if decision.approver else ""
        return replace(
            decision,
            verdict=Verdict.ALLOW,
            policies=("shadow", *decision.policies),
            reasons=(f"shadow of {run.tags[_TAG]}: recorded, not done{asked}", *decision.reasons),
            approver=None,
            expires_s=None,
        )

    async def answer(self, run: RunRecord, begun: Begun) -> Outcome | None:
        """Return how a write of a shadow run ends; ``None``: it is none, or has ended."""
        call = begun.call
        if call.outcome is not None or not self._holds(run, call.intent):
            return None
        other = await asyncio.to_thread(self._ledger.lookup, run.tags[_TAG], call.key)
        if other is not None and other.outcome is not None and other.outcome.state is CallState.OK:
            return Outcome(CallState.OK, answer=other.outcome.answer, seconds=0.0)
        if call.intent.kind is CallKind.TOOL:
            return Outcome(CallState.OK, answer=None, seconds=0.0)
        error = CallDenied(
            f"a shadow run does not do this {call.intent.kind} call, and the run beside it did not "
            "make it",
            where=call.intent.name,
            next_step=f"compare the two runs: toolkit show {run.tags[_TAG]}",
        )
        return Outcome(CallState.ERROR, error=error.to_json(), seconds=0.0)
