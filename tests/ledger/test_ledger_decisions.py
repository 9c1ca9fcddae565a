"""Recorded decisions are read back one by one, as they were made."""

from __future__ import annotations

import pytest

from toolkit.ledger import Ledger
from toolkit.ledger import decisions as module
from toolkit.values import (
    CallKind,
    CallState,
    DataClass,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    ManualClock,
    Outcome,
    RunKind,
    RunRecord,
    Source,
    Verdict,
)

MAIL = Labels(frozenset({Source.UNTRUSTED}), frozenset({DataClass.PII}))
ALLOW = Decision(Verdict.ALLOW, ("all",), production_verdict=Verdict.DENY)


def run(ledger: Ledger, name: str, **more) -> None:
    ledger.create_run(
        RunRecord(name, RunKind.SESSION, Environment.SANDBOX, "ana", team="legal", **more)
    )


def call(ledger: Ledger, run_id: str, name: str, decision=ALLOW, answer=None, **more) -> None:
    intent = Intent(
        run_id, CallKind.TOOL, name, {"to": "half \ud83d"}, request_id=f"{run_id}-{name}", **more
    )
    begun = ledger.begin(intent, decision).call
    if decision:
        ledger.finish(begun, Outcome(CallState.OK, answer="said \ud83d", labels=answer))


def test_a_decision_comes_with_all_that_policy_was_asked(ledger: Ledger, clock: ManualClock):
    """Who, what, with which labels, in which agent, and what was said."""
    run(ledger, "s-1", notebook="notebooks/a.ipynb", job="triage", version=3)
    more = {"agent": "clerk", "purpose": "tidy", "labels": {"to": MAIL}, "effect": Effect.WRITE}
    call(ledger, "s-1", "send", **more)
    (found,) = ledger.decisions()
    assert (found.user, found.team, found.job, found.version) == ("ana", "legal", "triage", 3)
    assert (found.kind, found.name, found.effect) == (CallKind.TOOL, "send", Effect.WRITE)
    assert found.arguments == {"to": "half \ud83d"}
    assert (found.agent, found.purpose, found.labels) == ("clerk", "tidy", {"to": MAIL})
    assert found.decision == ALLOW
    assert found.answer_labels is None


def test_labels_of_answers_are_read_where_they_are_wanted(ledger: Ledger):
    """Also beside an answer that a JSON function of a database would refuse."""
    run(ledger, "s-1")
    call(ledger, "s-1", "inbox", answer=MAIL)
    call(ledger, "s-1", "send")
    call(ledger, "s-1", "refused", decision=Decision(Verdict.DENY, ("no",)))
    found = {each.name: each.answer_labels for each in ledger.decisions(answers=True)}
    assert found == {"inbox": MAIL, "send": None, "refused": None}


def test_only_the_wanted_calls_come(ledger: Ledger, clock: ManualClock):
    """By time, run or notebook; with answers also what the same runs did before."""
    run(ledger, "s-1", notebook="a.ipynb")
    run(ledger, "s-2", notebook="b.ipynb")
    call(ledger, "s-1", "early")
    call(ledger, "s-2", "other")
    clock.advance(seconds=3600)
    since = clock.now_us()
    call(ledger, "s-1", "late")
    names = lambda **wanted: [each.name for each in ledger.decisions(**wanted)]  # noqa: E731
    assert names() == ["early", "other", "late"]
    assert names(since_us=since) == ["late"]
    assert names(since_us=since, answers=True)[0] == "early"
    assert names(run_id="s-2") == ["other"]
    assert names(notebook="a.ipynb") == ["early", "late"]
    assert names(since_us=since + 1) == []


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4, 5])
def test_pages_join_without_gap_or_repetition(ledger: Ledger, calls: int):
    """Whatever the number of calls is to the size of a page."""
    run(ledger, "s-1")
    for number in range(calls):
        call(ledger, "s-1", f"n{number}")
    found = list(module.decision_pages(ledger._store.read, page=2))
    assert [each.name for each in found] == [f"n{number}" for number in range(calls)]


def test_shares_take_every_run_once(ledger: Ledger):
    """Processes that share the work see each call exactly once, and whole runs."""
    for n in range(5):
        run(ledger, f"s-{n}")
        for name in ("a", "b"):
            call(ledger, f"s-{n}", name)
    shares = [list(ledger.decisions(share=(which, 3))) for which in range(3)]
    assert sorted(d.seq for share in shares for d in share) == [d.seq for d in ledger.decisions()]
    places = [{d.run_id for d in share} for share in shares]
    assert sum(map(len, places)) == len(set().union(*places)) == 5
    assert ledger.count_decisions() == 10
