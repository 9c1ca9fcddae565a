"""A slow attempt is made a second time elsewhere; the first answer counts, the others are ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic

import anyio
import anyio.abc

from toolkit.errors import ToolkitError
from toolkit.providers.attempts import A, Attempts, Listener
from toolkit.providers.routes import HedgeRule, Route
from toolkit.providers.types import Delta, OnDelta

__all__ = ["Race"]


class Race(Generic[A]):
    """Runs attempts beside each other until one has answered or all have failed.

    Of a stream, the attempt whose first piece comes first has won: pieces of two answers never
    mix.

    Args:
        attempts: Makes and counts them.
        rule: When, and how many.
        sleep: Waits so many seconds.
        spare: Returns a target that may be asked too, or ``None``.
        listener: Told the winner's pieces.
    """

    def __init__(
        self,
        attempts: Attempts[A],
        rule: HedgeRule,
        *,
        sleep: Callable[[float], Awaitable[None]],
        spare: Callable[[], Awaitable[Route | None]],
        listener: Listener | None,
    ) -> None:
        self._attempts: Attempts[A] = attempts
        self._rule = rule
        self._sleep = sleep
        self._spare = spare
        self._listener = listener
        self._scopes: list[anyio.CancelScope] = []
        self._running = 0
        self._first: int | None = None
        self._answer: A | None = None
        self._problem: ToolkitError | None = None

    async def run(self, leg: Route, reason: str | None) -> A | ToolkitError:
        """Return the first answer, or the last failure."""
        async with anyio.create_task_group() as group:
            self._start(group, leg, reason)
            group.start_soon(self._hedge, group)
        if self._answer is not None:
            return self._answer
        if self._problem is None:  # every attempt ends in one of the two
            msg = "a race ended without an answer or a failure"
            raise RuntimeError(msg)
        return self._problem

    def _start(self, group: anyio.abc.TaskGroup, leg: Route, reason: str | None) -> None:
        self._running += 1
        self._scopes.append(anyio.CancelScope())
        group.start_soon(self._attempt, group, len(self._scopes) - 1, leg, reason)

    async def _attempt(
        self, group: anyio.abc.TaskGroup, number: int, leg: Route, reason: str | None
    ) -> None:
        try:
            with self._scopes[number]:
                outcome = await self._attempts.once(leg, reason, self._pieces(number))
                if not isinstance(outcome, ToolkitError):
                    self._answer = self._answer or outcome
                else:
                    self._problem = outcome
        finally:
            self._running -= 1
        if self._answer is not None or not self._running or self._first == number:
            group.cancel_scope.cancel()

    async def _hedge(self, group: anyio.abc.TaskGroup) -> None:
        for _ in range(self._rule.most):
            await self._sleep(self._rule.after_s)
            if self._first is not None:
                return
            spare = await self._spare()
            if spare is None or self._first is not None:  # a piece may have come meanwhile
                return
            self._start(group, spare, "hedge")

    def _pieces(self, number: int) -> OnDelta | None:
        listener = self._listener
        if listener is None:
            return None

        async def tell(delta: Delta) -> None:
            if self._first is None:
                self._first = number
                for other, scope in enumerate(self._scopes):
                    if other != number:
                        scope.cancel()
            if self._first == number:
                await listener(delta)

        return tell
