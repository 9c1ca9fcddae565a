"""The stop switch: what begins after it, is denied; who stopped and started is in a chain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_world import ALLOW, DENY, a_call, a_run, an_intent, begin, nanos, tamper

from toolkit.errors import CallDenied, NotFound, UsageError
from toolkit.ledger import FaultKind, Ledger, LedgerWriter, Stop
from toolkit.ledger.chain import SWITCHES
from toolkit.values import CallState, Verdict

SCOPES = ("all", "agent:review", "team:legal", "route:default", "user:ana")


def _begin(ledger, arguments=None, **more):
    return ledger.begin(an_intent(arguments), ALLOW, switches=SCOPES, **more)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_stop_denies_what_begins_after_it(ledger, clock, scope):
    """By policy `stop`, with who and why; nothing is held; after the start all is as before."""
    a_run(ledger)
    assert _begin(ledger, {"n": 1}).call.state is CallState.STARTED
    stop = ledger.stop(scope, "bo", "it writes nonsense")
    assert ledger.stops() == [stop] == [Stop(scope, "bo", "it writes nonsense", clock.us)]
    assert ledger.stopped(SCOPES) == stop
    begun = _begin(ledger, {"n": 2}, reserve=nanos("s", 100, 10))
    assert begun.fresh
    assert begun.call.state is CallState.DENIED
    assert begun.call.decision.verdict is Verdict.DENY
    assert begun.call.decision.policies == ("stop",)
    assert begun.call.decision.policy_digest == ALLOW.policy_digest
    [reason] = begun.call.decision.reasons
    assert reason.startswith(f"{scope} was stopped by bo at 2026-09-21T")
    assert reason.endswith(": it writes nonsense")
    assert begun.call.outcome.error["code"] == "denied"
    assert ledger.budget("s") is None
    assert ledger.start(scope, "cy") == stop
    assert _begin(ledger, {"n": 3}).call.state is CallState.STARTED
    assert ledger.verify() == []


def test_a_stop_of_others_changes_nothing(ledger):
    """A name that begins alike is another name."""
    a_run(ledger)
    for scope in ("agent:reviewer", "team:leg", "user:ana2", "tool:default", "job:review"):
        ledger.stop(scope, "bo")
    assert _begin(ledger).call.state is CallState.STARTED
    assert begin(ledger, {"no": "scopes"}).call.state is CallState.STARTED


def test_what_was_recorded_is_answered_all_the_same(ledger):
    """A stop is about what happens, not about what has happened."""
    a_run(ledger)
    done = a_call(ledger, {"n": 1})
    ledger.stop("all", "bo", "x")
    again = _begin(ledger, {"n": 1})
    assert not again.fresh
    assert again.call == done


def test_a_call_in_doubt_is_not_repeated_while_stopped(ledger):
    """A restart is a beginning."""
    a_run(ledger)
    call = _begin(ledger).call
    ledger.stop("team:legal", "bo", "x")
    with pytest.raises(CallDenied, match="team:legal was stopped by bo") as hit:
        ledger.restart(call, switches=SCOPES)
    assert hit.value.details["policies"] == ["stop"]
    ledger.start("team:legal", "bo")
    assert ledger.restart(call, switches=SCOPES).tags == {"restarts": "1"}


def test_another_ledger_and_the_writer_obey_at_the_next_call(url, ledger):
    """Everybody who shares the database."""
    a_run(ledger)
    with Ledger.open(url) as other, LedgerWriter(other) as writer:
        first = writer.begin(an_intent({"n": 1}), ALLOW, switches=SCOPES).result()
        assert first.call.state is CallState.STARTED
        ledger.stop("all", "bo", "x")
        later = writer.begin(an_intent({"n": 2}), ALLOW, switches=SCOPES).result()
        assert later.call.state is CallState.DENIED


def test_policy_that_denies_anyway_and_a_stop_agree(ledger):
    """The stop is what is told."""
    a_run(ledger)
    ledger.stop("all", "bo", "x")
    call = ledger.begin(an_intent(), DENY, switches=("all",)).call
    assert call.decision.policies == ("stop",)


def test_every_stop_and_start_is_kept(ledger, clock):
    """Also those that change little: stopped twice, by whom each time."""
    ledger.stop("all", "bo", "first")
    clock.advance(seconds=1)
    ledger.stop("all", "cy", "second")
    ledger.stop("team:a", "bo", "")
    assert [(s.scope, s.by) for s in ledger.stops()] == [("all", "cy"), ("team:a", "bo")]
    ledger.start("all", "di", "solved")
    assert [(c.n, c.stopped, c.scope, c.by, c.reason) for c in ledger.stop_history()] == [
        (4, False, "all", "di", "solved"),
        (3, True, "team:a", "bo", ""),
        (2, True, "all", "cy", "second"),
        (1, True, "all", "bo", "first"),
    ]
    assert [c.n for c in ledger.stop_history(limit=1)] == [4]
    assert ledger.head(SWITCHES).n == 4
    assert ledger.verify() == []


def test_starting_what_is_not_stopped_says_what_is(ledger):
    """And records nothing."""
    ledger.stop("team:a", "bo")
    with pytest.raises(NotFound, match="all is not stopped; stopped is: team:a"):
        ledger.start("all", "bo")
    assert ledger.head(SWITCHES).n == 1


@pytest.mark.parametrize("scope", ["", "ALL", "agent:", "agent", "planet:x", "team: x", "all ",
                                   "agent:x\ny", "agent:" + "x" * 300, "user:\0"])  # fmt: skip
def test_what_cannot_be_stopped_is_a_usage_error(ledger, scope):
    """A switch that hits nothing would be a false comfort."""
    with pytest.raises(UsageError):
        ledger.stop(scope, "bo")
    assert ledger.stops() == []


def test_no_run_can_take_the_name_of_the_chain(ledger):
    """It would write into the switches."""
    with pytest.raises(UsageError, match="taken by the stop switches"):
        a_run(ledger, SWITCHES)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE stops SET reason = 'y'", FaultKind.PROJECTION),
        ("UPDATE stops SET stopped_by = 'y'", FaultKind.PROJECTION),
        ("UPDATE stops SET at_us = 1", FaultKind.PROJECTION),
        ("UPDATE stops SET n = 9", FaultKind.PROJECTION),
        ("UPDATE stops SET scope = 'all'", FaultKind.EXTRA_ROW),
        ("DELETE FROM stops", FaultKind.MISSING_ROW),
        ("UPDATE entries SET body = replace(body, 'bo', 'eve')", FaultKind.EDITED),
        ("DELETE FROM entries WHERE n = 1", FaultKind.GAP),
        ("DELETE FROM entries", FaultKind.EXTRA_ROW),
    ],
)
def test_an_edited_switch_is_found(ledger, url, change, kind):
    """A stop that was lifted behind the ledger's back, or laid on somebody."""
    ledger.stop("team:b", "bo", "x")
    ledger.start("team:b", "bo")
    ledger.stop("team:a", "bo", "x")
    assert ledger.verify() == []
    tamper(url, change)
    assert kind in {fault.kind for fault in ledger.verify()}
    assert kind in {fault.kind for fault in ledger.verify(SWITCHES)}


def test_a_chain_of_switches_that_was_cut_is_found_by_its_anchor(ledger, url):
    """A stop and its row removed together leave a sound chain, as with runs."""
    ledger.stop("team:a", "bo", "x")
    anchored = ledger.head(SWITCHES)
    tamper(url, "DELETE FROM entries")
    tamper(url, "DELETE FROM stops")
    assert ledger.verify() == []
    assert [f.kind for f in ledger.verify(expected=[anchored])] == [FaultKind.HEAD]


def test_processes_that_stop_and_start_at_once_keep_one_chain(url, ledger):
    """No link is written twice."""

    def work(number: int) -> None:
        source = (ledger, other)[number % 2]
        for _ in range(5):
            source.stop(f"team:{number}", "bo", "x")
            source.start(f"team:{number}", "bo")

    with Ledger.open(url) as other, ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert ledger.head(SWITCHES).n == 60
    assert ledger.stops() == []
    assert ledger.verify() == []


def test_a_stop_in_the_same_group_is_seen(ledger):
    """The first call of a group finds nothing stopped; what the group stops holds for the next."""
    a_run(ledger)
    before, _, after = ledger.write_all(
        [
            lambda s: s.begin(an_intent({"n": 1}), ALLOW, switches=["all"]),
            lambda s: s.stop("all", "ana", "enough"),
            lambda s: s.begin(an_intent({"n": 2}), ALLOW, switches=["all"]),
        ]
    )
    assert before.call.state is CallState.STARTED
    assert after.call.state is CallState.DENIED
