"""What the door remembers between requests; losing it costs a look into the ledger."""

from __future__ import annotations

from collections import OrderedDict

from toolkit.providers import RetryBudget
from toolkit.values import CallRecord

__all__ = ["OpenCalls", "Retries"]


class OpenCalls:
    """Calls that were begun here and run in a kernel: what `finish` need not read again.

    Only a memory: the ledger decides whether a call may still be finished, and one that is not
    remembered (a kernel died, or too many are open) is read from it.
    """

    _MOST = 10_000

    def __init__(self) -> None:
        self._calls: dict[str, CallRecord] = {}

    def add(self, call: CallRecord) -> None:
        """Keep a call until it is finished."""
        if len(self._calls) >= self._MOST:
            self._calls.pop(next(iter(self._calls)))
        self._calls[call.call_id] = call

    def take(self, call_id: str) -> CallRecord | None:
        """Return a call and forget it."""
        return self._calls.pop(call_id, None)


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
