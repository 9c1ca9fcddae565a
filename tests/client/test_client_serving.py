"""Cases of an evaluation in one kernel: several at once, several trials, and after a crash."""

from __future__ import annotations

import asyncio
import threading

import pytest

import toolkit
from toolkit.values import RunKind

CASES = [(f"c{n}", {"number": n}) for n in range(6)]


def test_several_cases_are_under_way_at_once(run) -> None:
    """Threads for a plain agent: both must be there before either may answer."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    meet = threading.Barrier(2, timeout=20)

    @toolkit.agent
    def together(number: int) -> int:
        meet.wait()
        return number

    assert toolkit.serve_cases(together, concurrency=2) == 6
    answers = kernel.ledger.case_answers(kernel.run_id)
    assert {case: answer.output for case, answer in answers.items()} == {
        f"c{n}": n for n in range(6)
    }


def test_an_async_agent_answers_on_one_loop(run) -> None:
    """Tasks of one event loop, also where the kernel's own loop is running."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    loops = set()
    now, most = 0, 0

    @toolkit.agent
    async def together(number: int) -> int:
        nonlocal now, most
        loops.add(id(asyncio.get_running_loop()))
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        if number == 3:
            raise ValueError(number)
        return number

    async def cell() -> int:
        return toolkit.serve_cases(together, concurrency=3)

    assert asyncio.run(cell()) == 6
    assert (len(loops), most > 1) == (1, True)
    answers = kernel.ledger.case_answers(kernel.run_id)
    assert answers["c3"].error["message"] == "the agent raised ValueError: 3"
    assert answers["c4"].output == 4
    calls = {call.intent.case_id: call for call in kernel.ledger.calls(kernel.run_id)}
    assert calls["c4"].intent.arguments == {"number": 4}


def test_a_trial_is_never_answered_by_another(run) -> None:
    """Also in a kernel that goes on after a crash, and has counted nothing of the trials before."""
    kernel = run(RunKind.EVALUATION)
    questions = ["c", "c#2", "c#3"]
    kernel.ledger.put_cases(kernel.run_id, [("c", {"number": 1})])
    said = iter(("first", "second", "third"))

    @toolkit.agent
    def roll(number: int) -> str:
        return next(said)

    assert toolkit.serve_cases(roll) == 1
    more = [(name, {"number": 1}) for name in questions[1:]]
    kernel.ledger.put_cases(kernel.run_id, more)
    kernel.restart()
    assert toolkit.serve_cases(roll) == 2
    answers = kernel.ledger.case_answers(kernel.run_id)
    assert [answers[name].output for name in questions] == ["first", "second", "third"]


def test_an_interrupt_ends_it_and_the_next_one_answers_the_rest(run) -> None:
    """What was fetched ahead is handed out again; what was answered is not."""
    kernel = run(RunKind.EVALUATION)
    kernel.ledger.put_cases(kernel.run_id, CASES)
    interrupted: list[int] = []

    def plain(number: int) -> int:
        if number == 2 and not interrupted:
            interrupted.append(number)
            raise KeyboardInterrupt
        return number

    with pytest.raises(KeyboardInterrupt):
        toolkit.serve_cases(plain)
    before = set(kernel.ledger.case_answers(kernel.run_id))
    assert before <= {"c0", "c1"}
    assert toolkit.serve_cases(plain) == len(CASES) - len(before)
    answers = kernel.ledger.case_answers(kernel.run_id)
    assert {name: answer.output for name, answer in answers.items()} == {
        f"c{n}": n for n in range(6)
    }
