"""Which target is asked, how often, and what follows when it fails.

One call goes through the targets that take it: each is asked up to ``retry.attempts`` times, then
the next one, if ``fallback`` names the kind of failure.  Nothing is asked again once a piece of an
answer has been passed on.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic

import anyio

from toolkit.errors import InvalidAnswer, ToolkitError, UsageError
from toolkit.providers.attempts import A, Attempts, Listener, Work, kind_of
from toolkit.providers.breaker import Breakers
from toolkit.providers.choosing import in_order
from toolkit.providers.failures import failure
from toolkit.providers.hedging import Race
from toolkit.providers.retries import MOST_RETRY_AFTER_S, RetryBudget, backoff_s
from toolkit.providers.routes import Route, Target
from toolkit.providers.types import OnDelta
from toolkit.values import Clock, SystemClock, changed

__all__ = ["Router"]

_RETRIED = frozenset({"connection", "cut", "timeout", "rate_limited", "server", "invalid_body"})
_SHORTEST_S = 0.05
Leg = tuple[Target, Route]
Halted = Callable[[], Awaitable[ToolkitError | None]]


class Router:
    """Takes calls through the targets of their routes; remembers which targets fail.

    Args:
        clock: What time it is.
        sleep: Waits so many seconds.
        chance: Draws targets and waits; a seeded one makes both repeatable.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._chance = chance or random.Random()  # noqa: S311 - no secret is drawn
        self._breakers = Breakers(self._clock)

    async def run(
        self,
        route: Route,
        legs: Sequence[Leg],
        work: Work[A],
        *,
        on_delta: OnDelta | None = None,
        retries: RetryBudget | None = None,
        halted: Halted | None = None,
    ) -> A:
        """Return the first good answer of the targets, with all attempts and what they used.

        Args:
            route: Whose rules hold.
            legs: The targets that take the call.
            work: What is asked.
            on_delta: Told each piece of the answer.
            retries: What is left of the run's retries.
            halted: Says why no further attempt is made (somebody stopped the route, say); asked
                before each attempt but the first one, when its waiting is over.

        Raises:
            ProviderError, InvalidAnswer, UsageError: The last failure, or why it was halted
                (whatever ``halted`` said); ``details`` has the
                ``attempts``, and the ``usage`` and ``cost_nanos`` of all of them.
        """
        call = _Call(
            route,
            Attempts(work, self._clock, self._breakers),
            deque(in_order(legs, self._chance)),
            self._clock.monotonic_s() + route.timeout_s,
            Listener(on_delta) if on_delta is not None else None,
            retries,
            halted,
        )
        outcome = await self._targets(call)
        if isinstance(outcome, InvalidAnswer):
            outcome = self._otherwise(call, outcome)
        if isinstance(outcome, ToolkitError):
            # Not chained: a cause may hold the request, and with it the key.
            raise call.attempts.told_of(outcome) from None
        if retries is not None:
            retries.earn()
        return changed(outcome, attempts=tuple(call.attempts.made), charged=call.attempts.charged())

    async def _targets(self, call: _Call[A]) -> A | ToolkitError:
        """Ask one target after the other."""
        problem: ToolkitError | None = None
        poor: InvalidAnswer | None = None
        waits, reason = [], None
        while call.queue:
            pair = call.queue.popleft()
            if (wait := self._breakers.wait_s(pair[1])) is not None:
                waits.append(wait)
                cause = f"it failed lately and is not asked for another {wait:.1f} s"
                call.attempts.passed_over(pair[1], "breaker open: skipped", cause)
                continue
            if (why := self._no_more(call, pair[1])) is not None:
                call.attempts.passed_over(pair[1], *why)
                continue
            if await call.is_halted(pair[1]):
                break
            outcome = await self._target(call, pair, reason)
            if not isinstance(outcome, ToolkitError):
                return outcome
            problem = outcome
            poor = outcome if isinstance(outcome, InvalidAnswer) else poor
            if call.stopped is not None or not call.falls_back(outcome):
                break
            reason = f"fallback: {kind_of(outcome)}"
        if call.stopped is not None:
            return call.stopped
        if poor is not None and call.route.rules.validation.otherwise != "next":
            return poor
        return problem or _all_open(call.route, waits)

    def _no_more(self, call: _Call[A], leg: Route) -> tuple[str, str] | None:
        """Why a further target is not asked, in two sentences."""
        if not call.attempts.fits(leg):
            return "reserve used up: skipped", "the attempts before may cost all that is reserved"
        if call.attempts.made and call.deadline - self._clock.monotonic_s() < _SHORTEST_S:
            return "no time left: skipped", f"the route has {call.route.timeout_s:g} s in all"
        return None

    async def _target(self, call: _Call[A], pair: Leg, reason: str | None) -> A | ToolkitError:
        """Ask one target until it answers or its retries are over."""
        failed = 0
        while True:
            outcome = await self._attempt(call, pair, reason)
            if not isinstance(outcome, ToolkitError):
                return outcome
            failed += 1
            wait = self._wait_s(call, pair[1], outcome, failed)
            if wait is None:
                return outcome
            await self._sleep(wait)
            if await call.is_halted(pair[1]):
                return outcome
            reason = f"retry {failed + 1}: {kind_of(outcome)}, waited {wait:.2g} s"

    async def _attempt(self, call: _Call[A], pair: Leg, reason: str | None) -> A | ToolkitError:
        leg = self._timed(call, pair)
        rule = leg.rules.hedge
        if rule is None:
            return await call.attempts.once(leg, reason, call.listener)
        race = Race(
            call.attempts,
            rule,
            sleep=self._sleep,
            spare=lambda: self._spare(call, pair),
            listener=call.listener,
        )
        return await race.run(leg, reason)

    def _timed(self, call: _Call[A], pair: Leg) -> Route:
        """Give an attempt its part of the time that is left."""
        target, leg = pair
        left = call.deadline - self._clock.monotonic_s()
        if target.timeout_s is None:
            left /= 1 + len(call.queue)
        left = max(min(leg.timeout_s, left), _SHORTEST_S)
        # A first attempt that has all the time need not be told.
        return leg if left > leg.timeout_s * 0.999 else replace(leg, timeout_s=left)

    async def _spare(self, call: _Call[A], pair: Leg) -> Route | None:
        """Choose the target of a hedge: the next one, else the same again."""
        if await call.is_halted(pair[1]):
            return None
        others = [other for other in call.queue if self._breakers.wait_s(other[1]) is None]
        chosen = others[0] if others else pair
        if self._breakers.wait_s(chosen[1]) is not None or not call.attempts.fits(chosen[1]):
            return None
        if call.retries is not None and not call.retries.take():
            return None
        if others:
            call.queue.remove(chosen)
        return self._timed(call, chosen)

    def _wait_s(
        self, call: _Call[A], leg: Route, problem: ToolkitError, failed: int
    ) -> float | None:
        """Return the seconds until the same target is asked again; ``None``: it is not."""
        rule, asked = call.route.rules.retry, problem.details.get("retry_after_s")
        if call.streamed or failed >= rule.attempts or kind_of(problem) not in _RETRIED:
            return None
        may_bill = bool(problem.details.get("billed"))
        if may_bill and call.billed >= rule.billed:
            return None
        if asked is not None and asked > (rule.max_s if call.queue else MOST_RETRY_AFTER_S):
            return None  # another target answers sooner, or nobody does in time
        wait = backoff_s(rule, failed, asked, self._chance)
        if self._clock.monotonic_s() + wait + _SHORTEST_S > call.deadline:
            return None
        opens = self._breakers.wait_s(leg)
        if (opens is not None and opens > wait) or not call.attempts.fits(leg):
            return None
        if call.retries is not None and not call.retries.take():
            return None
        call.billed += may_bill
        return wait

    def _otherwise(self, call: _Call[A], problem: InvalidAnswer) -> A | ToolkitError:
        """Return what takes the place of answers that are not good enough."""
        if call.streamed:
            return problem
        return call.attempts.work.otherwise(problem) or problem


@dataclass
class _Call(Generic[A]):
    """What one call knows on its way.

    Attributes:
        queue: The targets that were not asked yet.
        deadline: Monotonic seconds.
        halted: See :meth:`Router.run`.
        billed: Retries after a failure that may be billed.
        stopped: Why no further attempt is made.
    """

    route: Route
    attempts: Attempts[A]
    queue: deque[Leg]
    deadline: float
    listener: Listener | None
    retries: RetryBudget | None
    halted: Halted | None = None
    billed: int = 0
    stopped: ToolkitError | None = None

    @property
    def streamed(self) -> bool:
        """Whether a piece of an answer was passed on: nothing can take it back."""
        return self.listener is not None and self.listener.told

    async def is_halted(self, leg: Route) -> bool:
        """Whether no further attempt may be made; the first one was allowed with the call."""
        if self.stopped is None and self.halted is not None and self.attempts.begun:
            self.stopped = await self.halted()
            if self.stopped is not None:
                cause = self.stopped.message
                self.attempts.passed_over(leg, "stopped: skipped", cause)
        return self.stopped is not None

    def falls_back(self, problem: ToolkitError) -> bool:
        """Whether the next target is asked after a failure."""
        if self.streamed:
            return False
        unsent = isinstance(problem, UsageError) and not problem.details.get("billed")
        return unsent or kind_of(problem) in self.route.rules.fallback


def _all_open(route: Route, waits: list[float]) -> ToolkitError:
    soonest = min(waits, default=0.0)
    which = "its target" if len(waits) == 1 else f"each of its {len(waits)} targets"
    cause = f"{which} failed lately and is left alone for another {soonest:.1f} s"
    return failure("breaker_open", cause, route, retry_after_s=round(soonest, 3))
