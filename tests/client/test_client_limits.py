"""Functions whose entry in the catalog gives them a time: async ones are cancelled, others refused."""

from __future__ import annotations

import asyncio

import pytest

import toolkit
from toolkit.errors import CallInDoubt, ToolFailed, UsageError

FOR_EVER = 600.0


def test_an_async_function_is_cancelled_when_its_time_is_up(workspace, calls) -> None:
    """The body sees it, the caller gets an error, and the error is recorded."""
    seen: list[str] = []

    @toolkit.tool
    async def hurried(n: int) -> int:
        try:
            await asyncio.sleep(FOR_EVER)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return n

    with pytest.raises(ToolFailed, match=r"hurried did not end within 0\.2 s and was cancelled"):
        asyncio.run(hurried(1))
    assert seen == ["cancelled"]
    (call,) = calls()
    assert (call.outcome.state, call.outcome.error["code"]) == ("error", ToolFailed.code)


def test_a_replay_gives_the_same_error_and_waits_for_nothing(run) -> None:
    """What was recorded is the truth of that run, whatever the function would do now."""
    late = {"yes": True}

    @toolkit.tool
    async def hurried(n: int) -> int:
        if late["yes"]:
            await asyncio.sleep(FOR_EVER)
        return n

    kernel = run()
    with pytest.raises(ToolFailed):
        asyncio.run(hurried(1))
    late["yes"] = False
    kernel.restart()
    with pytest.raises(ToolFailed, match="was cancelled"):
        asyncio.run(hurried(1))


@pytest.mark.parametrize(("name", "error"), [("write", CallInDoubt), ("again", ToolFailed)])
def test_a_write_that_was_cancelled_is_in_doubt_unless_it_may_be_repeated(
    workspace, calls, name: str, error: type[Exception]
) -> None:
    """The catalog says whether it may, not the function."""

    @toolkit.tool(effect="write", name=f"hurried_{name}")
    async def slow(n: int) -> int:
        await asyncio.sleep(FOR_EVER)
        return n

    with pytest.raises(error, match="was cancelled"):
        asyncio.run(slow(1))
    assert calls()[0].outcome.error["code"] == error.code


def test_a_function_that_ends_in_time_or_by_itself_is_left_alone(workspace, calls) -> None:
    """Its answer counts, and so does a TimeoutError of its own."""

    @toolkit.tool
    async def patient(n: int) -> int:
        if n < 0:
            raise TimeoutError("the socket")
        return n

    assert asyncio.run(patient(3)) == 3
    with pytest.raises(TimeoutError, match="the socket"):
        asyncio.run(patient(-1))
    assert [call.outcome.state for call in calls()] == ["ok", "error"]


def test_a_plain_function_with_a_limit_is_refused_before_its_body_runs(workspace, calls) -> None:
    """Nothing could end it, and a limit that does not hold would be a lie."""
    ran: list[int] = []

    @toolkit.tool
    def patient(n: int) -> int:
        ran.append(n)
        return n

    with pytest.raises(UsageError) as caught:
        patient(1)
    assert "patient is a plain function, which nothing can end after 600 s" in str(caught.value)
    assert caught.value.next_step == "write it as `async def patient`, or remove timeout_s"
    assert ran == []
    assert calls()[0].outcome.error["code"] == UsageError.code
