"""In which agent a call is made: told by its parents, or by who is at work, never by the kernel."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from toolkit.ledger import Ledger
from toolkit.values import CallKind, CallRecord, Intent, RunRecord, inherited_agent

__all__ = ["Ancestry"]

_MOST = 50_000


@dataclass
class Ancestry:
    """The innermost agent of each call that others are made in.

    Attributes:
        ledger: Asked for parents that this process has not seen begin.
    """

    ledger: Ledger
    _agents: OrderedDict[tuple[str, str], str | None] = field(default_factory=OrderedDict)

    def remember(self, call: CallRecord) -> None:
        """Keep a call that others may name as their parent."""
        intent = call.intent
        if intent.kind is CallKind.AGENT:
            self._keep(intent.run_id, call.key, intent.name)
        elif intent.kind is CallKind.TOOL:
            self._keep(intent.run_id, call.key, intent.agent)

    async def agent(self, run: RunRecord, intent: Intent) -> str | None:
        """Return the innermost agent of a call, be it one of the runs above its own.

        One that names no parent may come with the agent that was seen at work (``Door.at_work``).
        """
        if self.known(intent):
            found = self.agent_of(intent)
        else:
            found = await asyncio.to_thread(self.agent_of, intent)
        return found or intent.agent or inherited_agent(run)

    def known(self, intent: Intent) -> bool:
        """Whether :meth:`agent_of` can answer without reading the ledger."""
        return intent.parent is None or (intent.run_id, intent.parent) in self._agents

    def agent_of(self, intent: Intent) -> str | None:
        """Return the name of the innermost agent that a call is made in, ``None`` outside of one.

        Reads the ledger unless :meth:`known`.
        """
        if intent.parent is None:
            return None
        place = (intent.run_id, intent.parent)
        if place not in self._agents:
            found = self.ledger.lookup(*place)
            if found is None:  # a parent that was never begun: nothing vouches for an agent
                return None
            self.remember(found)
        return self._agents.get(place)

    def _keep(self, run_id: str, key: str, agent: str | None) -> None:
        if len(self._agents) >= _MOST:
            self._agents.popitem(last=False)
        self._agents[run_id, key] = agent
