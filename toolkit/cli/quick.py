"""Imported first: the process of a command looks for garbage seldom, and not at its end.

It loads a thousand modules, which stay, and then ends; looking through them again and again is a tenth
of the time that a short command takes.
"""

from __future__ import annotations

import atexit
import gc

__all__: list[str] = []

_COLLECT_AFTER = (100_000, 20, 50)

gc.set_threshold(*_COLLECT_AFTER)
atexit.register(gc.freeze)  # what is left then goes with the process
