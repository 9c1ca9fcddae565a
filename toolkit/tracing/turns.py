"""One process of a workspace ships at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["TURN", "Turn"]

TURN = "shipping.lock"
"""Name of the lock file in the workspace's ``.toolkit``."""


class Turn:
    """Whose turn it is to read the outbox and send what is in it.

    Two that do so at once send the same calls: nothing is doubled, but MLflow's database is written
    twice, by one after the other, and whoever waits for the end of a run waits for both.

    Args:
        path: Lock file that the processes share; ``None``: there is one process.
        patience_s: One that hangs at MLflow is not waited for longer, seconds.
    """

    def __init__(self, path: Path | None = None, *, patience_s: float = 5.0) -> None:
        self._here = threading.Lock()
        self._file = None if path is None else FileLock(path)
        self._patience_s = patience_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, and have it as long as the block lasts."""
        with self._here:
            held = self._acquire()
            try:
                yield
            finally:
                if held is not None:
                    held.release()

    def _acquire(self) -> FileLock | None:
        if self._file is None:
            return None
        try:
            self._file.acquire(timeout=self._patience_s)
        except (Timeout, OSError):
            return None  # sending twice is right, too
        return self._file
