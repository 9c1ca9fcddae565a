"""The write-ahead log of an SQLite database, made durable from outside of SQLite.

In WAL mode ``synchronous=FULL`` is ``NORMAL`` and one sync of the log at the end of each commit
(https://www.sqlite.org/pragma.html#pragma_synchronous).  So a commit under ``NORMAL`` and a sync of
the same file after it are as durable, and the sync can be made by a thread that needs neither the
connection nor Python's interpreter meanwhile.  SQLite keeps no locks on this file, so opening and closing it
here drops none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["LOG_BYTES", "LOG_PAGES", "LogFile"]

LOG_PAGES = 3_000
"""From so many pages in the log on they are moved into the database.

A call writes about 16 of them: fewer than one call in a hundred meets the move.
"""
LOG_BYTES = LOG_PAGES * (4096 + 24) + 32  # each page with its header, behind the log's own


class LogFile:
    """The log beside a database file; used from any thread.

    Args:
        database: Path of the database file.
        sync: Makes what was written to a file descriptor durable.
    """

    def __init__(self, database: str, sync: Callable[[int], None] = os.fdatasync) -> None:
        self._path = Path(f"{database}-wal")
        self._sync = sync
        self._lock = threading.Lock()
        self._file: int | None = None

    def sync(self) -> None:
        """Return when every byte that was written to the log before is on disk.

        Raises:
            OSError: Nobody knows which bytes are.
        """
        with self._lock:
            self._sync(self._opened())

    def _opened(self) -> int:
        # SQLite deletes the log with its last connection; the next one makes another file.
        if self._file is not None and os.path.samestat(os.fstat(self._file), self._path.stat()):
            return self._file
        self._close()
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._file

    @property
    def long(self) -> bool:
        """Whether the log has grown past :data:`LOG_BYTES`, to which SQLite cuts it when it begins anew."""
        with self._lock:
            return self._file is not None and os.fstat(self._file).st_size > LOG_BYTES

    def close(self) -> None:
        """Close the file; the next :meth:`sync` opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        held, self._file = self._file, None
        if held is not None:
            os.close(held)
