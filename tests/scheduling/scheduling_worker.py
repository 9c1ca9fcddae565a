"""A worker in a process of its own: ``scheduling_worker.py URL ROOT LEASE_S GRACE_S RETRY_DELAY_S``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.scheduling import JobsFile, Work, Worker, WorkerEvent
from toolkit.settings import stop_on_signals

url, root = sys.argv[1], Path(sys.argv[2])
lease_s, grace_s, delay_s = map(float, sys.argv[3:6])


def command(work: Work) -> list[str]:
    script = str(Path(__file__).with_name("scheduling_job.py"))
    behaviour = str(work.parameters.get("do", "0"))
    return [
        sys.executable,
        "-S",
        "-E",
        script,
        str(root),
        work.run_id,
        str(work.attempt),
        behaviour,
    ]


def tell(event: WorkerEvent) -> None:
    state = f" {event.state}" if event.state else ""
    line = f"{event.kind}{state} {event.work.run_id if event.work else ''} {event.message}\n"
    os.write(1, line.encode())


if __name__ == "__main__":
    stop = stop_on_signals()
    worker = Worker(
        url,
        root,
        4,
        command,
        on_event=tell,
        lease_s=lease_s,
        grace_s=grace_s,
        retry_delay_s=delay_s,
        jobs=JobsFile(root / "registry" / "jobs.yaml").now,
        overtime_s=0.2,
    )
    try:
        worker.run(stop)
    except ToolkitError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
