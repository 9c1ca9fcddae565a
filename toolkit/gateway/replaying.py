"""Answers from the journal of another run: reproductions and replays, which get nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from toolkit.errors import CallInDoubt
from toolkit.gateway.divergence import REPLAYS, Journals
from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallRecord, CallState, Intent, RunRecord

__all__ = ["Replays", "to_run_again"]


@dataclass
class Replays:
    """The journals of other runs.

    Attributes:
        ledger: Where they are.
        journals: Notes what was asked, and what was not there.
    """

    ledger: Ledger
    journals: Journals

    async def answer(self, run: RunRecord, intent: Intent) -> CallRecord | None:
        """Return the recorded call that answers this one; ``None`` if it is to be made.

        Raises:
            CallInDoubt: It is not recorded, or has no outcome, and the run gets nothing else.
        """
        if run.source_run_id is None:
            return None
        journal = await self.journals.of(run)
        found = await asyncio.to_thread(self.ledger.lookup, run.source_run_id, intent.key)
        if journal is None or (found is None and run.kind not in REPLAYS):
            return None
        if found is not None and found.outcome is not None:
            again = run.kind in REPLAYS and to_run_again(found).outcome is None
            journal.found(intent.key, body_again=again)
            return found
        if run.kind not in REPLAYS:
            return None
        if found is not None:
            journal.found(intent.key)
            await journal.settled(lambda: not journal.left())
            journal.at_end = intent.key
            raise self._nothing(run, intent, "recorded without an outcome: its journal ends here")
        if journal.refused is None:
            journal.beyond = not journal.left()
            journal.refused = await asyncio.to_thread(self.journals.nearest, run, intent, journal)
        raise self._nothing(run, intent, "did not record")

    async def ends_here(self, run: RunRecord, intent: Intent, why: str) -> CallInDoubt:
        """Return the error of a call whose answer the journal does not hold, though it is recorded."""
        journal = await self.journals.of(run)
        if journal is not None:
            journal.found(intent.key)
            journal.at_end = intent.key
        return self._nothing(run, intent, why)

    def _nothing(self, run: RunRecord, intent: Intent, why: str) -> CallInDoubt:
        return CallInDoubt(
            f"the notebook asks for {intent.kind} {intent.name!r} (occurrence "
            f"{intent.occurrence}), which {run.source_run_id} {why}",
            where=f"cell {intent.cell}" if intent.cell else None,
            next_step="run the notebook from top to bottom in the sandbox and promote again"
            if run.kind is not REPLAYS[1]
            else f"see what was recorded: toolkit show {run.source_run_id}",
            details={"arguments_digest": intent.arguments_digest},
        )


def to_run_again(call: CallRecord) -> CallRecord:
    """Let an agent's body run in a reproduction: its present code has to give what was saved.

    What the body asks is answered from the journal, so nothing reaches the outside.
    """
    if call.intent.kind is not CallKind.AGENT or call.state is CallState.DENIED:
        return call
    return replace(call, outcome=None, ended_us=None)
