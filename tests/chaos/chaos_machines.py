"""Two machines with real runs, the storm over them, and the reckoning.

Two workers in directories of their own share only the databases and the registry.  Workers, runs,
kernels, gateways and the database are killed at random, a worker and a whole machine are stopped
for longer than a lease.  The writes go to a real server, which counts them.  At the end a person is
asked about every write in doubt, looks at the server, and answers.

``CHAOS_SEED`` repeats the draws, ``CHAOS_RUNS`` says how many runs (200 under the marker scale).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import psycopg
import pytest
from chaos_world import calls_of, seed, shippers
from cli_world import notebook_text
from workspace_world import end_gateway, write_workspace

from toolkit.app.workbench import open_workbench
from toolkit.document import Notebook
from toolkit.errors import EngineError
from toolkit.gateway import read_record
from toolkit.ledger import Approval, Ledger, is_alive
from toolkit.registry import Registry
from toolkit.scheduling import Engine
from toolkit.settings import Workspace, open_workspace
from toolkit.values import RunState

LEASE_S = 5.0
WRITES = 2
SLOTS = 2
PATIENCE_S = 2_400.0
CALM_S = 15.0
SHARED = """user = "ana"
registry = "{registry}"
database_url = "{ledger}"
engine_url = "{engine}"
mlflow_uri = "{mlflow}"
"""
PAY = """
  pay: {effect: write, description: Pays a bill.}
"""
CELLS = (
    """import urllib.request

@toolkit.tool(effect="write")
def pay(path: str) -> str:
    \"\"\"Pays.\"\"\"
    with urllib.request.urlopen(bank + path, data=b"", timeout=30) as reply:
        return reply.read().decode()""",
    "said = [pay(f'/{name}/{n}') for n in range(writes)]",
    "toolkit.result(said=said)",
)


class Bank:
    """A real server that counts what it was told, and takes its time to answer."""

    def __init__(self) -> None:
        paid = self.paid = Counter[str]()
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                with lock:
                    paid[self.path] += 1
                time.sleep(0.5)
                with contextlib.suppress(OSError):  # whoever asked is dead
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"paid")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class Machine:
    """A directory with a workspace of its own, and the worker in it."""

    def __init__(self, root: Path, settings: str) -> None:
        root.mkdir()
        (root / "notebooks").mkdir()
        (root / "toolkit.toml").write_text(settings)
        self.root = root
        self.workspace: Workspace = open_workspace(root)
        self.worker: subprocess.Popen[bytes] | None = None

    def work(self) -> None:
        """Start a worker unless one lives: what a supervisor does."""
        if self.worker is not None and self.worker.poll() is None:
            return
        script = str(Path(__file__).with_name("chaos_machines_worker.py"))
        argv = [sys.executable, script, str(self.root), str(LEASE_S), str(SLOTS)]
        with (self.root / "log").open("ab") as log:
            self.worker = subprocess.Popen(
                argv,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: text for name, text in os.environ.items() if name != "TOOLKIT_USER"},
            )

    def tree(self) -> list[psutil.Process]:
        """What the worker has started: runs, the host that forks them, kernels that start cold."""
        with contextlib.suppress(psutil.Error):
            if self.worker is not None and self.worker.poll() is None:
                return psutil.Process(self.worker.pid).children(recursive=True)
        return []

    def runs(self) -> list[psutil.Process]:
        """Runs, forked by a host or started as programs."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                if process.name() == "toolkit-run" or "--run-id" in process.cmdline():
                    found.append(process)
        return found

    def kernels(self) -> list[psutil.Process]:
        """Kernels of runs, started cold (by their connection file) or warm (by their name)."""
        found = []
        for process in psutil.process_iter(["cmdline", "name"]):
            words = process.info["cmdline"] or []
            cold = any(str(self.root) in w and w.endswith("connection.json") for w in words)
            if cold or (process.info["name"] == "kernel" and self._is_mine(process)):
                found.append(process)
        return found

    def _is_mine(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            told = [process.cwd(), *process.environ().values()]  # an enclosure has its own folders
            return any(str(self.root) in text for text in told)
        return False

    def gateway(self) -> list[psutil.Process]:
        record = read_record(self.workspace.state)
        if record is not None and is_alive(record.pid):
            with contextlib.suppress(psutil.Error):
                return [psutil.Process(record.pid)]
        return []

    def close(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            for process in self.tree():
                with contextlib.suppress(psutil.Error):
                    process.resume()
            self.worker.send_signal(signal.SIGCONT)
            self.worker.terminate()
            try:
                self.worker.wait(30)
            except subprocess.TimeoutExpired:
                self.worker.kill()
                self.worker.wait()
        end_gateway(self.workspace)
        for pid in shippers(self.workspace):
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).terminate()


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def seal_job(workspace: Workspace, bank: Bank) -> None:
    """Seal a job that pays bills of its own, as a promotion would, without its trials."""
    parameters = f"name: str = ''\nwrites: int = {WRITES}"
    text = notebook_text(f"bank = {bank.url!r}", *CELLS, parameters=parameters)
    notebook = Notebook.parse(text.encode())
    registry = Registry(workspace.registry)
    files = {"notebook.ipynb": notebook.normalised(), "evidence.json": b'{"stages": []}'}
    facts = {"by": "ana", "parameters": notebook.schema, "results": list(notebook.results)}
    registry.set_alias("pays", "production", registry.seal("pays", files, facts).version, by="ana")


class Site:
    """Two machines, what they share, and what befalls them."""

    def __init__(self, folder: Path, bank: Bank, ledger: str, engine: str) -> None:
        source = folder / "s"
        source.mkdir()
        seen = write_workspace(source)
        append(seen.registry / "tools.yaml", PAY)
        (seen.registry / "people.yaml").write_text("people:\n  anna: {roles: [approver]}\n")
        append(seen.registry / "policies/production/policy.yaml", "approvals: {hold: 1s}\n")
        seal_job(seen, bank)
        self.settings = SHARED.format(
            registry=seen.registry,
            ledger=ledger,
            engine=engine,
            mlflow=f"sqlite:///{folder / 'mlflow.db'}",
        )
        self.engine_url, self.ledger_url = engine, ledger
        self.machines = [Machine(folder / name, self.settings) for name in "ab"]
        self.deaths: Counter[str] = Counter()

    def kinds(self) -> list[str]:
        kinds = ["worker", "run", "kernel", "gateway", "pause", "freeze"]
        return [*kinds, "database"] if self.engine_url.startswith("postgresql") else kinds

    def strike(self, kind: str, rng: random.Random) -> bool:
        """One death, or one stop that outlasts a lease; whether there was somebody to strike."""
        machine = rng.choice([m for m in self.machines if m.runs()] or self.machines)
        if kind in ("pause", "freeze"):
            self._stop_for_a_while(machine, whole=kind == "freeze")
        elif kind == "database":
            # A killed backend makes PostgreSQL end every session and recover from its log.
            with contextlib.suppress(psycopg.Error), psycopg.connect(self.engine_url) as session:
                os.kill(session.info.backend_pid, signal.SIGKILL)
        else:
            found = {
                "worker": lambda: [psutil.Process(machine.worker.pid)],
                "run": machine.runs,
                "kernel": machine.kernels,
                "gateway": machine.gateway,
            }[kind]()
            if not found:
                return False
            with contextlib.suppress(psutil.Error):
                rng.choice(found).kill()
        self.deaths[kind] += 1
        return True

    def _stop_for_a_while(self, machine: Machine, *, whole: bool) -> None:
        victims = [psutil.Process(machine.worker.pid)]
        if whole:
            victims += [*machine.tree(), *machine.kernels(), *machine.gateway()]
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                victim.suspend()
        time.sleep(LEASE_S * 1.5)
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                victim.resume()

    def log(self) -> str:
        paths = [machine.root / "log" for machine in self.machines]
        return "".join(path.read_text() for path in paths if path.exists())

    def close(self) -> None:
        for machine in self.machines:
            machine.close()


def storm(site: Site, bank: Bank, runs: int, strikes: int, tell) -> None:
    """Submit, strike until nothing runs any more, answer the doubts, reckon."""
    number = seed()
    rng = random.Random(number)
    tell(f"CHAOS_SEED={number} CHAOS_RUNS={runs}")
    names = [f"run-{n:03}" for n in range(runs)]
    began = time.monotonic()
    with Engine(site.engine_url, root=site.machines[0].root) as engine:
        for name in names:
            engine.submit("pays@production", {"name": name}, run_id=name)
        strike_at = time.monotonic() + 12
        kinds = site.kinds()
        plan = rng.sample(kinds * (1 + strikes // len(kinds)), strikes)
        asked, left, before = 0, runs, runs + 1
        while True:
            for machine in site.machines:
                machine.work()
            time.sleep(0.5)
            assert time.monotonic() < began + PATIENCE_S, site.log()[-4000:]
            # A machine that is busy otherwise gets the time to end a run between two strikes.
            late = time.monotonic() - strike_at
            if plan and late > (0 if left < before else CALM_S):
                kind = plan.pop()
                if site.strike(kind, rng):
                    before, strike_at = left, time.monotonic() + rng.uniform(1, 8)
                else:  # there is none at this moment: another one first
                    plan.insert(0, kind)
            with contextlib.suppress(EngineError):  # the database is restarting
                left = len(engine.pending())
                if not left:
                    # Nothing runs: what a person sees at the server now, stays so.
                    doubts = open_doubts(site)
                    asked += len(doubts)
                    for doubt in doubts:
                        answer(site, bank, doubt)
                    if not doubts:
                        break
        seconds = time.monotonic() - began
        states = {name: engine.status(name).state for name in names}
    tell(f"  {Counter(states.values())}; strikes {dict(site.deaths)}; {seconds:.0f} s")
    tell(
        f"  payments {sum(bank.paid.values())}; doubts {asked}; {site.log().count('fenced')} fenced"
    )
    tell_failures(site, states, tell)
    reckon(site, bank, names, states)


def tell_failures(site: Site, states: dict[str, RunState], tell: Callable[[str], None]) -> None:
    """Say how runs ended that did not succeed: their folders may be gone when somebody asks."""
    with Ledger.open(site.ledger_url) as ledger:
        for name, state in states.items():
            if state is not RunState.SUCCEEDED:
                run = ledger.get_run(name)
                lines = [line for line in site.log().splitlines() if name in line]
                tell(f"  {name} {state}: {run.state} {run.cause} {run.message} {lines}")


def open_doubts(site: Site) -> list[Approval]:
    with Ledger.open(site.ledger_url) as ledger:
        return ledger.approvals(limit=1000, waiting=True)


def answer(site: Site, bank: Bank, doubt: Approval) -> None:
    """Say of a write in doubt what the server says."""
    with open_workbench(site.machines[0].root) as bench:
        (call,) = [
            call
            for call in calls_of(bench.ledger, bench.ledger.get_run(doubt.run_id))
            if call.intent.name == "pay" and call.outcome is None
        ]
        path = call.intent.arguments["path"]
        happened = bank.paid[path] > 0
        told = {"happened": True, "answer": "paid"} if happened else {"happened": False}
        bench.inbox.decide(doubt.id, "approve", doubt.digest, arguments=told)


def reckon(site: Site, bank: Bank, names: list[str], states: dict[str, RunState]) -> None:
    """None lost, none repeated, none forgotten, and the books are whole."""
    wrong = {
        f"/{name}/{n}": bank.paid[f"/{name}/{n}"]
        for name in names
        for n in range(WRITES)
        if bank.paid[f"/{name}/{n}"] != 1
    }
    assert not wrong, (wrong, site.log()[-4000:])
    with Ledger.open(site.ledger_url) as ledger:
        for name in names:
            run = ledger.get_run(name)
            assert run.state is states[name] is RunState.SUCCEEDED, (run, site.log()[-4000:])
            assert ledger.results(name) == {"said": ["paid"] * WRITES}
        assert ledger.verify() == []


def weather(site: Site, bank: Bank, tell: Callable[[str], None], runs: int) -> None:
    """Let a storm pass over a site, as the person who may answer for its writes."""
    runs = int(os.environ.get("CHAOS_RUNS") or runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_USER", "anna")
        try:
            storm(site, bank, runs, max(3, runs // 3), tell)
        finally:
            site.close()
