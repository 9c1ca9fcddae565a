"""Kubernetes' exported file at work: the pod's own command, against a real workspace."""

from __future__ import annotations

import pytest
from exported_world import FAILS, HANGS, OK, check_cancelled, executed, pod, prepare

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _tiny(workspace) -> None:
    prepare(workspace)


def test_all_pods_of_a_job_are_one_run(workspace) -> None:
    """Exit codes are the pod's; a second pod of the same Job tells the first one's end."""
    seen = []
    for how, uid in [(OK, "u1"), (OK, "u1"), (FAILS, "u2")]:
        with pod(workspace, how, uid) as one:
            ended = one.wait().ended
            assert one.process.returncode == ended["exit_code"]
        seen.append((ended["state"], ended["exit_code"], ended["repeated"]))
    assert seen == [("succeeded", 0, False), ("succeeded", 0, True), ("failed", 1, False)]
    assert executed(workspace) == ["0", "1"]


def test_sigterm_ends_a_pod(workspace) -> None:
    """143 and one line of JSON; nothing of the run is left."""
    with pod(workspace, HANGS, "u3") as one:
        ended, run_id = check_cancelled(workspace, one)
        assert one.process.returncode == ended["exit_code"] == 143
    assert (ended["run_id"], ended["state"]) == (run_id, "cancelled")
