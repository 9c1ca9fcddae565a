"""The lease of a worker: counted by a clock that goes on while the machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.scheduling.leases import Leases
from toolkit.values import sleepless_s

LENGTH_S = 30.0


class Seconds:
    """A clock of seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def leases(tmp_path: Path, seconds: Seconds) -> Iterator[Leases]:
    made = Leases(f"sqlite:///{tmp_path}/engine.db", "a:1:x", LENGTH_S, seconds)
    made.take()
    yield made
    made.close()


def test_a_lease_is_lost_after_its_length(leases: Leases, seconds: Seconds) -> None:
    """Until it is renewed, and from the moment at which the renewal began."""
    seconds.now += LENGTH_S
    assert not leases.lost
    seconds.now += 0.1
    assert leases.lost
    assert leases.renew() == {"a:1:x"}
    assert not leases.lost


def test_the_seconds_of_a_suspended_machine_count(tmp_path: Path) -> None:
    """The clock is the one that Linux moves during a suspend, too; ``monotonic`` stands still."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= sleepless_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    made = Leases(f"sqlite:///{tmp_path}/engine.db", "a:1:x", LENGTH_S)
    assert made._seconds is sleepless_s
    made.close()


def test_who_finds_a_lease_over_learns_for_how_long(tmp_path: Path, seconds: Seconds) -> None:
    """By the database's own clock, from the last renewal on."""
    url = f"sqlite:///{tmp_path}/engine.db"
    mine = Leases(url, "a:1:x", LENGTH_S, seconds)
    mine.take()
    with mine._engine.begin() as connection:
        connection.execute(
            mine._table.insert().values(worker="dead", renewed_s=mine._now - LENGTH_S - 1)
        )
    assert mine.renew() == {"a:1:x"}
    assert set(mine.silent_s) == {"dead"}
    assert mine.silent_s["dead"] >= LENGTH_S + 1
    assert mine.renew() == {"a:1:x"}
    assert mine.silent_s == {}
    mine.close()


@pytest.mark.parametrize(("length_s", "look_s"), [(30.0, 2.0), (4.0, 0.5)])
def test_leases_are_looked_at_often_enough(tmp_path: Path, length_s: float, look_s: float) -> None:
    """Every two seconds at least, so that work is taken over within five of a lease's end."""
    made = Leases(f"sqlite:///{tmp_path}/engine.db", "a:1:x", length_s)
    assert made.look_s == look_s
    made.close()
