"""What a run that starts again has asked of its journal, and where it asks something else.

The journal of an attempt are the calls that earlier attempts of the run recorded (or, for a
reproduction or replay, the calls of the run that it repeats).  Calls are found by their key, so
their order is free: parts of a notebook that run at once may come in another order each time.  An
attempt has *diverged* when it asks for what the journal does not hold while recorded calls are left
that nobody asked for.

Known limits
------------
* What was asked of an earlier gateway process in the same attempt is not known; then differences
  are told, and nothing is stopped.
* Parts that run at once get a moment to ask for their recorded calls before a new write is held
  against them.  A part that computes for longer before its recorded write is taken for one that
  does not ask for it any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import Diverged
from toolkit.gateway.differences import Difference, Divergence, differences
from toolkit.ledger import Ledger
from toolkit.values import (
    FAILED_FROM,
    RESUMED,
    CallKind,
    CallRecord,
    CallState,
    Effect,
    Intent,
    RunKind,
    RunRecord,
)

__all__ = ["REPLAYS", "Journal", "Journals", "asked_anew"]

REPLAYS = (RunKind.REPRODUCTION, RunKind.REPLAY)
"""Runs that are answered from the journal of another run, and from nothing else."""

_MOST_RUNS = 256
_MOST_STRAYS = 200
_MOST_CANDIDATES = 50
_MOST_TOLD = 20
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is kept of one recorded call; its arguments are read again when they are needed."""

    key: str
    kind: CallKind
    name: str
    parent: str | None
    write: bool
    ended: bool


@dataclass
class Journal:
    """The calls that one attempt may ask for again.

    Attributes:
        partial: Whether this process has missed the beginning of the attempt.
        stopped: What it was stopped with.
        at_end: The call at which the journal ends: it has no outcome.
        refused: The first call that a replay was refused, and ``beyond`` whether it came after
            everything that is recorded.
    """

    entries: dict[str, _Entry]
    partial: bool = False
    stopped: Divergence | None = None
    at_end: str | None = None
    refused: Divergence | None = None
    beyond: bool = False
    _open: dict[str, _Entry] = field(init=False)
    _children: dict[str, list[str]] = field(init=False)
    _strays: list[Intent] = field(default_factory=list)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open = dict(self.entries)
        self._children = {}
        for entry in self.entries.values():
            if entry.parent is not None:
                self._children.setdefault(entry.parent, []).append(entry.key)

    @classmethod
    def of(cls, calls: list[CallRecord], *, partial: bool = False) -> Journal:
        """Return the journal of recorded calls; of generations of one call the last counts."""
        return cls({call.key: _entry(call) for call in calls}, partial)

    def holds(self, key: str) -> bool:
        """Whether a call is recorded."""
        return key in self.entries

    def found(self, key: str, *, body_again: bool = False) -> None:
        """Note that a recorded call was asked for.

        Where it has ended its body does not run again, so what was asked inside of it counts as
        asked for, too; unless ``body_again``.
        """
        entry = self.entries.get(key)
        if entry is None:
            return
        self._open.pop(key, None)
        if entry.ended and not body_again:
            inside = list(self._children.get(key, ()))
            while inside:
                one = inside.pop()
                self._open.pop(one, None)
                inside += self._children.get(one, ())
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def stray(self, intent: Intent) -> None:
        """Note a call that is not recorded, while recorded ones are left."""
        if self._open and intent.kind is not CallKind.VALUE and len(self._strays) < _MOST_STRAYS:
            self._strays.append(intent)

    def left(self, kind: CallKind | None = None, *, writes: bool = False) -> tuple[str, ...]:
        """Return the keys of recorded calls that nobody has asked for; journaled values never count."""
        return tuple(
            key
            for key, entry in self._open.items()
            if (entry.kind is kind if kind else entry.kind is not CallKind.VALUE)
            and (entry.write or not writes)
        )

    async def settled(self, done: Callable[[], bool]) -> bool:
        """Give parts that run at once a moment to ask for what is recorded; whether ``done`` then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S
        while not done():
            try:
                async with asyncio.timeout_at(until):
                    await self._moved.wait()
            except TimeoutError:
                return done()
        return True

    def first(self) -> tuple[Intent | None, list[str]]:
        """Return the first call that differs, and the recorded calls that it may have been.

        ``None`` and the recorded calls that are left, where nothing else was asked for.
        """
        for intent in self._strays:
            if like := list(self._like(intent)):
                return intent, like
        left = self.left()
        return (self._strays[0], []) if self._strays and left else (None, list(left))

    def _like(self, intent: Intent) -> Iterator[str]:
        for key in self.left():
            entry = self._open[key]
            if (entry.parent, entry.kind, entry.name) == (intent.parent, intent.kind, intent.name):
                yield key


def asked_anew(run: RunRecord) -> tuple[int, int] | None:
    """Return from when up to which call a recorded failure of infrastructure is no answer.

    A provider that was away ended the attempt before: to answer with that failure would end each
    attempt alike.  Only in the cell that it ended: what a notebook got past, it gets again.
    """
    if FAILED_FROM not in run.tags or RESUMED not in run.tags:
        return None
    return int(run.tags[FAILED_FROM]), int(run.tags[RESUMED])


class Journals:
    """The journals of the attempts under way.

    Args:
        ledger: Where recorded calls are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: OrderedDict[tuple[str, str | None], Journal] = OrderedDict()
        self._turn = asyncio.Lock()

    async def of(self, run: RunRecord, *, hello: bool = False) -> Journal | None:
        """Return the journal of the attempt that a run's token stands for; ``None`` for a first one.

        Args:
            run: The caller.
            hello: Whether this is the first request of its kernel.

        Raises:
            LedgerError: It cannot be read.
        """
        if run.source_run_id is None and RESUMED not in run.tags:
            return None
        which = (run.run_id, run.token_digest)
        async with self._turn:
            if which not in self._known:
                calls = await asyncio.to_thread(self._load, run)
                while len(self._known) >= _MOST_RUNS:
                    self._known.popitem(last=False)
                # Of a replay nothing is recorded, and nothing is stopped that could be done twice.
                partial = not hello and run.source_run_id is None
                self._known[which] = Journal.of(calls, partial=partial)
            self._known.move_to_end(which)
            return self._known[which]

    def _load(self, run: RunRecord) -> list[CallRecord]:
        last = None if run.source_run_id else int(run.tags[RESUMED])
        source = run.source_run_id or run.run_id
        found: list[CallRecord] = []
        while page := self._ledger.calls(source, after_seq=found[-1].seq if found else 0):
            found += page
        return [call for call in found if last is None or call.seq <= last]

    async def asked(self, run: RunRecord, intent: Intent, *, write: bool) -> None:
        """Compare a call that is about to be made with the journal of its run.

        Raises:
            Diverged: It is a write that is not recorded, while recorded writes are left.
        """
        journal = await self.of(run)
        if journal is None:
            return
        if journal.holds(intent.key):
            journal.found(intent.key)
            return
        journal.stray(intent)
        if not write or journal.partial or not journal.left(writes=True):
            return
        if await journal.settled(lambda: not journal.left(writes=True)):
            return
        left = list(journal.left(writes=True))
        like = [key for key in journal._like(intent) if key in left]  # noqa: SLF001 - same module
        said = journal.stopped = await asyncio.to_thread(self._nearest, run, intent, like)
        raise Diverged(
            f"the run has started again and asks for another write than before: {said}",
            where=f"cell {intent.cell}" if intent.cell else None,
            next_step=f"look at what was done: toolkit show {run.run_id}; then start a new run",
            details={"divergence": said.to_json(), "recorded_writes_left": len(left)},
        )

    async def report(self, run: RunRecord) -> dict[str, Any]:
        """Return how far an attempt has come in its journal, as JSON values.

        ``recorded``, ``asked``, ``left`` and ``results_left`` are numbers of calls, ``first`` is the first difference
        (:meth:`Divergence.to_json`), ``stopped`` whether the attempt was stopped by it, ``at_end``
        the call at which the journal ends, ``beyond`` whether ``first`` came after everything that
        is recorded, and ``partial`` whether the attempt's beginning was missed.
        """
        journal = await self.of(run)
        if journal is None:
            return {"recorded": 0, "asked": 0, "left": 0, "results_left": 0, "first": None, "stopped": False,
                    "at_end": None, "beyond": False, "partial": False}  # fmt: skip
        first = journal.stopped or journal.refused
        if first is None:
            intent, like = journal.first()
            first = await asyncio.to_thread(self._first, run, intent, like)
        counted = [e for e in journal.entries.values() if e.kind is not CallKind.VALUE]
        return {
            "recorded": len(counted),
            "asked": len(counted) - len(journal.left()),
            "left": len(journal.left()),
            "results_left": len(journal.left(CallKind.RESULT)),
            "first": None if first is None else first.to_json(),
            "stopped": journal.stopped is not None,
            "at_end": journal.at_end,
            "beyond": journal.beyond,
            "partial": journal.partial,
        }

    def _first(self, run: RunRecord, intent: Intent | None, like: list[str]) -> Divergence | None:
        if intent is not None:
            return self._nearest(run, intent, like)
        if not like:
            return None
        call = self._recorded(run, like[0])
        if call is None:
            return None
        asked = call.intent
        return Divergence(asked.kind.value, asked.name, asked.cell, asked=False, recorded=call.key)

    def nearest(self, run: RunRecord, intent: Intent, journal: Journal) -> Divergence:
        """Return a call that is not recorded beside the recorded one that comes nearest."""
        return self._nearest(run, intent, list(journal._like(intent)))  # noqa: SLF001 - same module

    def _nearest(self, run: RunRecord, intent: Intent, like: list[str]) -> Divergence:
        best: tuple[int, str, tuple[Difference, ...]] | None = None
        for key in like[:_MOST_CANDIDATES]:
            call = self._recorded(run, key)
            if call is None:
                continue
            found = tuple(differences(call.intent.arguments, intent.arguments))
            if best is None or len(found) < best[0]:
                best = (len(found), key, found[:_MOST_TOLD])
        near, told = (None, ()) if best is None else best[1:]
        return Divergence(
            intent.kind.value, intent.name, intent.cell, asked=True, recorded=near, differences=told
        )

    def _recorded(self, run: RunRecord, key: str) -> CallRecord | None:
        return self._ledger.lookup(run.source_run_id or run.run_id, key)


def _entry(call: CallRecord) -> _Entry:
    intent = call.intent
    done = call.state is not CallState.DENIED
    return _Entry(
        call.key,
        intent.kind,
        intent.name,
        intent.parent,
        intent.effect is Effect.WRITE and done,
        call.outcome is not None,
    )
