"""Leases of runs on both databases, and the names of the processes that hold them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ledger_world import a_run

from toolkit.errors import NotFound
from toolkit.ledger import (
    MACHINE_VARIABLE,
    Ledger,
    is_here,
    machine_name,
    owners,
    process_name,
    runner_alive,
)
from toolkit.values import Environment, RunKind, RunRecord, RunState

ELSEWHERE = "machine-a:7:123@0011223344556677.4026531836"


@pytest.fixture
def ledger(url):
    with Ledger.open(url) as made:
        yield made


def leased(ledger: Ledger, lease_s: float, runner: str = ELSEWHERE) -> RunRecord:
    record = RunRecord(
        "run-1", RunKind.RUN, Environment.PRODUCTION, "ana", RunState.RUNNING, runner=runner
    )
    return ledger.create_run(record, lease_s=lease_s)


def test_a_lease_says_whether_the_runner_of_another_machine_is_there(ledger):
    """As long as it was renewed in time by the database's clock."""
    run = leased(ledger, 60.0)
    assert ledger.lives(run)
    assert ledger.renew(run, -1.0)
    assert not ledger.lives(run), "it is over"
    assert ledger.renew(run, 60.0), "and can be renewed while nobody took the run"
    lease = ledger.lease("run-1")
    assert (lease.runner, lease.valid) == (ELSEWHERE, True)
    assert 0 < lease.left_s <= 60.0
    assert ledger.verify() == []


def test_who_was_replaced_renews_nothing(ledger):
    """The lease goes with the runner, in the transaction that changes it."""
    run = leased(ledger, -1.0)
    taken = ledger.take(run, runner="machine-b:1:2", lease_s=60.0)
    assert not ledger.renew(run, 60.0)
    assert ledger.renew(taken, 60.0)
    assert ledger.lease("run-1").runner == "machine-b:1:2"


@pytest.mark.parametrize("changes", [{"state": RunState.SUCCEEDED}, {"runner": None}])
def test_what_ended_or_was_let_go_has_no_lease(ledger, changes):
    """Its runner is told so when it renews."""
    run = leased(ledger, 60.0)
    ledger.update_run("run-1", **changes)
    assert ledger.lease("run-1") is None
    assert not ledger.renew(run, 60.0)


def test_a_change_of_other_fields_keeps_the_lease(ledger):
    """A run that waits is still its runner's."""
    run = leased(ledger, 60.0)
    waits = ledger.take(run, state=RunState.WAITING, token_digest=None)
    assert ledger.renew(waits, 60.0)


def test_creating_a_known_run_again_takes_no_lease(ledger):
    """Whoever comes second has to take it."""
    leased(ledger, 60.0)
    again = leased(ledger, 60.0, runner="machine-b:1:2")
    assert again.runner == ELSEWHERE
    assert ledger.lease("run-1").runner == ELSEWHERE


def test_without_a_lease_a_runner_elsewhere_is_assumed_to_live(ledger):
    """One of an older toolkit, or a session."""
    run = a_run(ledger, state=RunState.RUNNING, runner="elsewhere:1:1790000000.25")
    assert ledger.lives(run)
    assert not ledger.renew(run, 60.0)
    with pytest.raises(NotFound):
        ledger.renew(RunRecord("x", RunKind.RUN, Environment.SANDBOX, "a", runner="b:1:2"), 1.0)


# -- names of processes ---------------------------------------------------------------------------


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_name_says_machine_number_and_start_by_the_boot(child):
    """Field 22 of its stat, which no setting of the clock moves."""
    machine, pid, start = process_name(child.pid).split(":")
    ticks, _, boot = start.partition("@")
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    assert ticks == stat.rpartition(")")[2].split()[19]
    assert (machine, pid) == (machine_name(), str(child.pid))
    assert boot == process_name().rpartition("@")[2]


def test_a_clock_that_is_set_ends_nobody(child, monkeypatch):
    """psutil's start of a process is the boot's time by the clock of now, plus ticks."""
    name, old = process_name(child.pid), psutil.Process(child.pid).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: old + 3_600.0)
    assert runner_alive(name)


def test_names_of_older_ledgers_are_read(child):
    """``host:pid:seconds``, of this machine and of others."""
    born = psutil.Process(child.pid).create_time()
    name = f"{machine_name()}:{child.pid}:{born:.2f}"
    assert is_here(name)
    assert runner_alive(name)
    assert not runner_alive(f"{machine_name()}:{child.pid}:{born - 50:.2f}")
    assert runner_alive("elsewhere:1:1790000000.25"), "nobody can look"
    child.kill()
    child.wait()
    assert not runner_alive(name)


def test_a_later_process_of_the_number_and_a_machine_started_again_are_told_apart(monkeypatch):
    """By ticks and boot; a container of the same name has a process namespace of its own."""
    mine = process_name()
    head, _, boot = mine.partition("@")
    boot, _, space = boot.partition(".")
    assert runner_alive(mine)
    assert not runner_alive(f"{head}1@{boot}.{space}")
    assert not runner_alive(f"{head}@0123456789abcdef.{space}")
    beside = f"{head}@{boot}.1"
    assert not is_here(beside)
    assert runner_alive(beside), "nobody can look into another container"
    monkeypatch.setenv(MACHINE_VARIABLE, "machine-b")
    assert machine_name() == "machine-b"
    assert not is_here(mine)
    assert owners.process_name().startswith(f"machine-b:{os.getpid()}:")
