"""Sandbox sessions end with their kernels: nobody tells the gateway, so it looks."""

from __future__ import annotations

import contextlib
import threading
import time

from toolkit.errors import Conflict, LedgerError
from toolkit.ledger import Ledger, runner_alive
from toolkit.values import RunKind, RunRecord, RunState

__all__ = ["Sessions", "end_sessions"]

_EVERY_S = 60.0
_MOST = 1_000


def end_sessions(ledger: Ledger) -> list[RunRecord]:
    """End the sessions whose kernel, a process of this machine, is gone; return them.

    They have succeeded: what went wrong in one is told by its calls.  Sessions that came over TCP
    name no process, and those of other machines cannot be looked at: they stay as they are.

    Raises:
        LedgerError: The ledger cannot be read or written.
    """
    ended = []
    for run in ledger.runs(state=RunState.RUNNING, limit=_MOST):
        if run.kind is not RunKind.SESSION or run.runner is None or runner_alive(run.runner):
            continue
        with contextlib.suppress(Conflict):  # another gateway was first
            ended.append(
                ledger.update_run(
                    run.run_id, state=RunState.SUCCEEDED, message="its kernel has ended"
                )
            )
    return ended


class Sessions:
    """Looks once a minute, in a thread: the loop that calls it does not wait for a disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next = time.monotonic()
        self._looking: threading.Thread | None = None

    def tend(self) -> None:
        """Look, if it is time and the last look has ended."""
        now = time.monotonic()
        if now < self._next or (self._looking and self._looking.is_alive()):
            return
        self._next = now + _EVERY_S
        self._looking = threading.Thread(target=self._look, name="sessions", daemon=True)
        self._looking.start()

    def _look(self) -> None:
        with contextlib.suppress(LedgerError):  # another time
            end_sessions(self._ledger)
