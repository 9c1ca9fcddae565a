"""Who is whose parent: a call names its parent by key, a span by id within its trace."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.errors import ToolkitError
from toolkit.tracing.ids import agent_root, is_shard, root_span_id, span_id
from toolkit.tracing.outbox import Outbox
from toolkit.values import CallRecord

__all__ = ["Family"]

_MAX_REMEMBERED = 50_000


class Family:
    """Finds the parent spans of calls.

    A parent is named by its key only, and in a session one key may be recorded several times (a
    cell that ran again).  The right one is drawn in the same trace as its child.
    """

    def __init__(self, ledger: Outbox) -> None:
        self._ledger = ledger
        self._spans: dict[tuple[str, str, str], int] = {}

    def learn(self, calls: Iterable[CallRecord]) -> None:
        """Remember calls: they may be parents of others."""
        if len(self._spans) > _MAX_REMEMBERED:
            self._spans.clear()
        for call in sorted(calls, key=lambda c: c.generation):
            self._spans[self._place(call, call.key)] = span_id(call.call_id)

    @staticmethod
    def _place(call: CallRecord, key: str) -> tuple[str, str, str]:
        return call.intent.run_id, call.trace_key, key

    def parent_span(self, call: CallRecord) -> int | None:
        """Return the parent's span id in the call's own trace; ``None`` for an agent's root."""
        run_id, parent = call.intent.run_id, call.intent.parent
        root = root_span_id(run_id, call.trace_key)
        agent = agent_root(call.trace_key)
        if not is_shard(call.trace_key) and agent is not None:
            if (call.key, call.generation) == agent:
                return None
            if parent == agent[0]:
                return root
        if parent is None:
            return root
        place = self._place(call, parent)
        if place not in self._spans:
            # Not drawn in this trace (the trace was continued): under its root, then.
            self._spans[place] = self._find(call, parent) or root
        return self._spans[place]

    def _find(self, call: CallRecord, parent: str) -> int | None:
        """Ask the ledger for the parent that is drawn in the call's trace, newest first."""
        run_id = call.intent.run_id
        found = self._ledger.lookup(run_id, parent)
        while found is not None:
            if found.trace_key == call.trace_key:
                return span_id(found.call_id)
            if found.generation == 0:
                return None
            try:
                found = self._ledger.get_call(run_id, parent, found.generation - 1)
            except ToolkitError:
                return None
        return None
