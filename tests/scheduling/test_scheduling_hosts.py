"""Runs that are forked from a prepared process: alike to programs, and never longer-lived."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from scheduling_world import until

from toolkit.ledger import is_alive
from toolkit.scheduling.hosts import HostedChildren, Hosting

PROGRAM = (sys.executable, "-m", "hosted")
# What a host forks: a program of its own, found in the folder that it is started in.
HOSTED = """
    import os, random, signal, sys, time
    from pathlib import Path

    def main(arguments):
        what, *rest = arguments
        print(what, os.getpid(), os.getppid(), os.getsid(0), os.getcwd(), flush=True)
        if what == "random":
            print(random.random())
        elif what == "files":
            print(sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                         if os.path.exists(f"/proc/self/fd/{n}")))
        elif what == "environment":
            print(os.environ[rest[0]])
        elif what == "raise":
            raise ValueError("this went wrong")
        elif what == "exit":
            sys.exit(int(rest[0]))
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "sleep":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            if "stubborn" in rest:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(rest[0]).write_text(str(os.getpid()))
            time.sleep(60)
        return 0

    if __name__ == "__main__":
        sys.exit(main(sys.argv[1:]))
"""


class Folder:
    """Attributes: ``root``, ``warnings``, ``children``."""

    def __init__(self, root: Path, **options: int | tuple[str, ...]) -> None:
        self.root = root
        self.warnings: list[str] = []
        (root / "hosted.py").write_text(textwrap.dedent(HOSTED))
        hosting = Hosting(PROGRAM, "hosted:main", **{"modules": ("hosted",), **options})
        self.children = HostedChildren(root, root / "logs", 0.5, hosting, self.warnings.append)

    def do(self, action: Callable[[], Awaitable[object]], *, wait: bool = True) -> None:
        """Prepare, wait for a host that serves, and act, in one thread."""

        async def all_of_it() -> None:
            self.children.prepare()
            try:
                until(lambda: not wait or self.children.is_ready() or self.warnings)
                await action()
            finally:
                self.children.close()

        asyncio.run(all_of_it())

    async def run(self, *arguments: str, name: str = "run") -> int:
        return await self.children.run(name, [*PROGRAM, *arguments])

    def told(self, name: str = "run") -> list[str]:
        """What a run wrote, by line."""
        return (self.root / "logs" / f"{name}.log").read_text().splitlines()

    def host(self) -> int:
        """The process that runs are forked from."""
        living = (each for each in psutil.Process().children() if is_alive(each.pid))
        return next(each.pid for each in living if "hosted:main" in each.cmdline())


async def started(mark: Path) -> int:
    """Wait for a run that sleeps, and return its number."""
    await asyncio.to_thread(until, lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())  # noqa: ASYNC240 - a line


def test_a_run_is_a_fork_in_a_session_of_its_own_and_ends_like_a_program(tmp_path: Path) -> None:
    """Exit codes, signals, tracebacks, folder, output, randomness and open files; other commands
    are started as programs."""
    folder = Folder(tmp_path)

    async def action() -> None:
        assert await folder.run("plain") == 0
        _, pid, parent, session, cwd = folder.told()[0].split(" ")
        assert int(parent) == folder.host()
        assert (session, cwd) == (pid, str(tmp_path))
        codes = [await folder.run(*what) for what in (("exit", "7"), ("kill",), ("raise",))]
        assert codes == [7, -9, 1]
        assert folder.children.last_line("run") == "ValueError: this went wrong"
        for name in ("one", "two"):
            await folder.run("random", name=name)
        assert folder.told("one")[1] != folder.told("two")[1]
        await folder.run("files", name="files")
        log = tmp_path / "logs" / "files.log"
        assert eval(folder.told("files")[1]) == ["/dev/null", str(log), str(log)]  # noqa: S307
        # A fork does only what its host was prepared for.
        assert await folder.children.run("sh", ["/bin/sh", "-c", "echo $PPID; exit 9"]) == 9
        assert folder.told("sh") == [str(os.getpid())]

    folder.do(action)
    assert folder.warnings == []
    assert len(folder.children) == 0


@pytest.mark.chaos
@pytest.mark.parametrize(("manner", "code"), [((), "asked"), (("stubborn",), "killed")])
def test_a_cancelled_run_is_asked_to_end_and_then_killed(
    tmp_path: Path, manner: tuple[str, ...], code: str
) -> None:
    """SIGTERM first; what does not listen is killed after the time that it has."""
    folder = Folder(tmp_path)
    mark = tmp_path / f"mark-{code}"

    async def action() -> None:
        task = asyncio.create_task(folder.run("sleep", str(mark), *manner))
        pid = await started(mark)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_alive(pid)
        assert await folder.run("plain") == 0

    folder.do(action)
    assert folder.warnings == []


@pytest.mark.chaos
def test_runs_die_with_their_host_and_the_next_one_starts_anyway(tmp_path: Path) -> None:
    """Kill -9 of the host: its run counts as killed, and is dead before that is told."""
    folder = Folder(tmp_path)
    mark = tmp_path / "mark"

    async def action() -> None:
        task = asyncio.create_task(folder.run("sleep", str(mark)))
        pid = await started(mark)
        os.kill(folder.host(), signal.SIGKILL)
        assert await task == -signal.SIGKILL
        assert not is_alive(pid)
        assert await folder.run("exit", "5") == 5

    folder.do(action)
    assert len(folder.warnings) == 1
    assert "is replaced: it died" in folder.warnings[0]


@pytest.mark.chaos
def test_a_host_whose_files_change_or_that_served_enough_is_replaced(tmp_path: Path) -> None:
    """No run is forked from what is not on disk any more; the run that finds out is a program."""
    folder = Folder(tmp_path, max_runs=2)

    async def action() -> None:
        first = folder.host()
        assert await folder.run("plain") == 0
        (tmp_path / "hosted.py").write_text(textwrap.dedent(HOSTED) + "# newer\n")
        assert await folder.run("exit", "3") == 3
        until(folder.children.is_ready)
        assert folder.host() != first
        assert [await folder.run("exit", str(code)) for code in (1, 2, 3)] == [1, 2, 3]

    folder.do(action)
    assert "hosted.py has changed since it was read" in folder.warnings[0]
    assert "served its share" in folder.warnings[1]


@pytest.mark.chaos
def test_a_changed_environment_means_another_host_even_before_the_first_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs see the environment that the worker has now; one change does not make them slow."""
    folder = Folder(tmp_path)

    async def action() -> None:
        monkeypatch.setenv("TOOLKIT_HOSTED", "first")
        assert await folder.run("environment", "TOOLKIT_HOSTED", name="one") == 0
        until(folder.children.is_ready)
        monkeypatch.setenv("TOOLKIT_HOSTED", "second")
        assert await folder.run("environment", "TOOLKIT_HOSTED", name="two") == 0
        until(folder.children.is_ready)
        assert await folder.run("environment", "TOOLKIT_HOSTED", name="three") == 0
        assert int(folder.told("three")[0].split(" ")[2]) == folder.host()

    folder.do(action, wait=False)
    assert [folder.told(name)[1] for name in ("one", "two", "three")] == ["first", *["second"] * 2]
    assert all("is replaced: the environment has changed" in each for each in folder.warnings)


@pytest.mark.chaos
def test_what_cannot_be_forked_safely_is_not(tmp_path: Path) -> None:
    """A package that starts a thread when it is imported: runs are programs, and that is told."""
    (tmp_path / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True,"
        " name='busy').start()\n"
    )
    folder = Folder(tmp_path, modules=("hosted", "threads"))

    async def action() -> None:
        assert await folder.run("exit", "4") == 4

    folder.do(action)
    assert len(folder.warnings) == 1
    assert "an import started threads: busy" in folder.warnings[0]


@pytest.mark.chaos
def test_a_worker_that_is_killed_takes_host_and_run_along(tmp_path: Path) -> None:
    """Kill -9 of the worker reaches both: each dies with the process that forked it."""
    folder = Folder(tmp_path)
    mark = tmp_path / "mark"

    async def action() -> None:
        await folder.run("sleep", str(mark))

    if (worker := os.fork()) == 0:
        folder.do(action)
        os._exit(0)
    try:
        until(lambda: mark.exists() and mark.read_text())
        run = int(mark.read_text())
        host = psutil.Process(run).ppid()
        assert psutil.Process(host).ppid() == worker
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    until(lambda: not is_alive(host) and not is_alive(run))
