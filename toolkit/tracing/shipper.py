"""The shipper process: ``python -m toolkit.tracing.shipper ROOT [--parent PID]``.

Every gateway starts one.  One per workspace ships, under a file lock; the others wait, and one of
them takes over when it ends.  It ends when its parent is gone and the outbox is empty, or on
SIGTERM and SIGINT after draining.  Killed at any moment, it loses and doubles nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from toolkit.errors import ToolkitError
from toolkit.ledger import Ledger, is_alive
from toolkit.settings import Workspace, open_workspace, stop_on_signals
from toolkit.tracing.shipping import Shipper
from toolkit.tracing.turns import TURN, Turn

__all__ = ["main"]

_log = logging.getLogger("toolkit.tracing")
_LOOK_S = 0.5
_NICE = 10


def _parent_gone(pid: int | None) -> Callable[[], bool]:
    """Return a function that says whether the parent is gone; without one, never."""
    if pid is None:
        return lambda: False
    try:
        parent = psutil.Process(pid)
    except psutil.Error:
        return lambda: True

    return lambda: not is_alive(parent)


def _acquire(lock: FileLock, stop: threading.Event, gone: Callable[[], bool]) -> bool:
    """Wait for the lock; give up when there is nobody left to ship for."""
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if stop.wait(_LOOK_S) or gone():
                return False
        else:
            return True


def _write_stats(path: Path, shipper: Shipper) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": os.getpid(), **asdict(shipper.stats)}), "utf-8")
    part.replace(path)


def _ship(
    workspace: Workspace, stop: threading.Event, gone: Callable[[], bool], poll_s: float
) -> int:
    """Ship until told to stop, or until the parent is gone and the outbox is empty.

    Returns:
        The calls that are left: 0 unless MLflow is away.
    """
    ledger = Ledger.open(workspace.database_url)
    stats = workspace.state / "shipper.json"
    try:
        shipper = Shipper(
            ledger,
            workspace.mlflow_uri,
            artifacts=workspace.artifacts,
            experiment=workspace.settings.experiment,
            turn=Turn(workspace.state / TURN),
        )
        last = None

        def idle() -> bool:
            nonlocal last
            if shipper.stats != last:
                last = shipper.stats
                _write_stats(stats, shipper)
            return gone()

        shipper.run_forever(stop, poll_s=poll_s, idle=idle)
        _write_stats(stats, shipper)
        return ledger.unshipped_count()
    finally:
        ledger.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit code: 0, or 75 when calls are left over."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.tracing.shipper")
    parser.add_argument("root", type=Path, help="workspace")
    parser.add_argument("--parent", type=int, help="end when this process is gone")
    parser.add_argument("--poll", type=float, default=0.3, help="seconds between two looks")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = stop_on_signals()
    # Calls are waited for, their spans are not: on a busy machine the gateway goes first.
    os.nice(_NICE)
    gone = _parent_gone(options.parent)
    try:
        workspace = open_workspace(options.root)
        lock = FileLock(workspace.state / "shipper.lock")
        if not _acquire(lock, stop, gone):
            return 0
        try:
            left = _ship(workspace, stop, gone, options.poll)
        finally:
            lock.release()
    except ToolkitError as error:
        _log.error("%s", error)  # noqa: TRY400  - a sentence, not a traceback
        return error.exit_code
    if left:
        _log.warning("%d calls are not in MLflow yet; the next shipper sends them", left)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
