"""A process that is killed at its every write, sync, truncation, unlink or connection.

The process makes calls through a real ledger and ends its run (``chaos_jobs_run.py``): intent,
effect at a real server, outcome, twice, then the run's last state.  Whatever it was doing, the
ledger holds the old state or the new one, its chain verifies, and the next process goes on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from chaos_jobs_run import DOUBT, EFFECTS
from chaos_jobs_run import main as resume
from chaos_world import calls_of
from loopback_world import serving

from toolkit.ledger import Ledger
from toolkit.values import CallState, RunState

SCRIPT = Path(__file__).with_name("chaos_jobs_run.py")
# Everything that changes the disk, or reaches another process.
SYSCALLS = (
    *("write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "rename", "unlink"),
    *("connect", "sendto"),
)
RUN = "run-1"


class Server:
    """A real server that counts effects."""

    def __init__(self) -> None:
        done = self.done = Counter[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                done[self.path] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with serving(made.http):
        yield made


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


def work(folder: Path, server: Server, *before: str) -> subprocess.CompletedProcess[str]:
    argv = [*before, sys.executable, "-B", str(SCRIPT), url_of(folder), RUN, server.url]
    return subprocess.run(argv, capture_output=True, text=True)


def points(folder: Path, server: Server, trace: Path) -> list[tuple[str, int]]:
    """Return which invocations of which syscalls reach the ledger's files or a socket."""
    strace = ("strace", "-qq", "-y", "-o", str(trace), "-e", f"trace={','.join(SYSCALLS)}")
    done = work(folder, server, *strace)
    assert done.returncode == 0, done.stderr
    seen: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if (match := re.match(r"(\w+)\(", line)) is None:
            continue
        seen[match[1]] += 1
        if str(folder) in line or match[1] in ("connect", "sendto"):
            found.append((match[1], seen[match[1]]))
    return found


def sample(every: list[tuple[str, int]], step: int) -> list[tuple[str, int]]:
    """Return one in so many of each syscall, and of each the first."""
    names = dict.fromkeys(name for name, _ in every)
    return [p for name in names for p in [q for q in every if q[0] == name][::step]]


def judge(folder: Path, server: Server, where: str) -> None:
    """The ledger after a death: whole, and in a state that the process can have left."""
    with Ledger.open(url_of(folder)) as ledger:
        assert ledger.verify() == [], where
        runs = ledger.runs()
        if not runs:
            assert not server.done, where
            return
        (run,) = runs
        calls = calls_of(ledger, run)
        assert run.state in (RunState.RUNNING, RunState.SUCCEEDED), where
        for call in calls:
            assert (call.outcome is None) == (call.state is CallState.STARTED), where
            done = server.done[f"/{RUN}/{call.intent.arguments['n']}"]
            assert done <= 1, where
            assert call.outcome is None or done == 1, f"{where}: an outcome without its effect"
        # No effect without its intent: what was done, is known.
        assert sum(server.done.values()) <= len(calls), where
        if run.state is RunState.SUCCEEDED:
            assert [call.state for call in calls] == [CallState.OK] * EFFECTS, where


def go_on(folder: Path, server: Server, where: str) -> str:
    """Do what the next process does: it finishes, or says that a write is in doubt."""
    with Ledger.open(url_of(folder)) as ledger:
        calls = [call for run in ledger.runs() for call in calls_of(ledger, run)]
    doubtful = [call for call in calls if call.outcome is None]
    code = resume(url_of(folder), RUN, server.url)
    with Ledger.open(url_of(folder)) as ledger:
        run = ledger.get_run(RUN)
        assert ledger.verify() == [], where
    assert all(count == 1 for count in server.done.values()), (where, server.done)
    if doubtful:
        assert (code, run.state, run.message) == (1, RunState.FAILED, DOUBT), where
        return "doubt"
    assert (code, run.state) == (0, RunState.SUCCEEDED), where
    assert len(server.done) == EFFECTS, where
    return "finished"


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(12, marks=[pytest.mark.chaos, pytest.mark.timeout(600)]),
        pytest.param(1, marks=[pytest.mark.scale, pytest.mark.timeout(900)]),
    ],
)
def test_a_call_and_the_end_of_a_run_survive_a_death_at_every_syscall(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    """Killed at each point in turn (a sample of them, but for `make scale`)."""
    start = tmp_path / "start"
    start.mkdir()
    Ledger.open(url_of(start)).close()
    rehearsal = tmp_path / "rehearsal"
    shutil.copytree(start, rehearsal)
    every = points(rehearsal, server, tmp_path / "trace")
    ends: Counter[str] = Counter()
    for name, number in sample(every, step):
        server.done.clear()
        folder = tmp_path / f"{name}-{number}"
        shutil.copytree(start, folder)
        inject = f"inject={name}:signal=KILL:when={number}"
        strace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        assert work(folder, server, *strace).returncode != 0, (name, number)
        judge(folder, server, f"{name} {number}")
        ends[go_on(folder, server, f"{name} {number}")] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        kinds = Counter(name for name, _ in every)
        print(f"\n  {dict(kinds)}, one in {step} of each: {dict(ends)}")
    assert ends["finished"]
    assert ends["doubt"], "no death came between an intent and its outcome"
