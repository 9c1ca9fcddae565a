"""Attempts to get more than a control group allows, for ``probes.py``; of the standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import Any

__all__ = ["group_memory", "group_processes"]

Targets = dict[str, Any]
Answer = tuple[bool, str]

_CHILDREN = 4  # together half as much again as the cap, each one far below it


def group_memory(t: Targets) -> Answer:
    """Held if processes that are each below the cap do not get more than it together."""
    cap = t.get("memory_cap")
    if cap is None:
        return True, "nothing caps it"
    share = cap * 3 // 2 // _CHILDREN
    read, write = os.pipe()
    children = [_hungry(share, write) for _ in range(_CHILDREN)]
    os.close(write)
    ready, ended = b"", 0
    try:
        os.set_blocking(read, False)
        deadline = time.monotonic() + 20
        while len(ready) + ended < _CHILDREN and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                ready += os.read(read, _CHILDREN)
            ended = sum(_has_ended(child) for child in children)
            time.sleep(0.01)
        ended = sum(_has_ended(child) for child in children)
    finally:
        os.close(read)
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(child, 0)
    text = f"{_CHILDREN - ended} of {_CHILDREN} processes with {share >> 20} MiB each"
    return ended == 0, text


def _hungry(share: int, ready: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        # The system kills this one before the process that asks.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        held = b"\1" * share
        os.write(ready, held[:1])
        time.sleep(60)
    finally:
        os._exit(1)


def _has_ended(child: int) -> bool:
    status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return status is not None


def group_processes(t: Targets) -> Answer:
    """Held if no more processes can be started than the cap says."""
    cap = t.get("process_cap")
    if cap is None:
        return True, "nothing caps them"
    children = []
    try:
        for _ in range(cap + 1):
            child = os.fork()
            if child == 0:
                try:
                    time.sleep(60)
                finally:
                    os._exit(0)
            children.append(child)
    except OSError as error:
        return (
            False,
            f"{errno.errorcode.get(error.errno or 0, str(error.errno))} after {len(children)}",
        )
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return True, f"{len(children)} processes"
