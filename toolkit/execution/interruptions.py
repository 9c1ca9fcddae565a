"""SIGTERM and SIGINT while a run is recorded as running: none may end the process without a record."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from toolkit.settings import handling

__all__ = ["Interruptions", "interruptions"]


class Interruptions:
    """What came so far, kept for whoever listens next; make it with :func:`interruptions`.

    Attributes:
        kept: A signal that nobody has been told of.
    """

    def __init__(self) -> None:
        self.kept: signal.Signals | None = None
        self._listener: Callable[[str], None] | None = None

    @contextmanager
    def told_to(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Call a function with the name of each signal; at once, if one came before."""
        self._listener = listener
        try:
            if self.kept is not None:
                kept, self.kept = self.kept, None
                listener(kept.name)
            yield
        finally:
            self._listener = None

    def hear(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal."""
        name = signal.Signals(number)
        if self._listener is None:
            self.kept = self.kept or name
        else:
            self._listener(name.name)


@contextmanager
def interruptions() -> Iterator[Interruptions]:
    """Keep signals for a listener, where Python lets this thread handle them.

    One that nobody listened to is delivered again at the end, to whoever handled it before.
    """
    heard = Interruptions()
    try:
        with handling(heard.hear):
            yield heard
    finally:
        if heard.kept is not None:
            signal.raise_signal(heard.kept)
