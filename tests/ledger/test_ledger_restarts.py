"""Another attempt at a call in doubt: charged, held, stopped and verified like a new call."""

from __future__ import annotations

import pytest
from ledger_world import ALLOW, OK, a_run, begin, nanos, tamper

from toolkit.errors import BudgetExceeded, Conflict
from toolkit.ledger import FaultKind, Rate, Reservation
from toolkit.values import Money, RunState


def test_the_lost_attempt_is_charged_at_its_worst_case(ledger):
    """And the next one holds its own; the chain says both."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, reserve=nanos("s", 2_000, 900, calls=1)).call
    again = ledger.restart(call, reserve=nanos("s", 2_000, 800, calls=1), decision=ALLOW)
    budget = ledger.budget("s")
    assert (budget.spent, budget.reserved) == (Money(900), Money(800))
    assert (budget.spent_calls, budget.reserved_calls) == (1, 1)
    ledger.finish(again, OK)
    budget = ledger.budget("s")
    assert (budget.spent, budget.reserved, budget.spent_calls) == (Money(1_600), Money(0), 2)
    assert ledger.verify() == []


def test_a_repetition_that_does_not_fit_is_not_recorded(ledger):
    """Crashes in the middle of calls cannot pass a limit, and the first hold stays."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, reserve=nanos("s", 1_000, 900)).call
    with pytest.raises(BudgetExceeded):
        ledger.restart(call, reserve=nanos("s", 1_000, 900))
    assert ledger.budget("s").reserved == Money(900)
    assert ledger.lookup("run-1", call.key).tags == {}
    rate = Reservation((), Money(0), calls=1, rates=(Rate("r", 1, 60),))
    ledger.restart(call, reserve=rate)
    with pytest.raises(BudgetExceeded):
        ledger.restart(call, reserve=rate)
    assert ledger.verify() == []


def test_a_body_in_a_kernel_holds_on(ledger):
    """It costs nobody anything by itself, so its place is held once."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, reserve=nanos("s", 10, 0, calls=1)).call
    ledger.restart(call, reserve=nanos("s", 10, 0, calls=1), spent=False)
    budget = ledger.budget("s")
    assert (budget.spent_calls, budget.reserved_calls) == (0, 1)
    assert ledger.verify() == []


def test_what_the_end_of_a_run_has_charged_is_held_anew_when_it_goes_on(ledger):
    """Charged once, for the attempt before; an ended run repeats nothing."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, reserve=nanos("s", 5_000, 900)).call
    ledger.update_run("run-1", state=RunState.LOST)
    with pytest.raises(Conflict, match="has ended"):
        ledger.restart(call, reserve=nanos("s", 5_000, 900))
    ledger.update_run("run-1", state=RunState.RUNNING)
    ledger.restart(call, reserve=nanos("s", 5_000, 900), spent=False)
    assert (ledger.budget("s").spent, ledger.budget("s").reserved) == (Money(900), Money(900))
    ledger.update_run("run-1", state=RunState.LOST)
    assert (ledger.budget("s").spent, ledger.budget("s").reserved) == (Money(1_800), Money(0))
    assert ledger.verify() == []


@pytest.mark.parametrize("change", ["spent_nanos = 0", "reserved_nanos = 900"])
def test_an_edited_budget_of_a_repeated_call_is_found(ledger, url, change):
    """The sums follow from the entries."""
    a_run(ledger)
    call = begin(ledger, {"n": 1}, reserve=nanos("s", 5_000, 900)).call
    ledger.restart(call, reserve=nanos("s", 5_000, 800))
    tamper(url, f"UPDATE budgets SET {change}")
    assert FaultKind.BUDGET in {fault.kind for fault in ledger.verify()}
