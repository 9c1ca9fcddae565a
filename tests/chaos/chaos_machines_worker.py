"""A worker of a real workspace with a short lease: ``chaos_machines_worker.py ROOT LEASE_S SLOTS``.

What ``toolkit worker`` does, but for its lease of 30 s: a storm has no time for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toolkit.app.isolating import zygote_folder
from toolkit.app.queued import QueuedRuns
from toolkit.app.waiting import Waking
from toolkit.app.workbench import open_workbench
from toolkit.errors import ToolkitError
from toolkit.scheduling import Hosting, Work, Worker, WorkerEvent
from toolkit.settings import stop_on_signals

PROGRAM = (sys.executable, "-m", "toolkit")
NEEDS = ("toolkit.cli.main", "toolkit.app.running", "toolkit.app.isolating", "toolkit.execution")


def command(work: Work) -> list[str]:
    argv = [*PROGRAM, "run", work.job, "--run-id", work.run_id]
    for name, value in work.parameters.items():
        argv += ["-p", f"{name}={value}"]
    return [*argv, "--json", "--queued"]


def tell(event: WorkerEvent) -> None:
    run_id = event.work.run_id if event.work else "-"
    how = f" {event.state} {event.exit_code}" if event.state else ""
    os.write(1, f"{event.kind} {run_id}{how} {event.message}\n".encode())


def main(root: Path, lease_s: float, slots: int) -> None:
    """Work until told to stop."""
    with open_workbench(root) as bench:
        waking = Waking(bench.ledger, lambda: bench.engine)
        queued = QueuedRuns(bench)

        def tend() -> int:
            woken = waking.sweep()
            queued.sweep()
            return woken

        zygote_folder(bench.workspace).mkdir(mode=0o700, exist_ok=True)
        bench.runner.reconcile()
        Worker(
            bench.workspace.engine_url,
            root,
            slots,
            command,
            on_event=tell,
            on_ended=queued.ended,
            why=queued.why,
            tend=tend,
            lease_s=lease_s,
            retry_delay_s=0.2,
            grace_s=5.0,
            standby=True,
            hosting=Hosting(PROGRAM, "toolkit.cli:main", (*NEEDS, "mlflow")),
        ).run(stop_on_signals())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    except ToolkitError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
