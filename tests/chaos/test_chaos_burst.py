"""Processes die in the middle of a burst; nothing that was answered is lost, nothing is doubled."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest
from chaos_world import (
    THREADS,
    JupyterKernel,
    Storm,
    counts,
    every_call,
    keeping_a_gateway,
    lift_limits,
    rows_in_mlflow,
    seed,
    ship_everything_again,
    wait_for_shipper,
)
from workspace_world import end_gateway

from toolkit.client import ensure_gateway, wire
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallState, Environment, RunKind, RunRecord, RunState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


@pytest.fixture
def storm_of(workspace: Workspace, capsys: pytest.CaptureFixture):
    """Return a function that makes a storm and tells its seed."""
    lift_limits(workspace)

    def make(calls: int, **facts) -> Storm:
        number = seed()
        with capsys.disabled():
            print(f"\nCHAOS_SEED={number}", flush=True)
        return Storm(workspace, calls, random.Random(number), **facts)

    return make


def open_run(workspace: Workspace) -> dict[str, str]:
    """Record a production run; return the environment of its kernels."""
    token = new_token()
    with Ledger.open(workspace.database_url) as ledger:
        ledger.create_run(
            RunRecord(
                run_id="run-chaos",
                kind=RunKind.RUN,
                environment=Environment.PRODUCTION,
                user="ana",
                state=RunState.RUNNING,
                token_digest=token_digest(token),
            )
        )
    return {wire.ENV_SOCKET: str(workspace.socket), wire.ENV_TOKEN: token}


def reckon(storm: Storm) -> dict[str, object]:
    """Check what holds after every storm, and return the numbers."""
    workspace = storm.workspace
    answers = storm.facts("answered")
    calls = {(c.intent.run_id, c.key, c.generation): c for c in every_call(workspace)}
    finished = {key for key, call in calls.items() if call.outcome is not None}
    for fact in answers:
        call = calls[tuple(fact["call"])]
        assert call.outcome is not None, f"{call.call_id} was answered and is not recorded"
        assert call.outcome.answer == fact["answer"]
        assert call.outcome.state == fact["state"] == CallState.OK
    seconds = wait_for_shipper(workspace)
    end_gateway(workspace)
    before = counts(workspace)
    assert all(before), [count for count in before if not count]
    assert sum(count.calls for count in before) == len(finished)
    rows = rows_in_mlflow(workspace)
    shipped_again = ship_everything_again(workspace)
    assert shipped_again == len(finished)
    assert counts(workspace) == before
    assert rows_in_mlflow(workspace) == rows
    verified = subprocess.run(
        [sys.executable, "-m", "toolkit", "ledger", "verify"],
        cwd=workspace.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout
    return {
        "calls asked for": storm.calls,
        "answers in the kernels' journals": len(answers),
        "calls in the ledger, finished": len(finished),
        "calls in the ledger, in doubt": len(calls) - len(finished),
        "spans in MLflow": sum(count.spans for count in before),
        "calls shipped again": shipped_again,
        "spans in MLflow after that": sum(count.spans for count in counts(workspace)),
        "rows of MLflow (spans, traces)": rows,
        "runs with different counts": sum(not count for count in before),
        "seconds until the shipper caught up": round(seconds, 1),
        "deaths (who, answers so far, pid)": "; ".join(
            f"{who} {at} {pid}" for who, at, pid in storm.deaths
        ),
    }


def tell(capsys: pytest.CaptureFixture, numbers: dict[str, object]) -> None:
    """Print the table past pytest's capture: `make chaos` is read by people."""
    with capsys.disabled():
        for name, value in numbers.items():
            print(f"  {name:<38}{value}")


def test_a_burst_of_2000_calls_survives_the_deaths_of_kernel_gateway_and_shipper(
    storm_of, capsys: pytest.CaptureFixture
) -> None:
    """Calls answered are in the ledger with their answers; calls in the ledger are in MLflow."""
    storm = storm_of(2000)
    storm.rage()
    tell(capsys, reckon(storm))
    assert storm.answered() == set(range(2000))
    assert Counter(who for who, _, _ in storm.deaths) == {"gateway": 2, "kernel": 1, "shipper": 1}
    calls = every_call(storm.workspace)
    assert {call.generation for call in calls} == {0}, "a resent request became a second call"
    doubtful = [call for call in calls if call.outcome is None]
    first = min(calls, key=lambda call: call.started_us).intent.run_id
    assert {call.intent.run_id for call in doubtful} <= {first}, "only a dead kernel leaves doubt"
    assert len(doubtful) <= THREADS


def test_a_run_that_starts_again_from_the_top_writes_nothing_twice(
    storm_of, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    """The second kernel of a run is answered from the journal; an interrupted write is left alone."""
    environ = open_run(workspace)
    ensure_gateway(workspace.root)
    with keeping_a_gateway(workspace):
        storm = storm_of(600, environ=environ, again=True)
        storm.rage()
    numbers = reckon(storm)
    doubts = {fact["doubt"] for fact in storm.facts("doubt")}
    did = Counter(fact["did"] for fact in storm.facts("did") if fact["effect"] == "write")
    tell(capsys, {**numbers, "writes done": len(did), "writes in doubt": len(doubts)})
    assert set(did.values()) == {1}, "a write was done twice"
    assert storm.answered() | doubts == set(range(600))
    assert len(doubts) <= THREADS
    calls = every_call(workspace)
    assert len(calls) == 600, "600 different calls, however often they were asked for"


def test_a_real_jupyter_kernel_and_its_gateway_die_and_nothing_is_lost(
    storm_of, capsys: pytest.CaptureFixture
) -> None:
    """The same through ipykernel and `%load_ext toolkit`."""
    storm = storm_of(300, make=JupyterKernel)
    storm.rage()
    tell(capsys, reckon(storm))
    assert storm.answered() == set(range(300))
