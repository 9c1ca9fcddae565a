"""The endings that take long or hurt: each line of docs/endings.md, played with the real thing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import sys
from contextlib import closing

import nbformat
import pytest
from cli_world import start, toolkit, write_notebook
from endings_page import Row, page
from test_execution_processes import _limited_group as limited_group
from test_execution_processes import until

from toolkit.execution import OutputLimits
from toolkit.isolation import reached_level
from toolkit.kernels import KernelPlan
from toolkit.ledger import Ledger
from toolkit.values import (
    Caps,
    Cause,
    Environment,
    IsolationLevel,
    RunKind,
    RunRecord,
    RunState,
    new_id,
)

pytestmark = pytest.mark.timeout(400)

MIB = 1 << 20
# ctypes.PyDLL keeps the interpreter's lock: no other thread of the kernel runs until it returns.
HANG_IN_C = "import ctypes\nctypes.PyDLL(None).sleep(600)"
BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
PIECES = "for _ in range(20_000): print('x' * 9_999)"
OUTPUT = OutputLimits(10_000_000, 50_000_000, 65_536)
# A kernel joins what is printed in a moment: where the machine is busy, that is one piece too many.
CUT = "exceeded 10000000 bytes in a cell|a single output of more than 21048576 bytes"


def seen(ending) -> Row:
    return Row.of(RunState(ending["state"]), Cause(ending["cause"]) if ending["cause"] else None)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("name", "cell", "changes", "message"),
    [
        (
            "a cell hangs in C and never lets Python run, the run has a limit",
            HANG_IN_C,
            {"timeout_s": 6.0},
            "limit of 6 s",
        ),
        (
            "a cell hangs in C and never lets Python run, cells have a limit",
            HANG_IN_C,
            {"cell_timeout_s": 2.0},
            "cell 1 ran longer than its limit of 2 s",
        ),
        (
            "out of memory, by the cap of the policy",
            "x = bytearray(2_000_000_000)",
            {"kernel": KernelPlan(IsolationLevel.L1, Caps(memory_bytes=600 * MIB))},
            "MemoryError",
        ),
        ("200 MB of output, in one piece", "print('x' * 200_000_000)", {}, "output"),
        ("200 MB of output, in many pieces", PIECES, {}, CUT),
    ],
)
def test_what_hurts_has_its_ending(run, name, cell, changes, message):
    """State, cause and exit code as the page says; the notebook is whole and small."""
    ran = run(cell, "never = 1", limits=OUTPUT, **changes)
    assert page()[name] == Row.of(ran.ending.state, ran.ending.cause), ran.ending
    assert re.search(message, ran.ending.message)
    assert ran.statuses == ["failed", "pending"]
    assert ran.ending.output.stat().st_size < 1_000_000


@pytest.mark.chaos
def test_a_fork_bomb_stays_within_its_cap_and_ends_with_the_run(run, tmp_path):
    """The machine goes on; the run's limit ends the bomb, and nothing of it is left."""
    if reached_level(IsolationLevel.L3, None).level < IsolationLevel.L2:
        pytest.skip("this machine does not isolate kernels")
    caps = Caps(processes=60, memory_bytes=512 * MIB)
    mark = "import sys; sys.argv.append('the-bomb-of-this-test')\n"
    work = tmp_path / "work"
    work.mkdir()
    plan = KernelPlan(IsolationLevel.L3, caps)
    ran = run(mark + BOMB, "never = 1", timeout_s=12.0, kernel=plan, cwd=work)
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["a fork bomb, under the cap of the policy"] == row, ran.ending
    assert ran.statuses == ["failed", "pending"]


@pytest.mark.chaos
def test_a_control_groups_limit_is_told_as_out_of_memory(runner):
    """The system's kill, and the reason for it."""
    group = limited_group()
    if group is None:
        pytest.skip("this machine does not let the tests make a memory control group")
    enter = f"import os, sys; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    wrap = (sys.executable, "-c", f"{enter}; os.execv(sys.argv[1], sys.argv[1:])")
    try:
        process = runner("x = bytearray(2_000_000_000)", wrap=wrap)
        ending = process.ending()
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
        group.rmdir()
    assert page()["out of memory, by the control group"] == seen(ending), ending


@pytest.mark.chaos
def test_a_full_disk_is_infrastructure_and_leaves_the_notebook_as_it_was(runner, tmp_path):
    """A disk of the run's own, too small for its output; what was written before stays whole."""
    kept = tmp_path / "kept.ipynb"
    mount = (
        'mount -t tmpfs -o size=2m none "$0" || exit 97; "$@"; code=$?; '
        'cp "$0/run/output.ipynb" "$1.kept"; exit $code'
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = mount.replace('"$1.kept"', f"'{kept}'")
    wrap = ("unshare", "-Urm", "sh", "-c", mount, str(disk))
    process = runner(
        "print('small')", "print('x' * 3_000_000)", wrap=wrap, folder=str(disk / "run")
    )
    out, _ = process.process.communicate(timeout=120)
    if process.process.returncode == 97 or not out:
        pytest.skip("this machine does not let a user mount a disk of his own")
    ending = json.loads(out.splitlines()[-1])
    assert page()["the disk of the run's folder is full"] == seen(ending), ending
    assert "No space left on device" in ending["message"]
    node = nbformat.read(kept, as_version=4)
    assert node.cells[0].outputs[0].text == "small\n"
    assert node.metadata.toolkit.state == "running", "nothing more could be written"


@pytest.mark.chaos
def test_a_killed_gateway_is_started_again_and_nothing_is_lost(workspace):
    """The runner keeps a gateway running beside the kernel."""
    kill = (
        "import json, os, pathlib, signal\n"
        f"record = next(pathlib.Path({str(workspace.state)!r}).glob('gateway*.json'))\n"
        "os.kill(json.loads(record.read_text())['pid'], signal.SIGKILL)"
    )
    cells = (
        "one = toolkit.model('one').text",
        kill,
        "toolkit.result(two=toolkit.model('two').text)",
    )
    path = write_notebook(workspace, "n", *cells)
    done = toolkit("run", path, "--json")
    assert page()["the gateway is killed, and starts again"] == seen(done.json), done.told
    assert done.code == 0
    assert toolkit("ledger", "verify", "--json").code == 0


@pytest.mark.chaos
def test_without_any_gateway_it_is_infrastructure(run, tmp_path):
    """A call that nobody answers is not the notebook's failure."""
    ran = run("import toolkit\ntoolkit.model('x')", gateway_socket=tmp_path / "none.sock")
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["the gateway is gone for good"] == row, ran.ending


@pytest.mark.chaos
def test_without_mlflow_a_run_succeeds_and_says_what_is_missing(workspace):
    """The ledger is the truth; MLflow is told later."""
    database = workspace.state / "mlflow.db"
    shutil.rmtree(database, ignore_errors=True)
    database.unlink(missing_ok=True)
    database.mkdir()
    path = write_notebook(workspace, "n", "toolkit.result(a=1)")
    process = start(["run", path, "--run-id", "r1", "--json"], workspace.root)
    said, told = process.communicate(timeout=120)
    done = json.loads(said.splitlines()[-1])
    assert page()["MLflow is away"] == seen(done), told
    assert (process.returncode, done["mlflow_run_id"]) == (0, None)
    assert any("MLflow" in warning for warning in done["warnings"])
    database.rmdir()
    toolkit("runs", "--json")  # the next look tells MLflow
    told = toolkit("show", "r1", "--json").json
    with closing(sqlite3.connect(database)) as raw:
        sql = "SELECT status FROM runs WHERE run_uuid = ?"
        assert raw.execute(sql, (told["mlflow_run_id"],)).fetchone() == ("FINISHED",)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM to the runner", signal.SIGTERM), ("SIGKILL to the runner", signal.SIGKILL)],
)
def test_a_signal_to_the_runner(workspace, name, number):
    """It ends the run itself, or the next look at the runs does."""
    mark = workspace.root / "here"
    cell = f"import pathlib, time\npathlib.Path({str(mark)!r}).touch()\ntime.sleep(600)"
    path = write_notebook(workspace, "n", cell)
    process = start(["run", path, "--run-id", "r1", "--json"], workspace.root)
    try:
        until(lambda: mark.exists() or process.poll() is not None, "the cell")
        process.send_signal(number)
        code = process.wait(60)
    finally:
        process.kill()
        process.communicate()
    told = toolkit("show", "r1", "--json").json
    assert page()[name] == seen(told)
    followed = toolkit("show", "r1", "--follow")
    assert followed.code == page()[name].code
    if number == signal.SIGTERM:
        assert code == followed.code


@pytest.mark.chaos
def test_a_person_who_cancels_a_waiting_run_has_the_last_word(workspace):
    """It is not started again by the same id."""
    record = RunRecord(new_id("run"), RunKind.RUN, Environment.PRODUCTION, "ana")
    with Ledger.open(workspace.database_url) as ledger:
        ledger.create_run(record)
        ledger.update_run(record.run_id, state=RunState.WAITING)
    assert toolkit("cancel", record.run_id, "--json").code == 0
    told = toolkit("show", record.run_id, "--json").json
    assert page()["a person cancels a waiting run"] == seen(told)
