"""A run that the world ended may run again under its id; every other ending is for good."""

from __future__ import annotations

import itertools

import pytest
from ledger_world import OK, a_run, an_intent, begin

from toolkit.errors import Conflict
from toolkit.ledger import ApprovalState, Limit, Reservation
from toolkit.values import (
    CallState,
    Cause,
    Decision,
    Money,
    Outcome,
    RunState,
    Usage,
    Verdict,
    repeatable,
    resumable,
)

TERMINAL = [state for state in RunState if state.terminal]
AGAIN = [
    (RunState.KILLED, Cause.KERNEL_DIED),
    (RunState.KILLED, Cause.OUT_OF_MEMORY),
    (RunState.LOST, Cause.RUNNER_DIED),
    (RunState.TIMED_OUT, Cause.RUN_TIMEOUT),
    (RunState.TIMED_OUT, Cause.CELL_TIMEOUT),
    (RunState.FAILED, Cause.INFRASTRUCTURE),
    (RunState.FAILED, Cause.KERNEL_START),
    (RunState.CANCELLED, Cause.SIGNAL),
    (RunState.FAILED, Cause.REFUSED),
]
FOR_GOOD = [
    (RunState.SUCCEEDED, None),
    (RunState.FAILED, Cause.RESULTS_MISSING),
    (RunState.DENIED, Cause.POLICY),
    (RunState.DENIED, Cause.BUDGET),
    (RunState.CANCELLED, Cause.REQUESTED),
    (RunState.SKIPPED, None),
]
ASK = Decision(Verdict.ASK, ("ask",), ("money leaves",), "sha256:00", approver="legal")
LIMIT = Limit("run:run-1", usd=Money(1000), tokens=500, calls=10, seconds=60.0)


def ended(ledger, state: RunState, cause: Cause | None):
    """A run that has run and ended so."""
    a_run(ledger)
    ledger.update_run("run-1", state=RunState.RUNNING, runner="a:1:0", token_digest="sha256:aa")
    return ledger.update_run("run-1", state=state, cause=cause, message="so it was")


def hold(ledger, number: int):
    reserve = Reservation((LIMIT,), Money(100), tokens=40, seconds=5.0)
    return begin(ledger, {"n": number}, reserve=reserve).call


@pytest.mark.parametrize(("state", "cause"), AGAIN)
def test_a_run_that_the_world_ended_may_run_again(ledger, clock, state, cause):
    """It is running again, started when it first was, and how it had ended stays in the chain."""
    first = ended(ledger, state, cause)
    assert first.resumable
    clock.advance(seconds=9)
    fields = {"cause": None, "message": None, "ended_us": None, "runner": "b:2:0"}
    run = ledger.take(first, state=RunState.RUNNING, **fields)
    assert (run.state, run.cause, run.message, run.ended_us) == (RunState.RUNNING, None, None, None)
    assert (run.started_us, run.runner) == (first.started_us, "b:2:0")
    clock.advance(seconds=1)
    last = ledger.update_run("run-1", state=RunState.SUCCEEDED)
    assert last.ended_us == clock.us > first.ended_us
    assert ledger.head("run-1").n == 5
    assert ledger.verify() == []


@pytest.mark.parametrize(("state", "cause"), FOR_GOOD)
def test_what_a_notebook_a_policy_or_a_person_ended_stays_ended(ledger, state, cause):
    """Running it again is refused and leaves no trace."""
    run = ended(ledger, state, cause)
    assert not run.resumable
    before = ledger.get_run("run-1"), ledger.head("run-1")
    with pytest.raises(Conflict, match=f"already ended as {state}"):
        ledger.take(run, state=RunState.RUNNING, cause=None, message=None, ended_us=None)
    assert (ledger.get_run("run-1"), ledger.head("run-1")) == before


@pytest.mark.parametrize(("state", "cause"), AGAIN)
def test_no_ending_becomes_another_ending(ledger, state, cause):
    """Only running again leads out of an ending: a second verdict loses."""
    ended(ledger, state, cause)
    before = ledger.get_run("run-1"), ledger.head("run-1")
    for other in {*TERMINAL, RunState.QUEUED, RunState.WAITING} - {state}:
        with pytest.raises(Conflict, match="already ended"):
            ledger.update_run("run-1", state=other)
    with pytest.raises(Conflict, match="already ended"):
        ledger.update_run("run-1", message="another")
    assert (ledger.get_run("run-1"), ledger.head("run-1")) == before


def test_a_cells_error_may_be_tried_again_where_somebody_asks_for_just_that(ledger):
    """It is no run that goes on by itself; all that is left of its first end is in the chain."""
    run = ended(ledger, RunState.FAILED, Cause.CELL_ERROR)
    assert (run.resumable, run.repeatable) == (False, True)
    again = ledger.take(run, state=RunState.RUNNING, cause=None, message=None, ended_us=None)
    assert again.state is RunState.RUNNING
    assert ledger.verify() == []
    for state, cause in FOR_GOOD:
        assert not repeatable(state, cause)


def test_every_pair_of_state_and_cause_is_decided():
    """Nothing that a notebook, a policy or a person did is ever tried again by itself."""
    for state, cause in itertools.product(RunState, [None, *Cause]):
        if not resumable(state, cause):
            continue
        assert state.terminal
        assert state not in (RunState.SUCCEEDED, RunState.DENIED, RunState.SKIPPED)
        if state is RunState.FAILED:
            assert cause in (Cause.INFRASTRUCTURE, Cause.KERNEL_START, Cause.REFUSED)
        if state is RunState.CANCELLED:
            assert cause is Cause.SIGNAL


def test_one_of_two_takes_it(ledger):
    """Who saw the ending that the other one has left already is told so."""
    seen = ended(ledger, RunState.KILLED, Cause.KERNEL_DIED)
    ledger.take(seen, state=RunState.RUNNING, cause=None, ended_us=None, runner="b:2:0")
    with pytest.raises(Conflict, match="was taken by b:2:0 meanwhile"):
        ledger.take(seen, state=RunState.RUNNING, cause=None, ended_us=None, runner="c:3:0")


@pytest.mark.parametrize("late", [False, True])
def test_what_the_first_attempt_left_is_charged_once(ledger, late):
    """A call that was in doubt is made again after the run was: one worst case, then the true cost."""
    a_run(ledger)
    call = hold(ledger, 1)
    killed = ledger.update_run("run-1", state=RunState.KILLED, cause=Cause.KERNEL_DIED)
    assert ledger.budget(LIMIT.scope).spent.nanos == 100
    ledger.take(killed, state=RunState.RUNNING, cause=None, ended_us=None)
    if late:  # the first attempt's answer arrives while the second runs
        ledger.finish(call, Outcome(CallState.OK, cost=Money(30), usage=Usage(3, 2), seconds=2.0))
        spent = 30
    else:
        again = hold(ledger, 2)
        ledger.finish(again, Outcome(CallState.OK, cost=Money(7), usage=Usage(1, 1), seconds=1.0))
        spent = 107
    ledger.update_run("run-1", state=RunState.SUCCEEDED)
    stands = ledger.budget(LIMIT.scope)
    assert (stands.reserved.nanos, stands.spent.nanos) == (0, spent)
    assert ledger.verify() == []


def test_what_was_recorded_before_answers_in_the_second_attempt(ledger):
    """A call that has its outcome is not fresh: it is never made again."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}).call
    ledger.finish(call, OK)
    killed = ledger.update_run("run-1", state=RunState.KILLED, cause=Cause.KERNEL_DIED)
    ledger.take(killed, state=RunState.RUNNING, cause=None, ended_us=None)
    begun = ledger.begin(an_intent({"n": 1}), call.decision)
    assert (begun.fresh, begun.call.seq, begun.call.outcome.answer) == (False, call.seq, OK.answer)
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ((RunState.KILLED, Cause.KERNEL_DIED), ApprovalState.PENDING),
        ((RunState.FAILED, Cause.CELL_ERROR), ApprovalState.EXPIRED),
    ],
)
def test_a_question_ends_with_a_run_that_cannot_go_on(ledger, clock, ending, state):
    """Who was asked may still answer where the run may still use the answer."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, decision=ASK).call
    asked = ledger.ask(call, role="legal", view={}, expires_us=clock.us + 10**9)
    killed = ledger.update_run("run-1", state=ending[0], cause=ending[1])
    assert ledger.approval(asked.id).state is state
    if killed.resumable:
        ledger.take(killed, state=RunState.RUNNING, cause=None, ended_us=None)
        ledger.answer(asked.id, by="bo", verdict="approved", digest=asked.digest)
    assert ledger.verify() == []
