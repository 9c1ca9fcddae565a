"""Which process executes a run, whether it is still there, and the lease by which others see that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Self

from toolkit.errors import LedgerError, ToolkitError
from toolkit.ledger import Ledger, is_here, process_name, runner_alive
from toolkit.values import RunRecord, sleepless_s

__all__ = ["LEASE_S", "QUEUED_TAG", "Heartbeat", "myself", "runner_alive", "was_left"]

QUEUED_TAG = "queued"
"""Tag of runs that the queue owns."""

LEASE_S = 30.0
"""Seconds after which a runner that renews its lease no more counts as gone on other machines."""

_RENEWALS = 6  # so many in the length of a lease: five may fail

_log = logging.getLogger(__name__)


def was_left(ledger: Ledger, run: RunRecord, wanted: RunRecord) -> bool:
    """Whether the runner of a run has left it, so that another one may take it over.

    Of queued work the queue says whose it is: a worker on another machine, which nobody here can
    look at, has lost its lease when the run is handed out again.
    """
    if run.runner is None or not ledger.lives(run):
        return True
    return not is_here(run.runner) and QUEUED_TAG in run.tags and QUEUED_TAG in wanted.tags


def myself() -> str:
    """Return the name of this process, see ``toolkit.ledger.process_name``."""
    return process_name()


class Heartbeat:
    """Renews the lease of one run, in a thread, from :meth:`begin` until the end of the context.

    The lease is lost when another runner took the run, or somebody ended it, and when it could not
    be renewed for its whole length by a clock that goes on while the machine sleeps.

    Args:
        ledger: Where the lease is.
        length_s: Of the lease.
    """

    def __init__(self, ledger: Ledger, length_s: float = LEASE_S) -> None:
        self.length_s = length_s
        self._ledger = ledger
        self._run: RunRecord | None = None
        self._renewed_s = 0.0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._why: str | None = None
        self._listener: Callable[[str], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(5.0)

    @property
    def lost(self) -> str | None:
        """Why the lease is lost; ``None``: it is held."""
        return self._why

    def begin(self, run: RunRecord) -> None:
        """Renew the lease of a run of this process from now on, once it holds one."""
        self._run, self._renewed_s = run, sleepless_s()
        if self._thread is None or self._why is not None:  # it was lost, and taken again
            self._why = None
            self._thread = threading.Thread(target=self._beat, name="run-lease", daemon=True)
            self._thread.start()

    def tell(self, listener: Callable[[str], None] | None) -> None:
        """Call a function with the reason when the lease is lost; at once, if it is."""
        with self._lock:
            self._listener = listener
            why = self._why
        if why is not None and listener is not None:
            listener(why)

    def _beat(self) -> None:
        while not self._done.wait(self.length_s / _RENEWALS):
            why = self._renew()
            if why is not None:
                with self._lock:
                    self._why, listener = why, self._listener
                if listener is not None:
                    listener(why)
                return

    def _renew(self) -> str | None:
        run, now_s = self._run, sleepless_s()
        if run is None:
            return None
        try:
            if not self._ledger.renew(run, self.length_s):
                return "another runner has the run by now, or somebody ended it"
            self._renewed_s = now_s
        except LedgerError as error:
            _log.warning("the lease of %s could not be renewed: %s", run.run_id, error.message)
        except ToolkitError as error:
            return error.message
        if sleepless_s() - self._renewed_s < self.length_s:
            return None
        return f"its lease could not be renewed for {self.length_s:g} s"
