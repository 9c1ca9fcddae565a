"""A run that ends holds nothing: the worst case is charged, and put right by a late outcome."""

from __future__ import annotations

import itertools

import pytest
from ledger_world import ALLOW, a_run, an_intent, begin, tamper

from toolkit.errors import Conflict, NotFound
from toolkit.ledger import FaultKind, Limit, Reservation
from toolkit.values import CallState, Money, Outcome, RunState, Usage

TEAM = Limit("team:a:2026-11", usd=Money(1000), tokens=500, calls=10, seconds=60.0, concurrent=2)


def _hold(ledger, number: int, cost: int = 100, run_id: str = "run-1"):
    limits = (Limit(f"run:{run_id}", calls=9), TEAM)
    reserve = Reservation(limits, Money(cost), tokens=40, seconds=5.0)
    return begin(ledger, {"n": number}, run_id=run_id, reserve=reserve).call


def _stands(ledger):
    found = ledger.budget(TEAM.scope)
    return (
        (found.reserved.nanos, found.reserved_tokens, found.reserved_calls, found.reserved_seconds),
        (found.spent.nanos, found.spent_tokens, found.spent_calls, found.spent_seconds),
    )


@pytest.mark.parametrize("state", [RunState.LOST, RunState.KILLED, RunState.SUCCEEDED])
def test_a_run_that_ends_frees_its_places_and_pays_the_worst_case(ledger, state):
    """A team is not blocked by the dead; nobody's money is given back that may be gone."""
    a_run(ledger)
    a_run(ledger, "run-2")
    done, *lost = [_hold(ledger, n) for n in range(2)]
    ledger.finish(done, Outcome(CallState.OK, cost=Money(7), usage=Usage(1, 1), seconds=1.0))
    lost.append(_hold(ledger, 2))
    ledger.update_run("run-1", state=state)
    assert _stands(ledger) == ((0, 0, 0, 0.0), (207, 82, 3, 11.0))
    assert _hold(ledger, 9, run_id="run-2").state is CallState.STARTED
    for call in lost:
        assert ledger.lookup("run-1", call.key).state is CallState.STARTED  # still in doubt
    assert ledger.totals("run-1").unfinished == 2
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (Outcome(CallState.OK, cost=Money(30), usage=Usage(3, 2), seconds=2.0), (30, 5, 1, 2.0)),
        (Outcome(CallState.OK, seconds=5.0), (100, 40, 1, 5.0)),
        (Outcome(CallState.OK, cost=Money(400), seconds=9.0), (400, 40, 1, 9.0)),
        (Outcome(CallState.DENIED), (0, 0, 0, 0.0)),
    ],
)
def test_an_outcome_that_comes_late_puts_the_charge_right(ledger, outcome, spent):
    """The provider answered after the kernel was killed: the true cost, once, and no place twice."""
    a_run(ledger)
    call = _hold(ledger, 1)
    ledger.update_run("run-1", state=RunState.KILLED)
    assert _stands(ledger) == ((0, 0, 0, 0.0), (100, 40, 1, 5.0))
    for _ in range(2):
        assert ledger.finish(call, outcome).state is outcome.state
        assert _stands(ledger) == ((0, 0, 0, 0.0), spent)
    assert ledger.verify() == []


def test_only_the_first_end_of_a_run_settles(ledger):
    """Ending again, or releasing again, changes nothing."""
    a_run(ledger)
    _hold(ledger, 1)
    ledger.update_run("run-1", state=RunState.LOST)
    before = _stands(ledger), ledger.head("run-1")
    ledger.update_run("run-1", state=RunState.LOST)
    assert ledger.release_abandoned("run-1") == 0
    assert ledger.release_abandoned() == 0
    assert (_stands(ledger), ledger.head("run-1")) == before


def test_a_run_that_goes_on_keeps_what_it_holds(ledger):
    """Queued, running and waiting runs come back."""
    a_run(ledger)
    _hold(ledger, 1)
    for state in (RunState.RUNNING, RunState.WAITING, RunState.QUEUED):
        ledger.update_run("run-1", state=state)
        with pytest.raises(Conflict, match="has not ended"):
            ledger.release_abandoned("run-1")
        assert _stands(ledger)[0] == (100, 40, 1, 5.0)
    with pytest.raises(NotFound):
        ledger.release_abandoned("run-0")


def test_what_ended_in_an_older_ledger_is_settled_when_asked_for(ledger, url):
    """Format 1 let ended runs hold for ever; rows like its own are made by hand here."""
    a_run(ledger)
    a_run(ledger, "run-2")
    a_run(ledger, "run-3")
    for run_id in ("run-1", "run-2"):
        _hold(ledger, 1, run_id=run_id)
    tamper(url, "UPDATE runs SET state = 'lost' WHERE run_id <> 'run-2'")
    assert ledger.release_abandoned() == 1
    assert _stands(ledger) == ((100, 40, 1, 5.0), (100, 40, 1, 5.0))


def test_a_run_that_ended_begins_nothing_that_a_budget_pays_for(ledger):
    """Nobody would give it back; and a call in doubt is not taken up again."""
    a_run(ledger)
    call = _hold(ledger, 1)
    ledger.update_run("run-1", state=RunState.FAILED)
    with pytest.raises(Conflict, match="has ended, and begins no calls"):
        _hold(ledger, 2)
    with pytest.raises(Conflict, match=r"run of the call .* has ended"):
        ledger.restart(call)
    assert begin(ledger, {"n": 3}).fresh  # holds nothing
    assert ledger.verify() == []


def test_a_group_that_ends_a_run_and_begins_in_it_is_told_the_truth(ledger):
    """Within one transaction, the state that was just written holds."""
    a_run(ledger)
    reserve, numbers = Reservation((TEAM,), Money(1)), itertools.count()

    def end(session):
        return session.update_run("run-1", state=RunState.FAILED)

    def start(session):
        return session.begin(an_intent({"n": next(numbers)}), ALLOW, reserve=reserve)

    before, ended, after = ledger.write_all([start, end, start])
    assert before.fresh
    assert ended.state is RunState.FAILED
    assert isinstance(after, Conflict)
    assert _stands(ledger)[0] == (0, 0, 0, 0.0)
    assert ledger.verify() == []


@pytest.mark.parametrize("change", ["released_n = NULL", "released_n = 1", "agent = 'x'"])
def test_an_edited_release_is_found(ledger, url, change):
    """The column is a projection, like all others."""
    a_run(ledger)
    _hold(ledger, 1)
    ledger.update_run("run-1", state=RunState.LOST)
    tamper(url, f"UPDATE calls SET {change}")
    assert FaultKind.PROJECTION in {fault.kind for fault in ledger.verify("run-1")}


@pytest.mark.parametrize("change", ["spent_us = 1", "reserved_us = 1"])
def test_edited_time_in_a_budget_is_found(ledger, url, change):
    """Seconds are summed up like money."""
    a_run(ledger)
    _hold(ledger, 1)
    tamper(url, f"UPDATE budgets SET {change}")
    assert {fault.kind for fault in ledger.verify()} == {FaultKind.BUDGET}
