"""What a server prints to its error output, without the secrets that it prints with it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["screened_log"]

_LONGEST_LINE = 64_000
_HELD_BACK = "(a line that could not be searched for secrets is left out)"


@contextmanager
def screened_log(path: Path, screen: Callable[[str], str]) -> Iterator[TextIO]:
    """Yield a file for a process's error output, whose lines are written to ``path`` screened.

    Each line is looked at on its own (a longer one in pieces of 64 kB), so a secret that a server
    breaks over two lines is not found.  The log is complete once the process has ended; what
    children of its own print after that is read as long as they live.

    Args:
        path: The log; made with mode 0600, its folder with 0700, and added to.
        screen: Returns a line without secrets; where it raises, the line is left out.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    reading, writing = os.pipe()

    def copy() -> None:
        with os.fdopen(reading, "rb") as lines, os.fdopen(descriptor, "w", encoding="utf-8") as log:
            while line := lines.readline(_LONGEST_LINE):
                log.write(_screened(line, screen))
                log.flush()

    threading.Thread(target=copy, name=f"log of {path.stem}", daemon=True).start()
    with os.fdopen(writing, "w", encoding="utf-8") as output:
        yield output


def _screened(line: bytes, screen: Callable[[str], str]) -> str:
    text = line.decode("utf-8", "replace")
    end = "\n" if text.endswith("\n") else ""
    try:
        return screen(text.removesuffix("\n")) + end
    except Exception:  # noqa: BLE001 - a log may not end a server, nor leak for that
        return _HELD_BACK + end
