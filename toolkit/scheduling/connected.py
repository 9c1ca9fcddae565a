"""One connection to the queue and to our own tables, opened on first use."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

from toolkit.scheduling.tables import Tables
from toolkit.scheduling.vendor import clean_url, connect
from toolkit.values import Clock, SystemClock

__all__ = ["Connected"]


class Connected:
    """What every part of the engine shares.  Thread-safe; a context manager that closes it."""

    def __init__(self, url: str, *, root: Path, clock: Clock | None = None) -> None:
        self._url = clean_url(url, root)
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._opened: Any = None
        self._tables: Tables | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        with self._lock:
            if self._opened is not None:
                self._opened.destroy()
                self._opened = None
            if self._tables is not None:
                self._tables.close()
                self._tables = None

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = connect(self._url)
            return self._opened

    def client(self) -> Any:
        """The queue's own client, for this room's parts."""
        return self._client

    @property
    def tables(self) -> Tables:
        """Our own tables, for this room's parts."""
        with self._lock:
            if self._tables is None:
                assert self._client is not None  # makes the database
                self._tables = Tables(self._url)
            return self._tables

    def _now_s(self) -> float:
        return self._clock.now_us() / 1e6
