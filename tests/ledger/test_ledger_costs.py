"""Costs by group, over both stores."""

from __future__ import annotations

import pytest
from ledger_world import a_call, a_run

from toolkit.ledger import COST_GROUPS
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    Usage,
    Verdict,
)


@pytest.fixture
def spent(ledger):
    """Two users' calls: one of known, one of unknown price, and a tool call that costs nothing."""
    for user, cost, model in (("ana", Money(500), "m1"), ("bo", None, "m2")):
        run_id = f"run-{user}"
        ledger.create_run(
            RunRecord(run_id, RunKind.RUN, Environment.PRODUCTION, user, job="review", team="t")
        )
        for kind in (CallKind.MODEL, CallKind.TOOL):
            agent = "review" if user == "ana" else None
            intent = Intent(
                run_id, kind, "default", {"x": 1}, request_id=f"{user}-{kind}", agent=agent
            )
            call = ledger.begin(intent, Decision(Verdict.ALLOW)).call
            outcome = Outcome(CallState.OK, answer=1)
            if kind is CallKind.MODEL:
                outcome = Outcome(
                    CallState.OK, answer=1, usage=Usage(7, 3), cost=cost, provider="p", model=model
                )
            ledger.finish(call, outcome)
    return ledger


@pytest.mark.parametrize(
    ("by", "groups"),
    [("user", ["ana", "bo"]), ("model", ["p/m1", "p/m2"]), ("job", ["review"]), ("team", ["t"]),
     ("route", ["default"]), ("agent", ["review", "-"])],
)  # fmt: skip
def test_costs_are_summed_by_group_and_unknown_prices_are_counted(spent, by, groups):
    """Tool calls are not model calls; an unknown price is not zero but a number of calls."""
    rows = spent.costs(by)
    assert [row.group for row in rows] == groups
    assert sum(row.cost.nanos for row in rows) == 500
    assert sum(row.unknown_cost_calls for row in rows) == 1
    assert sum(row.calls for row in rows) == 2
    assert sum(row.input_tokens for row in rows) == 14


def test_a_day_is_a_utc_date(spent):
    """Days are told as dates."""
    (row,) = spent.costs("day")
    assert len(row.group.split("-")) == 3
    assert "day" in COST_GROUPS


def test_only_what_began_since_then_is_counted(ledger, clock):
    """At that very moment counts, a microsecond earlier does not."""
    a_run(ledger)
    a_call(ledger, {"n": 1})
    clock.advance(seconds=10)
    a_call(ledger, {"n": 2})
    assert [row.calls for row in ledger.costs("user")] == [2]
    assert [row.calls for row in ledger.costs("user", since_us=clock.us)] == [1]
    assert ledger.costs("user", since_us=clock.us + 1) == []
