"""Budgets over many scopes: seconds, calls at once, all or nothing, in one order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_world import ALLOW, a_run, an_intent, begin

from toolkit.errors import BudgetExceeded, UsageError
from toolkit.ledger import Ledger, LedgerWriter, Limit, Reservation
from toolkit.values import CallState, Money, Outcome, Usage


def _used(ledger, scope):
    found = ledger.budget(scope)
    return (found.reserved_seconds, found.spent_seconds, found.reserved_calls, found.spent_calls)


def test_seconds_are_held_and_charged_as_measured(ledger, clock):
    """The outcome's seconds count; without them, the time from intent to outcome."""
    a_run(ledger)
    reserve = Reservation((Limit("s", seconds=10.0),), seconds=4.5)
    first = begin(ledger, {"n": 1}, reserve=reserve).call
    assert _used(ledger, "s") == (4.5, 0.0, 1, 0)
    clock.advance(seconds=3)
    ledger.finish(first, Outcome(CallState.OK, seconds=1.25))
    second = begin(ledger, {"n": 2}, reserve=reserve).call
    clock.advance(seconds=2)
    ledger.finish(second, Outcome(CallState.OK))
    assert _used(ledger, "s") == (0.0, 3.25, 0, 2)
    assert ledger.budget("s").limit == Limit("s", seconds=10.0)
    begin(ledger, {"n": 3}, reserve=reserve)
    with pytest.raises(BudgetExceeded, match=r"has 2.25 of 10 seconds left.* may need 4.5") as hit:
        begin(ledger, {"n": 4}, reserve=reserve)
    assert (hit.value.details["unit"], hit.value.details["left"]) == ("seconds", "2.25")
    assert ledger.verify() == []


def test_a_denied_call_is_charged_no_time(ledger, clock):
    """A person said no after an hour: nothing was done."""
    a_run(ledger)
    call = begin(ledger, reserve=Reservation((Limit("s", seconds=10.0),), seconds=1.0)).call
    clock.advance(seconds=3600)
    ledger.finish(call, Outcome(CallState.DENIED))
    assert _used(ledger, "s") == (0.0, 0.0, 0, 0)
    assert ledger.verify() == []


def test_a_clock_that_jumps_back_charges_no_negative_time(ledger, clock):
    """Time spent never shrinks."""
    a_run(ledger)
    call = begin(ledger, reserve=Reservation((Limit("s", seconds=10.0),), seconds=1.0)).call
    clock.advance(seconds=-500)
    ledger.finish(call, Outcome(CallState.OK))
    assert _used(ledger, "s") == (0.0, 0.0, 0, 1)


def test_only_so_many_calls_are_under_way_at_once(ledger):
    """The next one fits as soon as one has ended, however it ended."""
    a_run(ledger)
    reserve = Reservation((Limit("team:a", concurrent=2),))
    calls = [begin(ledger, {"n": n}, reserve=reserve).call for n in range(2)]
    with pytest.raises(BudgetExceeded, match="has 2 calls under way, and may have 2") as hit:
        begin(ledger, {"n": 2}, reserve=reserve)
    assert hit.value.details == {
        "scope": "team:a",
        "unit": "concurrent",
        "left": "0",
        "needed": "1",
        "limit": "2",
    }
    ledger.finish(calls[0], Outcome(CallState.ERROR))
    assert begin(ledger, {"n": 2}, reserve=reserve).fresh
    assert ledger.verify() == []


@pytest.mark.parametrize(
    "limit",
    [Limit("b", usd=Money(9)), Limit("b", tokens=9), Limit("b", calls=0), Limit("b", seconds=0.9),
     Limit("b", concurrent=0)],
)  # fmt: skip
def test_the_first_call_of_a_scope_has_to_fit_too(ledger, limit):
    """A scope that was never used has no row to compare with, and a limit all the same."""
    a_run(ledger)
    limits = (Limit("a", calls=5), limit, Limit("c", calls=5))
    with pytest.raises(BudgetExceeded) as hit:
        begin(ledger, reserve=Reservation(limits, Money(10), tokens=10, seconds=1.0))
    assert hit.value.details["scope"] == "b"
    assert [ledger.budget(scope) for scope in "abc"] == [None, None, None]


@pytest.mark.parametrize("count", [2, 8, 9, 20])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_all_scopes_or_none(ledger, count, which):
    """The error names the scope that is full, wherever it stands; the others hold nothing."""
    a_run(ledger)
    names = [f"scope:{n:02d}" for n in range(count)]
    tight = names[which]
    limits = tuple(Limit(n, calls=1 if n == tight else 99) for n in reversed(names))
    reserve = Reservation(limits, Money(1))
    call = begin(ledger, {"n": 1}, reserve=reserve).call
    with pytest.raises(BudgetExceeded) as hit:
        begin(ledger, {"n": 2}, reserve=reserve)
    assert hit.value.details["scope"] == tight
    assert {ledger.budget(name).reserved_calls for name in names} == {1}
    ledger.finish(call, Outcome(CallState.OK, cost=Money(1), usage=Usage(1, 1)))
    assert {ledger.budget(name).spent.nanos for name in names} == {1}
    assert {ledger.budget(name).reserved_calls for name in names} == {0}
    assert ledger.verify() == []


def test_an_unknown_price_is_refused_by_any_scope_with_a_limit_in_dollars(ledger):
    """And named."""
    a_run(ledger)
    limits = (Limit("run:1", calls=1), Limit("team:a", usd=Money(5)))
    with pytest.raises(BudgetExceeded, match="price of the call is unknown and team:a"):
        begin(ledger, reserve=Reservation(limits, None))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e300])
def test_nonsense_seconds_are_refused(ledger, seconds):
    """In a limit, in a reservation, in an outcome."""
    a_run(ledger)
    for reserve in (
        Reservation((Limit("s", seconds=seconds),)),
        Reservation((Limit("s"),), seconds=seconds),
    ):
        with pytest.raises(UsageError):
            begin(ledger, reserve=reserve)
    call = begin(ledger, reserve=Reservation((Limit("s"),))).call
    with pytest.raises(UsageError):
        ledger.finish(call, Outcome(CallState.OK, seconds=seconds))
    assert ledger.budget("s").reserved_calls == 1


def test_gateways_that_share_scopes_in_any_order_never_wait_for_each_other(url, ledger):
    """Eight threads over two ledgers name the same six scopes in different orders: all come through."""
    for number in range(8):
        a_run(ledger, f"run-{number}")
    names = [f"scope:{n}" for n in range(6)]

    def work(thread: int) -> int:
        turned = names[thread % 6 :] + names[: thread % 6]
        chosen = turned[: 2 + thread % 5] if thread % 2 else list(reversed(turned))
        reserve = Reservation(tuple(Limit(name, calls=10_000) for name in chosen), Money(1))
        source = (ledger, other)[thread % 2]
        for number in range(10):
            intent = an_intent({"n": number}, run_id=f"run-{thread}")
            if thread % 4 == 3:
                call = writer.begin(intent, ALLOW, reserve=reserve).result().call
            else:
                call = source.begin(intent, ALLOW, reserve=reserve).call
            source.finish(call, Outcome(CallState.OK, cost=Money(1)))
        return 10 * len(chosen)

    with Ledger.open(url) as other, LedgerWriter(ledger) as writer, ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(work, range(8)))
    assert sum(ledger.budget(name).spent_calls for name in names) == made
    assert ledger.verify() == []
