"""Runs: created once, ended once."""

from __future__ import annotations

import dataclasses

import pytest
from ledger_world import a_run

from toolkit.errors import Conflict, NotFound, UsageError
from toolkit.ledger import Ledger
from toolkit.values import Cause, Environment, RunKind, RunRecord, RunState

FULL = RunRecord(
    run_id="run-full",
    kind=RunKind.RUN,
    environment=Environment.PRODUCTION,
    user="ana",
    team="legal",
    job="licence-review",
    version=3,
    notebook="notebooks/a.ipynb",
    parameters={"z": 1.0, "a": [1, "ü", None]},
    results_expected=("score", "table"),
    source_run_id="run-0",
    parent_run_id="run-p",
    policy_digest="sha256:aa",
    token_digest="sha256:bb",
    tags={"commit": "abc"},
    runner="host:1:2",
)


def test_a_run_comes_back_as_it_was_given_with_its_creation_time(ledger, clock):
    """Every field survives; created_us is the ledger's."""
    created = ledger.create_run(FULL)
    assert created == dataclasses.replace(FULL, created_us=clock.us)
    assert ledger.get_run("run-full") == created
    assert list(ledger.get_run("run-full").parameters) == ["z", "a"]
    assert isinstance(created.parameters["z"], float)


def test_creating_a_known_run_returns_it_unchanged(ledger, clock):
    """run_id is an idempotency key."""
    first = a_run(ledger, job="one")
    clock.advance(seconds=5)
    assert a_run(ledger, job="two") == first
    assert ledger.head("run-1").n == 1


def test_states_set_the_times(ledger, clock):
    """RUNNING sets started_us once, a terminal state sets ended_us."""
    a_run(ledger)
    clock.advance(seconds=1)
    started = ledger.update_run("run-1", state=RunState.RUNNING).started_us
    clock.advance(seconds=1)
    ledger.update_run("run-1", state=RunState.WAITING)
    run = ledger.update_run("run-1", state=RunState.RUNNING)
    assert run.started_us == started
    clock.advance(seconds=3)
    run = ledger.update_run(
        "run-1", state=RunState.FAILED, cause=Cause.CELL_ERROR, message="cell 3 raised"
    )
    assert (run.state, run.cause, run.message) == ("failed", "cell_error", "cell 3 raised")
    assert run.ended_us - run.started_us == 4_000_000
    assert ledger.verify() == []


def test_a_run_never_ends_before_it_started_even_if_the_clock_jumps_back(ledger, clock):
    """A clock jump does not make a negative duration."""
    a_run(ledger)
    ledger.update_run("run-1", state=RunState.RUNNING)
    clock.advance(seconds=-3600)
    run = ledger.update_run("run-1", state=RunState.SUCCEEDED)
    assert run.ended_us == run.started_us


@pytest.mark.parametrize(
    "change",
    [
        {"state": RunState.FAILED},
        {"state": RunState.RUNNING},
        {"cause": Cause.SIGNAL},
        {"message": "x"},
    ],
)
def test_a_terminal_state_never_changes(ledger, change):
    """The second ending loses, and leaves no trace."""
    a_run(ledger)
    ledger.update_run("run-1", state=RunState.SUCCEEDED)
    before = ledger.get_run("run-1"), ledger.head("run-1")
    with pytest.raises(Conflict, match="already ended as succeeded"):
        ledger.update_run("run-1", **change)
    assert (ledger.get_run("run-1"), ledger.head("run-1")) == before


def test_a_terminal_run_may_be_mirrored_and_ended_again_the_same_way(ledger):
    """Facts beside the state may still arrive; repeating the ending is harmless."""
    a_run(ledger)
    ended = ledger.update_run("run-1", state=RunState.SUCCEEDED)
    assert ledger.update_run("run-1", state=RunState.SUCCEEDED) == ended
    assert ledger.head("run-1").n == 2
    assert ledger.update_run("run-1", mlflow_run_id="m1").mlflow_run_id == "m1"
    assert ledger.verify() == []


def test_who_and_why_cannot_be_rewritten(ledger):
    """Unknown and fixed fields are refused by name."""
    a_run(ledger)
    with pytest.raises(UsageError, match="no field colour, user that may change"):
        ledger.update_run("run-1", user="eve", colour="red")


def test_an_unknown_run_is_not_found_with_a_next_step(ledger):
    """NotFound names the command that lists runs."""
    for ask in (
        ledger.get_run,
        ledger.head,
        ledger.verify,
        lambda r: ledger.update_run(r, message="x"),
    ):
        with pytest.raises(NotFound) as caught:
            ask("run-nowhere")
        assert "toolkit runs" in caught.value.next_step


def test_runs_are_listed_newest_first_and_filtered(ledger):
    """job, kind and state filter; limit cuts."""
    for number in range(4):
        a_run(ledger, f"run-{number}", job="a" if number % 2 else "b")
    a_run(ledger, "session-1", RunKind.SESSION)
    ledger.update_run("run-3", state=RunState.RUNNING)
    assert [r.run_id for r in ledger.runs(job="a")] == ["run-3", "run-1"]
    assert [r.run_id for r in ledger.runs(limit=2)] == ["session-1", "run-3"]
    assert [r.run_id for r in ledger.runs(kind=RunKind.SESSION)] == ["session-1"]
    assert [r.run_id for r in ledger.runs(state=RunState.RUNNING)] == ["run-3"]


def test_a_run_is_found_by_its_token(ledger):
    """The digest of a bearer token leads to its newest run."""
    a_run(ledger, token_digest="sha256:t")
    a_run(ledger, "run-2", token_digest="sha256:u")
    assert ledger.find_run("sha256:t").run_id == "run-1"
    assert ledger.find_run("sha256:none") is None


def test_a_second_process_sees_the_same_runs(url, ledger):
    """Two ledgers on one database agree."""
    a_run(ledger)
    with Ledger.open(url) as other:
        other.update_run("run-1", state=RunState.RUNNING)
    assert ledger.get_run("run-1").state is RunState.RUNNING
    assert ledger.verify() == []
