"""Which call a piece of kernel code runs in, and how often the same call was made there."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["CURRENT", "TRIAL", "TRIAL_STRIDE", "Counters", "Frame"]

Identity = tuple[str, str, str]
"""kind, name, arguments digest."""


@dataclass
class Counters:
    """How often each call was made; what makes an *occurrence*.

    In the sandbox a person runs cells again: then the cell's calls take the same occurrences as
    before (the ledger records them as a new generation), so that a later run from top to bottom
    finds the record of the last execution of every cell.
    """

    _now: dict[Identity, int] = field(default_factory=dict)
    _highest: dict[Identity, int] = field(default_factory=dict)
    _at_cell: dict[str, dict[Identity, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, identity: Identity) -> int:
        """Return the occurrence of a call that is about to be made, from 0."""
        with self._lock:
            count = self._now.get(identity, 0)
            self._now[identity] = count + 1
            self._highest[identity] = max(self._highest.get(identity, 0), count + 1)
            return count

    def start_cell(self, cell: str) -> None:
        """Tell that a cell begins to run, for the first time or again."""
        with self._lock:
            if cell not in self._at_cell:
                self._at_cell[cell] = dict(self._highest)
            self._now = dict(self._at_cell[cell])


@dataclass
class Frame:
    """A tool or agent call whose body is running.

    Attributes:
        key: The call's key, parent of the calls made inside.
        case_id: The evaluation case that is being answered, if any.
        counters: Occurrences of the calls made inside.
        idempotency_key: Of a tool: what tells the other side that two attempts are one call.
    """

    key: str
    case_id: str | None = None
    counters: Counters = field(default_factory=Counters)
    idempotency_key: str | None = None


CURRENT: ContextVar[Frame | None] = ContextVar("toolkit_frame", default=None)
"""The innermost running call; asyncio tasks and ``to_thread`` inherit it."""

TRIAL: ContextVar[int] = ContextVar("toolkit_trial", default=1)
"""Which trial of an evaluation case is being answered."""
TRIAL_STRIDE = 1_000_000
"""Between the first occurrences of two trials: a call of the second is never the first's, not even
in a kernel that goes on with a killed evaluation and has counted nothing of it."""
