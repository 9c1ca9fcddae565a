"""What a storm needs: kernels that can be killed, moments drawn from a seed, and the reckoning."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_kernel import Journal
from jupyter_client.manager import KernelManager

from toolkit.client import ensure_gateway
from toolkit.errors import GatewayUnavailable
from toolkit.gateway import read_record
from toolkit.ledger import Ledger, is_alive
from toolkit.settings import Workspace
from toolkit.tracing import MlflowStore, RunCount, Shipper, compare_counts
from toolkit.values import CallRecord, RunRecord

HERE = Path(__file__).parent
THREADS = 6
LIMITS = 'budget: {usd: "50.00", tokens: 50000000, calls: 50000, seconds: null}'


def lift_limits(workspace: Workspace) -> None:
    """Give a burst the budget it needs."""
    for path in (workspace.registry / "policies").glob("*/policy.yaml"):
        lines = [
            LIMITS if line.startswith("budget:") else line for line in path.read_text().split("\n")
        ]
        path.write_text("\n".join(lines))


def seed() -> int:
    """The seed of this storm: CHAOS_SEED to see one again, else a new one."""
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))


# -- kernels ---------------------------------------------------------------------------------------


class PythonKernel:
    """A plain Python process."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_kernel.py"), *arguments],
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """Return the exit code; a kernel that still runs is ended."""
        if self.running():
            self._process.kill()
        return self._process.wait()


class JupyterKernel:
    """A real ipykernel that runs the same burst in a cell."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self._manager = KernelManager(kernel_name="python3")
        path = os.pathsep.join([str(HERE), *sys.path])
        self._manager.start_kernel(
            env=os.environ | {"PYTHONPATH": path} | environ, cwd=arguments[0]
        )
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.pid = int(self._manager.provisioner.pid)
        code = f"%load_ext toolkit\nimport chaos_kernel\nchaos_kernel.burst(*{arguments!r})"
        self._request = self._client.execute(code, allow_stdin=False)
        self._code: int | None = None

    def running(self) -> bool:
        if self._code is None and not self._manager.is_alive():
            self._code = -signal.SIGKILL
        while self._code is None:
            try:
                reply = self._client.get_shell_msg(timeout=0)
            except Exception:  # queue.Empty: still at work
                break
            if reply["parent_header"].get("msg_id") == self._request:
                self._code = 0 if reply["content"]["status"] == "ok" else 1
                if self._code:
                    print("\n".join(reply["content"]["traceback"]))
        return self._code is None

    def end(self) -> int:
        """Return 0 if the cell succeeded; the kernel is ended."""
        self.running()
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        return -signal.SIGKILL if self._code is None else self._code


Kernel = PythonKernel | JupyterKernel


# -- the storm -------------------------------------------------------------------------------------


@dataclass
class Storm:
    """A burst of calls with deaths in it.

    Attributes:
        workspace: Where.
        calls: How many numbered calls.
        make: Starts a kernel.
        environ: What kernels get in their environment.
        again: Whether the second kernel starts from the top, as the kernel of a run does.
        deaths: What died, when (answers so far), with which pid.
    """

    workspace: Workspace
    calls: int
    rng: random.Random
    make: Callable[[list[str], dict[str, str]], Kernel] = PythonKernel
    environ: dict[str, str] = field(default_factory=dict)
    again: bool = False
    deaths: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.workspace.root / "journal"

    def facts(self, name: str) -> list[dict]:
        """The journal's facts of one kind: ``answered``, ``did`` or ``doubt``."""
        return [fact for fact in Journal.read(self.journal) if name in fact]

    def answered(self) -> set[int]:
        return {fact["answered"] for fact in self.facts("answered")}

    def lines(self) -> int:
        """How many answers have arrived, first and repeated ones; cheap enough to ask often."""
        files = self.journal.glob("*.jsonl")
        return sum(path.read_bytes().count(b'"answered"') for path in files)

    def rage(self) -> None:
        """Run the burst: the kernel dies once, the gateway twice, the shipper once."""
        moments = self._moments()
        kernel = self._start(set())
        try:
            for moment, victim in moments:
                self._wait_for(moment, kernel)
                time.sleep(self.rng.uniform(0, 0.05))
                if victim == "kernel":
                    self._kill(victim, kernel.pid)
                    kernel.end()
                    kernel = self._start(set() if self.again else self.answered())
                else:
                    self._kill(victim, self._pid(victim))
            while kernel.running():
                time.sleep(0.1)
        finally:
            code = kernel.end()
        assert code == 0, f"the last kernel ended with {code}"

    def _moments(self) -> list[tuple[int, str]]:
        """Answers so far at which something dies, in order; the second kernel sees deaths too."""
        n, draw = self.calls, self.rng.randint
        return sorted(
            [
                (draw(n // 20, n // 2), "gateway"),
                (draw(n // 5, n * 6 // 10), "kernel"),
                (draw(n // 2, n * 9 // 10), "gateway"),
                (draw(n // 20, n * 9 // 10), "shipper"),
            ]
        )

    def _start(self, done: set[int]) -> Kernel:
        numbers = self.workspace.root / "numbers.json"
        numbers.write_text(json.dumps([n for n in range(self.calls) if n not in done]))
        root = str(self.workspace.root)
        return self.make([root, str(self.journal), str(numbers), str(THREADS)], self.environ)

    def _wait_for(self, answers: int, kernel: Kernel) -> None:
        deadline = time.monotonic() + 120
        while self.lines() < answers:
            assert kernel.running(), "the kernel ended before its time"
            assert time.monotonic() < deadline, f"no more answers after {self.lines()}"
            time.sleep(0.005)

    def _pid(self, victim: str) -> int:
        """A gateway or shipper that lives now; one that is just being started is waited for."""
        deadline = time.monotonic() + 60
        while True:
            found = self._gateways() if victim == "gateway" else shippers(self.workspace)
            if found:
                return self.rng.choice(found)
            assert time.monotonic() < deadline, f"no {victim} lives"
            time.sleep(0.01)

    def _gateways(self) -> list[int]:
        record = read_record(self.workspace.state)
        return [record.pid] if record is not None and is_alive(record.pid) else []

    def _kill(self, victim: str, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.deaths.append((victim, self.lines(), pid))


def shippers(workspace: Workspace) -> list[int]:
    """The living shippers of this workspace: one ships, the others wait for their turn."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "toolkit.tracing.shipper" in words and str(workspace.root) in words:
            found.append(process.pid)
    return sorted(pid for pid in found if is_alive(pid))


@contextlib.contextmanager
def keeping_a_gateway(workspace: Workspace) -> Iterator[None]:
    """Keep a gateway alive, as the runner of a run does: its kernel cannot start one."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            with contextlib.suppress(GatewayUnavailable):
                ensure_gateway(workspace.root)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


# -- the reckoning ---------------------------------------------------------------------------------


@contextlib.contextmanager
def books(workspace: Workspace) -> Iterator[tuple[Ledger, MlflowStore]]:
    """The ledger and MLflow, read past gateway and server."""
    with Ledger.open(workspace.database_url) as ledger:
        yield ledger, MlflowStore(workspace.mlflow_uri, artifacts=workspace.artifacts)


def counts(workspace: Workspace) -> list[RunCount]:
    """Finished calls in the ledger and spans in MLflow, by run."""
    with books(workspace) as (ledger, store):
        return compare_counts(ledger, store, experiment=workspace.settings.experiment)


def wait_for_shipper(workspace: Workspace) -> float:
    """Wait until nothing is left to ship; return the seconds that it took."""
    start = time.monotonic()
    with Ledger.open(workspace.database_url) as ledger:
        while ledger.unshipped_count():
            assert time.monotonic() < start + 90, f"{ledger.unshipped_count()} calls are not sent"
            time.sleep(0.2)
    return time.monotonic() - start


def every_call(workspace: Workspace) -> list[CallRecord]:
    """All calls of all runs."""
    found: list[CallRecord] = []
    with Ledger.open(workspace.database_url) as ledger:
        for run in ledger.runs(limit=1000):
            found += calls_of(ledger, run)
    return found


def calls_of(ledger: Ledger, run: RunRecord) -> list[CallRecord]:
    """All calls of one run."""
    found: list[CallRecord] = []
    while page := ledger.calls(run.run_id, after_seq=found[-1].seq if found else 0):
        found += page
    return found


def ship_everything_again(workspace: Workspace) -> int:
    """Make the ledger forget what was shipped, and ship; return how many calls that were."""
    path = workspace.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw:
        raw.execute("UPDATE calls SET shipped = 0")
        raw.commit()
    with books(workspace) as (ledger, store):
        waiting = ledger.unshipped_count()
        name = workspace.settings.experiment
        shipper = Shipper(ledger, workspace.mlflow_uri, store=store, experiment=name)
        assert shipper.drain(90) == 0
    return waiting


def rows_in_mlflow(workspace: Workspace) -> tuple[int, int]:
    """How many spans and traces MLflow's tables hold, read past MLflow."""
    path = workspace.mlflow_uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw:
        spans = raw.execute("SELECT count(*) FROM spans").fetchone()[0]
        return spans, raw.execute("SELECT count(*) FROM trace_info").fetchone()[0]
