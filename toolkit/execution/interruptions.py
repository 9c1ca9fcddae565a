"""SIGTERM and SIGINT while a run is recorded as running: none may end the process without a record."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interruptions", "interruptions"]

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Interruptions:
    """What came so far, kept for whoever listens next; make it with :func:`interruptions`."""

    def __init__(self) -> None:
        self._kept: signal.Signals | None = None
        self._listener: Callable[[str], None] | None = None

    @contextmanager
    def told_to(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Call a function with the name of each signal; at once, if one came before."""
        self._listener = listener
        try:
            if self._kept is not None:
                kept, self._kept = self._kept, None
                listener(kept.name)
            yield
        finally:
            self._listener = None

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number)
        if self._listener is None:
            self._kept = self._kept or name
        else:
            self._listener(name.name)


@contextmanager
def interruptions() -> Iterator[Interruptions]:
    """Keep signals for a listener, where Python lets this thread handle them.

    One that nobody listened to is delivered again at the end, to whoever handled it before.
    """
    heard = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    former: dict[signal.Signals, Any] = {}
    try:
        for number in _NUMBERS:
            former[number] = signal.signal(number, heard._hear)  # noqa: SLF001 - its maker
        yield heard
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if heard._kept is not None:  # noqa: SLF001 - its maker
            signal.raise_signal(heard._kept)  # noqa: SLF001
