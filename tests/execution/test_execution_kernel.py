"""What the kernel is given, and what it is not."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from endings_page import Row, page
from execution_notebooks import notebook_bytes

from toolkit.client import wire
from toolkit.errors import UsageError
from toolkit.values import Cause, RunState

CANARY = "sk-canary-7f3a"
LOOK = """
import json, os, sys, pathlib
me = pathlib.Path("/proc/self")
print(json.dumps({
    "environ": dict(os.environ),
    "at_start": me.joinpath("environ").read_bytes().decode(),
    "argv": me.joinpath("cmdline").read_bytes().decode(),
    "cwd": os.getcwd(),
    "prefix": sys.prefix,
    "cell": get_ipython().get_parent()["metadata"].get("cellId"),
    "sockets": sorted(p.name for p in pathlib.Path(os.environ["IPYTHONDIR"]).parent.iterdir()),
}))
"""


def test_the_kernel_gets_the_run_and_nothing_of_the_runners_secrets(run, tmp_path, monkeypatch):
    """Keys, Python settings and Jupyter settings of the runner do not reach the kernel."""
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "TOOLKIT_DATABASE_URL", "PYTHONPATH"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "no-such-provisioner")
    monkeypatch.setenv("LC_TIME", "C")
    # papermill formats paths, so a folder with braces shows whether it gets to see one.
    odd = tmp_path / "{x.__class__}"
    odd.mkdir()
    ran = run(LOOK, folder=odd / "run", parameters={"x": 1}, gateway_socket=Path("/run/gw.sock"))
    assert ran.ending.state == "succeeded"
    seen = json.loads(ran.text(0))
    assert CANARY not in json.dumps(seen)
    environ = seen["environ"]
    assert environ[wire.ENV_SOCKET] == "/run/gw.sock"
    assert environ[wire.ENV_RUN] == ran.node.metadata.toolkit.run_id
    assert json.loads(environ[wire.ENV_PARAMETERS]) == {"x": 1}
    assert environ["MPLBACKEND"].endswith("backend_inline")
    assert environ["LC_TIME"] == "C"
    assert environ["PATH"].startswith(f"{Path(sys.executable).parent}:")
    assert not [name for name in environ if name.startswith("PYTHON")]
    assert seen["cwd"] == str(tmp_path)
    assert seen["cell"] == ran.node.cells[0].id
    # The token was in the environment when this was printed, and in no argument; the file
    # that keeps the output has neither.
    assert environ[wire.ENV_TOKEN] == "[run token]"
    assert "token" not in seen["argv"]
    assert "token-of-this-run" not in ran.ending.output.read_text()


def test_the_runs_folder_is_private_and_keeps_only_the_notebook(run):
    """The message key, the sockets and the profile are gone when the run has ended."""
    ran = run("1")
    assert stat.S_IMODE(ran.folder.stat().st_mode) == 0o700
    assert [path.name for path in ran.folder.iterdir()] == ["output.ipynb"]


def test_a_folder_too_long_for_a_socket_still_runs_and_leaves_nothing(run, tmp_path):
    """The sockets move to a private temporary folder, which is removed as well."""
    look = (
        "import json, pathlib, stat\n"
        "from ipykernel.connect import get_connection_file\n"
        "stem = pathlib.Path(json.loads(pathlib.Path(get_connection_file()).read_text())['ip'])\n"
        "print(json.dumps([str(stem.parent), stat.S_IMODE(stem.parent.stat().st_mode)]))"
    )
    ran = run(look, folder=tmp_path / ("long" * 30))
    assert ran.ending.state == "succeeded"
    sockets, mode = json.loads(ran.text(0))
    assert mode == 0o700
    assert tmp_path not in Path(sockets).parents
    assert not Path(sockets).exists()


def test_the_notebook_does_not_choose_its_kernel(run):
    """A kernel name in the notebook, existing or not, changes nothing."""
    ran = run(notebook=notebook_bytes("print('ours')", kernel="no-such-kernel"))
    assert ran.text(0) == "ours\n"
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["the kernelspec points elsewhere"] == row
    assert ran.node.metadata.kernelspec.name == "no-such-kernel", "the author's word is kept"


def test_a_start_that_fails_names_its_cause_and_does_not_wait_for_the_timeout(run, tmp_path):
    """An environment without ipykernel, and one without Python, end the run at once."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(tmp_path / "bare")],
        check=True,
    )
    # With a start limit of ten minutes a wait for it would end in the test's own time limit.
    ran = run("1", python=tmp_path / "bare" / "bin" / "python", start_timeout_s=600)
    assert (ran.ending.state, ran.ending.cause) == (RunState.FAILED, Cause.KERNEL_START)
    assert page()["the kernel does not start"] == Row.of(ran.ending.state, ran.ending.cause)
    assert "No module named ipykernel_launcher" in ran.ending.message
    assert ran.statuses == ["pending"]

    ran = run("1", python=tmp_path / "none" / "python", start_timeout_s=600)
    assert (ran.ending.state, ran.ending.cause) == (RunState.FAILED, Cause.KERNEL_START)
    assert "No such file" in ran.ending.message


def test_parameters_that_do_not_fit_into_the_environment_are_refused(run):
    """The caller learns the size and the way out, instead of a kernel that cannot start."""
    with pytest.raises(UsageError, match="more than 120000") as caught:
        run("1", parameters={"text": "x" * 200_000})
    assert "file" in caught.value.next_step


def test_the_runner_keeps_its_own_directory_and_environment(run, tmp_path):
    """papermill changes the directory of the process; this room does not let it."""
    before = (Path.cwd(), dict(os.environ))
    run("import os\nos.environ['A'] = '1'\nos.chdir('/')")
    assert (Path.cwd(), dict(os.environ)) == before


def test_runs_of_two_threads_take_turns_and_one_inside_a_loop_works(run):
    """A worker may call from any thread, and from a coroutine; runs never overlap."""
    source = "import time\na = time.monotonic()\ntime.sleep(.2)\nprint([a, time.monotonic()])"

    async def inside() -> object:
        return run(source)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: run(source), range(2))
    third = asyncio.run(inside())
    assert {ran.ending.state for ran in (first, second, third)} == {"succeeded"}
    spans = sorted(json.loads(ran.text(0)) for ran in (first, second, third))
    assert spans[0][1] <= spans[1][0]
    assert spans[1][1] <= spans[2][0]
