"""How a run waits for people, and for runs that do: its kernel ends, and whoever comes next sees whether it may go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import Conflict, LedgerError
from toolkit.ledger import WAITING_FOR, WAITING_JOBS, WAITING_UNTIL, Approval, Ledger, Standing
from toolkit.settings import until_signal
from toolkit.values import Cause, Clock, RunRecord, RunState, SystemClock, iso_utc

__all__ = ["WAITS", "Parking", "Patience", "requests_of", "resumed_tags", "until_us", "wait"]

WAITS = "waits"
"""Tag: how often the run has waited so far."""

_NAMED = 5
_LOOK_S = 1.0


@dataclass
class Parking:
    """Looks, while a kernel runs, whether its run only waits: for people, or for runs that do.

    Attributes:
        ledger: Where the run's calls are.
        run: The run as its runner began it.
        hold_s: Seconds for which that has to be so before the kernel is ended.
        runner: Who goes on with the run; ``None``: anybody may.
    """

    ledger: Ledger
    run: RunRecord
    hold_s: float
    runner: str | None = None
    _asked: tuple[str, ...] = ()
    _since: float = 0.0
    parked: RunRecord | None = None

    def look(self) -> str | None:
        """Return what the run waits for, once it is recorded as waiting; ``None``: it goes on.

        From then on its token is worth nothing, and it begins no calls.

        Raises:
            LedgerError: The ledger cannot tell or record; the kernel keeps waiting.
        """
        standing = self.ledger.standing(self.run.run_id)
        asked = standing.names
        if not standing.idle:
            self._asked = ()
            return None
        if asked != self._asked:
            self._asked, self._since = asked, time.monotonic()
        if time.monotonic() - self._since < self.hold_s:
            return None
        message = _told(standing)
        self.parked = self.ledger.park(self.run, asked, message=message, runner=self.runner)
        return None if self.parked is None else message


@dataclass
class Patience:
    """Says whether a parked run may go on.

    Attributes:
        ledger: Where the requests are.
        lapse: Does to a request what time does to it: expires or escalates it.
    """

    ledger: Ledger
    lapse: Callable[[Approval], Approval]
    clock: Clock = field(default_factory=SystemClock)

    def over(self, run: RunRecord) -> bool:
        """Whether a request of a parked run was decided or has expired, or a run that it started ended.

        A request that escalates goes on waiting, with its new deadline in the run's tags.
        """
        requests = [self.lapse(self.ledger.approval(one)) for one in requests_of(run)]
        jobs = jobs_of(run)
        if not (requests or jobs) or not all(each.state.waiting for each in requests):
            return True
        if any(self.ledger.get_run(one).state.terminal for one in jobs):
            return True
        if not requests:
            return False
        due = min(each.due_us for each in requests)
        if due != until_us(run):
            tags = {**run.tags, WAITING_UNTIL: str(due)}
            self.ledger.take(run, tags=tags, message=_told(Standing(tuple(requests), jobs)))
        return False

    def stopped(self, run: RunRecord) -> RunRecord | None:
        """End a parked run that somebody stopped; nothing has to be started for that."""
        stop = self.ledger.stopped([f"run:{run.run_id}"])
        if stop is None:
            return None
        message = f"it was stopped by {stop.by} while it waited: {stop.reason}"
        return self.ledger.take(
            run, state=RunState.CANCELLED, cause=Cause.REQUESTED, message=message
        )


def requests_of(run: RunRecord) -> list[str]:
    """Return the ids of the requests that a parked run waits for."""
    return [one for one in run.tags.get(WAITING_FOR, "").split(",") if one]


def jobs_of(run: RunRecord) -> tuple[str, ...]:
    """Return the ids of the runs that a parked run started and waits for."""
    return tuple(one for one in run.tags.get(WAITING_JOBS, "").split(",") if one)


def until_us(run: RunRecord) -> int | None:
    """Return when time changes what a parked run waits for, microseconds since the epoch."""
    text = run.tags.get(WAITING_UNTIL)
    return int(text) if text else None


def resumed_tags(run: RunRecord) -> dict[str, str]:
    """Return the tags of a run that waits no longer."""
    over = (WAITING_FOR, WAITING_JOBS, WAITING_UNTIL)
    kept = {name: v for name, v in run.tags.items() if name not in over}
    return {**kept, WAITS: str(int(kept.get(WAITS, "0")) + 1)}


def _told(standing: Standing) -> str:
    """Return the sentence that says what a run waits for."""
    said = [waits_for(standing.asked)] if standing.asked else []
    if standing.jobs:
        names = ", ".join(standing.jobs[:_NAMED])
        more = f" and {len(standing.jobs) - _NAMED} more" if len(standing.jobs) > _NAMED else ""
        said.append(f"waits for {names}{more}, which it started: toolkit show {standing.jobs[0]}")
    return "; ".join(said)


def waits_for(requests: list[Approval] | tuple[Approval, ...]) -> str:
    """Return the sentence that says whom a run waits for, until when, and who can change it."""
    first = min(requests, key=lambda each: each.due_us)
    names = ", ".join(each.id for each in requests[:_NAMED])
    more = f" and {len(requests) - _NAMED} more" if len(requests) > _NAMED else ""
    roles = ", ".join(sorted({each.decider for each in requests}))
    return f"waits for {roles} until {iso_utc(first.due_us)[:19]}Z: toolkit decide {names}{more}"


def wait(patience: Patience, run_id: str, *, every_s: float = _LOOK_S) -> bool:
    """Wait, without a kernel, until a parked run may go on; look at the ledger now and then.

    A ledger that cannot be read is asked again: the run is safe there.

    Returns:
        ``False`` when SIGTERM or SIGINT came instead: the run keeps waiting, without this process.
    """
    with until_signal() as leave:
        while not leave.wait(every_s):
            try:
                run = patience.ledger.get_run(run_id)
                if run.state is not RunState.WAITING:
                    return True
                if patience.stopped(run) is not None or patience.over(run):
                    return True
            except (LedgerError, Conflict):
                continue
    return False
