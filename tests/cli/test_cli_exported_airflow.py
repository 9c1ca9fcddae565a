"""Airflow's exported file at work: its task is run here, with a double of the few names that it uses.

What Airflow itself makes of the file is in `tests/scale/test_scale_airflow.py`.
"""

from __future__ import annotations

import json

import pytest
from exported_world import FAILS, HANGS, OK, check_cancelled, executed, prepare, task

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _tiny(workspace) -> None:
    prepare(workspace)


def test_a_task_that_is_tried_again_executes_nothing_again(workspace) -> None:
    """The same run of the DAG, however often: one execution, one run, the same answer."""
    told = []
    for _ in range(2):
        with task(workspace, "airflow", OK, "twice") as one:
            told.append(one.wait().ended["returned"])
    assert executed(workspace) == ["0"]
    assert [(each["state"], each["repeated"]) for each in told] == [
        ("succeeded", False),
        ("succeeded", True),
    ]
    assert told[0]["run_id"] == told[1]["run_id"]
    assert told[0]["results"] == told[1]["results"] == {"done": 0}


def test_a_failed_run_fails_its_task_for_good(workspace) -> None:
    """Trying again would change nothing; Airflow's log has the run's one line of JSON."""
    with task(workspace, "airflow", FAILS, "b") as one:
        ended = one.wait().ended
    line = json.loads(ended["line"])
    assert (line["state"], line["cause"], line["exit_code"]) == ("failed", "cell_error", 1)
    assert ended["raised"] == "AirflowFailException"
    assert executed(workspace) == ["1"]


def test_sigterm_ends_a_task_of_airflow(workspace) -> None:
    """The task tells Airflow how the run ended; another try would go on with it."""
    with task(workspace, "airflow", HANGS, "c") as one:
        ended, run_id = check_cancelled(workspace, one)
    line = json.loads(ended["line"])
    assert ended["raised"] == "AirflowException"
    assert (line["run_id"], line["state"], line["exit_code"]) == (run_id, "cancelled", 143)
