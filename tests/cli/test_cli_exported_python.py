"""Dagster's and Prefect's exported files at work, with doubles of the few names that they use."""

from __future__ import annotations

import json

import pytest
from exported_world import FAILS, HANGS, check_cancelled, executed, prepare, task

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _tiny(workspace) -> None:
    prepare(workspace)


@pytest.mark.parametrize(("target", "raised"), [("dagster", "Failure"), ("prefect", "Ended")])
def test_a_failed_run_fails_its_task_for_good(workspace, target, raised) -> None:
    """Trying again would change nothing; the task has the run's one line of JSON."""
    with task(workspace, target, FAILS, "b") as one:
        ended = one.wait().ended
    line = json.loads(ended["line"])
    assert (line["state"], line["cause"], line["exit_code"]) == ("failed", "cell_error", 1)
    assert (ended["raised"], ended["again"]) == (raised, False)
    assert executed(workspace) == ["1"]


def test_a_flow_that_prefect_ends_takes_its_run_with_it(workspace) -> None:
    """Prefect raises in the middle of the wait: the run is ended first."""
    with task(workspace, "prefect", HANGS, "c") as one:
        ended, _ = check_cancelled(workspace, one)
    assert ended["raised"] == "terminated"
