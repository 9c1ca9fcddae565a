"""The process that tells MLflow about a worker's runs: ``python -m toolkit.app.telling ROOT --parent PID``.

A worker's runs end with their state in the ledger.  This process, of which a worker has one while
it has work, draws their pages and shows them in MLflow: it opens MLflow once for many runs.  Killed
at any moment it loses nothing; whoever looks next goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.errors import LedgerError, ToolkitError, TrackingError
from toolkit.ledger import is_alive
from toolkit.settings import Workspace, stop_on_signals
from toolkit.values import RunState

__all__ = ["Teller", "main"]

_log = logging.getLogger("toolkit.telling")
_NICE = 10
_POLL_S = 0.5
_AWAY_S = 10.0
_IDLE_S = 60.0
_END_S = 10.0
_AGAIN_S = 10.0
_NEWEST = 100
_ALL = 1_000


class Teller:
    """A worker's side of it; thread-safe.

    Args:
        workspace: Whose runs.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = float("-inf")

    def look(self) -> None:
        """See to it that the process is there: a run begins or has ended."""
        with self._lock:
            now_s = time.monotonic()
            gone = self._process is None or self._process.poll() is not None
            if gone and now_s - self._started_s > _AGAIN_S:
                self._started_s = now_s
                self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        state = self._workspace.state
        (state / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "toolkit.app.telling", str(self._workspace.root)]
        with (state / "logs" / "telling.log").open("ab") as log:
            return subprocess.Popen(
                [*argv, "--parent", str(os.getpid())],
                cwd=self._workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """Have it tell what is left, for ten seconds at most, and end it."""
        with self._lock:
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _tell(bench: Workbench, stop: threading.Event, parent: psutil.Process) -> None:
    """Tell until told to stop, until the parent is gone, or until there is nothing for a minute."""
    limit, last_s = _ALL, time.monotonic()
    while True:
        ending = stop.is_set() or not is_alive(parent)
        try:
            told = bench.runner.catch_up(limit=limit)
        except (TrackingError, LedgerError) as error:
            _log.warning("%s", error)
            limit, wait_s = _ALL, _AWAY_S
        else:
            # After many there may be older ones that were not looked at.
            limit, wait_s = (_ALL if told > _NEWEST // 2 else _NEWEST), _POLL_S
            if told or bench.ledger.runs(state=RunState.RUNNING, limit=1):
                last_s = time.monotonic()
        if ending or time.monotonic() - last_s > _IDLE_S:
            return
        stop.wait(wait_s)


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.app.telling")
    parser.add_argument("root", type=Path, help="workspace")
    parser.add_argument("--parent", type=int, required=True, help="end when this process is gone")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = stop_on_signals()
    # Runs are waited for, their pages are not: on a busy machine the runs go first.
    os.nice(_NICE)
    try:
        parent = psutil.Process(options.parent)
        with open_workbench(options.root) as bench:
            _tell(bench, stop, parent)
    except psutil.NoSuchProcess:
        return 0
    except ToolkitError as error:
        _log.error("%s", error)  # noqa: TRY400 - a sentence, not a traceback
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
