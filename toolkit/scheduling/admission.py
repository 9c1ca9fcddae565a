"""Lets runs of limited jobs into the queue: so many at a time, so many in a period.

A run of a job with a limit is queued with a delay that never ends, and let in by whichever worker
has the turn.  What runs is counted in the queue itself, woken and scheduled runs included, so the
limit holds over all workers, on both databases.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from toolkit.scheduling.jobs import Jobs
from toolkit.scheduling.tables import HELD, Tables, Turn
from toolkit.scheduling.vendor import RUN_QUEUE, engine_errors
from toolkit.values import Clock, iso_utc

__all__ = ["HELD_S", "Admission"]

HELD_S = 20 * 366 * 86_400.0
_BATCH = 500
_ORPHAN_S = 300.0


class Admission:
    """Looks at what is held and at what runs.

    Args:
        tables: Where held runs are listed.
        client: Returns the queue's client.
        jobs: Returns the settings in force.
        clock: What time it is.
    """

    def __init__(
        self,
        tables: Tables,
        client: Callable[[], Any],
        jobs: Callable[[], Jobs],
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._client = client
        self._jobs = jobs
        self._clock = clock

    def look(self, turn: Turn) -> None:
        """Let in what fits.

        Raises:
            EngineError: The database does not answer, or the turn was lost.
        """
        self._forget()
        order = [HELD.c.priority, HELD.c.at_s, HELD.c.flow]
        rows = self._tables.rows(HELD, order=order, limit=100_000)
        if all(row["released"] for row in rows):
            return
        coming = Counter(row["job"] for row in rows if row["released"])
        coming.update(self._going("ENQUEUED"))
        running = self._going("PENDING")
        jobs = self._jobs()
        started: dict[tuple[float, str], int] = {}
        waiting: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if not row["released"]:
                waiting[row["job"]].append(row["flow"])
        for job, flows in waiting.items():
            rules = jobs.of(job)
            room = len(flows)
            if rules.concurrency is not None:
                room = min(room, rules.concurrency - coming[job] - running[job])
            if rules.rate is not None:
                spent = self._started(job, rules.rate.per_s, started) + coming[job]
                room = min(room, rules.rate.runs - spent)
            for flow in flows[: max(0, room)]:
                self._let_in(turn, flow)

    def _let_in(self, turn: Turn, flow: str) -> None:
        turn.check()
        self._tables.change(HELD, HELD.c.flow == flow, released=1)
        with engine_errors(f"letting {flow} in"):
            self._client().set_workflow_delay(flow, delay_seconds=0)

    def _forget(self) -> None:
        """Delete the marks of runs that are on their way, or were cancelled while they waited."""
        rows = self._tables.rows(HELD, limit=100_000)
        for start in range(0, len(rows), _BATCH):
            flows = {row["flow"]: row for row in rows[start : start + _BATCH]}
            with engine_errors("reading what is held"):
                found = self._client().list_workflows(
                    workflow_ids=list(flows), load_input=False, load_output=False
                )
            for flow in found:
                if flow.status != "DELAYED":
                    self._tables.delete(HELD, HELD.c.flow == flow.workflow_id)
                elif flows[flow.workflow_id]["released"]:
                    # A worker may have died between its mark and the act.
                    with engine_errors("letting a run in"):
                        self._client().set_workflow_delay(flow.workflow_id, delay_seconds=0)
            known = {flow.workflow_id for flow in found}
            for name, row in flows.items():
                # The mark is written first: whoever wrote it may have died before the run was.
                if name not in known and row["at_s"] < self._clock.now_us() / 1e6 - _ORPHAN_S:
                    self._tables.delete(HELD, HELD.c.flow == name)

    def _going(self, status: str) -> Counter[str]:
        """How many runs of each job are queued to start (``ENQUEUED``) or run (``PENDING``)."""
        with engine_errors("counting what runs"):
            flows = self._client().list_workflows(
                status=status, queue_name=RUN_QUEUE, load_output=False
            )
        return Counter(_job(flow) for flow in flows)

    def _started(self, job: str, per_s: float, known: dict[tuple[float, str], int]) -> int:
        """How many runs of a job started in the last so many seconds."""
        if (per_s, "") not in known:
            after = iso_utc(self._clock.now_us() - round(per_s * 1e6))
            with engine_errors("counting what started"):
                flows = self._client().list_workflows(
                    dequeued_after=after, queue_name=RUN_QUEUE, load_output=False
                )
            began = (flow for flow in flows if flow.status != "ENQUEUED")
            known.update({(per_s, name): n for name, n in Counter(map(_job, began)).items()})
            known[per_s, ""] = len(flows)
        return known.get((per_s, job), 0)


def _job(flow: Any) -> str:
    arguments = (flow.input or {}).get("args") or [{}]
    return str(arguments[0].get("job", "")).partition("@")[0]
