"""One call of an SDK on its way through the door, whoever still waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from toolkit.errors import ApprovalPending, ToolkitError, error_from_json
from toolkit.gateway.doors.repeats import Claim
from toolkit.gateway.doors.voice import Piece, Spoken, Voice
from toolkit.gateway.modelling import OnDelta
from toolkit.values import CallRecord, CallState

__all__ = ["Ask", "Flight", "Flights", "succeeded"]

Ask = Callable[[OnDelta | None], Awaitable[CallRecord]]
"""Makes the call; tells each piece of the answer as it comes, if somebody listens."""

_SILENCE_S = 10.0
"""Seconds of silence after which a stream says that it lives."""
_ASK_AGAIN_S = 0.5
_LONGEST_S = 570.0
"""OpenAI's and Anthropic's clients give up after 600 s without an answer."""


@dataclass(eq=False)
class Flight:
    """A call under way.

    Attributes:
        claim: Which call it is.
        task: Ends with the call's record, or with what refused it.
        pieces: What came so far and was not taken yet; ``None`` ends it.
    """

    claim: Claim
    task: asyncio.Task[CallRecord]
    pieces: asyncio.Queue[Piece | None]

    async def answer(self) -> CallRecord:
        """Wait for the call and return it.

        Raises:
            ToolkitError: It did not succeed.
        """
        return succeeded(await self.record())

    async def record(self) -> CallRecord:
        """Wait for the call and return its record, however it ended.

        Raises:
            ToolkitError: It was refused before it was recorded.
        """
        async with asyncio.timeout(_LONGEST_S):
            return await asyncio.shield(self.task)

    async def began(self) -> None:
        """Wait for the first piece, the end, or until silence has to be broken."""
        if self.pieces.empty() and not self.task.done():
            piece = asyncio.ensure_future(self.pieces.get())
            await asyncio.wait(
                {piece, self.task}, timeout=_SILENCE_S, return_when="FIRST_COMPLETED"
            )
            if piece.done():
                _put_first(self.pieces, piece.result())
            else:
                piece.cancel()

    async def events(
        self,
        voice: Voice,
        told: Callable[[ToolkitError], dict[str, object]],
        uncut: Callable[[CallRecord], Awaitable[None]],
    ) -> AsyncIterator[bytes]:
        """Yield the stream of an answer in a protocol.

        Args:
            voice: The protocol.
            told: Returns the protocol's error body.
            uncut: Told of a call whose pieces held what was cut out of its record.
        """
        for event in voice.opening():
            yield event
        while True:
            try:
                piece = await asyncio.wait_for(self.pieces.get(), _SILENCE_S)
            except TimeoutError:
                yield voice.keep_alive
                continue
            if piece is None:
                break
            voice.heard.add(piece)
            for event in voice.piece(piece):
                yield event
        for event in await self._end(voice, told, uncut):
            yield event

    async def _end(
        self,
        voice: Voice,
        told: Callable[[ToolkitError], dict[str, object]],
        uncut: Callable[[CallRecord], Awaitable[None]],
    ) -> list[bytes]:
        try:
            call = await self.answer()
        except ToolkitError as error:
            return list(voice.failing(told(error)))
        spoken = Spoken.of(call)
        if voice.heard.unsaid(spoken):
            await uncut(call)
        return list(voice.ending(spoken, voice.heard.missing(spoken)))


def succeeded(call: CallRecord) -> CallRecord:
    """Return a call that ended well.

    Raises:
        ToolkitError: It did not.
    """
    if call.outcome is not None and call.outcome.state is not CallState.OK:
        raise error_from_json(call.outcome.error or {})
    return call


class Flights:
    """Calls under way; they end although their clients went away."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[CallRecord]] = set()

    @staticmethod
    async def whole(ask: Ask) -> CallRecord:
        """Make a call whose answer is wanted in one piece, and return its record.

        It needs no task of its own: the door ends what it has begun, whoever still waits.

        Raises:
            ToolkitError: It was refused before it was recorded.
            TimeoutError: It takes longer than clients wait.
        """
        async with asyncio.timeout(_LONGEST_S):
            return await _decided(ask, None)

    def start(self, claim: Claim, ask: Ask) -> Flight:
        """Begin a call whose answer is wanted piece by piece."""
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

        async def hear(delta: Any) -> None:
            pieces.put_nowait(Piece(delta.text, tuple(delta.tool_calls)))

        async def fly() -> CallRecord:
            try:
                return await _decided(ask, hear)
            finally:
                pieces.put_nowait(None)

        task = asyncio.ensure_future(fly())
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return Flight(claim, task, pieces)

    def _landed(self, task: asyncio.Task[CallRecord]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to hear it; the ledger has what matters


async def _decided(ask: Ask, hear: OnDelta | None) -> CallRecord:
    """Ask until a person has decided, where one has to: an SDK cannot send a call again for that."""
    until = asyncio.get_running_loop().time() + _LONGEST_S
    while True:
        try:
            return await ask(hear)
        except ApprovalPending:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(_ASK_AGAIN_S)


def _put_first(queue: asyncio.Queue[Piece | None], piece: Piece | None) -> None:
    """Put a piece back in front of those that came meanwhile."""
    later: list[Piece | None] = []
    while not queue.empty():
        later.append(queue.get_nowait())
    for one in (piece, *later):
        queue.put_nowait(one)
