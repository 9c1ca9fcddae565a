"""Zygotes and warm runs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels_world import SECRET, Ran

from toolkit.execution import Execution, execute
from toolkit.kernels import KernelPlan, Zygote, stop_zygotes
from toolkit.values import Environment, RunKind, RunRecord, new_id


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder of zygotes, whose first one is started by a process that holds a secret."""
    folder = Path(tempfile.mkdtemp(prefix="zygotes-"))
    os.environ["A_PROVIDER_API_KEY"] = SECRET
    try:
        Zygote(folder, Path(sys.executable), runners_environment()).wait(60)
    finally:
        del os.environ["A_PROVIDER_API_KEY"]
    yield folder
    stop_zygotes(folder)
    shutil.rmtree(folder)


def runners_environment() -> dict[str, str]:
    """What of this process's environment a run's kernel gets."""
    names = ("HOME", "LANG", "LANGUAGE", "TZ")
    return {n: v for n, v in os.environ.items() if n in names or n.startswith("LC_")}


@pytest.fixture
def zygote(home: Path) -> Zygote:
    """The zygote that serves :func:`run`; started again if a test before ended it."""
    found = Zygote(home, Path(sys.executable), runners_environment())
    found.wait(60)
    return found


@pytest.fixture
def warm(zygote: Zygote) -> KernelPlan:
    """A plan that starts kernels warm."""
    return KernelPlan(warm=True, zygotes=zygote.folder.parent)


@pytest.fixture
def run(tmp_path: Path, warm: KernelPlan) -> Callable[..., Ran]:
    """Run cells in a warm kernel; keyword arguments are those of its plan."""

    def go(*sources: str, **changes: Any) -> Ran:
        node = nbformat.v4.new_notebook()
        node.cells = [nbformat.v4.new_code_cell(source) for source in sources]
        record = RunRecord(new_id("run"), RunKind.RUN, Environment.PRODUCTION, "ana")
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        execution = Execution(
            run=record,
            ledger="0" * 16,
            notebook=nbformat.writes(node).encode(),
            parameters={},
            folder=tmp_path / record.run_id,
            gateway_socket=None,
            token="token-of-this-run-0123456789",
            timeout_s=60,
            cwd=work,
            kernel=replace(warm, **changes),
        )
        return Ran(execute(execution))

    return go
