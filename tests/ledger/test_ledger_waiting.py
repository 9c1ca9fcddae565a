"""Runs that wait for people: what counts as waiting, who may go on, and what one query finds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import Conflict
from toolkit.ledger import WAITING_FOR, WAITING_UNTIL
from toolkit.values import (
    IN_DOUBT,
    CallKind,
    CallState,
    Decision,
    Effect,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
)

ALLOW = Decision(Verdict.ALLOW)
ASK = Decision(Verdict.ASK, approver="approver")
HOUR_US = 3_600_000_000


def running(ledger, run_id="run-1"):
    return ledger.create_run(
        RunRecord(
            run_id,
            RunKind.RUN,
            Environment.PRODUCTION,
            "emil",
            state=RunState.RUNNING,
            token_digest="sha256:token",
            tags={"queued": "yes"},
        )
    )


def call(ledger, run, name, decision=ALLOW, **facts):
    intent = Intent(
        run.run_id, facts.pop("kind", CallKind.TOOL), name, {}, request_id=name, **facts
    )
    return ledger.begin(intent, decision).call


def asked(ledger, clock, run, name="pay", *, view=None, hours=1, **facts):
    made = call(ledger, run, name, ASK, **facts)
    expires = clock.now_us() + hours * HOUR_US
    return ledger.ask(made, role="approver", view=view or {}, expires_us=expires)


def park(ledger, run, *requests):
    return ledger.park(run, [each.id for each in requests], message="waits")


def answer(ledger, request, verdict="approved"):
    return ledger.answer(request.id, by="anna", verdict=verdict, digest=request.digest, reason="so")


def test_a_parked_run_has_no_token_and_begins_no_call(ledger, clock):
    """What still runs of its kernel can do nothing more; the chain stays sound."""
    run = running(ledger)
    before = call(ledger, run, "look")
    ledger.finish(before, Outcome(CallState.OK, answer=1))
    request = asked(ledger, clock, run)
    parked = park(ledger, run, request)
    assert (parked.state, parked.token_digest) == (RunState.WAITING, None)
    assert parked.tags[WAITING_FOR] == request.id
    assert parked.tags[WAITING_UNTIL] == str(request.expires_us)
    with pytest.raises(Conflict, match="waits for a person"):
        call(ledger, run, "another")
    waiting = ledger.get_call(run.run_id, request.call_key, 0)
    answer(ledger, request)
    with pytest.raises(Conflict, match="waits for a person"):
        ledger.decide(waiting, replace(ASK, verdict=Verdict.ALLOW))
    assert ledger.verify() == []


def test_a_decision_that_comes_first_keeps_the_run(ledger, clock):
    """Of decision and parking one is first: the run goes on, or is found."""
    run = running(ledger)
    request = asked(ledger, clock, run)
    answer(ledger, request)
    assert park(ledger, run, request) is None
    assert ledger.get_run(run.run_id).state is RunState.RUNNING


@pytest.mark.parametrize(
    ("what", "idle"),
    [
        ("nothing else", True),
        ("another call is under way", False),
        ("it was made in an agent", True),
        ("it was made in a write", False),
        ("it asks what became of a write", True),
        ("another request waits", True),
    ],
)
def test_a_run_is_idle_when_people_are_all_it_waits_for(ledger, clock, what, idle):
    """Calls above the waiting one wait with it; half a write is never given up."""
    run = running(ledger)
    facts = {}
    if what == "another call is under way":
        call(ledger, run, "look")
    if what == "it was made in an agent":
        outer = call(ledger, run, "outer", kind=CallKind.AGENT)
        facts["parent"] = call(ledger, run, "inner", kind=CallKind.AGENT, parent=outer.key).key
    if what in ("it was made in a write", "it asks what became of a write"):
        facts["parent"] = call(ledger, run, "transfer", effect=Effect.WRITE).key
    if what == "it asks what became of a write":
        facts |= {"kind": CallKind.HUMAN, "name": IN_DOUBT}
    if what == "another request waits":
        asked(ledger, clock, run, "sign")
    asked(ledger, clock, run, **facts)
    standing = ledger.standing(run.run_id)
    assert standing.idle is idle
    assert (park(ledger, run, *standing.asked) is not None) is idle


def test_only_who_began_the_run_parks_it_and_only_one_takes_it(ledger, clock):
    """A runner that lost its run parks nothing; of two that resume it, one does."""
    run = running(ledger)
    request = asked(ledger, clock, run)
    assert park(ledger, replace(run, token_digest="sha256:older"), request) is None
    parked = park(ledger, run, request)
    taken = ledger.take(parked, state=RunState.RUNNING, runner="here", message=None)
    assert (taken.state, taken.message) == (RunState.RUNNING, None)
    with pytest.raises(Conflict, match="taken by here"):
        ledger.take(parked, state=RunState.RUNNING, runner="there")


def test_one_query_finds_decided_due_escalating_and_stopped_runs(ledger, clock):
    """And none that still waits, whatever it was asked about before."""
    view = {"escalates": {"at_us": clock.now_us() + HOUR_US // 2, "to": "director"}}
    names = ["still", "decided", "late", "escalates", "stopped"]
    runs, requests = {}, {}
    for name in names:
        runs[name] = running(ledger, name)
        # Decided before, and never used: it wakes nobody.
        answer(ledger, asked(ledger, clock, runs[name], "earlier"))
        done = ledger.get_call(name, ledger.approvals(limit=1)[0].call_key, 0)
        ledger.finish(done, Outcome(CallState.OK))
        requests[name] = asked(
            ledger,
            clock,
            runs[name],
            hours=1 if name == "late" else 9,
            view=view if name == "escalates" else None,
        )
        assert park(ledger, runs[name], requests[name]) is not None
    assert ledger.awaited() == []
    answer(ledger, requests["decided"], "rejected")
    ledger.stop("run:stopped", "anna", "enough")
    ledger.stop("all", "anna", "enough")
    clock.us += 2 * HOUR_US
    found = {woken.run_id: woken for woken in ledger.awaited()}
    assert set(found) == {"decided", "late", "escalates", "stopped"}
    assert found["stopped"].stopped == "stopped by anna: enough"
    assert found["decided"].tags["queued"] == "yes"
    assert len(ledger.awaited(limit=2)) == 3, "stopped ones come on top"


NUMBERS = itertools.count()
STEPS = st.lists(st.sampled_from(["ask", "work", "finish", "park", "answer", "take"]), max_size=12)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_a_run_is_never_parked_while_it_works_and_always_found_once_decided(ledger, clock, steps):
    """In any order of asking, working, deciding, parking and resuming."""
    run = running(ledger, f"run-{next(NUMBERS)}")  # one ledger for all examples
    open_, working = [], []
    for count, step in enumerate(steps):
        parked = ledger.get_run(run.run_id).state is RunState.WAITING
        if step == "ask" and not parked:
            open_.append(asked(ledger, clock, run, f"ask-{count}"))
        elif step == "work" and not parked:
            working.append(call(ledger, run, f"work-{count}"))
        elif step == "finish" and working:
            ledger.finish(working.pop(), Outcome(CallState.OK))
        elif step == "answer" and open_:
            request = open_.pop()
            answer(ledger, request, "rejected")
            if parked:
                assert run.run_id in {woken.run_id for woken in ledger.awaited()}
            made = ledger.get_call(run.run_id, request.call_key, 0)
            ledger.finish(made, Outcome(CallState.DENIED))
        elif step == "park" and not parked:
            made = park(ledger, ledger.get_run(run.run_id), *open_)
            assert (made is not None) == (bool(open_) and not working)
        elif step == "take" and parked:
            now = ledger.get_run(run.run_id)
            run = ledger.take(now, state=RunState.RUNNING, token_digest=f"sha256:{count}")
