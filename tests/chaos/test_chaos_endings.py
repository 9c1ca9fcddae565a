"""The end of a real run, killed at every write, sync, rename, truncation and opening of its files.

The run is `toolkit run` with a real kernel, forked from a host as a worker's runs are, which tells
MLflow itself.  strace is attached while the last cell waits; then the cell ends, the notebook is
written, the ledger told, the page drawn and MLflow told.  Whatever the process was doing when it
died: the ledger holds the old state or the new one, its chain verifies, the notebook can be read,
and the next look (`toolkit runs`, or the same run again) completes it, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from cli_world import seal, toolkit
from workspace_world import end_gateway, write_workspace

from toolkit.client import ensure_gateway
from toolkit.kernels import stop_zygotes
from toolkit.ledger import Ledger
from toolkit.scheduling.hosts import HostedChildren, Hosting
from toolkit.settings import Workspace
from toolkit.tracing import MlflowStore
from toolkit.values import RunRecord, RunState

Point = tuple[str, int]
PROGRAM = (sys.executable, "-m", "toolkit")
NEEDS = ("toolkit.cli.main", "toolkit.app.running", "toolkit.app.isolating", "toolkit.execution")
SYSCALLS = (
    *("openat", "write", "pwrite64", "writev", "fsync", "fdatasync"),
    *("ftruncate", "rename", "unlink"),
)
CELL = """import time
from pathlib import Path
(Path({root!r}) / f"ready-{{limit}}").touch()
while not (Path({root!r}) / f"go-{{limit}}").exists():
    time.sleep(0.02)"""
PATIENCE_S = 120.0


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        await asyncio.sleep(0.02)


def points_of(trace: Path) -> list[Point]:
    """Return which invocations of which syscalls a trace shows, but for those that only read."""
    seen: Counter[str] = Counter()
    found = []
    for name, rest in re.findall(r"^(\w+)\((.*)", trace.read_text(errors="replace"), re.MULTILINE):
        seen[name] += 1
        if "O_RDONLY" not in rest:
            found.append((name, seen[name]))
    return found


class Stage:
    """A workspace with a gateway and a host, and runs whose last cell waits for a word."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.root = workspace, workspace.root
        self.ledger = Ledger.open(workspace.database_url)
        self.warnings: list[str] = []
        hosting = Hosting(PROGRAM, "toolkit.cli:main", (*NEEDS, "mlflow"))
        logs = workspace.state / "logs"
        self.children = HostedChildren(self.root, logs, 5.0, hosting, self.warnings.append)
        self.count = 0

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        self.children.prepare()
        try:
            await until(lambda: self.children.is_ready() or self.warnings, "the host")
            assert not self.warnings
            yield
        finally:
            self.children.close()

    def run_id(self) -> str:
        return f"run-{self.count}"

    def start(self, *, again: bool = False) -> asyncio.Task[int]:
        self.count += not again
        options = ["--run-id", self.run_id(), "-p", f"limit={self.count}", "--json"]
        argv = [*PROGRAM, "run", "ends@production", *options]
        return asyncio.ensure_future(self.children.run(self.run_id(), argv))

    def run(self) -> RunRecord:
        return self.ledger.get_run(self.run_id())

    def files(self, pid: int) -> list[Path]:
        """Return what the end of a run may change: its files, the ledger's, and MLflow's."""
        folder = self.workspace.runs / self.run_id()
        names = ("output.ipynb", f".output.ipynb.{pid}.tmp", "report.html", ".report.html.tmp")
        databases = [Path(self.workspace.database_url.removeprefix("sqlite:///"))]
        databases.append(Path(self.workspace.mlflow_uri.removeprefix("sqlite:///")))
        found = [folder, *(folder / name for name in names)]
        return found + [
            Path(f"{path}{end}") for path in databases for end in ("", "-wal", "-shm", "-journal")
        ]

    async def end_under(self, *options: str) -> int:
        """Let a run end with its process under strace, and return the exit code."""
        task = self.start()
        ready = self.root / f"ready-{self.count}"
        await until(lambda: ready.exists() or task.done(), "the last cell")
        assert not task.done(), self.children.last_line(self.run_id())
        pid = int(str(self.run().runner).split(":")[1])
        paths = [word for path in self.files(pid) for word in ("-P", str(path))]
        strace = await asyncio.create_subprocess_exec(
            "strace", "-p", str(pid), *paths, *options, stderr=asyncio.subprocess.PIPE
        )
        assert strace.stderr is not None
        told = await strace.stderr.readline()
        if b"not permitted" in told:
            task.cancel()
            pytest.skip("this user may not attach strace to a process")
        assert b"attached" in told, told
        (self.root / f"go-{self.count}").touch()
        code = await task
        await strace.wait()
        return code

    async def points(self, trace: Path) -> list[Point]:
        """Return which invocations of which syscalls change files at the end of a run."""
        names = f"trace={','.join(SYSCALLS)}"
        assert await self.end_under("-o", str(trace), "-e", names) == 0
        return points_of(trace)

    async def end_killed_at(self, point: Point) -> int:
        name, number = point
        inject = f"inject={name}:signal=KILL:when={number}"
        return await self.end_under("-o", "/dev/null", "-e", f"trace={name}", "-e", inject)

    # -- what there is to see -----------------------------------------------------------------

    def judge_death(self, where: str) -> str:
        """Old state or new state, and nothing that cannot be read."""
        assert self.ledger.verify() == [], where
        run = self.run()
        assert run.state in (RunState.RUNNING, RunState.SUCCEEDED), (where, run)
        output = self.workspace.runs / run.run_id / "output.ipynb"
        nbformat.validate(nbformat.reads(output.read_text("utf-8"), as_version=4))
        if run.state is RunState.SUCCEEDED:
            told = json.loads(output.read_text("utf-8"))["metadata"]["toolkit"]
            assert told["state"] == "succeeded", where
            assert self.ledger.results(run.run_id) == {"total": 1}, where
        return run.state.value

    async def judge_next_look(self, before: str, where: str) -> None:
        """`toolkit runs` tells what is left to tell; the same run again goes on where it must."""
        if self.count % 2:
            assert toolkit("runs").code == 0, where
            expected = RunState.LOST if before == "running" else RunState.SUCCEEDED
        else:
            assert await self.start(again=True) == 0, where
            expected = RunState.SUCCEEDED
        run = self.run()
        assert run.state is expected, (where, run)
        assert self.ledger.verify() == [], where
        output = self.workspace.runs / run.run_id / "output.ipynb"
        nbformat.validate(nbformat.reads(output.read_text("utf-8"), as_version=4))
        status = "FINISHED" if expected is RunState.SUCCEEDED else "FAILED"
        assert self.told_by_mlflow() == [status], where
        told = self.run()
        assert toolkit("runs").code == 0
        assert self.run() == told, f"{where}: told twice"

    def told_by_mlflow(self) -> list[str]:
        client = MlflowStore(self.workspace.mlflow_uri).client
        experiment = client.get_experiment_by_name("ends")
        assert experiment is not None
        query = f"tags.`toolkit.run` = '{self.run_id()}'"
        found = client.search_runs([experiment.experiment_id], query)
        return [each.info.status for each in found]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="e-"))
    workspace = write_workspace(root)
    seal(workspace, "ends", CELL.format(root=str(root)), "toolkit.result(total=1)")
    (workspace.state / "zygotes").mkdir(mode=0o700, parents=True)
    monkeypatch.chdir(root)
    ensure_gateway(root)
    made = Stage(workspace)
    yield made
    made.ledger.close()
    end_gateway(workspace)
    stop_zygotes(workspace.state / "zygotes")
    shutil.rmtree(root, ignore_errors=True)


def spread(every: list[Point], count: int | None) -> list[Point]:
    """Return so many points, spread over the whole end; ``None``: all of them."""
    if count is None:
        return every
    return [every[round(n * (len(every) - 1) / (count - 1))] for n in range(count)]


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(4, marks=[pytest.mark.chaos, pytest.mark.timeout(600)]),
        pytest.param(None, marks=[pytest.mark.scale, pytest.mark.timeout(3600)]),
    ],
)
def test_the_end_of_a_run_survives_a_death_at_every_syscall(
    stage: Stage, capsys: pytest.CaptureFixture[str], count: int | None
) -> None:
    """Killed at each point in turn (a sample of them, but for `make scale`)."""
    ends: Counter[str] = Counter()

    async def all_of_it() -> list[Point]:
        async with stage.up():
            # The first run makes what the others find, and a checkpoint of a database may come or not.
            rehearsals = [await stage.points(stage.root / f"trace-{n}") for n in range(2)]
            every = min(rehearsals, key=len)
            for name, number in spread(every, count):
                where = f"{name} {number}"
                if await stage.end_killed_at((name, number)) == 0:
                    ends["survived"] += 1  # this time it made fewer calls
                    continue
                before = stage.judge_death(where)
                ends[before] += 1
                await stage.judge_next_look(before, where)
            return every

    every = asyncio.run(all_of_it())
    with capsys.disabled():
        kinds = Counter(name for name, _ in every)
        tried = sum(ends.values())
        print(f"\n  {len(every)} points {dict(kinds)}, {tried} tried: {dict(ends)}")
    assert ends["running"]
    assert ends["succeeded"], "no death came between the ledger's end and the process's"
    assert ends["survived"] <= sum(ends.values()) // 4
