"""A job's kernel installs nothing: it is told so, and from L2 on it could not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.kernels import KernelPlan
from toolkit.values import Cause, Environment, IsolationLevel, RunKind, RunRecord, RunState, new_id

SAID = "packages are not installed while a job runs"
SUBPROCESS = "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', {0!r}, 'x'])"


@pytest.mark.parametrize(
    "cell",
    [
        "%pip install no-such-package-of-tests",
        "!pip install no-such-package-of-tests",
        "found = !pip install no-such-package-of-tests",
        "import os\nos.system('pip install no-such-package-of-tests')",
        SUBPROCESS.format("install"),
        "from pip._internal.commands import create_command\ncreate_command('install')",
    ],
)
def test_a_jobs_kernel_refuses_to_install(run: Callable[..., Any], cell: str) -> None:
    """By a magic, by the shell, as a program, and from within."""
    ran = run(cell)
    assert (ran.ending.state, ran.ending.cause) == (RunState.FAILED, Cause.CELL_ERROR)
    assert SAID in str(ran.node.cells[0].outputs)


def test_what_is_installed_can_be_seen_and_other_programs_start(run: Callable[..., Any]) -> None:
    """Nothing but installations is refused; what a program starts in turn finds no index."""
    ran = run(
        "!echo pip install x",
        "import os, subprocess, sys\nassert subprocess.run([sys.executable, '-c', '1']).returncode == 0",
        "assert os.environ['PIP_NO_INDEX'] == os.environ['UV_OFFLINE'] == '1'",
    )
    assert ran.ending.state is RunState.SUCCEEDED, ran.ending.message
    assert "pip install x" in ran.text(0)


def test_a_persons_kernel_may_install(run: Callable[..., Any]) -> None:
    """The sandbox is hers: the command starts (and is wrong here)."""
    record = RunRecord(new_id("run"), RunKind.TRIAL, Environment.SANDBOX, "ana")
    ran = run(SUBPROCESS.format("install --no-such-option"), run=record)
    assert SAID not in str(ran.node.cells[0].outputs)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_from_l2_on_the_environment_cannot_be_written(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    """Whoever runs the kernel, root included, and by whatever program."""
    work = tmp_path / "work"
    work.mkdir()
    places = sorted({each for each in sys.path if each.endswith("site-packages")})
    code = (
        "import errno, pathlib\n"
        f"for place in {places!r}:\n"
        "    if pathlib.Path(place).is_dir():\n"
        "        try:\n"
        "            (pathlib.Path(place) / 'planted_by_a_test.py').write_text('')\n"
        "        except OSError as error:\n"
        "            print(errno.errorcode[error.errno])\n"
    )
    ran = run(code, kernel=KernelPlan(level=IsolationLevel.L2), cwd=work)
    assert ran.ending.state is RunState.SUCCEEDED, ran.ending.message
    assert set(ran.text(0).split()) == {"EROFS"}
    assert not any((Path(place) / "planted_by_a_test.py").exists() for place in places)
