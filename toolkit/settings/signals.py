"""SIGTERM and SIGINT: how every process of a workspace is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["handling", "stop_on_signals", "until_signal"]

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let a function handle both signals as long as the block lasts.

    Python lets the main thread alone do that; in any other one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former: dict[signal.Signals, Any] = {}
    try:
        for number in _NUMBERS:
            former[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """Return an event that both signals set as long as the block lasts; see :func:`handling`."""
    stop = threading.Event()
    with handling(lambda *_: stop.set()):
        yield stop


def stop_on_signals() -> threading.Event:
    """Return an event that both signals set from now on; call it in the main thread."""
    stop = threading.Event()
    for number in _NUMBERS:
        signal.signal(number, lambda *_: stop.set())
    return stop
