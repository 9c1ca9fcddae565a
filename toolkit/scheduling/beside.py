"""What happens beside the work of a worker: looking after what nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from toolkit.errors import ToolkitError

__all__ = ["tending"]


@contextmanager
def tending(
    tend: Callable[[], object] | None, every_s: float, warn: Callable[[str], None]
) -> Iterator[None]:
    """Call a function in a thread of its own, again and again, as long as the block lasts.

    Args:
        tend: What to call; ``None``: nothing.  Where it returns a truth it is called again at once.
        every_s: Seconds between two calls.
        warn: Told why a call failed, once while the reason stays the same.
    """
    if tend is None:
        yield
        return
    done = threading.Event()

    def loop() -> None:
        said = ""
        more: object = False
        while not done.wait(0.0 if more else every_s):
            try:
                more = tend()
                said = ""
            except ToolkitError as error:
                more = False
                if error.message != said:
                    warn(error.message)
                said = error.message

    thread = threading.Thread(target=loop, name="tend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
