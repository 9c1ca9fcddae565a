"""Rate limits: never more than N calls in any stretch of P seconds, whatever the clock does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import ALLOW, DENY, OK, a_run, an_intent, begin

from toolkit.errors import BudgetExceeded, UsageError
from toolkit.ledger import Ledger, LedgerWriter, Limit, Rate, Reservation
from toolkit.values import Money, RunKind


def _rate(calls: int, per_s: float = 60.0, scope: str = "team:a") -> Reservation:
    return Reservation((), rates=(Rate(scope, calls, per_s),))


def _goes(ledger, reserve: Reservation, run_id: str = "run-1") -> bool:
    try:
        call = ledger.begin(an_intent({"x": 1}, run_id=run_id), ALLOW, reserve=reserve).call
    except BudgetExceeded:
        return False
    ledger.finish(call, OK)
    return True


@pytest.fixture
def session(ledger):
    a_run(ledger, kind=RunKind.SESSION)  # equal calls are new ones
    return ledger


def test_a_rate_lets_through_its_number_and_then_says_when(session, clock):
    """The wait that is named is exactly long enough."""
    for _ in range(3):
        assert _goes(session, _rate(3))
        clock.advance(seconds=10)
    with pytest.raises(BudgetExceeded, match=r"team:a has made 3 calls in the last 60 s") as hit:
        begin(session, {"n": 9}, reserve=_rate(3))
    assert hit.value.details["retry_after_s"] == 30.0
    assert hit.value.where == "team:a"
    clock.advance(seconds=29.999999)
    assert not _goes(session, _rate(3))
    clock.advance(seconds=0.000001)
    assert _goes(session, _rate(3))
    assert not _goes(session, _rate(3))
    assert session.verify() == []


def test_a_window_has_no_edge_at_which_it_could_be_used_twice(session, clock):
    """All calls at the end of one minute: none in the first half of the next."""
    clock.advance(seconds=59)
    assert [_goes(session, _rate(4)) for _ in range(5)] == [True] * 4 + [False]
    clock.advance(seconds=2)
    assert not _goes(session, _rate(4))
    clock.advance(seconds=58)
    assert [_goes(session, _rate(4)) for _ in range(5)] == [True] * 4 + [False]


def test_what_a_rate_refuses_leaves_nothing_and_costs_no_turn(session, clock):
    """No intent, no reservation, no count; a budget that refuses gives the turn back, too."""
    both = Reservation(
        (Limit("s", calls=2),), rates=(Rate("r", 3, 60.0), Rate("q", 99, 60.0)), cost=Money(1)
    )
    assert _goes(session, both)
    assert _goes(session, both)
    before = session.head("run-1")
    for _ in range(5):
        with pytest.raises(BudgetExceeded, match="calls left"):
            begin(session, reserve=both)
    assert session.head("run-1") == before
    assert _goes(session, _rate(3, scope="r"))
    assert not _goes(session, _rate(3, scope="r"))


def test_replays_denials_and_results_do_not_count(session):
    """A rate counts what is about to happen."""
    intent = an_intent({"n": 1})
    session.begin(intent, ALLOW, reserve=_rate(1))
    assert not session.begin(intent, ALLOW, reserve=_rate(1)).fresh
    begin(session, decision=DENY, reserve=_rate(1))
    result = Reservation((), rates=(Rate("team:a", 1, 60.0),), calls=0)
    assert begin(session, reserve=result).fresh
    assert not _goes(session, _rate(1))


@pytest.mark.parametrize("jump_s", [-30.0, -3600.0, -(10**8)])
def test_a_clock_that_jumps_back_blocks_for_one_period_at_most(session, clock, jump_s):
    """No eternal wait, and nothing on top of the limit."""
    assert [_goes(session, _rate(3)) for _ in range(4)] == [True] * 3 + [False]
    clock.advance(seconds=jump_s)
    with pytest.raises(BudgetExceeded) as hit:
        begin(session, reserve=_rate(3))
    assert hit.value.details["retry_after_s"] == 60.0
    clock.advance(seconds=59)
    assert not _goes(session, _rate(3))
    clock.advance(seconds=1)
    assert [_goes(session, _rate(3)) for _ in range(4)] == [True] * 3 + [False]
    assert session.verify() == []


def test_a_jump_is_found_through_the_writer_too(session, clock):
    """The refused call is undone, what it found out about the clock stays."""
    with LedgerWriter(session) as writer:
        writer.begin(an_intent({"n": 1}), ALLOW, reserve=_rate(1)).result()
        clock.advance(seconds=-(10**6))
        waits = []
        for number in range(3):
            late = writer.begin(an_intent({"n": 2 + number}), ALLOW, reserve=_rate(1))
            waits.append(late.exception().details["retry_after_s"])
            clock.advance(seconds=20)
        assert waits == [60.0, 40.0, 20.0]
        assert writer.begin(an_intent({"n": 9}), ALLOW, reserve=_rate(1)).result().fresh


def test_a_changed_limit_keeps_the_newest_times(session, clock):
    """Tightened or widened while calls are remembered."""
    for _ in range(4):
        assert _goes(session, _rate(4))
        clock.advance(seconds=10)
    assert not _goes(session, _rate(2))  # now 40; the newest two were at 20 and 30
    assert [_goes(session, _rate(5)) for _ in range(2)] == [True, False]
    clock.advance(seconds=21)
    assert [_goes(session, _rate(5)) for _ in range(2)] == [True, False]
    clock.advance(seconds=38.9)
    assert not _goes(session, _rate(2))  # the newest two were at 40 and 61
    clock.advance(seconds=0.1)
    assert [_goes(session, _rate(2)) for _ in range(2)] == [True, False]
    assert [_goes(session, _rate(5)) for _ in range(4)] == [True] * 3 + [False]


@pytest.mark.parametrize("rate", [Rate("s", 0, 1), Rate("s", 100_001, 1), Rate("s", 1, 0.0),
                                  Rate("s", 1, float("nan")), Rate("s", 1, -1), Rate("a\0", 1, 1)])  # fmt: skip
def test_nonsense_rates_are_refused(session, rate):
    """Zero calls is what policy's forbid is for."""
    with pytest.raises(UsageError):
        begin(session, reserve=Reservation((), rates=(rate,)))
    with pytest.raises(UsageError, match="twice"):
        begin(session, reserve=Reservation((), rates=(Rate("s", 1, 1), Rate("s", 2, 1))))


def test_two_processes_share_a_rate(url, session, clock):
    """The times are in the ledger, not in the gateway."""
    with Ledger.open(url, clock=clock) as other:
        assert [_goes(source, _rate(3)) for source in (session, other, session, other)] == [
            True, True, True, False,
        ]  # fmt: skip


_numbers = itertools.count()
_steps = st.lists(
    st.one_of(st.just(("call", 0.0)), st.tuples(st.just("wait"), st.floats(0, 20))), max_size=60
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, calls=st.integers(1, 5), jump=st.floats(-1000, 0))
def test_no_stretch_of_time_ever_holds_more_than_the_limit(session, clock, steps, calls, jump):
    """Against a log of true times, with one jump back in the middle; and never late without one."""
    run_id, scope = "run-1", f"scope:{next(_numbers)}"
    true_us, done, jumped = 0, [], False
    for position, (what, seconds) in enumerate(steps):
        if position == len(steps) // 2 and jump < -100:
            clock.advance(seconds=jump)
            jumped = True
        if what == "wait":
            clock.advance(seconds=seconds)
            true_us += round(seconds * 1e6)
            continue
        recent = sum(true_us - at < 30_000_000 for at in done)
        went = _goes(session, _rate(calls, 30.0, scope), run_id)
        assert not went or recent < calls
        assert went or jumped or recent == calls
        if went:
            done.append(true_us)
