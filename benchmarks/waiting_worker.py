"""The worker of ``benchmarks.waiting``: real queue, real sweep, scripted commands.

``python -m benchmarks.waiting_worker FOLDER ENGINE_URL LEDGER_URL SLOTS``.  A run's first command
exits with 3, as ``toolkit run`` does when people are all that a run waits for; the second one notes
the run's id and exits with 0.  What a real run would write to the ledger at its end is written by
a thread of this process.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from pathlib import Path

from toolkit.app.waiting import Waking
from toolkit.errors import ToolkitError
from toolkit.ledger import Ledger
from toolkit.scheduling import Engine, EventKind, Outcome, Work, Worker, WorkerEvent
from toolkit.settings import stop_on_signals
from toolkit.values import RunState


def main(folder: Path, engine_url: str, ledger_url: str, slots: int) -> None:
    """Work until told to stop."""
    ledger = Ledger.open(ledger_url)
    engine = Engine(engine_url, root=folder)
    waking = Waking(ledger, lambda: engine)
    ended: queue.Queue[str | None] = queue.Queue()

    def command(work: Work) -> list[str]:
        note = f"echo {work.run_id} >> {folder / 'finished'}"
        return ["/bin/sh", "-c", note if work.wake else "exit 3"]

    def tell(event: WorkerEvent) -> None:
        if event.kind is EventKind.RUN_ENDED and event.work is not None:
            if event.state is RunState.SUCCEEDED:
                ended.put(event.work.run_id)
        elif event.kind in (EventKind.STARTED, EventKind.WARNING):
            os.write(1, f"{event.kind} {event.message}\n".encode())

    def finish() -> None:
        while (run_id := ended.get()) is not None:
            ledger.update_run(run_id, state=RunState.SUCCEEDED)

    def sweep() -> None:
        if (folder / "hold").exists():  # nobody is woken before everybody has decided
            return
        if count := waking.sweep():
            os.write(1, f"woke {count}\n".encode())

    def parked(work: Work, outcome: Outcome) -> Outcome:
        until = ledger.get_run(work.run_id).tags.get("waiting_until")
        if outcome.exit_code == 3 and until:
            engine.wake(work.run_id, at_us=int(until))
        return outcome

    finisher = threading.Thread(target=finish)
    finisher.start()
    try:
        Worker(
            engine_url,
            root=folder,
            slots=slots,
            command=command,
            on_event=tell,
            on_ended=parked,
            tend=sweep,
        ).run(stop_on_signals())
    finally:
        ended.put(None)
        finisher.join()
        engine.close()
        ledger.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    except ToolkitError as error:
        sys.exit(str(error))
