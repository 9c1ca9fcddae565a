"""What runs that wait for people cost a worker, and how fast they go on when somebody has decided.

``python -m benchmarks.waiting [--runs N] [--slots N] [--idle S]`` prints a table and writes
``results/waiting.json``.

N runs (default 5,000, some minutes; ``--runs 10000`` takes twice as long) go through a real queue on
SQLite and a real worker; each waits for a person with a request of its own in a real ledger and a
deadline in a week, which is a row of the queue.  Their processes are a shell that does nothing, so
that the figures are the worker's and not those of N kernels.  When all wait, memory (RSS) and
processor time of the worker are measured over S seconds, beside the same worker before its first
run.  Then all requests are approved in the ledger alone, as if everybody who decided had died before
waking anybody: what wakes the runs is the worker's sweep, which is held back until the last decision.
Every run has to be finished exactly once.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import figure, machine, publish
from toolkit.ledger import Approval, Ledger
from toolkit.scheduling import Engine
from toolkit.values import (
    CallKind,
    Decision,
    Effect,
    Environment,
    Intent,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
)

__all__ = ["Measured", "measure"]

_WEEK_US = 7 * 86_400_000_000
_PATIENCE_S = 1_500.0


@dataclass(frozen=True)
class Measured:
    """What was seen.

    Attributes:
        runs: How many waited, were woken, and finished once each.
        rss_before, rss_waiting: The worker's memory in bytes.
        cpu_before, cpu_waiting: Its share of one core while nothing happens.
        woken_s, finished_s: Seconds from the last decision until the last run was in the queue
            again, and until the last one was finished.
    """

    runs: int
    rss_before: int
    rss_waiting: int
    cpu_before: float
    cpu_waiting: float
    woken_s: float
    finished_s: float


def measure(runs: int, *, slots: int = 32, idle_s: float = 20.0) -> Measured:
    """Let runs wait and go on; see the module.

    Raises:
        RuntimeError: A run was lost, or finished twice.
        TimeoutError: It took longer than 25 minutes.
    """
    folder = Path(tempfile.mkdtemp(prefix="waiting-"))
    ledger_url, engine_url = f"sqlite:///{folder}/ledger.db", f"sqlite:///{folder}/engine.db"
    worker: subprocess.Popen[bytes] | None = None
    try:
        with Ledger.open(ledger_url) as ledger, Engine(engine_url, root=folder) as engine:
            names = [f"run-{number:05}" for number in range(runs)]
            worker = _start(folder, engine_url, ledger_url, slots)
            process = psutil.Process(worker.pid)
            rss_before, cpu_before = _idle(process, idle_s)
            asked = []
            for name in names:  # the worker takes the first while the last are made
                asked.append(_park(ledger, name))
                engine.submit("bill", {}, run_id=name)
            _until(lambda: not engine.pending(), "all runs to wait", max(1.0, runs / 500))
            rss_waiting, cpu_waiting = _idle(process, idle_s)
            woken_s, finished_s = _decide(ledger, asked, folder)
            _check(ledger, names, folder)
        return Measured(runs, rss_before, rss_waiting, cpu_before, cpu_waiting, woken_s, finished_s)
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, engine_url: str, ledger_url: str, slots: int) -> subprocess.Popen[bytes]:
    log = folder / "worker.log"
    arguments = [str(folder), engine_url, ledger_url, str(slots)]
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.waiting_worker", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def up() -> bool:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker did not start: {log.read_text()}")
        return "started" in log.read_text()

    _until(up, "the worker to start", 0.1)
    return worker


def _park(ledger: Ledger, name: str) -> Approval:
    """Record a run that waits for a person, as its gateway and its runner do."""
    run = ledger.create_run(
        RunRecord(
            name,
            RunKind.RUN,
            Environment.PRODUCTION,
            "emil",
            state=RunState.RUNNING,
            job="bill",
            version=1,
            tags={"queued": "yes"},
        )
    )
    arguments = {"recipient": "ben ltd", "amount": 120}
    intent = Intent(name, CallKind.TOOL, "pay", arguments, request_id=name, effect=Effect.WRITE)
    call = ledger.begin(intent, Decision(Verdict.ASK, approver="approver")).call
    view = {"title": "Pay 120 to ben ltd", "arguments": [arguments], "reasons": ["a rule"] * 3}
    until_us = call.started_us + _WEEK_US
    asked = ledger.ask(call, role="approver", view=view, expires_us=until_us)
    if ledger.park(run, [asked.id], message=f"waits: {asked.id}") is None:
        raise RuntimeError(f"{name} was not parked")
    return asked


def _idle(process: psutil.Process, seconds: float) -> tuple[int, float]:
    """Return memory and the share of a core that a process uses while nothing happens."""
    time.sleep(min(5.0, seconds))
    before, start = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - start
    used = (after.user + after.system) - (before.user + before.system)
    return process.memory_info().rss, used / took


def _decide(ledger: Ledger, asked: list[Approval], folder: Path) -> tuple[float, float]:
    hold = folder / "hold"
    hold.touch()
    for each in asked:
        ledger.answer(each.id, by="anna", verdict="approved", digest=each.digest)
    hold.unlink()
    start = time.monotonic()
    log, finished = folder / "worker.log", folder / "finished"

    def woken() -> bool:
        lines = log.read_text().splitlines()
        return sum(int(each.split()[1]) for each in lines if each.startswith("woke ")) >= len(asked)

    _until(woken, "all runs to be woken", 0.2)
    woken_s = time.monotonic() - start
    _until(
        lambda: finished.exists() and finished.read_bytes().count(b"\n") >= len(asked),
        "all runs to finish",
        0.2,
    )
    finished_s = time.monotonic() - start
    _until(lambda: not ledger.runs(state=RunState.WAITING, limit=1), "the ledger", 0.2)
    return woken_s, finished_s


def _check(ledger: Ledger, names: list[str], folder: Path) -> None:
    finished = Counter((folder / "finished").read_text().split())
    wrong = {name: finished[name] for name in names if finished[name] != 1}
    if wrong or len(finished) != len(names):
        raise RuntimeError(f"{len(wrong)} runs were not finished exactly once: {list(wrong)[:3]}")
    states = Counter(run.state for run in ledger.runs(limit=len(names) + 1))
    if states != {RunState.SUCCEEDED: len(names)}:
        raise RuntimeError(f"the ledger says {dict(states)}")


def _until(done: Callable[[], Any], what: str, every_s: float) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_PATIENCE_S:.0f} s for {what}")
        time.sleep(every_s)


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--idle", type=float, default=10.0)
    options = parser.parse_args()
    seen = measure(options.runs, slots=options.slots, idle_s=options.idle)
    where = f"{seen.runs:,} runs, {options.slots} slots, SQLite; {machine()}"
    mb, grown = 1e6, seen.rss_waiting - seen.rss_before
    peer = "the peer is the same worker before its first run"
    publish(
        "waiting",
        {
            "runs finished exactly once": figure(seen.runs, None, "runs", where, digits=0),
            "memory of the worker": figure(
                seen.rss_waiting / mb,
                seen.rss_before / mb,
                "MB",
                f"{where}; {peer}",
                lower_is_better=True,
                digits=1,
            ),
            "memory per waiting run": figure(grown / seen.runs, None, "bytes", where, digits=0),
            "idle processor time": figure(
                100 * seen.cpu_waiting,
                100 * seen.cpu_before,
                "% of a core",
                f"{where}; {peer}",
                lower_is_better=True,
                digits=2,
            ),
            "all woken by the sweep": figure(seen.woken_s, None, "s", where, digits=1),
            "all finished": figure(seen.finished_s, None, "s", where, digits=1),
        },
    )


if __name__ == "__main__":
    main()
