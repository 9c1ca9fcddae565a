"""What the door remembers between requests; losing it costs a look into the ledger."""

from __future__ import annotations

from collections import OrderedDict

from toolkit.providers import RetryBudget
from toolkit.values import CallKind, CallRecord, Clock, Outcome, SystemClock

__all__ = ["OpenCalls", "Retries", "Unrecorded"]


class OpenCalls:
    """Calls that were begun here and run in a kernel: what `finish` need not read again.

    Only a memory: the ledger decides whether a call may still be finished, and one that is not
    remembered (a kernel died, or too many are open) is read from it.

    Args:
        clock: Measures how long a body ran; its time of day may jump meanwhile.
    """

    _MOST = 10_000

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._calls: dict[str, tuple[CallRecord, float]] = {}
        self._by_run: dict[str, dict[str, CallRecord]] = {}

    def add(self, call: CallRecord) -> None:
        """Keep a call until it is finished."""
        if len(self._calls) >= self._MOST:
            self.take(next(iter(self._calls)))
        self._calls[call.call_id] = (call, self._clock.monotonic_s())
        self._by_run.setdefault(call.intent.run_id, {})[call.call_id] = call

    def has(self, call: CallRecord) -> bool:
        """Whether a call was begun here and is not finished, as far as is remembered."""
        return call.call_id in self._calls

    def agent(self, run_id: str) -> str | None:
        """Return the innermost agent at work in a run; ``None`` without one, or with several."""
        ours = self._by_run.get(run_id, {}).values()
        around = {call.intent.parent for call in ours}
        inner = {
            call.intent.name if call.intent.kind is CallKind.AGENT else call.intent.agent
            for call in ours
            if call.key not in around
        }
        return inner.pop() if len(inner) == 1 else None

    def take(self, call_id: str) -> tuple[CallRecord | None, float | None]:
        """Return a call and the seconds since it was added, and forget it."""
        call, since = self._calls.pop(call_id, (None, None))
        if call is not None:
            others = self._by_run[call.intent.run_id]
            del others[call_id]
            if not others:
                del self._by_run[call.intent.run_id]
        return call, None if since is None else round(self._clock.monotonic_s() - since, 6)


class Unrecorded:
    """Outcomes of calls that were made and that the ledger could not take.

    The same call finds its outcome here once the ledger is back, and is not made twice.  When this
    process ends before that, nobody knows how it ended: it is in doubt.
    """

    _MOST = 1_000

    def __init__(self) -> None:
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()

    def keep(self, call_id: str, outcome: Outcome) -> None:
        """Keep an outcome, screened and labelled."""
        while len(self._outcomes) >= self._MOST:
            self._outcomes.popitem(last=False)
        self._outcomes[call_id] = outcome

    def take(self, call_id: str) -> Outcome | None:
        """Return an outcome and forget it."""
        return self._outcomes.pop(call_id, None)


class Retries:
    """One budget of retries for each run; a restart of the gateway fills them up again."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._budgets: OrderedDict[str, RetryBudget] = OrderedDict()

    def of(self, run_id: str, most: int) -> RetryBudget:
        """Return the budget of a run, which policy gives ``most`` retries."""
        found = self._budgets.get(run_id)
        if found is None or found.most != most:
            while len(self._budgets) >= self._MOST:
                self._budgets.popitem(last=False)
            found = self._budgets[run_id] = RetryBudget(most)
        return found
