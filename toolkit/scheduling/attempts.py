"""One piece of work, tried until it ends or its job's retries are used up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from toolkit.errors import ConfigurationError, ToolkitError
from toolkit.scheduling.children import Children
from toolkit.scheduling.jobs import Jobs, Retry
from toolkit.scheduling.work import EventKind, Outcome, Work, cause_of_exit

__all__ = ["Attempts"]

_WATCH_S = 0.2
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
    """

    command: Callable[[Work], list[str]]
    children: Children
    jobs: Callable[[], Jobs]
    retries: Mapping[str, Retry]
    overtime_s: float
    tell: Tell
    stopping: Callable[[], bool]
    park: Callable[[], Awaitable[None]]

    async def run(self, work: Work) -> Outcome:
        """Run it to its end, retries included."""
        attempt, used = 0, Counter[str]()
        while True:
            await self.park()
            attempt += 1
            code, message = await self._once(replace(work, attempt=attempt))
            if self.stopping() and code < 0:
                await self.park()
            cause = cause_of_exit(code) or ""
            used[cause] += 1
            rule = {**self.retries, **self.jobs().of(work.job).retries}.get(cause)
            if rule is None or used[cause] > rule.times:
                return Outcome(code, attempt, message)
            self.tell(EventKind.RUN_RETRIED, message, replace(work, attempt=attempt), code)
            await self._back_off(rule.delay_s(used[cause]))

    async def _once(self, work: Work) -> tuple[int, str]:
        limit_s = self.jobs().of(work.job).run_s
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
