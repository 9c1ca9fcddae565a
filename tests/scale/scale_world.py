"""A workspace with one sealed job, and the worker processes that a test starts and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from workspace_world import end_gateway, write_workspace

from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.scheduling import Schedule, tick_run_id
from toolkit.values import RunRecord, RunState

T = TypeVar("T")

JOB = "tick"
CELLS = [
    "%load_ext toolkit",
    "import time\nimport toolkit",
    "reply = toolkit.model('what time is it?')\ntime.sleep(3)",
    "toolkit.result(said=reply.text)",
]


def notebook() -> bytes:
    """The job: one model call, three seconds of work, one result."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "source": source,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    body = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(body).encode()


def until(look: Callable[[], T], what: str, seconds: float) -> T:
    """Return the first truth that ``look`` sees."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.1)
    return seen


class Plant:
    """A workspace whose job runs on a schedule.

    Attributes:
        workspace: Where.
        schedule: Its schedule, once added.
        workers: Every worker process that was started.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.workspace = write_workspace(root)
        self.workers: list[subprocess.Popen[bytes]] = []
        registry = Registry(self.workspace.registry)
        facts = {"by": "ana", "results": ["said"], "policy_digest": "sha256:" + "0" * 64}
        sealed = registry.seal(JOB, {"notebook.ipynb": notebook()}, facts)
        registry.set_alias(JOB, "production", sealed.version, by="ana")

    def toolkit(self, *arguments: str) -> str:
        """Run one command as a person does and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", *arguments],
            cwd=self.workspace.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def add_schedule(self, cron: str) -> None:
        self.toolkit("schedule", "add", f"{JOB}@production", "--cron", cron)
        self.schedule = Schedule(JOB, f"{JOB}@production", {}, cron, "UTC", "ana")

    # -- workers -------------------------------------------------------------------------------

    def start_worker(self) -> None:
        """Start `toolkit worker` and wait until it takes work."""
        log = self.workspace.state / f"worker-{len(self.workers)}.log"
        with log.open("wb") as file:
            worker = subprocess.Popen(
                [sys.executable, "-m", "toolkit", "worker"],
                cwd=self.workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self.workers.append(worker)
        until(lambda: "worker" in log.read_text() or worker.poll() is not None, "the start", 60)
        assert worker.poll() is None, log.read_text()

    def kill_worker(self) -> None:
        """Kill the worker as a power cut does."""
        self.workers[-1].kill()
        self.workers[-1].wait()

    def stop(self) -> None:
        """End worker and gateway in order."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(40)
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
        end_gateway(self.workspace)

    # -- what happened -------------------------------------------------------------------------

    def runs(self, *states: RunState) -> list[RunRecord]:
        """The schedule's runs in the ledger, oldest first."""
        with Ledger.open(self.workspace.database_url) as ledger:
            found = ledger.runs(job=JOB, limit=1000)
        mine = [run for run in reversed(found) if run.tags.get("schedule") == JOB]
        return [run for run in mine if not states or run.state in states]

    def mlflow_runs(self) -> list[tuple[str, str]]:
        """Name and status of every MLflow run of the job, read past MLflow."""
        path = self.workspace.mlflow_uri.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw:
            return raw.execute(
                "SELECT r.run_uuid, r.status FROM runs r JOIN experiments e"
                " ON e.experiment_id = r.experiment_id WHERE e.name = ?",
                (JOB,),
            ).fetchall()

    def due(self, since: datetime, step_s: int) -> dict[str, datetime]:
        """Run ids of all ticks from ``since`` until now."""
        start = since.replace(second=0, microsecond=0)
        count = int((datetime.now(UTC) - start).total_seconds() // step_s) + 1
        moments = [start + timedelta(seconds=step_s * n) for n in range(count)]
        return {tick_run_id(self.schedule, moment): moment for moment in moments}
