"""Exported files at work: a tiny job, and processes that another scheduler would start for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from cli_world import seal, toolkit

from toolkit.ledger import is_alive
from toolkit.settings import Workspace

DOUBLES = Path(__file__).parents[1] / "fixtures" / "foreign"
OK, FAILS, HANGS = range(3)
CELL = """
import os, pathlib, subprocess, time
folder = pathlib.Path({folder!r})
with (folder / "executed").open("a") as file:
    file.write(f"{{limit}}\\n")
if limit == 1:
    raise ValueError("no")
if limit == 2:
    child = subprocess.Popen(["sleep", "600"])
    draft = folder / "draft"
    draft.write_text(f"{{os.getpid()}} {{child.pid}}")
    draft.rename(folder / "pids")
    time.sleep(600)
toolkit.result(done=limit)
"""


@dataclass
class Task:
    """A process that the other scheduler has started: the exported file, or its command.

    Attributes:
        ended: What it made of the run's end; its last line of output.
    """

    process: subprocess.Popen[str]
    ended: Any = None

    def wait(self) -> Task:
        out, err = self.process.communicate(timeout=240)
        assert "Traceback" not in err, err
        self.ended = json.loads(out.splitlines()[-1])
        return self


@contextmanager
def started(workspace: Workspace, command: list[str], **environment: str) -> Iterator[Task]:
    """A process with `toolkit` on its path, ended whatever happens."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=workspace.root,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(DOUBLES), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Task(process)
    finally:
        process.kill()
        process.communicate()


def exported(workspace: Workspace, target: str, how: int, *more: str) -> Path:
    """Write the file for a target, and return where it is."""
    folder = workspace.root / "exported" / str(how)
    told = toolkit("export", target, "tiny@production", "-p", f"limit={how}", "--out", folder,
                   "--force", "--json", *more)  # fmt: skip
    assert told.code == 0, told.told
    path = Path(told.json["path"])
    assert path.read_text() == told.json["text"]
    return path


def task(workspace: Workspace, target: str, how: int, key: str) -> Any:
    """Start the task of a Python file, as its scheduler would."""
    path = exported(workspace, target, how)
    named = {f"{target.upper()}_RUN_ID": key}
    return started(workspace, [sys.executable, str(path)], **named)


def pod(workspace: Workspace, how: int, uid: str) -> Any:
    """Start the container's command, as the kubelet would: `$(NAME)` replaced, `$$` a dollar."""
    path = exported(workspace, "kubernetes", how, "--image", "team/jobs:1")
    (container,) = yaml.safe_load(path.read_text())["spec"]["template"]["spec"]["containers"]
    assert container["workingDir"] == str(workspace.root)
    (variable,) = container["env"]
    command = [
        part.replace("$$(", "\0").replace(f"$({variable['name']})", uid).replace("\0", "$(")
        for part in container["command"]
    ]
    return started(workspace, command, **{variable["name"]: uid})


def executed(workspace: Workspace) -> list[str]:
    """Which tiny jobs were executed, since the last time this was asked."""
    path = workspace.root / "executed"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def prepare(workspace: Workspace) -> None:
    """Seal the tiny job once, and forget what was executed."""
    if not (workspace.registry / "jobs" / "tiny").exists():
        seal(workspace, "tiny", CELL.format(folder=str(workspace.root)))
    executed(workspace)
    (workspace.root / "pids").unlink(missing_ok=True)


def check_cancelled(workspace: Workspace, one: Task) -> tuple[Any, str]:
    """Send SIGTERM to a task whose cell hangs; return what it told, and the run's id.

    The run is cancelled, its kernel and what that started are gone, its notebook can be read.
    """
    deadline = time.monotonic() + 240
    while not (workspace.root / "pids").exists():
        assert one.process.poll() is None, one.process.communicate()
        assert time.monotonic() < deadline, "the cell that hangs did not begin"
        time.sleep(0.1)
    pids = [int(pid) for pid in (workspace.root / "pids").read_text().split()]
    assert all(is_alive(pid) for pid in pids)
    one.process.send_signal(signal.SIGTERM)
    ended = one.wait().ended
    assert [pid for pid in pids if is_alive(pid)] == []
    run = toolkit("runs", "tiny", "--limit", 1, "--json").json[0]
    assert (run["state"], run["cause"]) == ("cancelled", "signal")
    book = nbformat.read(workspace.runs / run["run_id"] / "output.ipynb", as_version=4)
    assert book.metadata["toolkit"]["state"] == "cancelled"
    return ended, run["run_id"]
