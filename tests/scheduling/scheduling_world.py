"""A workspace, its engine, and the worker processes that a test starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from toolkit.scheduling import Engine, RunStatus
from toolkit.values import RunState

T = TypeVar("T")

_WORKER = Path(__file__).with_name("scheduling_worker.py")
_PATIENCE_S = 40.0
_ENDED = {state for state in RunState if state.terminal} | {RunState.WAITING}


def until(look: Callable[[], T]) -> T:
    """Return the first truth that ``look`` sees, however long it takes within reason."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return seen


class World:
    """Attributes: ``root`` (workspace), ``url``, ``engine``."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        self.engine = Engine(url, root=root)
        self._workers: list[subprocess.Popen[str]] = []

    def start(
        self, *, lease_s: float = 30.0, grace_s: float = 5.0, retry_delay_s: float = 0.1
    ) -> subprocess.Popen[str]:
        """Start a worker and wait until it takes work."""
        log = self.root / f"worker-{len(self._workers)}.log"
        numbers = [str(lease_s), str(grace_s), str(retry_delay_s)]
        argv = [sys.executable, str(_WORKER), self.url, str(self.root), *numbers]
        with log.open("wb") as file:
            worker = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, text=True)
        self._workers.append(worker)
        until(lambda: "started  worker" in self.log(worker) or worker.poll())
        return worker

    def write_jobs(self, text: str) -> None:
        """Write the settings of jobs, before a worker starts."""
        path = self.root / "registry" / "jobs.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def log(self, worker: subprocess.Popen[str]) -> str:
        """What a worker reported."""
        return (self.root / f"worker-{self._workers.index(worker)}.log").read_text()

    def ended(self, run_id: str) -> RunStatus:
        """Wait until a run has ended or waits, and return how."""
        return until(
            lambda: status if (status := self.engine.status(run_id)).state in _ENDED else None
        )

    def running(self, run_id: str, times: int = 1) -> int:
        """Wait until a run's process was started that often, and return the last one's pid."""
        return until(lambda: self.pids(run_id, "started")[times - 1 :] or None)[0]

    def pids(self, run_id: str, what: str) -> list[int]:
        """Processes that noted something for a run, in order."""
        trace = self.root / "trace"
        lines = trace.read_text().splitlines() if trace.exists() else []
        found = [line.split() for line in lines]
        return [int(pid) for note, run, pid in found if (note, run) == (what, run_id)]

    def run_ids(self) -> list[str]:
        """Run id of every process that started, in order."""
        trace = self.root / "trace"
        lines = trace.read_text().splitlines() if trace.exists() else []
        return [line.split()[1] for line in lines if line.startswith("started ")]

    def close(self) -> None:
        """Kill the workers that still run; their children die with them."""
        self.engine.close()
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
                worker.wait()
