"""The write-ahead log of an SQLite database, made durable from outside of SQLite.

In WAL mode ``synchronous=FULL`` is ``NORMAL`` and one sync of the log at the end of each commit
(https://www.sqlite.org/pragma.html#pragma_synchronous).  So a commit under ``NORMAL`` and a sync of
the same file after it are as durable, and the sync can be made by a thread that needs neither the
connection nor Python's interpreter meanwhile.  SQLite keeps no locks on this file, so opening and closing it
here drops none.

Nothing here asks for the file's status.  Since its version 6.13 Linux keeps exact times of a file whose times
somebody has asked for, and an ``fdatasync`` then writes the inode, too: half as long again for each call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["LOG_BYTES", "PAGE_BYTES", "LogFile", "pages_in_log"]

PAGE_BYTES = 1024
"""Bytes of a page in a new database.

Rows of a call have some hundred bytes, and each commit writes every page that it touched as a whole: with
SQLite's 4,096 the log, and what its sync writes, are three times as long.  A database keeps the size that
it was made with.
"""
LOG_BYTES = 8_388_608
"""From so many bytes in the log on its pages are moved into the database.

A call writes about 17,000: fewer than one call in three hundred meets the move.
"""
_FRAME_BYTES = 24  # before each page


def pages_in_log(page_bytes: int) -> int:
    """Return how many pages of a size :data:`LOG_BYTES` hold."""
    return LOG_BYTES // (page_bytes + _FRAME_BYTES)


class LogFile:
    """The log beside a database file; used from any thread.

    SQLite deletes the log with the last connection to the database: whoever closes the connection that
    wrote to it closes this, too.

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
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._sync(self._file)

    @property
    def long(self) -> bool:
        """Whether the log has grown past :data:`LOG_BYTES`, to which SQLite cuts it when it begins anew."""
        with self._lock:
            return self._file is not None and os.lseek(self._file, 0, os.SEEK_END) > LOG_BYTES

    def close(self) -> None:
        """Close the file; the next :meth:`sync` opens it again."""
        with self._lock:
            held, self._file = self._file, None
            if held is not None:
                os.close(held)
