"""`runs --overdue`: what the queue has held, or a worker has run, for longer than it should."""

from __future__ import annotations

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.values import JobRef

__all__ = ["list_overdue"]


def list_overdue(job: str | None, *, as_json: bool) -> int:
    """List overdue runs, the ticks of schedules among them, as the queue sees them.

    Raises:
        EngineError: The queue's database does not answer.
    """
    with open_workbench() as bench:
        name = JobRef.parse(job).name if job else None
        limits = bench.jobs.now()
        late = bench.engine.overdue(queued_s=limits.queued_s, running_s=limits.running_s)
        found = [each for each in late if name in (None, JobRef.parse(each[0].job).name)]
        if as_json:
            show.print_json(
                [
                    {
                        "run_id": status.run_id,
                        "job": status.job,
                        "state": status.state.value,
                        "schedule": status.schedule,
                        "for_s": round(age_s, 1),
                    }
                    for status, age_s in found
                ]
            )
        elif not found:
            show.out.print("nothing is overdue")
        else:
            rows = [
                (s.run_id, s.job, s.schedule or "", show.state_text(s.state), show.seconds(age_s))
                for s, age_s in found
            ]
            columns = ("run", "job", "schedule", "state", ">for")
            show.out.print(show.table(None, columns, rows))
        return 0
