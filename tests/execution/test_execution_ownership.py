"""The heartbeat of a run: renewed while the run is its runner's, lost when it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.execution.ownership import Heartbeat
from toolkit.ledger import Ledger
from toolkit.values import Cause, Environment, RunKind, RunRecord, RunState

LENGTH_S = 0.3
Wait = Callable[[Callable[[], bool], str], None]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as made:
        yield made


@pytest.fixture
def run(ledger: Ledger) -> RunRecord:
    record = RunRecord(
        "run-1", RunKind.RUN, Environment.SANDBOX, "ana", RunState.RUNNING, runner="a:1:2"
    )
    return ledger.create_run(record, lease_s=LENGTH_S)


def until_of(ledger: Ledger) -> int:
    lease = ledger.lease("run-1")
    assert lease is not None
    return lease.until_us


def test_a_lease_is_renewed_as_long_as_the_context_lasts(
    ledger: Ledger, run: RunRecord, wait_for: Wait
) -> None:
    """And not after it."""
    first = until_of(ledger)
    with Heartbeat(ledger, LENGTH_S) as heart:
        heart.begin(run)
        wait_for(lambda: until_of(ledger) > first, "a renewal")
        assert heart.lost is None
    wait_for(lambda: not ledger.lives(run), "the end of the lease")


def test_who_lost_a_run_is_told_and_may_take_it_again(
    ledger: Ledger, run: RunRecord, wait_for: Wait
) -> None:
    """Whoever listens first, or later; a new attempt begins a new lease."""
    said: list[str] = []
    with Heartbeat(ledger, LENGTH_S) as heart:
        heart.begin(run)
        heart.tell(said.append)
        ended = ledger.update_run("run-1", state=RunState.LOST, cause=Cause.RUNNER_DIED)
        wait_for(lambda: bool(said), "the news")
        late: list[str] = []
        heart.tell(late.append)
        assert late == said == [heart.lost]
        again = ledger.take(
            ended, lease_s=LENGTH_S, state=RunState.RUNNING, cause=None, ended_us=None,
            runner="a:1:2",
        )  # fmt: skip
        first = until_of(ledger)
        heart.tell(None)
        heart.begin(again)
        wait_for(lambda: until_of(ledger) > first, "a renewal")
        assert heart.lost is None


def test_a_ledger_that_is_away_for_a_whole_lease_ends_the_run(
    tmp_path: Path, run: RunRecord, wait_for: Wait
) -> None:
    """Whoever cannot say that it lives has to assume that others go on."""
    (tmp_path / "other").mkdir()
    away = Ledger.open(f"sqlite:///{tmp_path}/other/ledger.db", busy_timeout_s=0.05)
    away.create_run(run, lease_s=LENGTH_S)
    import sqlite3

    with Heartbeat(away, LENGTH_S) as heart:
        heart.begin(run)
        block = sqlite3.connect(tmp_path / "other" / "ledger.db", isolation_level=None)
        block.execute("BEGIN EXCLUSIVE")
        wait_for(lambda: heart.lost is not None, "the loss")
        assert "could not be renewed" in (heart.lost or "")
        block.close()
    away.close()
