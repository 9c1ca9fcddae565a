"""Nothing outlives a run, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from toolkit.execution.processes import MARK, OomCounter, mark_of, reap
from toolkit.ledger import is_alive
from toolkit.values import Cause, Environment, RunKind, RunRecord, RunState, new_id

LEDGER = "0123456789abcdef"  # as the fixtures of this folder have it
# A child in the kernel's group, and one that left group and session and hides behind a fork.
CHILDREN = """
import os, pathlib, subprocess, sys, time
inside = subprocess.Popen(["sleep", "600"])
subprocess.run([sys.executable, "-c", '''
import os, pathlib, subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
pathlib.Path("outside.pid").write_text(str(child.pid))
'''])
pathlib.Path("inside.pid").write_text(str(inside.pid))
pathlib.Path("kernel.pid").write_text(str(os.getpid()))
"""
WAIT = "\ntime.sleep(600)"


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in another process."""
    for _ in range(2400):
        if true():
            return
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within 120 s")


def pids(folder: Path) -> dict[str, int]:
    return {path.stem: int(path.read_text()) for path in folder.glob("*.pid")}


def test_children_that_a_notebook_leaves_behind_end_with_the_run(run, tmp_path):
    """Also those that left the kernel's process group and session."""
    assert run(CHILDREN).ending.state == "succeeded"
    found = pids(tmp_path)
    assert set(found) == {"inside", "outside", "kernel"}
    for name, pid in found.items():
        until(lambda pid=pid: not is_alive(pid), f"the end of {name}")


def test_sigterm_cancels_the_run_kills_the_kernel_and_writes_the_notebook(runner, tmp_path):
    """A scheduler's SIGTERM is answered with a true record, not with a torn one."""
    process = runner("print('kept')", CHILDREN + WAIT, "never = 1")
    until((tmp_path / "kernel.pid").exists, "the second cell")
    process.process.send_signal(signal.SIGTERM)
    ending = process.ending()
    assert (ending["state"], ending["cause"]) == (RunState.CANCELLED, Cause.SIGNAL)
    assert ending["message"] == "the runner received SIGTERM (cell 2 was running)"
    node = nbformat.read(process.folder / "output.ipynb", as_version=4)
    statuses = [cell.metadata.papermill.status for cell in node.cells]
    assert statuses == ["completed", "failed", "pending"]
    assert node.cells[1].metadata.papermill.end_time
    assert node.metadata.toolkit.state == "cancelled"
    for name, pid in pids(tmp_path).items():
        until(lambda pid=pid: not is_alive(pid), f"the end of {name}")


def test_kill_9_of_the_runner_takes_the_kernel_and_its_group_along(runner, tmp_path):
    """What left the group is found by the next attempt; what was written stays readable."""
    process = runner("print('kept')", CHILDREN + WAIT)
    until((tmp_path / "kernel.pid").exists, "the second cell")
    process.process.kill()
    process.process.wait()
    found = pids(tmp_path)
    until(lambda: not is_alive(found["kernel"]), "the end of the kernel")
    until(lambda: not is_alive(found["inside"]), "the end of its child")
    node = nbformat.read(process.folder / "output.ipynb", as_version=4)
    assert node.cells[0].outputs[0].text == "kept\n"
    assert node.metadata.toolkit.state == "running", "nobody was left to say otherwise"
    assert is_alive(found["outside"])
    assert reap(LEDGER, process.run_id) == 1
    until(lambda: not is_alive(found["outside"]), "the end of the stray child")


def test_a_kernel_that_holds_the_gil_dies_with_its_runner(runner, tmp_path):
    """The end of the runner does not depend on the kernel's own threads getting a turn."""
    stuck = (
        "import os, pathlib, ctypes\n"
        "pathlib.Path('kernel.pid').write_text(str(os.getpid()))\n"
        "ctypes.PyDLL(None).sleep(600)"
    )
    process = runner(stuck)
    until((tmp_path / "kernel.pid").exists, "the cell")
    process.process.kill()
    process.process.wait()
    pid = pids(tmp_path)["kernel"]
    until(lambda: not is_alive(pid), "the end of the kernel")


def test_reap_leaves_other_runs_and_other_ledgers_alone():
    """Only processes that carry the mark of this run in this ledger are ended."""
    mine, other = new_id("run"), new_id("run")
    marks = (mark_of(LEDGER, mine), mark_of(LEDGER, other), mark_of("f" * 16, mine))
    sleepers = [
        subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark}) for mark in marks
    ]
    try:
        # The environment is that of `sleep` only once it was executed.
        for sleeper in sleepers:
            until(lambda s=sleeper: "sleep" in psutil.Process(s.pid).name(), "the start")
        assert reap(LEDGER, mine) == 1
        assert sleepers[0].wait(timeout=30) == -signal.SIGKILL
        assert [sleeper.poll() for sleeper in sleepers[1:]] == [None, None]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_two_workspaces_may_execute_one_run_id_at_the_same_time(run, runner, tmp_path):
    """A whole run beside it, which looks for strays twice, takes none of the other's processes."""
    process = runner(CHILDREN + WAIT)
    until((tmp_path / "kernel.pid").exists, "the first cell")
    record = RunRecord(process.run_id, RunKind.RUN, Environment.PRODUCTION, "ana")
    ran = run("print('mine')", run=record, ledger="f" * 16, folder=tmp_path / "other")
    assert ran.ending.state == "succeeded"
    assert [name for name, pid in pids(tmp_path).items() if not is_alive(pid)] == []
    assert reap("f" * 16, process.run_id) == 0
    process.process.send_signal(signal.SIGTERM)
    assert process.ending()["state"] == RunState.CANCELLED
    for name, pid in pids(tmp_path).items():
        until(lambda pid=pid: not is_alive(pid), f"the end of {name}")


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/a/b\n", "a/b/memory.events"),
        ("4:memory:/a\n0::/\n", "memory/a/memory.oom_control"),
        ("0::/a\n", "unified/a/memory.events"),
    ],
)
def test_out_of_memory_kills_are_read_from_either_version_of_cgroups(tmp_path, membership, file):
    """The counter sees a kill that happens after it was made, and none before."""
    (tmp_path / "cgroup").write_text(membership)
    counter_file = tmp_path / "fs" / file
    counter_file.parent.mkdir(parents=True)
    counter_file.write_text("oom_kill_disable 0\noom 7\noom_kill 2\n")
    counter = OomCounter(tmp_path / "cgroup", tmp_path / "fs")
    assert not counter.rose()
    counter_file.write_text("oom_kill_disable 0\noom 8\noom_kill 3\n")
    assert counter.rose()


def test_a_machine_without_cgroups_never_claims_to_be_out_of_memory(tmp_path):
    """Unknown is not a reason."""
    assert not OomCounter(tmp_path / "none", tmp_path).rose()


def _limited_group() -> Path | None:
    """Make a memory control group of 400 MB, where this machine lets us."""
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / new_id("toolkit-test")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(400_000_000))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def test_a_kernel_that_the_system_kills_for_memory_ends_as_out_of_memory(runner):
    """A real control group, a real kill, and the reason that papermill loses."""
    group = _limited_group()
    if group is None:
        pytest.skip("this machine does not let the tests make a memory control group")
    enter = f"import os, sys; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    wrap = (sys.executable, "-c", f"{enter}; os.execv(sys.argv[1], sys.argv[1:])")
    try:
        process = runner("x = bytearray(2_000_000_000)", "2", wrap=wrap)
        ending = process.ending()
        process.process.wait()
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
        group.rmdir()
    assert (ending["state"], ending["cause"]) == (RunState.KILLED, Cause.OUT_OF_MEMORY), ending
    assert json.dumps(ending["message"]).endswith('ran: it was out of memory"')
