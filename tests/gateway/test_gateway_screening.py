"""Large values are searched beside the event loop, with the same result."""

from __future__ import annotations

import asyncio

import pytest

from toolkit.gateway import Screen
from toolkit.policy import PrivacyPolicy
from toolkit.values import (
    CallKind,
    CallState,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
)

RUN = RunRecord("run-1", RunKind.SESSION, Environment.SANDBOX, "ann")
SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
HARD = "api_key:" * 12_000


def _asked(text: str) -> Intent:
    return Intent("run-1", CallKind.TOOL, "send", {"text": text, "parts": [1, 2, {"a": "b"}]})


async def _turns_while(work) -> tuple[int, object]:
    """Return how often the event loop came round while something was done, and its result."""
    task, turns = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns, task.result()


@pytest.mark.parametrize("size", [10, 20_000, 100_000])
def test_a_secret_is_cut_out_of_small_and_large_calls_alike(size):
    """The way that a value takes depends on its size, what becomes of it does not."""
    screen, intent = Screen(), _asked("word " * (size // 5) + SECRET)
    plain, _ = screen.arguments(RUN, intent, PrivacyPolicy())
    aside, _ = asyncio.run(screen.incoming(RUN, intent, PrivacyPolicy()))
    assert aside == plain
    assert aside.key == plain.key != intent.key
    assert SECRET not in str(aside.arguments)


def test_the_event_loop_goes_on_while_a_large_argument_is_searched():
    """A call that is hard to search holds up nobody else."""
    screen = Screen()
    turns, _ = asyncio.run(_turns_while(screen.incoming(RUN, _asked(HARD), PrivacyPolicy())))
    assert turns > 5
    turns, _ = asyncio.run(_turns_while(screen.incoming(RUN, _asked("short"), PrivacyPolicy())))
    assert turns <= 2


def test_the_event_loop_goes_on_while_a_large_answer_is_searched():
    """Answers and errors, too; and what they hold is found."""
    screen = Screen()
    outcome = Outcome(CallState.OK, answer=[HARD, SECRET])
    turns, found = asyncio.run(_turns_while(screen.outgoing(RUN, outcome, PrivacyPolicy())))
    assert turns > 5
    assert SECRET not in str(found)


def test_many_small_parts_count_as_large():
    """It is the work that counts, not the length of one text."""
    screen = Screen()
    intent = Intent("run-1", CallKind.TOOL, "send", {"rows": [{"n": n} for n in range(9_000)]})
    turns, (same, personal) = asyncio.run(
        _turns_while(screen.incoming(RUN, intent, PrivacyPolicy()))
    )
    assert turns > 2
    assert same is intent
    assert personal == frozenset()
