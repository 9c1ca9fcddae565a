"""A worker: ``chaos_jobs_worker.py ENGINE FOLDER LEASE_S LEDGER SERVER``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.scheduling import Work, Worker, WorkerEvent
from toolkit.settings import stop_on_signals

engine, folder, lease_s, ledger, server = sys.argv[1:6]


def command(work: Work) -> list[str]:
    if "sleep" in work.parameters:
        return [sys.executable, "-S", "-c", f"import time; time.sleep({work.parameters['sleep']})"]
    script = str(Path(__file__).with_name("chaos_jobs_run.py"))
    return [sys.executable, script, ledger, work.run_id, server]


def tell(event: WorkerEvent) -> None:
    run_id = event.work.run_id if event.work else "-"
    os.write(1, f"{event.kind} {run_id} {event.message}\n".encode())


if __name__ == "__main__":
    stop = stop_on_signals()
    worker = Worker(
        engine,
        Path(folder),
        4,
        command,
        on_event=tell,
        lease_s=float(lease_s),
        retry_delay_s=0.2,
        grace_s=5.0,
        standby=True,
    )
    try:
        worker.run(stop)
    except ToolkitError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
