"""Runs that wait, run again: one at a time, or thousands at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.scheduling.flows import Flows, after_of, options_of, status_of, wake_id
from toolkit.scheduling.vendor import CONTROL_QUEUE, RUN_QUEUE, engine_errors
from toolkit.values import RunState, check_name

__all__ = ["Wakes"]

_WAKE_BATCH = 250
_WAKABLE = (RunState.WAITING, RunState.RUNNING)


class Wakes(Flows):
    """The part of the engine that wakes."""

    def wake(self, run_id: str, *, at_us: int | None = None) -> bool:
        """Run a waiting run again, now that what it waited for is recorded.

        Safe to call at any moment after the record: a run that is still about to end as waiting
        runs again once it has, a queued one will see the record by itself.

        Args:
            run_id: The run.
            at_us: Not before this moment, microseconds since the epoch; a row of the database
                until then.  Whatever wakes the run before makes that row count for nothing.

        Returns:
            Whether it runs again; ``False`` if it ended for good or has not started yet.

        Raises:
            NotFound: The queue does not know it.
        """
        family = self._family(run_id)
        number = len(family)
        if at_us is None:
            return self._wake({run_id: (number, family[-1])}) > 0
        if status_of(run_id, family).state not in _WAKABLE:
            return False
        delay_s = max(0.0, (at_us - self._clock.now_us()) / 1e6)
        with engine_errors(f"waking {run_id}"):
            after = after_of(run_id, number, family[-1])
            self._enqueue("wake", CONTROL_QUEUE, f"due-{after['id']}", after, delay_s=delay_s)
        return True

    def wake_all(self, run_ids: Sequence[str]) -> int:
        """Like :meth:`wake` for many runs, with few questions and few transactions.

        Unknown ones are left out.

        Returns:
            How many run again.
        """
        asked = [check_name(run_id, "run id") for run_id in run_ids]
        # A batch is one transaction, in which the queue's other writers wait on SQLite.
        return sum(
            self._wake(self._last(asked[start : start + _WAKE_BATCH]))
            for start in range(0, len(asked), _WAKE_BATCH)
        )

    def _last(self, run_ids: Sequence[str]) -> dict[str, tuple[int, Any]]:
        """Return each run's latest workflow, and how many it has had."""
        last: dict[str, tuple[int, Any]] = {}
        left = {run_id: run_id for run_id in run_ids}
        count = 0
        while left:
            with engine_errors(f"reading {len(left)} runs"):
                flows = self._client.list_workflows(workflow_ids=list(left))
            count += 1
            last |= {left[flow.workflow_id]: (count, flow) for flow in flows}
            again = [left[flow.workflow_id] for flow in flows]
            left = {wake_id(run_id, count): run_id for run_id in again}
        return last

    def _wake(self, last: Mapping[str, tuple[int, Any]]) -> int:
        """Queue again those that wait or are about to; all or none of them.  Return how many."""
        found: list[tuple[dict[str, Any], Any]] = []
        for run_id, (number, flow) in last.items():
            state, after = status_of(run_id, [flow]).state, after_of(run_id, number, flow)
            if state is RunState.WAITING:
                found.append((options_of("run", RUN_QUEUE, after["id"]), after["body"]))
            elif state is RunState.RUNNING:  # it may still end otherwise: somebody looks at its end
                found.append((options_of("wake", CONTROL_QUEUE, f"wake-{after['id']}"), after))
        if found:
            with engine_errors(f"waking {len(found)} runs"), self.tables.writing() as connection:
                for options, body in found:
                    self._client.enqueue_in_transaction(connection, options, body)
        return len(found)
