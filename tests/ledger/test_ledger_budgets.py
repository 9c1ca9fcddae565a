"""Budgets: what is reserved and spent never passes a limit."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import ALLOW, DENY, OK, a_run, an_intent, begin, nanos

from toolkit.errors import BudgetExceeded, UsageError
from toolkit.ledger import Ledger, LedgerWriter, Limit, Reservation
from toolkit.values import CallState, Money, Outcome, Usage


def _spend(cost: int | None, state: CallState = CallState.OK, tokens: int | None = 0) -> Outcome:
    usage = None if tokens is None else Usage(tokens, 0)
    return Outcome(state, cost=None if cost is None else Money(cost), usage=usage)


def test_the_worst_case_is_held_then_replaced_by_what_it_was(ledger):
    """Reserve at begin, settle at finish, in every scope."""
    a_run(ledger)
    limits = (Limit("run:1", usd=Money(1000)), Limit("team:a", tokens=500, calls=9))
    call = begin(ledger, reserve=Reservation(limits, Money(400), tokens=100)).call
    held = ledger.budget("run:1")
    assert (held.reserved, held.spent, held.reserved_calls) == (Money(400), Money(0), 1)
    assert ledger.budget("team:a").reserved_tokens == 100
    ledger.finish(call, _spend(150, tokens=30))
    for scope in ("run:1", "team:a"):
        settled = ledger.budget(scope)
        assert (settled.reserved, settled.reserved_tokens, settled.reserved_calls) == (
            Money(0),
            0,
            0,
        )
        assert (settled.spent, settled.spent_tokens, settled.spent_calls) == (Money(150), 30, 1)
    assert ledger.budget("team:a").limit == limits[1]
    assert ledger.budget("team:none") is None
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("limit", "unit", "said"),
    [
        (
            Limit("s", usd=Money(1_500_000_000)),
            "usd",
            r"has \$0.50 of \$1.50 usd left.*may need \$1.00",
        ),
        (Limit("s", tokens=15), "tokens", "has 5 of 15 tokens left.*may need 10"),
        (Limit("s", calls=1), "calls", "has 0 of 1 calls left.*may need 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(ledger, limit, unit, said):
    """The error names scope, rest and need; no intent, no other scope's reservation remains."""
    a_run(ledger)
    other = Limit("another", usd=Money(10**12))
    reserve = Reservation((limit, other), Money(10**9), tokens=10)
    begin(ledger, {"n": 1}, reserve=reserve)
    before = ledger.head("run-1"), ledger.budget("another"), ledger.budget("s")
    with pytest.raises(BudgetExceeded, match=said) as caught:
        begin(ledger, {"n": 2}, reserve=reserve)
    assert caught.value.details["unit"] == unit
    assert caught.value.where == "s"
    assert (ledger.head("run-1"), ledger.budget("another"), ledger.budget("s")) == before
    assert ledger.verify() == []


def test_the_last_nano_may_be_used(ledger):
    """Exactly the limit fits, one more does not."""
    a_run(ledger)
    begin(ledger, {"n": 1}, reserve=nanos("s", 10, 10))
    with pytest.raises(BudgetExceeded):
        begin(ledger, {"n": 2}, reserve=nanos("s", 10, 1))
    begin(ledger, {"n": 3}, reserve=nanos("s", 10, 0))


def test_an_unknown_price_does_not_fit_a_money_limit(ledger):
    """Unknown is not free; without a limit of money it is no matter."""
    a_run(ledger)
    with pytest.raises(BudgetExceeded, match="price of the call is unknown"):
        begin(ledger, {"n": 1}, reserve=nanos("s", 10, None))
    assert begin(ledger, {"n": 2}, reserve=nanos("t", None, None)).fresh


@pytest.mark.parametrize(
    ("outcome", "money", "tokens", "calls"),
    [
        (_spend(None, tokens=None), 40, 7, 1),  # nobody knows: the worst case
        (_spend(None, CallState.ERROR, tokens=None), 40, 7, 1),  # may have been billed
        (_spend(0, CallState.ERROR, tokens=None), 0, 0, 1),  # known not to have been billed
        (_spend(0, tokens=3), 0, 3, 1),
        (_spend(None, CallState.DENIED, tokens=None), 0, 0, 0),  # never made
    ],
)
def test_what_is_unknown_is_charged_at_the_worst_case(ledger, outcome, money, tokens, calls):
    """Unknown costs count as the reservation; a call that was not made counts nothing."""
    a_run(ledger)
    call = begin(ledger, reserve=nanos("s", 100, 40, tokens=7)).call
    ledger.finish(call, outcome)
    found = ledger.budget("s")
    assert (found.spent.nanos, found.spent_tokens, found.spent_calls) == (money, tokens, calls)
    assert (found.reserved.nanos, found.reserved_tokens, found.reserved_calls) == (0, 0, 0)
    assert ledger.verify() == []


def test_a_bill_above_the_worst_case_is_recorded_as_it_is_and_stops_the_scope(ledger):
    """The truth is kept, and nothing follows."""
    a_run(ledger)
    ledger.finish(begin(ledger, {"n": 1}, reserve=nanos("s", 100, 10)).call, _spend(150))
    assert ledger.budget("s").spent == Money(150)
    with pytest.raises(BudgetExceeded, match=r"has -\$0.00000005 of"):
        begin(ledger, {"n": 2}, reserve=nanos("s", 100, 0))


def test_a_replay_a_resend_and_a_denial_hold_nothing(ledger):
    """Only a fresh, allowed call reserves; settling twice does not happen."""
    a_run(ledger)
    reserve = nanos("s", 100, 60)
    intent = an_intent({"n": 1})
    call = ledger.begin(intent, ALLOW, reserve=reserve).call
    ledger.begin(intent, ALLOW, reserve=reserve)
    begin(ledger, {"n": 1}, reserve=reserve)
    ledger.restart(call)
    begin(ledger, {"n": 2}, decision=DENY, reserve=reserve)
    assert ledger.budget("s").reserved == Money(60)
    ledger.finish(call, _spend(5))
    ledger.finish(call, _spend(5))
    assert ledger.budget("s").spent == Money(5)


def test_the_limit_in_force_is_the_one_given_last(ledger):
    """A policy may tighten or widen a budget while a run is under way."""
    a_run(ledger)
    begin(ledger, {"n": 1}, reserve=nanos("s", 100, 60))
    with pytest.raises(BudgetExceeded):
        begin(ledger, {"n": 2}, reserve=nanos("s", 50, 1))
    assert begin(ledger, {"n": 3}, reserve=nanos("s", 1000, 100)).fresh


def test_nonsense_reservations_are_refused(ledger):
    """Negative amounts and a scope named twice would corrupt a budget."""
    a_run(ledger)
    twice = Reservation((Limit("s"), Limit("s")), Money(1))
    for reserve in (nanos("s", 10, -1), nanos("s", 10, 1, tokens=-5), nanos("s", -1, 1), twice):
        with pytest.raises(UsageError):
            begin(ledger, reserve=reserve)
    assert ledger.budget("s") is None


def test_threads_hammering_one_budget_never_overshoot(url, ledger):
    """16 threads, directly, through a writer and through a second ledger: the sum stays below."""
    a_run(ledger)
    limit, worst = 1000, 17
    seen: list[int] = []

    def hammer(thread: int) -> int:
        done = 0
        for number in range(12):
            arguments = {"thread": thread, "number": number}
            reserve = nanos("s", limit, worst)
            try:
                if thread % 3 == 0:
                    call = writer.begin(an_intent(arguments), ALLOW, reserve=reserve).result().call
                else:
                    source = ledger if thread % 3 == 1 else other
                    call = begin(source, arguments, reserve=reserve).call
            except BudgetExceeded:
                continue
            now = ledger.budget("s")
            seen.append(now.reserved.nanos + now.spent.nanos)
            ledger.finish(call, _spend(worst - number % 3))
            done += worst - number % 3
        return done

    with Ledger.open(url) as other, LedgerWriter(ledger) as writer, ThreadPoolExecutor(16) as pool:
        spent = sum(pool.map(hammer, range(16)))
    found = ledger.budget("s")
    assert max(seen) <= limit
    assert found.spent == Money(spent) <= Money(limit)
    assert found.reserved == Money(0)
    # The budget was used up: less than one worst case is left.
    assert limit - found.spent.nanos < worst
    assert ledger.verify() == []


_HAMMER = """
import sys
from toolkit.errors import BudgetExceeded
from toolkit.ledger import Ledger
from ledger_world import begin, nanos
ledger = Ledger.open(sys.argv[1])
for number in range(40):
    try:
        begin(ledger, {"who": sys.argv[2], "n": number}, request_id=f"{sys.argv[2]}-{number}",
              reserve=nanos("s", 1000, 20))
        print("held", flush=True)
    except BudgetExceeded:
        pass
"""


def test_processes_sharing_a_budget_never_overshoot(url, ledger, request):
    """Three processes together get exactly what the budget covers, and one unbroken chain."""
    a_run(ledger)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _HAMMER, url, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{request.config.rootpath}:{request.path.parent}"},
        )
        for number in range(3)
    ]
    held = sum(worker.communicate()[0].count("held") for worker in workers)
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert held == 50
    assert ledger.budget("s").reserved == Money(1000)
    assert ledger.verify() == []


_numbers = itertools.count()
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 60), st.integers(0, 40)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(0, 100)),
    ),
    max_size=25,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_any_sequence_keeps_every_scope_within_its_limit(ledger, steps):
    """A model of two scopes agrees with the ledger after every step."""
    number = next(_numbers)
    run_id, one, two = f"run-{number}", f"run:{number}", f"team:{number}"
    a_run(ledger, run_id)
    limits = (Limit(one, usd=Money(100)), Limit(two, tokens=80))
    opened: list[tuple] = []
    reserved, spent = [0, 0], [0, 0]
    for position, (what, first, second) in enumerate(steps):
        if what == "begin":
            fits = sum(reserved[:1] + spent[:1]) + first <= 100
            fits &= reserved[1] + spent[1] + second <= 80
            reserve = Reservation(limits, Money(first), tokens=second)
            try:
                call = begin(ledger, {"p": position}, run_id=run_id, reserve=reserve).call
            except BudgetExceeded:
                assert not fits
                continue
            assert fits
            opened.append((call, first, second))
            reserved = [reserved[0] + first, reserved[1] + second]
        elif opened:
            call, money, tokens = opened.pop(first % len(opened))
            paid, used = money * second // 100, tokens * second // 100
            ledger.finish(call, _spend(paid, tokens=used))
            reserved = [reserved[0] - money, reserved[1] - tokens]
            spent = [spent[0] + paid, spent[1] + used]
    if opened or any(spent):
        assert ledger.budget(one).reserved.nanos == reserved[0]
        assert ledger.budget(one).spent.nanos == spent[0]
        assert ledger.budget(two).reserved_tokens == reserved[1]
        assert ledger.budget(two).spent_tokens == spent[1]
    assert ledger.verify(run_id) == []


def test_a_call_without_limits_holds_nothing(ledger):
    """No scope, no budget."""
    a_run(ledger)
    call = begin(ledger, reserve=Reservation((), Money(5))).call
    assert ledger.finish(call, OK).state is CallState.OK
