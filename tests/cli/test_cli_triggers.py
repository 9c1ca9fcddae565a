"""`trigger`, `schedule ticks` and `prune`, through the real command line."""

from __future__ import annotations

import os
import time

import pytest
from cli_world import GOOD, seal, toolkit


@pytest.fixture(scope="module")
def versions(shared_workspace) -> None:
    """One version of one job."""
    seal(shared_workspace, "review", *GOOD)


def test_the_life_of_a_trigger(workspace, versions) -> None:
    """Added, listed, paused, resumed, removed, each in the audit log."""
    made = toolkit(
        "trigger", "add", "review@1", "--name", "inbox", "--watch", "in/*.csv", "-p", "limit=4", "--json",
    )  # fmt: skip
    assert made.code == 0
    assert made.json["watch"] == str(workspace.root / "in/*.csv")
    assert made.json["parameters"] == {"limit": 4}
    (listed,) = toolkit("trigger", "list", "--json").json
    assert (listed["name"], listed["kind"], listed["paused"]) == ("inbox", "file", False)
    assert "inbox" in toolkit("trigger", "list").out
    for verb in ("pause", "resume", "remove"):
        assert toolkit("trigger", verb, "inbox").code == 0
    assert toolkit("trigger", "list", "--json").json == []
    events = [record["event"] for record in toolkit("registry", "log", "--json").json]
    assert events[-4:] == ["trigger.added", "trigger.paused", "trigger.resumed", "trigger.removed"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("review",), 2),
        (("review", "--watch", "*", "--after", "other"), 2),
        (("review", "--after", "review"), 2),
        (("review", "--secret-env", "lower case"), 2),
        (("review", "--watch", "*", "--map", "nosuch=path"), 2),
        (("no-such-job", "--watch", "*"), 78),
    ],
)
def test_what_could_never_run_is_refused(workspace, versions, arguments, code) -> None:
    """When it is added, and nothing is left behind."""
    done = toolkit("trigger", "add", *arguments, "--json")
    assert done.code == done.json["exit_code"] == code
    assert toolkit("trigger", "list", "--json").json == []


def test_waiting_for_a_job_that_is_not_known_is_said(workspace, versions) -> None:
    """It may come later; the name may also be misspelt."""
    done = toolkit("trigger", "add", "review@1", "--after", "reviw", "--name", "later")
    assert done.code == 0
    assert "no job 'reviw' was ever heard of here; did you mean review?" in done.err
    assert toolkit("trigger", "remove", "later").code == 0


def test_prune_takes_folders_and_leaves_the_ledger(workspace) -> None:
    """A dry run takes nothing; a folder without a record goes by its age."""
    folder = workspace.runs / "run-forgotten"
    folder.mkdir(parents=True)
    os.utime(folder, (time.time() - 90_000,) * 2)
    assert len(toolkit("prune", "--older-than", "1d", "--dry-run", "--json").json["paths"]) == 1
    assert folder.exists()
    assert toolkit("prune", "--older-than", "1d").code == 0
    assert not folder.exists()
    assert toolkit("prune", "--older-than", "soon").code == 2
    assert toolkit("schedule", "ticks", "--json").json == []
    assert toolkit("ledger", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runs", "nosuchjob"), "no job 'nosuchjob' was ever heard of here"),
        (("runs", "reviw"), "did you mean review?"),
        (("schedule", "ticks", "nope"), "there is no schedule 'nope'"),
    ],
)
def test_a_name_that_is_none_does_not_look_empty(workspace, versions, words, told) -> None:
    """A misspelt name is told, and one of which nothing came yet is an empty list."""
    done = toolkit(*words, "--json")
    assert (done.code, done.json["error"]["code"]) == (78, "not_found")
    assert told in done.json["error"]["message"]
    assert toolkit("runs", "review", "--json").json == []
    wrong = toolkit("policy", "promote", "staging", "--json")
    assert wrong.json["error"]["next_step"] == "name production or sandbox"
