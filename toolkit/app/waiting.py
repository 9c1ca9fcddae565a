"""Wakes runs that wait: at a decision, at a deadline, at the end of a run that they started.

Whoever decides wakes the run at once, and a row of the queue wakes it at its deadline.  Between two
writes a process may die, so every worker also looks, every few seconds, at what the ledger says:
that alone would be enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.errors import Conflict, EngineError, NotFound
from toolkit.ledger import Ledger
from toolkit.values import Cause, RunRecord, RunState

if TYPE_CHECKING:
    from toolkit.scheduling import Engine

__all__ = ["Waking"]

_PATIENCE_S = 60.0
_AT_ONCE = 10_000
_QUEUED = "queued"


def _which(run_id: str, tags: dict[str, str]) -> str:
    """Name one waiting of a run: it may wait again a second later, for something else."""
    return f"{run_id}/{tags.get('waits', '0')}"


@dataclass
class Waking:
    """Wakes runs of the queue; others are looked after by who runs them.

    Attributes:
        ledger: Says who waits for what.
        engine: Returns the queue; not asked for before it is needed.
    """

    ledger: Ledger
    engine: Callable[[], Engine]
    _woken: dict[str, float] = field(default_factory=dict)

    def decided(self, run: RunRecord) -> None:
        """Let a run go on whose request was decided, or which was stopped.

        A queue that does not answer is no fault of the person who decided: a worker finds the
        decision within seconds.
        """
        if _QUEUED not in run.tags or run.state.terminal:
            return
        with suppress(EngineError, NotFound):
            self.engine().wake(run.run_id)

    def sweep(self) -> int:
        """Wake runs that may go on and that nobody has woken, ten thousand at most; return how many.

        Raises:
            EngineError, LedgerError: The next sweep makes up for it.
        """
        now = time.monotonic()
        self._woken = {run: at for run, at in self._woken.items() if now - at < _PATIENCE_S}
        queued: dict[str, str] = {}
        for woken in self.ledger.awaited(limit=_AT_ONCE + len(self._woken)):
            if _which(woken.run_id, woken.tags) in self._woken:
                continue
            if woken.stopped is not None:
                self._end(woken.run_id, woken.stopped)
            elif _QUEUED in woken.tags:
                queued[_which(woken.run_id, woken.tags)] = woken.run_id
        count = self.engine().wake_all(list(queued.values())) if queued else 0
        self._woken.update(dict.fromkeys(queued, now))
        return count

    def _end(self, run_id: str, why: str) -> None:
        """End a waiting run that was stopped: nothing has to be started for that."""
        run = self.ledger.get_run(run_id)
        if run.state is not RunState.WAITING:
            return
        with suppress(Conflict):
            message = f"it was {why} while it waited"
            self.ledger.take(run, state=RunState.CANCELLED, cause=Cause.REQUESTED, message=message)
        if _QUEUED in run.tags:
            with suppress(EngineError, NotFound):
                self.engine().cancel(run_id)
