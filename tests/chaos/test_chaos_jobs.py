"""Many jobs on two workers while workers, runs and the database die: none lost, nothing repeated.

The jobs are light stand-ins; ``test_chaos_machines_*`` have the real ones.  ``CHAOS_SEED`` repeats
the draws, ``CHAOS_JOBS`` says how many jobs.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
import pytest
from chaos_jobs_run import DOUBT, EFFECTS
from chaos_world import calls_of, seed
from loopback_world import serving
from postgres_world import postgres_server

from toolkit.errors import EngineError
from toolkit.ledger import Ledger
from toolkit.scheduling import Engine
from toolkit.values import RunState

pytestmark = pytest.mark.timeout(600)

SIZES = pytest.mark.parametrize(
    "jobs", [pytest.param(24, marks=pytest.mark.chaos), pytest.param(200, marks=pytest.mark.scale)]
)
STRIKES = 12
LEASE_S = 4.0
PATIENCE_S = 540.0


class Effects(BaseHTTPRequestHandler):
    """Counts every write that arrives."""

    done: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        self.done[self.path] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A real server on loopback, empty."""
    Effects.done.clear()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Effects)
    with serving(made):
        yield f"http://127.0.0.1:{made.server_port}"


class Site:
    """Two workers in folders of their own that share only the database, and what befalls them."""

    def __init__(self, root: Path, engine: str, ledger: str, server: str) -> None:
        self.root, self.engine_url, self.ledger_url, self.server = root, engine, ledger, server
        self.workers: list[subprocess.Popen[bytes]] = []
        self.deaths: Counter[str] = Counter()

    def start(self) -> subprocess.Popen[bytes]:
        folder = self.root / f"machine-{len(self.workers)}"
        folder.mkdir()
        script = str(Path(__file__).with_name("chaos_jobs_worker.py"))
        argv = [self.engine_url, str(folder), str(LEASE_S), self.ledger_url, self.server]
        with (folder / "log").open("wb") as log:
            worker = subprocess.Popen([sys.executable, script, *argv], stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.root.glob("machine-*/log")))

    def living(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self.workers if worker.poll() is None]

    def keep_two(self) -> None:
        """What a supervisor does: start again what has ended."""
        while len(self.living()) < 2:
            self.start()

    def strike(self, rng: random.Random) -> None:
        """One death, or one long pause, drawn at random."""
        kinds = ["worker", "run", "run", "pause"]
        if self.engine_url.startswith("postgresql"):
            kinds.append("database")
        kind = rng.choice(kinds)
        # Who has work in hand, if somebody has: on SQLite the other one only stands by.
        victim = rng.choice([w for w in self.living() if _children(w)] or self.living())
        if kind == "worker":
            victim.kill()
            victim.wait()
        elif kind == "pause":
            victim.send_signal(signal.SIGSTOP)
            time.sleep(LEASE_S * 1.5)
            victim.send_signal(signal.SIGCONT)
        elif kind == "run":
            with contextlib.suppress(psutil.Error, IndexError):
                rng.choice(_children(victim)).kill()
        else:
            # A killed backend makes PostgreSQL end every session and recover from its log.
            with contextlib.suppress(psycopg.Error), psycopg.connect(self.engine_url) as session:
                os.kill(session.info.backend_pid, signal.SIGKILL)
        self.deaths[kind] += 1

    def close(self) -> None:
        for worker in self.living():
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()


def _children(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(worker.pid).children()
    except psutil.Error:
        return []


def storm(site: Site, capsys: pytest.CaptureFixture[str], jobs: int) -> None:
    """Submit, strike until all have ended, reckon."""
    number = seed()
    jobs = int(os.environ.get("CHAOS_JOBS") or jobs)
    strikes = min(STRIKES, jobs // 6)
    rng = random.Random(number)
    with capsys.disabled():
        print(f"\nCHAOS_SEED={number}", flush=True)
    ids = [f"run-{n:03}" for n in range(jobs)]
    with Engine(site.engine_url, root=site.root) as engine:
        Ledger.open(site.ledger_url).close()
        for run_id in ids:
            engine.submit("effects", {}, run_id=run_id)
        began = time.monotonic()
        strike_at = began + 3
        left = jobs
        while left:
            assert time.monotonic() < began + PATIENCE_S, f"{left} runs have not ended"
            site.keep_two()
            time.sleep(0.3)
            if time.monotonic() > strike_at and sum(site.deaths.values()) < strikes:
                site.strike(rng)
                strike_at = time.monotonic() + rng.uniform(0.5, 3)
            with contextlib.suppress(EngineError):  # the database is restarting
                left = len(engine.pending())
        seconds = time.monotonic() - began
        states = {run_id: engine.status(run_id) for run_id in ids}
    reckon(site, ids, {run_id: status.state for run_id, status in states.items()})
    with capsys.disabled():
        print(f"  runs {len(ids)}, {Counter(s.state.value for s in states.values())}")
        print(f"  effects at the server {sum(Effects.done.values())}, strikes {dict(site.deaths)}")
        print(f"  seconds {seconds:.0f}, fenced {site.log().count('fenced')}")


def reckon(site: Site, ids: list[str], states: dict[str, RunState]) -> None:
    """None lost, no write twice, every doubt is somebody's to see."""
    with Ledger.open(site.ledger_url) as ledger:
        for run_id in ids:
            run = ledger.get_run(run_id)
            calls = calls_of(ledger, run)
            doubtful = [call for call in calls if call.outcome is None]
            for call in calls:
                path = f"/{run_id}/{call.intent.arguments['n']}"
                assert Effects.done[path] <= 1, f"{path} was done twice"
                assert call.outcome is None or Effects.done[path] == 1, f"{path} never happened"
            if doubtful:
                assert states[run_id] is run.state is RunState.FAILED, run_id
                assert run.message == DOUBT
            else:
                assert states[run_id] is run.state is RunState.SUCCEEDED, run_id
                assert len(calls) == EFFECTS
        assert ledger.verify() == []


@SIZES
def test_jobs_on_sqlite_with_a_worker_in_reserve(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    """One worker at a time; the other stands by and takes over what was left."""
    site = Site(
        tmp_path, f"sqlite:///{tmp_path / 'engine.db'}", f"sqlite:///{tmp_path / 'l.db'}", server
    )
    try:
        storm(site, capsys, jobs)
    finally:
        site.close()


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as made:
        yield made.get_uri()


@SIZES
def test_jobs_on_postgresql_with_two_workers(
    tmp_path: Path, server: str, postgres_url: str, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    """Both work; the database dies too, and a worker that was stopped too long is fenced off."""
    site = Site(
        tmp_path, postgres_url, postgres_url.replace("postgresql:", "postgresql+psycopg:"), server
    )
    try:
        storm(site, capsys, jobs)
    finally:
        site.close()


@pytest.mark.chaos
def test_fail_over(
    tmp_path: Path, server: str, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose worker is killed goes on elsewhere, within its lease and five seconds.

    By what the workers recorded: from the last renewal of the dead one's lease, by the database's
    clock, to the moment at which another one took its work.
    """
    site = Site(tmp_path, postgres_url, postgres_url, server)

    def starts() -> int:
        return site.log().count("run_started run-long")

    def wait_for(count: int) -> float:
        began = time.monotonic()
        while starts() < count:
            assert time.monotonic() < began + 60
            time.sleep(0.05)
        return time.monotonic() - began

    try:
        site.keep_two()
        with Engine(postgres_url, root=tmp_path) as engine:
            engine.submit("long", {"sleep": 60}, run_id="run-long")
            taken = []
            for number in range(1, 4):
                wait_for(number)
                for index, worker in enumerate(site.workers):
                    log = (site.root / f"machine-{index}" / "log").read_text()
                    if worker.poll() is None and "run_started run-long" in log:
                        worker.kill()
                        worker.wait()
                taken.append(round(wait_for(number + 1), 1))
                site.keep_two()
            engine.cancel("run-long")
    finally:
        site.close()
    with capsys.disabled():
        print(f"\n  lease {LEASE_S:g} s; seconds from kill -9 to the new start: {taken}")
    assert len(taken) == 3
    silent = re.findall(r"recovered .* ([\d.]+) s after the last sign of life", site.log())
    assert len(silent) == 3, site.log()[-4000:]
    assert all(LEASE_S <= float(each) <= LEASE_S + 5 for each in silent), silent
