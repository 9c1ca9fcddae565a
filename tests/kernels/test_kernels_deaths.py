"""Whoever dies: no kernel outlives its runner, and none dies with its zygote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from toolkit.ledger import is_alive
from toolkit.values import RunState

pytestmark = pytest.mark.chaos

# A process that asks for a kernel and then does nothing until it is killed.
ASK = """
import os, sys, time
from pathlib import Path
from toolkit.kernels import WarmRequest, Zygote
home, work = Path(sys.argv[1]), sys.argv[2]
environment = {n: v for n, v in os.environ.items() if n in ("HOME", "LANG", "LANGUAGE", "TZ") or n.startswith("LC_")}
os.chdir(work)
kernel = Zygote(home, Path(sys.executable), environment).fork(
    WarmRequest(("-f", "connection.json"), environment, work, stdout=2), 60)
print(kernel.pid, flush=True)
time.sleep(600)
"""


def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within 30 s")


@pytest.fixture
def asker(zygote, tmp_path):
    """A process with a warm kernel, and the kernel's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, str(zygote.folder.parent), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_kernel_dies_with_its_runner(asker):
    """Also after kill -9, and its keeper goes with it."""
    process, kernel = asker
    keeper = psutil.Process(kernel).ppid()
    process.kill()
    until(lambda: not is_alive(kernel) and not is_alive(keeper), "the kernel's end")


def test_a_kernel_dies_with_its_runner_though_it_is_stopped(asker):
    """A kernel that takes no signals is killed all the same."""
    process, kernel = asker
    os.kill(kernel, signal.SIGSTOP)
    process.kill()
    until(lambda: not is_alive(kernel), "the kernel's end")


def test_a_kernel_whose_keeper_is_killed_dies_and_the_run_says_killed(run):
    """The operating system kills it, and the runner sees the connection close."""
    ending = run("import os, time; os.kill(os.getppid(), 9); time.sleep(60)").ending
    assert ending.state is RunState.KILLED


def test_a_kernel_outlives_its_zygote_and_the_next_start_says_why_it_is_cold(run, zygote):
    """One zygote's death costs a slower start, no run."""
    pid = zygote.pid()
    assert run(f"import os, time; os.kill({pid}, 9); time.sleep(.2); print(1)").said() == 1
    until(lambda: not is_alive(pid), "the zygote's end")
    after = run("print(2)")
    assert after.said() == 2
    assert after.ending.notes == ("the kernel was started cold: its zygote is not ready yet",)


def test_many_kernels_at_once_are_each_others_strangers(zygote, tmp_path):
    """Twenty forks at the same moment: twenty kernels, none left when they are let go."""
    from toolkit.kernels import WarmRequest

    nowhere = os.open(os.devnull, os.O_WRONLY)
    kernels = []
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = {"IPYTHONDIR": str(folder)}
        arguments = ("-f", str(folder / "connection.json"))
        request = WarmRequest(arguments, environment, str(folder), stdout=nowhere, stderr=nowhere)
        kernels.append(zygote.fork(request, 0))
    os.close(nowhere)
    assert len({kernel.pid for kernel in kernels}) == 20
    until(lambda: all(Path(tmp_path, str(n), "connection.json").exists() for n in range(20)), "20")
    for kernel in kernels:
        assert kernel.poll() is None
        kernel.release()
    assert all(not is_alive(kernel.pid) for kernel in kernels)
