"""Tells those who wait that a request was decided, here or by another process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable

from toolkit.errors import ToolkitError
from toolkit.gateway.desk import due_us
from toolkit.ledger import Ledger
from toolkit.values import Clock, SystemClock

__all__ = ["Bell"]

_FEW = 16
_MOST = 100_000


class Bell:
    """One look into the ledger for everybody who waits; none when nobody does.

    Args:
        ledger: Where requests are decided.
        clock: Says when they have expired.
        every_s: Seconds between two looks: how late a decision of another process is noticed.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock | None = None, *, every_s: float = 0.25
    ) -> None:
        self._ledger = ledger
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._come: asyncio.Event = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self.looks = 0
        """How often the ledger was asked."""

    async def wait(self, approval_id: str, timeout_s: float) -> bool:
        """Wait until a request is decided or has expired; return whether it is."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(approval_id, set()).add(future)
        self._come.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            self._forget(approval_id, future)
        return True

    def ring(self, approval_id: str) -> None:
        """Wake everybody who waits for a request; called in the event loop."""
        for future in self._waiting.get(approval_id, ()):
            if not future.done():
                future.set_result(None)

    async def close(self) -> None:
        """End looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def _forget(self, approval_id: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(approval_id, set())
        waiting.discard(future)
        if not waiting:
            self._waiting.pop(approval_id, None)

    async def _look(self) -> None:
        failed = False
        while self._waiting:
            self._come.clear()
            try:
                decided = await asyncio.to_thread(self._decided, list(self._waiting))
            except ToolkitError as error:
                # Who waits asks the ledger again by himself in the end, and is told then.
                if not failed:
                    print(f"warning: decisions cannot be read: {error}", file=sys.stderr)
                failed, decided = True, []
            else:
                failed = False
            for approval_id in decided:
                self.ring(approval_id)
            # Somebody new is looked up at once: it may have been decided already.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._come.wait(), self._every_s)

    def _decided(self, ids: Iterable[str]) -> list[str]:
        """Return those of the requests that nobody waits for any more."""
        self.looks += 1
        wanted = list(ids)
        now = self._clock.now_us()
        if len(wanted) <= _FEW:
            found = [self._ledger.approval(approval_id) for approval_id in wanted]
        else:
            found = self._ledger.approvals(waiting=True, limit=_MOST)
        open_ = {a.id for a in found if a.state.waiting and now < due_us(a)}
        return [approval_id for approval_id in wanted if approval_id not in open_]
