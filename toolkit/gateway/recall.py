"""What a run had read before this process knew of it: read from the ledger again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.gateway.flow import Flow
from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallRecord, Intent, Labels, RunRecord

__all__ = ["Recall"]


@dataclass
class Recall:
    """Fills the flow's memory of a run before anything is decided, recorded or remembered in it.

    A memory that began with the first call after a restart would lack all that came before, and
    untrusted data would pass for the user's.

    Attributes:
        ledger: Where the calls are.
        flow: Whose memory it is.
        declared: Returns the labels that a tool's answer will have.
    """

    ledger: Ledger
    flow: Flow
    declared: Callable[[RunRecord, Intent], Labels]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def ready(self, run: RunRecord) -> None:
        """Make sure that the flow knows the run.

        Raises:
            LedgerError: Its calls cannot be read; then nothing may be decided about it.
        """
        if not self.flow.known(run.run_id):
            await asyncio.to_thread(self.load, run)

    def load(self, run: RunRecord) -> None:
        """Read a run's calls, if it is not known; :meth:`ready` for threads."""
        # One at a time: a second reader would replace what was remembered since the first one.
        with self._lock:
            if self.flow.known(run.run_id):
                return
            found: list[CallRecord] = []
            while page := self.ledger.calls(run.run_id, after_seq=found[-1].seq if found else 0):
                found += page
            bodies = [(call, self.declared(run, call.intent)) for call in found if _in_kernel(call)]
            self.flow.load(run.run_id, found)
            for call, labels in bodies:
                self.flow.opened(run, call.intent, labels)

    def session(self, run: RunRecord) -> Labels:
        """Return the labels of everything that a run has read."""
        self.load(run)
        return self.flow.session(run.run_id)


def _in_kernel(call: CallRecord) -> bool:
    """Whether a call's body may still run in its kernel."""
    return call.outcome is None and call.intent.kind in (CallKind.TOOL, CallKind.AGENT)
