"""`costs` and `ledger` over a ledger that is written directly: agents, days, calls in doubt."""

from __future__ import annotations

import csv
import io
import shutil
import sqlite3
from contextlib import closing

import pytest
from cli_world import toolkit

from toolkit.app.workbench import open_workbench
from toolkit.ledger import Ledger
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    ManualClock,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    SystemClock,
    Verdict,
)

DAY_S = 86_400


@pytest.fixture(scope="module")
def spent(shared_workspace):
    """An agent's call ten days ago, one by nobody today, and a run that died in a call."""
    clock = ManualClock(SystemClock().now_us() - 10 * DAY_S * 1_000_000)
    with Ledger.open(shared_workspace.database_url, clock=clock) as ledger:
        ledger.create_run(RunRecord("trial-costs", RunKind.TRIAL, Environment.SANDBOX, "ana"))
        for number, agent in enumerate(("review", None)):
            _call(ledger, number, agent, Money(1_500_000_000))
            clock.advance(seconds=10 * DAY_S - 60)
        _call(ledger, 2, "review", None)
        ledger.stop("team:legal", "bo", "x")
        ledger.update_run("trial-costs", state=RunState.LOST)
    return shared_workspace


def _call(ledger: Ledger, number: int, agent: str | None, cost: Money | None) -> None:
    intent = Intent(
        "trial-costs",
        CallKind.MODEL,
        "default",
        {"n": number},
        request_id=f"r{number}",
        agent=agent,
    )
    call = ledger.begin(intent, Decision(Verdict.ALLOW)).call
    if cost is not None:
        ledger.finish(call, Outcome(CallState.OK, 1, cost=cost, provider="p", model="m"))


def _groups(*arguments: str) -> dict[str, str]:
    rows = toolkit("costs", *arguments, "--json").json
    return {row[arguments[1]]: row["cost_usd"] for row in rows}


def test_costs_are_told_by_agent(workspace, spent) -> None:
    """The innermost one; calls outside of agents are a group of their own."""
    assert _groups("--by", "agent") == {"review": "1.5", "-": "1.5"}


@pytest.mark.parametrize(
    ("since", "groups"),
    [("7d", {"-"}), ("2w", {"-", "review"}), ("12h", {"-"}), ("30m", {"-"}), ("0m", set()),
     ("2020-02-29", {"-", "review"}), ("2200-01-01", set())],
)  # fmt: skip
def test_costs_since_then(workspace, spent, since, groups) -> None:
    """A span before now, or a day."""
    assert set(_groups("--by", "agent", "--since", since)) == groups


@pytest.mark.parametrize(
    "since", ["", "7", "d", "-7d", "7 days", "2026-13-01", "1" * 9 + "d", "٧d"]
)
def test_a_since_that_is_no_time_is_a_usage_error(workspace, since) -> None:
    """Told what to write."""
    done = toolkit("costs", f"--since={since}", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "usage")
    assert "7d" in done.json["error"]["next_step"]


def test_a_call_that_nobody_saw_end_is_in_doubt(workspace, spent) -> None:
    """In the run's page, in JSON, and in what auditors get."""
    shown = toolkit("show", "trial-costs")
    assert shown.code == 0
    assert "1 in doubt)" in shown.out
    states = [call["state"] for call in toolkit("show", "trial-costs", "--json").json["calls"]]
    assert states == ["ok", "ok", "in doubt"]
    exported = csv.DictReader(io.StringIO(toolkit("ledger", "export", "trial-costs").out))
    assert [row["state"] for row in exported] == states


def test_a_lifted_stop_is_a_fault_that_is_told(workspace, spent) -> None:
    """Sentences for people, facts for programs, exit code 78."""
    assert toolkit("ledger", "verify", "switches").code == 0
    path = spent.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        [row] = connection.execute("SELECT * FROM stops").fetchall()
        connection.execute("DELETE FROM stops")
        connection.commit()
        try:
            done = toolkit("ledger", "verify")
            told = toolkit("ledger", "verify", "--json").json
        finally:
            connection.execute("INSERT INTO stops VALUES (?, ?, ?, ?, ?)", row)
            connection.commit()
    assert done.code == 78
    assert "switches: the row of the stop of team:legal is missing" in done.out
    [fault] = told["faults"]
    assert (told["ok"], fault["run_id"], fault["kind"]) == (False, "switches", "missing_row")
    assert toolkit("ledger", "verify").code == 0


def test_a_run_that_is_gone_is_told_by_its_anchor_and_one_without_is_named(workspace) -> None:
    """By the workspace's own file of heads, and by a copy that was kept elsewhere."""
    with open_workbench(workspace.root) as bench:
        run = RunRecord("run-anchored", RunKind.RUN, Environment.SANDBOX, "ana")
        bench.ledger.create_run(run)
        bench.ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
    kept = workspace.ledger_heads
    copy = kept.with_name("copy.jsonl")
    shutil.copy(kept, copy)
    assert toolkit("ledger", "verify", run.run_id, "--json").json["anchors"] == {
        "runs": 1,
        "not_anchored": [],
    }
    lines = kept.read_text()
    kept.write_text("")
    bare = toolkit("ledger", "verify", run.run_id)
    assert (bare.code, "1 run has ended without an anchor" in bare.out) == (0, True)
    path = workspace.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        for table in ("entries", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_id = 'run-anchored'")  # noqa: S608
        connection.commit()
    gone = "the run is missing: its entry 2 was anchored"
    done = toolkit("ledger", "verify", f"--heads={copy}")
    assert (done.code, gone in done.out) == (78, True)
    kept.write_text(lines)
    assert gone in toolkit("ledger", "verify", run.run_id).out
    assert toolkit("ledger", "verify", "--heads=nowhere").code == 2
    kept.unlink()
