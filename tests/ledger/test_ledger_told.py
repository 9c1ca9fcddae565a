"""What a run's cells show, kept for other machines, on both databases."""

from __future__ import annotations

import pytest
from ledger_world import a_run

from toolkit.errors import NotFound, UsageError
from toolkit.ledger import MOST_TOLD, Ledger
from toolkit.values import Environment, RunKind, RunRecord, RunState

HERE = {"runner": "machine-a:7:123@0011223344556677.4026531836", "token_digest": "sha256:aa"}


@pytest.fixture
def ledger(url):
    with Ledger.open(url) as made:
        yield made


def cell(text: str) -> dict[str, object]:
    return {"label": "cell 1", "text": text, "seconds": None, "cut": 0}


def test_the_newest_look_replaces_the_one_before(ledger):
    """Whatever a cell prints comes back as it was; nothing enters the run's chain."""
    run = a_run(ledger, **HERE)
    assert ledger.told_cells("run-1") is None
    assert ledger.tell_cells(run, [cell("first")])
    odd = "second \0 \x1b[31m \ud800 \\u0000 …"
    assert ledger.tell_cells(run, [cell(odd), cell("")])
    assert ledger.told_cells("run-1").cells == [cell(odd), cell("")]
    assert ledger.head("run-1").n == 1, "the run's creation alone"
    assert ledger.verify() == []


def test_an_attempt_that_lost_the_run_tells_nothing(ledger):
    """The token tells attempts apart; a run that waits or has ended has nobody else's."""
    run = a_run(ledger, state=RunState.RUNNING, **HERE)
    ledger.tell_cells(run, [cell("mine")])
    ledger.take(run, runner="machine-b:1:2", token_digest="sha256:bb")
    assert not ledger.tell_cells(run, [cell("late")])
    assert ledger.told_cells("run-1").cells == [cell("mine")]
    ended = ledger.update_run("run-1", state=RunState.SUCCEEDED)
    assert ledger.tell_cells(ended, [cell("its last look")])
    assert ledger.told_cells("run-1").cells == [cell("its last look")]


def test_what_is_too_long_or_of_nobody_is_refused(ledger):
    """The caller shortens it; a run that nobody recorded has no cells."""
    run = a_run(ledger, **HERE)
    with pytest.raises(UsageError, match="characters"):
        ledger.tell_cells(run, [cell("x" * MOST_TOLD)])
    unknown = RunRecord("run-2", RunKind.RUN, Environment.PRODUCTION, "ana", **HERE)
    with pytest.raises(NotFound):
        ledger.tell_cells(unknown, [])
    assert ledger.told_cells("run-2") is None
