"""A run that waits for a person: no kernel, exit code 3, and it goes on when somebody has decided."""

from __future__ import annotations

import signal
import time

import nbformat
import pytest
from cli_world import seal, start, toolkit
from waiting_world import ask_people, audited, open_bank, paying_job, request_of, run_of

from toolkit.registry import Registry
from toolkit.values import JobRef, RunState


@pytest.fixture
def bank():
    with open_bank() as made:
        yield made


@pytest.fixture
def job(workspace, bank):
    """A sealed job that pays, and a policy that asks anna."""
    ask_people(workspace)
    return paying_job(workspace, bank)


def approve(run_id, workspace, monkeypatch, *arguments):
    """Decide as anna and return the id of the request."""
    asked = request_of(workspace, run_id)
    monkeypatch.setenv("TOOLKIT_USER", "anna")
    done = toolkit("decide", asked.id, *(arguments or ("approve",)), "--yes", "--json")
    assert done.code == 0, done.told
    monkeypatch.delenv("TOOLKIT_USER")
    return asked.id


@pytest.mark.slow
def test_an_alias_that_moves_while_a_run_waits_does_not_move_the_run(workspace, bank, monkeypatch):
    """It finishes with the version that it began with; what starts now has the new one."""
    ask_people(workspace)
    job = paying_job(workspace, bank, "pay-moved")
    again = ("run", f"{job}@production", "--run-id", "run-moved", "--leave", "--json")
    assert toolkit(*again).code == 3
    seal(workspace, job, "toolkit.result(said='the new version', before='')")
    approve("run-moved", workspace, monkeypatch)
    done = toolkit(*again)
    assert (done.code, done.json["state"], done.json["version"]) == (0, "succeeded", 1), done.told
    assert done.json["results"]["said"] == "paid"
    assert bank.paid == ["ben ltd 120.0"]
    assert Registry(workspace.registry).resolve(JobRef.parse(f"{job}@production")).number == 2


@pytest.mark.slow
def test_a_run_waits_without_a_kernel_and_the_same_command_finishes_it(
    workspace, bank, job, monkeypatch
):
    """Exit code 3 and the way on; the cell is shown as waiting; one payment, one answer."""
    done = toolkit("run", f"{job}@production", "--run-id", "run-w1", "--leave", "--json")
    told = done.json
    assert (done.code, told["exit_code"], told["state"], told["cause"]) == (3, 3, "waiting", None)
    asked = request_of(workspace, "run-w1")
    assert told["waiting"]["requests"] == [asked.id]
    assert told["waiting"]["until"][:19] in told["message"]
    record = run_of(workspace, "run-w1")
    assert (record.token_digest, record.runner) == (None, None)
    executed = nbformat.read(told["notebook_output"], as_version=4)
    assert executed.metadata["toolkit"]["state"] == "waiting"
    (cell,) = [c for c in executed.cells if c.metadata.papermill.status == "waiting"]
    assert cell.source.startswith("said = pay(")
    assert not cell.metadata.papermill.exception
    assert not executed.metadata.papermill.exception

    again = toolkit("run", f"{job}@production", "--run-id", "run-w1", "--leave")
    assert again.code == 3, "nobody has decided"
    assert f"toolkit decide {asked.id}" in again.out
    assert "--run-id run-w1" in again.out

    assert approve("run-w1", workspace, monkeypatch) == asked.id
    done = toolkit("run", f"{job}@production", "--run-id", "run-w1", "--leave", "--json")
    assert (done.code, done.json["state"], done.json["message"]) == (0, "succeeded", None)
    assert done.json["results"]["said"] == "paid"
    assert bank.paid == ["ben ltd 120.0"]
    assert audited(workspace, asked.id) == 1
    assert toolkit("ledger", "verify").code == 0
    assert done.json["totals"]["by_kind"] == {"model": 1, "tool": 1, "result": 2}


@pytest.mark.chaos
def test_a_rejected_run_ends_as_denied_when_it_goes_on(workspace, bank, job, monkeypatch):
    """The person's reason is the run's message; nothing was paid."""
    assert toolkit("run", job + "@production", "--run-id", "run-w2", "--leave").code == 3
    approve("run-w2", workspace, monkeypatch, "reject", "--reason", "wrong IBAN")
    done = toolkit("run", job + "@production", "--run-id", "run-w2", "--json")
    assert (done.code, done.json["state"], done.json["cause"]) == (1, "denied", "policy")
    assert "wrong IBAN" in done.json["message"]
    assert bank.paid == []


@pytest.mark.chaos
def test_a_waiting_run_can_be_cancelled_and_stopped(workspace, bank, job):
    """At once, without starting anything; its request is closed."""
    for name, command in (
        ("run-w3", ("cancel", "run-w3", "--reason", "not needed")),
        ("run-w4", ("stop", "--run", "run-w4", "--reason", "not needed")),
    ):
        assert toolkit("run", job + "@production", "--run-id", name, "--leave").code == 3
        assert toolkit(*command, "--json").code == 0
        done = toolkit("run", job + "@production", "--run-id", name, "--leave", "--json")
        assert (done.code, done.json["state"]) == (143, "cancelled")
        assert "not needed" in done.json["message"]
        assert not request_of(workspace, name).state.waiting
    assert toolkit("cancel", "run-w3").code != 0
    assert bank.paid == []


@pytest.mark.chaos
def test_a_run_in_the_foreground_waits_and_goes_on_by_itself(workspace, bank, job, monkeypatch):
    """The process stays, without a kernel, and finishes when somebody else decides."""
    process = start(("run", f"{job}@production", "--run-id", "run-w5", "--json"), workspace.root)
    try:
        wait_until_waiting(workspace, "run-w5", process)
        assert run_of(workspace, "run-w5").runner.split(":")[1] == str(process.pid)
        refused = toolkit("run", f"{job}@production", "--run-id", "run-w5", "--leave")
        assert "is being executed by" in refused.told
        approve("run-w5", workspace, monkeypatch, "approve", "--change", "amount=80")
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (out, err)
    assert bank.paid in (["ben ltd 80.0"], ["ben ltd 80"])


@pytest.mark.chaos
def test_sigterm_leaves_a_waiting_run_waiting(workspace, bank, job):
    """Exit code 3; any process may go on with it."""
    process = start(("run", f"{job}@production", "--run-id", "run-w6", "--json"), workspace.root)
    try:
        wait_until_waiting(workspace, "run-w6", process)
        time.sleep(1.5)  # the moment between the record and the wait is not what is tested
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3, (out, err)
    record = run_of(workspace, "run-w6")
    assert (record.state, record.runner) == (RunState.WAITING, None)
    assert toolkit("cancel", "run-w6").code == 0


@pytest.mark.chaos
def test_a_request_that_expires_takes_the_policys_path(workspace, bank):
    """Nobody decides: the run goes on by itself, and its call is denied."""
    ask_people(workspace, expires="4s")
    job = paying_job(workspace, bank, "pay-late")
    done = toolkit("run", f"{job}@production", "--run-id", "run-w7", "--json")
    assert (done.code, done.json["state"], done.json["cause"]) == (1, "denied", "policy")
    assert "in time" in done.json["message"]
    assert run_of(workspace, "run-w7").tags["waits"] == "1"
    assert bank.paid == []


def wait_until_waiting(workspace, run_id, process):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never waited"
        try:
            if run_of(workspace, run_id).state is RunState.WAITING:
                return
        except Exception as error:  # the run, or the ledger, is not there yet
            assert "there is no run" in str(error) or "locked" in str(error)  # noqa: PT017
        time.sleep(0.1)
