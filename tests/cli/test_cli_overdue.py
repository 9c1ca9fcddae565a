"""Runs that nobody takes: the list says so."""

from __future__ import annotations

from cli_world import seal, toolkit


def test_runs_that_were_queued_for_too_long_are_listed(workspace, wait_for) -> None:
    """By the limit of `jobs.yaml`, for one job or for all; what is in time is not there."""
    seal(workspace, "idle", "toolkit.result(done=limit)")
    assert toolkit("run", "idle", "--no-wait", "--run-id", "run-left").code == 0
    assert toolkit("runs", "--overdue", "--json").json == []
    assert "nothing is overdue" in toolkit("runs", "--overdue").out
    path = workspace.registry / "jobs.yaml"
    before = path.read_text() if path.exists() else None
    path.write_text("alerts: {queued: 1s, running: 1d}\n")
    try:
        wait_for(lambda: toolkit("runs", "--overdue", "--json").json != [], "the time limit")
        (late,) = toolkit("runs", "idle", "--overdue", "--json").json
        assert (late["run_id"], late["job"], late["state"]) == ("run-left", "idle", "queued")
        assert late["for_s"] >= 1
        assert toolkit("runs", "other", "--overdue", "--json").json == []
        assert "run-left" in toolkit("runs", "--overdue").out
    finally:
        path.unlink() if before is None else path.write_text(before)
        toolkit("cancel", "run-left")
