"""What a small job costs in a worker: papermill's command line against a warm worker's runs.

``python -m benchmarks.worker [--rounds N] [--count N] [--no-peer]`` prints a table and writes
``results/worker.json``.

A workspace is made in a new folder, with policy, ledger, queue and MLflow on SQLite, and a sealed job
of three cells: ``import pandas``, a frame and a model call through the gateway (a scripted provider,
which answers at once), and a result.  ``toolkit worker`` runs it, with two slots and kernels
in an enclosure (L2; where bubblewrap cannot make one, with limits only, and the figures say so).

* One by one: from the moment at which the queue has recorded the run until the ledger has its end,
  the queue's look every 0.2 s included, and apart from that the run itself: from its first
  record in the ledger to its last.
* The peer is ``papermill IN OUT`` on the same notebook without the call and the result, from
  start to end.  It has no queue, no gateway, no record, no enclosure.
* Runs per minute are those of a full queue on two slots; the peer has two commands at once.
* Memory of a run that is under way is what nobody else shares (USS of smaps) of its process and
  of its kernel, while it waits in a cell; of the host that runs are forked from, once for all of
  them.  A run that waits for a person is a row of the queue: no process (``make bench-waiting``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import nbformat
import psutil

from benchmarks.results import figure, machine, publish
from toolkit.client import ensure_gateway
from toolkit.document import Notebook
from toolkit.errors import GatewayUnavailable
from toolkit.gateway import read_record
from toolkit.isolation import reached_level
from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.scheduling import Engine
from toolkit.settings import Workspace, open_workspace
from toolkit.values import IsolationLevel, RunRecord, RunState, new_id

T = TypeVar("T")

_SLOTS = 2
_MIB = 2**20
_PATIENCE_S = 180.0
_CELLS = (
    "import pandas as pd\nimport toolkit",
    "frame = pd.DataFrame({'a': range(100)})\nsaid = toolkit.model('how many?').text",
    "toolkit.result(total=int(frame.a.sum()), said=said)",
)
_PEER_CELLS = (
    "import pandas as pd",
    "frame = pd.DataFrame({'a': range(100)})",
    "print(int(frame.a.sum()))",
)
_STAYING = (*_CELLS, "import time\ntime.sleep(20)")
_FILES = {
    "toolkit.toml": 'user = "bench"\n',
    "registry/models.yaml": """
default_route: default
providers:
  script: {kind: scripted, script: answers.yaml}
routes:
  default:
    provider: script
    model: scripted-1
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
""",
    "registry/answers.yaml": "answers:\n  - {text: many, input_tokens: 7, output_tokens: 3}\n",
    "registry/policies/production/policy.yaml": """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: LEVEL
require_results: true
budget: {usd: "0.01", tokens: 100000, calls: 200, seconds: 120}
gates: {}
""",
    "registry/policies/production/rules.cedar": """
@id("models") permit(principal, action == Action::"call_model", resource);
@id("results") permit(principal, action == Action::"publish_result", resource);
""",
}


def notebook(*cells: str) -> bytes:
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "p", "language": "python"}
    node.cells = [nbformat.v4.new_code_cell(cell, id=f"c{n}") for n, cell in enumerate(cells)]
    return str(nbformat.writes(node)).encode()


def make_workspace(root: Path, level: IsolationLevel) -> Workspace:
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = "sandbox" if level is IsolationLevel.L2 else "limits"
        path.write_text(text.replace("LEVEL", wanted).lstrip(), "utf-8")
    workspace = open_workspace(root)
    registry = Registry(workspace.registry)
    for job, cells in (("small", _CELLS), ("staying", _STAYING)):
        made = Notebook.parse(notebook(*cells))
        files = {"notebook.ipynb": made.normalised(), "evidence.json": b'{"stages": []}'}
        facts = {"by": "bench", "parameters": made.schema, "results": list(made.results)}
        sealed = registry.seal(job, files, facts)
        registry.set_alias(job, "production", sealed.version, by="bench")
    return workspace


def until(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + _PATIENCE_S
    while not (seen := look()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {_PATIENCE_S:.0f} s for {what}")
        time.sleep(0.01)
    return seen


class Plant:
    """A workspace with a worker at work."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.ledger = Ledger.open(workspace.database_url)
        self.engine = Engine(workspace.engine_url, root=workspace.root)
        self.log = workspace.root / "worker.log"
        with self.log.open("wb") as file:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "toolkit", "worker", "--slots", str(_SLOTS)],
                cwd=workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def submit(self, job: str = "small") -> str:
        return self.engine.submit(f"{job}@production", {}, run_id=new_id("run"))

    def record(self, run_id: str) -> RunRecord | None:
        return next((run for run in self.ledger.runs(limit=500) if run.run_id == run_id), None)

    def ended(self, run_id: str) -> RunRecord:
        def look() -> RunRecord | None:
            if self.worker.poll() is not None:
                sys.exit(f"the worker ended: {self.log.read_text()}")
            found = self.record(run_id)
            return found if found is not None and found.state.terminal else None

        found = until(look, f"the end of a run; the worker says: {self.log.read_text()[-2000:]}")
        if found.state is not RunState.SUCCEEDED:
            sys.exit(f"a run did not go as it should: {found.message}\n{self.log.read_text()}")
        return found

    def run_one(self) -> tuple[float, float]:
        """Return the seconds from the queue's record, and from the run's own, to its end."""
        run_id = self.submit()
        queued_us = time.time_ns() // 1000
        run = self.ended(run_id)
        ended_us, started_us = run.ended_us or 0, run.started_us or 0
        return (ended_us - queued_us) / 1e6, (ended_us - started_us) / 1e6

    def host(self) -> psutil.Process | None:
        """The process that runs are forked from, once it has forked one."""
        living = psutil.Process(self.worker.pid).children()
        found = [each for each in living if "toolkit.scheduling.host" in each.cmdline()]
        return found[0] if found else None

    def warm_up(self) -> None:
        """Run until runs are forks and their kernels too."""
        until(self._is_up, "a gateway")
        host = until(self.host, "the host of runs")
        used = -1.0
        while used != sum(host.cpu_times()[:2]):  # it imports
            used = sum(host.cpu_times()[:2])
            time.sleep(5.0)
        for _ in range(4):
            self.run_one()

    def _is_up(self) -> bool:
        try:
            ensure_gateway(self.workspace.root)
        except GatewayUnavailable:  # a busy machine
            return False
        return True

    def per_minute(self, count: int) -> float:
        started = time.perf_counter()
        for run_id in [self.submit() for _ in range(count)]:
            self.ended(run_id)
        return 60 * count / (time.perf_counter() - started)

    def memory(self) -> dict[str, float]:
        """Return MiB of the host, of a run's process, and of its kernel."""
        run_id = self.submit("staying")
        until(lambda: self.ledger.results(run_id), "a run that stays")
        host = self.host()
        record = self.record(run_id)
        runner = int(((record and record.runner) or "").split(":")[1])
        names = {"run": psutil.Process(runner)}
        names |= {"host": host} if host else {}
        kernel = [
            each
            for each in psutil.process_iter()
            if each.name() == "kernel" and _belongs(each, run_id)
        ]
        found = {name: each.memory_full_info().uss / _MIB for name, each in names.items()}
        # An enclosure's own first process has the name too.
        found |= {"kernel": max(each.memory_full_info().uss for each in kernel) / _MIB}
        self.ended(run_id)
        return found

    def close(self) -> None:
        self.engine.close()
        self.ledger.close()
        self.worker.send_signal(signal.SIGTERM)
        try:
            self.worker.wait(60)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
        _end_gateway(self.workspace)


def _belongs(process: psutil.Process, run_id: str) -> bool:
    try:
        return any(run_id in str(value) for value in process.environ().values())
    except psutil.Error:
        return False


def _end_gateway(workspace: Workspace) -> None:
    record = read_record(workspace.state)
    if record is None:
        return
    try:
        gateway = psutil.Process(record.pid)
        beside = gateway.children()
        for each in (gateway, *beside):
            each.terminate()
        psutil.wait_procs([gateway, *beside], timeout=30)
    except psutil.Error:
        return


@contextmanager
def plant(level: IsolationLevel) -> Iterator[Plant]:
    home = Path(tempfile.mkdtemp(prefix="bw-"))
    try:
        made = Plant(make_workspace(home, level))
        try:
            yield made
        finally:
            made.close()
    finally:
        from toolkit.kernels import stop_zygotes

        stop_zygotes(home / ".toolkit" / "zygotes")
        shutil.rmtree(home, ignore_errors=True)


def papermill(home: Path, name: str = "out") -> float:
    source = home / f"{name}.in.ipynb"
    source.write_bytes(notebook(*_PEER_CELLS))
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(source), str(home / name)],
        check=True,
        capture_output=True,
        cwd=home,
    )
    return time.perf_counter() - started


def papermill_per_minute(home: Path, count: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(_SLOTS) as pool:
        list(pool.map(lambda number: papermill(home, f"out{number}"), range(count)))
    return 60 * count / (time.perf_counter() - started)


def measure(rounds: int, count: int, *, peer: bool) -> dict[str, Any]:
    level = max(IsolationLevel.L1, reached_level(IsolationLevel.L2).level)
    whole, own, theirs = [], [], []
    with plant(level) as ours, tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ours.warm_up()
        for _ in range(rounds):
            both = ours.run_one()
            whole.append(both[0])
            own.append(both[1])
            time.sleep(1.0)  # MLflow is told beside it, and that is not the peer's to pay
            theirs += [papermill(home)] if peer else []
        rate = ours.per_minute(count)
        their_rate = papermill_per_minute(home, max(_SLOTS, count // 4)) if peer else None
        memory = ours.memory()
    where = f"{level.name}, warm; {machine()}"
    one = f"median of {rounds}, in turn with the peer; {where}"
    median = statistics.median(theirs) if theirs else None
    found = {
        "queued_to_end": figure(statistics.median(whole), median, "s", one, lower_is_better=True),
        "start_to_end": figure(statistics.median(own), median, "s", one, lower_is_better=True),
        "runs_per_minute": figure(
            rate, their_rate, "runs", f"{_SLOTS} slots, {count} runs; {where}", digits=0
        ),
    }
    sizes = f"unique set size, one sample; {where}"
    for name, mib in memory.items():
        found[f"memory_{name}"] = figure(mib, None, "MiB", sizes, digits=1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    publish("worker", measure(options.rounds, options.count, peer=options.peer))


if __name__ == "__main__":
    main()
