"""One piece of work, tried until it ends or its job's retries are used up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from toolkit.errors import ConfigurationError, InfrastructureError, ToolkitError
from toolkit.scheduling.children import Children
from toolkit.scheduling.jobs import Jobs, Retry
from toolkit.scheduling.work import AWAY, BUSY, EventKind, Outcome, Work

__all__ = ["Attempts", "Why"]

Why = Callable[[Work, int, int], str | None]
"""Says why a process ended: the work, its exit code, and when it began (microseconds since the
epoch) give a cause of a job's ``retries``, :data:`AWAY`, :data:`BUSY`, or ``None``."""

_WATCH_S = 0.2
_SAID = {
    AWAY: "the run's records cannot be reached; it goes on when they can",
    BUSY: "another process of this machine still executes it; it goes on when that has ended",
}
_ENDS = (0, 3, 99, 143)
# Between two looks at what is away or busy.
_LOOK = Retry(0, 1.0, 15.0)
_TIMED_OUT = 124


class Tell(Protocol):
    """Reports what happens."""

    def __call__(
        self, kind: EventKind, message: str, work: Work | None = None, code: int | None = None
    ) -> None: ...


@dataclass
class Attempts:
    """Starts the processes of a piece of work, one after the other.

    Attributes:
        command: Makes the argv for a piece of work.
        children: Where processes are started.
        jobs: Returns the settings of jobs.
        retries: By cause, where a job says nothing.
        overtime_s: A run is ended so long after its job's limit, should it not have ended itself.
        tell: Told what happens.
        stopping: Says whether the worker is being stopped.
        park: Returns at once, or never while the worker is stopping.
        why: Says why a process ended; called in a thread.
        on_ended: Told how the work ended, in a thread, until it says how that is to be recorded.
    """

    command: Callable[[Work], list[str]]
    children: Children
    jobs: Callable[[], Jobs]
    retries: Mapping[str, Retry]
    overtime_s: float
    tell: Tell
    stopping: Callable[[], bool]
    park: Callable[[], Awaitable[None]]
    why: Why
    on_ended: Callable[[Work, Outcome], Outcome]

    async def run(self, work: Work) -> Outcome:
        """Run it to its end, retries included.

        What is away or busy uses up no retry: the next process starts when that is over.
        """
        attempt, used = 0, Counter[str]()
        while True:
            await self.park()
            attempt += 1
            this = replace(work, attempt=attempt)
            began_us = time.time_ns() // 1000
            code, message = await self._once(this)
            if self.stopping() and code < 0:
                await self.park()
            cause = await self._cause(this, code, began_us)
            if cause in _SAID:
                self.tell(EventKind.RUN_RETRIED, _SAID[cause], this, code)
                await self._until_over(this, code, began_us)
                continue
            used[cause] += 1
            rule = {**self.retries, **self.jobs().of(work.job).retries}.get(cause)
            if rule is None or used[cause] > rule.times:
                return await self._recorded(this, Outcome(code, attempt, message))
            self.tell(EventKind.RUN_RETRIED, message, this, code)
            await self._back_off(rule.delay_s(used[cause]))

    async def _recorded(self, work: Work, outcome: Outcome) -> Outcome:
        """Tell how it ended; records that are away are waited for."""
        looks = 0
        while True:
            try:
                return await asyncio.to_thread(self.on_ended, work, outcome)
            except InfrastructureError as error:
                if not looks:
                    self.tell(EventKind.WARNING, error.message, work)
            except ToolkitError as error:
                self.tell(EventKind.WARNING, error.message, work)
                return outcome
            looks += 1
            await self._back_off(_LOOK.delay_s(looks))
            await self.park()

    async def _cause(self, work: Work, code: int, began_us: int) -> str:
        if code in _ENDS:
            return ""
        return await asyncio.to_thread(self.why, work, code, began_us) or ""

    async def _until_over(self, work: Work, code: int, began_us: int) -> None:
        looks = 0
        while True:
            looks += 1
            await self._back_off(_LOOK.delay_s(looks))
            await self.park()
            if await self._cause(work, code, began_us) not in _SAID:
                return

    async def _once(self, work: Work) -> tuple[int, str]:
        limit_s = work.timeout_s or self.jobs().of(work.job).run_s
        try:
            argv = self.command(work)
            self.tell(EventKind.RUN_STARTED, f"{work.job} as {work.run_id}", work)
            running = self.children.run(work.run_id, argv)
            if limit_s is None:
                code = await running
            else:
                code = await asyncio.wait_for(running, limit_s + self.overtime_s)
        except TimeoutError:
            return _TIMED_OUT, f"it did not end {self.overtime_s:g} s after its {limit_s:g} s"
        except ToolkitError as error:
            return error.exit_code, error.message
        except (OSError, ValueError) as error:
            return ConfigurationError.exit_code, f"the run could not be started: {error}"
        return code, self.children.last_line(work.run_id) if code else ""

    async def _back_off(self, delay_s: float) -> None:
        until_s = time.monotonic() + delay_s
        # The flag is set by another thread, which an asyncio.Event does not allow.
        while not self.stopping() and (left_s := until_s - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_s, _WATCH_S))
