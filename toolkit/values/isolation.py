"""How far a kernel is kept from its machine, and what it may use of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Caps", "IsolationLevel"]


class IsolationLevel(IntEnum):
    """What a kernel may touch; a higher level allows less, so levels compare with ``<``."""

    L0 = 0
    """Nothing is kept from it: the user's own process."""
    L1 = 1
    """A clean environment, limits of the operating system, a control group where there is one."""
    L2 = 2
    """Own network, process, IPC, user and mount namespaces; only the gateway's socket leads out."""
    L3 = 3
    """L2, a filter of many system calls, and a control group for memory and processes."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one run's kernel may use; ``None`` means no limit of ours.

    Attributes:
        memory_bytes: Memory of the kernel and of all that it starts.
        processes: Processes and threads at one time.
        cpu_s: Seconds of processor time.
        file_bytes: Size of a file that it writes.
        open_files: Open files of one process.
    """

    memory_bytes: int | None = None
    processes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
