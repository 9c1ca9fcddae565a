"""Notebooks, executions and a runner in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from execution_notebooks import notebook_bytes

from toolkit.execution import Ending, Execution, execute
from toolkit.execution.interruptions import Interruptions
from toolkit.values import Environment, RunKind, RunRecord, new_id

TOKEN = "token-of-this-run-0123456789"
LEDGER = "0123456789abcdef"


@dataclass
class Ran:
    """An ending and the notebook that was written."""

    ending: Ending
    folder: Path

    @property
    def node(self) -> Any:
        return nbformat.read(self.ending.output, as_version=4)

    @property
    def statuses(self) -> list[str]:
        return [cell.metadata.papermill.status for cell in self.node.cells]

    def text(self, position: int) -> str:
        """Return all stream text of one cell."""
        outputs = self.node.cells[position].outputs
        return "".join(o.text for o in outputs if o.output_type == "stream")


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run cells in a fresh kernel; keyword arguments are those of ``Execution``."""

    def go(
        *cells: str | tuple[str, list[str]], heard: Interruptions | None = None, **changes: Any
    ) -> Ran:
        record = RunRecord(new_id("run"), RunKind.RUN, Environment.PRODUCTION, "ana")
        values: dict[str, Any] = {
            "run": record,
            "ledger": LEDGER,
            "notebook": notebook_bytes(*cells),
            "parameters": {},
            "folder": tmp_path / record.run_id,
            "gateway_socket": None,
            "token": TOKEN,
            "timeout_s": 60.0,
            "cwd": tmp_path,
        }
        execution = Execution(**{**values, **changes})
        return Ran(execute(execution, heard), execution.folder)

    return go


@dataclass
class Runner:
    """A runner in its own process."""

    process: subprocess.Popen[str]
    folder: Path
    run_id: str

    def ending(self) -> dict[str, Any]:
        """Wait for its end and return what it printed."""
        out, _ = self.process.communicate(timeout=60)
        last: dict[str, Any] = json.loads(out.splitlines()[-1])
        return last


@pytest.fixture
def runner(tmp_path: Path):
    """Start runners, and end those that are left."""
    started: list[subprocess.Popen[str]] = []

    def go(*cells: str, wrap: tuple[str, ...] = (), **changes: Any) -> Runner:
        run_id = new_id("run")
        folder = tmp_path / run_id
        spec = {
            "run_id": run_id,
            "ledger": LEDGER,
            "folder": str(folder),
            "notebook": notebook_bytes(*cells).decode(),
            "token": TOKEN,
            **changes,
        }
        process = subprocess.Popen(
            [*wrap, sys.executable, str(Path(__file__).with_name("run_one.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(spec))
        process.stdin.close()
        process.stdin = None
        return Runner(process, folder, run_id)

    yield go
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
