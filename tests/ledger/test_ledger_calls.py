"""Calls: intent before, outcome after, replay in between."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import ALLOW, DENY, OK, a_call, a_run, an_intent, begin

from toolkit.errors import Conflict, NotFound, ProviderError, ToolFailed, UsageError
from toolkit.values import (
    Attempt,
    CallKind,
    CallState,
    Decision,
    Effect,
    Money,
    Outcome,
    RunKind,
    Usage,
    Verdict,
)


def test_a_call_is_recorded_before_and_after(ledger, clock):
    """begin gives a fresh, started call; finish gives it an outcome."""
    a_run(ledger)
    intent = an_intent(
        {"messages": [{"role": "user", "content": "héllo"}]},
        effect=Effect.WRITE,
        cell="c1",
        case_id="k",
        occurrence=2,
    )
    begun = ledger.begin(intent, ALLOW)
    assert begun.fresh
    assert begun.call.key == intent.key
    assert (begun.call.state, begun.call.intent) == (CallState.STARTED, intent)
    clock.advance(seconds=2)
    outcome = dataclasses.replace(OK, attempts=(Attempt("openai/small", 1, 2, "429"),))
    done = ledger.finish(begun.call, outcome)
    assert (done.outcome, done.latency_s) == (outcome, 2.0)
    assert ledger.lookup("run-1", intent.key) == done
    assert ledger.get_call("run-1", intent.key, 0) == done
    assert ledger.calls("run-1") == [done]
    assert ledger.verify() == []


def test_an_unknown_run_records_nothing(ledger):
    """A call belongs to a run."""
    with pytest.raises(NotFound):
        begin(ledger)


def test_a_resent_request_is_the_same_call(ledger):
    """The same request_id never records twice, in a session neither."""
    for run_id, kind in (("run-1", RunKind.RUN), ("session-1", RunKind.SESSION)):
        a_run(ledger, run_id, kind)
        intent = an_intent(run_id=run_id)
        first, again = ledger.begin(intent, ALLOW), ledger.begin(intent, ALLOW)
        assert (first.fresh, again.fresh) == (True, False)
        assert again.call == first.call
        assert len(ledger.calls(run_id)) == 1


def test_a_request_id_of_another_call_is_refused(ledger):
    """An answer is never given to a question that was not asked."""
    a_run(ledger)
    begin(ledger, {"q": 1}, request_id="same")
    with pytest.raises(Conflict, match="recorded for another call"):
        begin(ledger, {"q": 2}, request_id="same")


def test_a_known_key_is_replayed_in_a_run(ledger):
    """A second pass over the notebook gets the recorded outcome, whatever is decided now."""
    a_run(ledger)
    done = a_call(ledger, {"q": 1})
    again = begin(ledger, {"q": 1}, decision=DENY)
    assert (again.fresh, again.call) == (False, done)


def test_a_known_key_is_a_new_generation_in_a_session(ledger):
    """Re-running a cell asks again; lookup gives the latest."""
    a_run(ledger, kind=RunKind.SESSION)
    first = a_call(ledger, {"q": 1})
    second = begin(ledger, {"q": 1})
    assert (second.fresh, second.call.generation, second.call.key) == (True, 1, first.key)
    assert ledger.lookup("run-1", first.key) == second.call
    assert ledger.get_call("run-1", first.key, 0) == first
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("outcome", "since", "to", "anew"),
    [
        (ProviderError("it is away"), 0, 0, True),
        (ProviderError("it is away"), 1, 0, False),  # before the cell that failed
        (ProviderError("it is away"), 0, -1, False),  # in this very attempt
        (ToolFailed("it raised"), 0, 0, False),  # the world is there, the answer is what it is
        (None, 0, 0, False),
    ],
)
def test_a_failure_of_infrastructure_is_no_answer_where_it_ended_the_run(
    ledger, outcome, since, to, anew
):
    """Of the calls from a time up to a number; the next generation is recorded, the first stays."""
    a_run(ledger)
    failed = OK if outcome is None else Outcome(CallState.ERROR, error=outcome.to_json())
    first = a_call(ledger, {"n": 1}, failed)
    place = (first.started_us + since, first.seq + to)
    begun = ledger.begin(an_intent({"n": 1}), ALLOW, anew=place)
    assert (begun.fresh, begun.call.generation) == (anew, int(anew))
    assert ledger.get_call("run-1", first.key, 0).outcome.state is failed.state
    assert ledger.verify() == []


def test_a_call_in_doubt_comes_back_without_an_outcome(ledger):
    """Intent without outcome: the gateway decides, and a restart is recorded."""
    a_run(ledger)
    call = begin(ledger, {"q": 1}).call
    doubt = begin(ledger, {"q": 1})
    assert (doubt.fresh, doubt.call.outcome) == (False, None)
    ledger.restart(doubt.call)
    assert ledger.restart(doubt.call).tags == {"restarts": "2"}
    done = ledger.finish(doubt.call, OK)
    assert done == ledger.get_call("run-1", call.key, 0)
    with pytest.raises(Conflict, match="already ended"):
        ledger.restart(call)
    assert ledger.verify() == []


def test_the_first_outcome_counts(ledger):
    """finish is idempotent; a late second outcome changes nothing."""
    a_run(ledger)
    call = begin(ledger).call
    first = ledger.finish(call, OK)
    head = ledger.head("run-1")
    assert ledger.finish(call, Outcome(CallState.ERROR)) == first
    assert ledger.head("run-1") == head


def test_finishing_what_never_began_is_refused(ledger):
    """An outcome needs an intent."""
    a_run(ledger)
    call = begin(ledger).call
    with pytest.raises(NotFound):
        ledger.finish(dataclasses.replace(call, generation=7), OK)
    with pytest.raises(UsageError, match="never started"):
        ledger.finish(call, Outcome(CallState.STARTED))


def test_a_denied_call_is_recorded_with_its_reasons(ledger):
    """Intent and DENIED outcome are there at once, and nothing runs."""
    a_run(ledger)
    begun = begin(ledger, decision=DENY)
    assert begun.fresh
    assert begun.call.state is CallState.DENIED
    assert begun.call.outcome.error["message"] == "policy denies the call: mail is not allowed"
    assert begun.call.outcome.error["details"]["policies"] == ["no-mail"]
    assert ledger.lookup("run-1", begun.call.key) == begun.call
    assert ledger.head("run-1").n == 3
    assert ledger.verify() == []


def test_an_approval_replaces_the_decision(ledger):
    """ASK may become ALLOW (the call goes on) or DENY (it ends)."""
    a_run(ledger)
    ask = Decision(Verdict.ASK, ("ask-first",))
    yes, no = (begin(ledger, {"n": n}, decision=ask).call for n in range(2))
    assert ledger.decide(yes, ALLOW).decision == ALLOW
    assert ledger.finish(yes, OK).decision == ALLOW
    assert ledger.decide(no, DENY).state is CallState.DENIED
    with pytest.raises(Conflict):
        ledger.decide(no, ALLOW)
    assert ledger.verify() == []


def test_answers_keep_order_and_number_spelling(ledger):
    """A replay equals the first answer: member order, 1.0 and big integers included."""
    a_run(ledger)
    answer = {"z": 1.0, "a": 2**70, "m": (1, 2), "half": "\ud83d", "nul": "\0", "n": 1e300}
    done = a_call(ledger, {"q": "\ud83d\0"}, Outcome(CallState.OK, answer))
    stored = ledger.lookup("run-1", done.key)
    for record in (done, stored):
        assert list(record.outcome.answer) == ["z", "a", "m", "half", "nul", "n"]
        assert isinstance(record.outcome.answer["z"], float)
        assert record.outcome.answer == {**answer, "m": [1, 2]}
    assert stored.intent.arguments == {"q": "\ud83d\0"}
    assert begin(ledger, {"q": "\ud83d\0"}).fresh is False
    assert ledger.verify() == []


def test_what_is_not_json_is_refused_before_anything_is_recorded(ledger):
    """NaN, other types and deep nesting are named; the call stays unfinished."""
    a_run(ledger)
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    call = begin(ledger).call
    head = ledger.head("run-1")
    for bad in ({"x": float("nan")}, {1: 2}, {"x": object()}, deep):
        with pytest.raises(UsageError, match="cannot be recorded"):
            begin(ledger, bad)
        with pytest.raises(UsageError, match="cannot be recorded"):
            ledger.finish(call, Outcome(CallState.OK, bad))
    for fields in ({"name": "a\0"}, {"request_id": "\ud83d"}, {"case_id": "\0"}, {"parent": "\0"}):
        with pytest.raises(UsageError, match="cannot be stored"):
            begin(ledger, **fields)
    for outcome in (
        Outcome(CallState.OK, cost=Money(-1)),
        Outcome(CallState.OK, usage=Usage(2**63)),
    ):
        with pytest.raises(UsageError, match="outside of"):
            ledger.finish(call, outcome)
    assert ledger.head("run-1") == head


def test_a_large_body_is_kept(ledger):
    """A megabyte of answer is stored and verified like any other."""
    a_run(ledger)
    done = a_call(ledger, {"q": "x" * 300_000}, Outcome(CallState.OK, ["ü" * 1_000_000]))
    assert ledger.lookup("run-1", done.key) == done
    assert ledger.verify() == []


def test_pages_of_calls_follow_each_other(ledger):
    """after_seq and limit walk over a run, other runs' calls in between."""
    a_run(ledger)
    a_run(ledger, "run-2")
    made = []
    for number in range(5):
        made.append(begin(ledger, {"n": number}).call)
        begin(ledger, {"n": number}, run_id="run-2")
    first = ledger.calls("run-1", limit=3)
    assert first == made[:3]
    assert ledger.calls("run-1", after_seq=first[-1].seq) == made[3:]


def test_traces_follow_parents_and_agents(ledger):
    """An agent starts a trace, what it calls is drawn there, loose calls share one."""
    a_run(ledger)
    agent = begin(ledger, kind=CallKind.AGENT, name="review").call
    child = begin(ledger, parent=agent.key).call
    grandchild = begin(ledger, kind=CallKind.AGENT, name="sub", parent=child.key).call
    loose = begin(ledger, {"other": 1}).call
    orphan = begin(ledger, parent="never-recorded").call
    assert agent.trace_key == f"{agent.key}:0"
    assert {child.trace_key, grandchild.trace_key} == {agent.trace_key}
    assert (loose.trace_key, orphan.trace_key) == ("loose:0", "loose:0")


def test_a_trace_holds_at_most_200_calls_and_loose_ones_100(ledger):
    """Shards of 100 loose calls; the 201st call of a trace begins a continuation."""
    a_run(ledger)

    def many(session):
        agent = session.begin(an_intent(kind=CallKind.AGENT, name="review"), ALLOW).call
        inside = [
            session.begin(an_intent({"i": n}, parent=agent.key), ALLOW).call.trace_key
            for n in range(401)
        ]
        loose = [session.begin(an_intent({"l": n}), ALLOW).call for n in range(101)]
        parent = loose[0].key
        under = [
            session.begin(an_intent({"u": n}, parent=parent), ALLOW).call.trace_key
            for n in range(101)
        ]
        return agent.trace_key, inside, [call.trace_key for call in loose], under

    [(trace, inside, loose, under)] = ledger.write_all([many])
    assert inside == [trace] * 199 + [f"{trace}#2"] * 200 + [f"{trace}#3"] * 2
    assert loose == ["loose:0"] * 100 + ["loose:1"]
    assert under == ["loose:0"] * 100 + ["loose:0#2"]


def test_a_new_generation_of_an_agent_has_its_own_trace(ledger):
    """In a session, children go to the trace of their parent's latest generation."""
    a_run(ledger, kind=RunKind.SESSION)
    first = begin(ledger, kind=CallKind.AGENT).call
    second = begin(ledger, kind=CallKind.AGENT).call
    child = begin(ledger, {"c": 1}, parent=first.key).call
    assert second.trace_key == f"{first.key}:1" == child.trace_key != first.trace_key


def test_only_finished_calls_wait_for_shipping_oldest_first(ledger):
    """An unfinished call is not shipped; marking takes calls off the list."""
    a_run(ledger)
    calls = [begin(ledger, {"n": n}).call for n in range(4)]
    assert (ledger.unshipped(), ledger.unshipped_count()) == ([], 0)
    done = [ledger.finish(call, OK) for call in reversed(calls[:3])]
    waiting = ledger.unshipped(limit=2)
    assert waiting == sorted(done, key=lambda call: call.seq)[:2]
    ledger.mark_shipped(waiting)
    ledger.mark_shipped([])
    assert ledger.unshipped_count() == 1
    assert ledger.unshipped_count(RunKind.RUN) == 1
    assert ledger.unshipped_count(RunKind.EVALUATION) == 0
    assert ledger.verify() == []


def test_a_call_that_changes_is_shipped_again(ledger):
    """Tagging brings a call back; one that changed after it was read is not marked."""
    a_run(ledger)
    done = a_call(ledger)
    ledger.mark_shipped([done])
    assert ledger.unshipped() == []
    tagged = ledger.tag(done, {"review": "good"})
    assert ledger.unshipped() == [tagged]
    ledger.mark_shipped([done])
    assert ledger.unshipped() == [tagged]
    ledger.mark_shipped([tagged])
    assert ledger.unshipped() == []
    assert ledger.verify() == []


def test_totals_add_up(ledger, clock):
    """Counts, tokens, money, unknown prices and percentiles of one run."""
    a_run(ledger)
    agent = begin(ledger, kind=CallKind.AGENT, name="review").call
    for seconds in range(1, 21):
        call = begin(ledger, {"n": seconds}, parent=agent.key).call
        clock.advance(seconds=seconds)
        ledger.finish(call, OK)
    ledger.finish(agent, Outcome(CallState.OK))
    a_call(ledger, outcome=Outcome(CallState.ERROR, error={"message": "timeout"}))
    begin(ledger, {"denied": 1}, decision=DENY)
    begin(ledger, {"open": 1})
    totals = ledger.totals("run-1")
    assert totals.calls == 24
    assert totals.by_kind == {"agent": 1, "model": 23}
    assert (totals.errors, totals.denied, totals.unfinished) == (1, 1, 1)
    assert (totals.input_tokens, totals.output_tokens) == (200, 100)
    assert (totals.cost, totals.unknown_cost_calls) == (Money(14_000), 1)
    assert (totals.latency_p50_s, totals.latency_p95_s) == (10.0, 20.0)
    assert totals.spent_seconds == 210.0
    assert ledger.totals("run-none").latency_p50_s is None


def test_results_are_the_last_published_values(ledger):
    """The last OK value of each name; a denied or unfinished result is none."""
    a_run(ledger, kind=RunKind.SESSION)
    for value in (1, 2.0):
        a_call(ledger, {"value": value}, Outcome(CallState.OK), kind=CallKind.RESULT, name="score")
    begin(ledger, {"value": 3}, decision=DENY, kind=CallKind.RESULT, name="score")
    begin(ledger, {"value": 4}, kind=CallKind.RESULT, name="other")
    assert ledger.results("run-1") == {"score": 2.0}


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=[]), max_size=8), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=_JSON, answer=_JSON)
def test_any_json_is_recorded_replayed_and_verified(ledger, arguments, answer):
    """What went in comes out equal, is found again by its key, and verifies."""
    a_run(ledger)
    begun = begin(ledger, arguments)
    done = ledger.finish(begun.call, Outcome(CallState.OK, answer)) if begun.fresh else begun.call
    again = begin(ledger, arguments)
    assert again.fresh is False
    assert again.call.outcome.answer == done.outcome.answer
    if begun.fresh:
        assert repr(done.outcome.answer) == repr(_joined(answer))
    assert ledger.verify("run-1") == []


def _joined(value):
    """Two halves of a surrogate pair side by side are one character for JSON."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [_joined(item) for item in value]
    if isinstance(value, dict):
        return {_joined(name): _joined(item) for name, item in value.items()}
    return value
