"""Simulated time: exact ticks over clock changes, outages, overlaps and several workers."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.scheduling import Engine, Schedule
from toolkit.scheduling.ticker import Ticker
from toolkit.scheduling.ticks import judge
from toolkit.values import ManualClock

_numbers = itertools.count()


def schedule(cron: str, timezone: str = "UTC", **rules: Any) -> Schedule:
    return Schedule("s", "a", {}, cron, timezone, "ana", **rules)


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


@dataclass
class Runs:
    """A queue in which every run takes as long as it is told, on the same clock.

    Attributes:
        clock: What time it is.
        takes_s: Seconds that a run takes.
        ticks: Local time of every tick that was queued, in order, and when that was.
        cancelled: Run ids.
    """

    clock: ManualClock
    takes_s: float = 0.0
    ticks: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ends_us: dict[str, int] = field(default_factory=dict)

    def queue_tick(self, schedule: Schedule, run_id: str, tick: str) -> None:
        if run_id not in self.ends_us:
            self.ends_us[run_id] = self.clock.us + round(self.takes_s * 1e6)
            self.ticks.append((tick, self.clock.us))

    def unfinished(self, run_id: str) -> bool:
        return self.ends_us.get(run_id, 0) > self.clock.us

    def supersede(self, run_id: str) -> object:
        self.cancelled.append(run_id)
        self.ends_us[run_id] = self.clock.us
        return None


@dataclass
class Simulation:
    """Two workers over one database, which look at the clock whenever it is moved."""

    engine: Engine
    clock: ManualClock
    runs: Runs

    def __post_init__(self) -> None:
        self.tickers = [Ticker(self.engine.tables, self.runs, self.clock) for _ in range(2)]

    def run_until(self, moment: datetime, *, step_s: float = 600.0) -> None:
        """Let time pass, in steps at which both workers look."""
        while self.clock.us < us(moment):
            self.clock.us = min(self.clock.us + round(step_s * 1e6), us(moment))
            self.look()

    def look(self) -> None:
        for ticker in self.tickers:
            with self.engine.tables.turn() as turn:
                assert turn is not None
                ticker.look(turn)

    def sleep_until(self, moment: datetime) -> None:
        """An outage: nobody looks."""
        self.clock.us = us(moment)

    @property
    def ticks(self) -> list[str]:
        """Local times without the year."""
        return [tick[5:] for tick, _ in self.runs.ticks]

    def skipped(self) -> list[tuple[str, str, int]]:
        return [
            (t.tick[5:], t.last[5:], t.count) for t in self.engine.ticks() if t.state == "skipped"
        ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where the machine has such a place: nobody pulls a plug, so no disk is waited for."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder made in it is ours alone
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tk", dir=place) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def empty(folder: Path) -> Path:
    """A database with all tables and no rows: making one takes longer than most simulations."""
    with Engine("sqlite:///e.db", root=folder) as engine:
        assert engine.list_schedules() == []
    return folder / "e.db"


@pytest.fixture
def simulate(folder: Path, empty: Path) -> Iterator[Any]:
    """A function that starts a simulation at a moment."""
    made: list[Engine] = []

    def start(at: datetime, *schedules: Schedule, takes_s: float = 0.0) -> Simulation:
        clock = ManualClock(us(at))
        name = f"s{next(_numbers)}.db"
        shutil.copy(empty, folder / name)
        engine = Engine(f"sqlite:///{name}", root=folder, clock=clock)
        made.append(engine)
        for each in schedules:
            engine.add_schedule(each)
        return Simulation(engine, clock, Runs(clock, takes_s))

    yield start
    for engine in made:
        engine.close()


@pytest.mark.parametrize(
    ("zone", "start", "nightly", "hourly"),
    [
        (
            "Europe/Berlin",
            datetime(2026, 10, 24, 22, tzinfo=UTC),
            ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"],
            25,
        ),
        (
            "Europe/Berlin",
            datetime(2027, 3, 27, 23, tzinfo=UTC),
            ["03-28T03:00:00+02:00", "03-29T02:30:00+02:00"],
            23,
        ),
        (
            "America/New_York",
            datetime(2026, 11, 1, 4, tzinfo=UTC),
            ["11-01T02:30:00-05:00", "11-02T02:30:00-05:00"],
            25,
        ),
        (
            "America/New_York",
            datetime(2026, 3, 8, 5, tzinfo=UTC),
            ["03-08T03:00:00-04:00", "03-09T02:30:00-04:00"],
            23,
        ),
        (
            "Australia/Lord_Howe",
            datetime(2026, 4, 4, 13, tzinfo=UTC),
            ["04-05T02:30:00+10:30", "04-06T02:30:00+10:30"],
            24,
        ),
        (
            "Australia/Lord_Howe",
            datetime(2026, 10, 3, 13, 30, tzinfo=UTC),
            ["10-04T02:30:00+11:00", "10-05T02:30:00+11:00"],
            23,  # 23.5 hours, and 02:15 does not exist
        ),
    ],
)
def test_clock_changes_through_two_workers(
    simulate: Any, zone: str, start: datetime, nightly: list[str], hourly: int
) -> None:
    """Both ways in three zones: a nightly job runs once a night, an hourly one every hour of the day."""
    night = replace(schedule("30 2 * * *", zone), name="night")
    hour = replace(schedule("15 * * * *", zone), name="hour")
    world = simulate(start, night, hour)
    first_day = start.astimezone(night.zone).date()
    world.run_until(start + timedelta(hours=30), step_s=900)
    queued = [tick[5:] for tick, _ in world.runs.ticks]
    assert [tick for tick in queued if ":15:" not in tick] == nightly
    of_the_day = [
        tick for tick, _ in world.runs.ticks if ":15:" in tick and tick[:10] == str(first_day)
    ]
    assert len(of_the_day) == len(set(of_the_day)) == hourly
    moments = [datetime.fromisoformat(tick) for tick in of_the_day]
    gaps = {(b - a).total_seconds() for a, b in itertools.pairwise(moments)}
    # Lord Howe moves by half an hour, where a quarter past the hour is 30 or 90 minutes away.
    assert gaps <= {3600.0} if zone != "Australia/Lord_Howe" else gaps <= {1800.0, 3600.0, 5400.0}
    assert world.skipped() == []


OUTAGE = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rules", "ran", "skipped"),
    [
        ({}, [], [("06-02T03:00:00+00:00", "06-04T03:00:00+00:00", 3)]),
        (
            {"catch_up": "latest"},
            ["06-04T03:00:00+00:00"],
            [("06-02T03:00:00+00:00", "06-03T03:00:00+00:00", 2)],
        ),
        (
            {"catch_up": "all"},
            ["06-02T03:00:00+00:00", "06-03T03:00:00+00:00", "06-04T03:00:00+00:00"],
            [],
        ),
        (
            {"catch_up": "all", "catch_up_limit": 2},
            ["06-03T03:00:00+00:00", "06-04T03:00:00+00:00"],
            [("06-02T03:00:00+00:00", "06-02T03:00:00+00:00", 1)],
        ),
    ],
)
def test_three_days_of_outage(simulate: Any, rules: Any, ran: list[str], skipped: Any) -> None:
    """None, the latest, or all within the limit are made up for; the rest is recorded as skipped."""
    world = simulate(OUTAGE, schedule("0 3 * * *", **rules))
    world.look()
    world.sleep_until(OUTAGE + timedelta(days=3))
    world.look()
    assert world.ticks == ran
    assert world.skipped() == skipped
    world.run_until(OUTAGE + timedelta(days=4))
    assert world.ticks == [*ran, "06-05T03:00:00+00:00"]


def test_a_long_outage_of_a_frequent_schedule_takes_several_looks(simulate: Any) -> None:
    """20,100 missed ticks, more than one look takes: the newest two run, each other is counted as skipped once."""
    world = simulate(OUTAGE, schedule("*/10 * * * * *", catch_up="all", catch_up_limit=2))
    end = OUTAGE + timedelta(seconds=201_000)
    world.sleep_until(end)
    world.look()
    world.look()
    in_time = 7  # what is up to 60 s old: no catching up is needed
    assert len(world.ticks) == in_time + 2
    assert world.ticks[-1] == "06-03T19:50:00+00:00"
    assert sum(count for _, _, count in world.skipped()) == 20_100 - in_time - 2


@pytest.mark.parametrize(
    ("overlap", "ran", "skipped", "cancelled"),
    [
        ("allow", ["00", "10", "20", "30", "40", "50"], [], 0),
        ("skip", ["00", "30"], ["10", "20", "40", "50"], 0),
        ("queue", ["00", "10", "20"], [], 0),
        ("cancel-previous", ["00", "10", "20", "30", "40", "50"], [], 5),
    ],
)
def test_overlap(
    simulate: Any, overlap: str, ran: list[str], skipped: list[str], cancelled: int
) -> None:
    """Runs of 25 minutes every 10 minutes, for an hour."""
    world = simulate(
        OUTAGE - timedelta(seconds=1), schedule("*/10 * * * *", overlap=overlap), takes_s=1500
    )
    world.run_until(OUTAGE + timedelta(minutes=59), step_s=60)
    assert [tick[9:11] for tick in world.ticks] == ran
    assert [first[9:11] for first, _, _ in world.skipped()] == skipped
    assert len(world.runs.cancelled) == cancelled
    reasons = {t.reason for t in world.engine.ticks() if t.state == "skipped"}
    assert all(reason.endswith("had not ended") for reason in reasons)
    waits = [t.tick[14:16] for t in world.engine.ticks() if t.state == "due"]
    assert waits == (["30", "40", "50"] if overlap == "queue" else [])


def test_queued_ticks_never_run_side_by_side(simulate: Any) -> None:
    """Each starts once the one before has ended, in the order of their times."""
    world = simulate(OUTAGE, schedule("*/10 * * * *", overlap="queue"), takes_s=1500)
    world.run_until(OUTAGE + timedelta(hours=3), step_s=150)
    starts = [at for _, at in world.runs.ticks]
    assert all(b - a >= 1500 * 1_000_000 for a, b in itertools.pairwise(starts))
    assert world.ticks == sorted(world.ticks)


def test_pause_and_resume_make_up_for_nothing(simulate: Any) -> None:
    """Ticks of the pause are no outage, and those waiting for their turn are skipped."""
    world = simulate(OUTAGE, schedule("0 * * * *", catch_up="all"))
    world.run_until(OUTAGE + timedelta(hours=2))
    world.engine.pause("s")
    world.run_until(OUTAGE + timedelta(hours=5))
    world.engine.resume("s")
    world.run_until(OUTAGE + timedelta(hours=6))
    assert [tick[6:8] for tick in world.ticks] == ["13", "14", "18"]


def test_a_schedule_fires_only_while_it_is_valid(simulate: Any) -> None:
    """From and until are local times; after the end there is no next tick."""
    rules = {"not_before": "2026-06-02T03:00", "not_after": "2026-06-03T03:00"}
    world = simulate(OUTAGE, schedule("0 3 * * *", "Europe/Berlin", **rules))
    world.run_until(OUTAGE + timedelta(days=4), step_s=3600)
    assert world.ticks == ["06-02T03:00:00+02:00", "06-03T03:00:00+02:00"]
    assert world.engine.list_schedules()[0].next_fire is None


def test_jitter_is_late_by_no_more_than_it_says_and_the_same_for_everybody(simulate: Any) -> None:
    """Two simulations of one schedule agree to the microsecond of each look."""
    seen = []
    for _ in range(2):
        world = simulate(OUTAGE, schedule("0 * * * *", jitter_s=900))
        for hour in range(1, 6):
            world.sleep_until(OUTAGE + timedelta(hours=hour))
            world.run_until(OUTAGE + timedelta(hours=hour, seconds=950), step_s=50)
        assert world.skipped() == []
        seen.append(world.runs.ticks)
    assert seen[0] == seen[1]
    late = [at / 1e6 - datetime.fromisoformat(tick).timestamp() for tick, at in seen[0]]
    assert len(late) == 5
    assert all(0 <= seconds <= 950 for seconds in late)
    assert len({round(seconds) for seconds in late}) > 3


@pytest.mark.parametrize("jitter_s", [30.0, 900.0, 3000.0])
def test_ticks_whose_jitter_overlaps_start_in_order_and_none_is_late(jitter_s: float) -> None:
    """A tick that drew an earlier moment than the one before it starts right after that one."""
    rule = schedule("*/10 * * * *", jitter_s=jitter_s)
    seen, ran = OUTAGE, []
    for look in range(1, 721):
        now = OUTAGE + timedelta(seconds=30 * look)
        verdict = judge(rule, seen, now)
        assert verdict.skipped is None
        assert all(when <= now <= when + timedelta(seconds=jitter_s + 30) for when in verdict.run)
        ran += verdict.run
        seen = verdict.seen
    count = (6 * 3600 - int(jitter_s) - 30) // 600
    assert ran[:count] == [OUTAGE + timedelta(minutes=10 * n) for n in range(1, count + 1)]


def test_a_worker_that_dies_between_writing_and_queueing_loses_no_tick(simulate: Any) -> None:
    """What is written as due is queued by whoever looks next, once."""
    world = simulate(OUTAGE, schedule("0 * * * *"))

    class Dies(Runs):
        def queue_tick(self, schedule: Schedule, run_id: str, tick: str) -> None:
            raise RuntimeError("killed")

    world.tickers[0] = Ticker(world.engine.tables, Dies(world.clock), world.clock)
    world.sleep_until(OUTAGE + timedelta(hours=1))
    with pytest.raises(RuntimeError):
        world.look()
    world.tickers[0] = world.tickers[1]
    world.look()
    assert world.ticks == ["06-01T13:00:00+00:00"]


def test_one_worker_at_a_time_has_the_turn(simulate: Any) -> None:
    """The second is told that somebody else decides."""
    tables = simulate(OUTAGE).engine.tables
    with tables.turn() as first, tables.turn() as second:
        assert (first is None, second is None) == (False, True)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["*/10 * * * *", "30 2 * * *", "15 1-3 * * *", "0 */6 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.lists(st.integers(1, 50_000), min_size=1, max_size=12),
    st.sampled_from([0.0, 40.0, 2000.0]),
)
def test_however_time_is_cut_every_tick_is_decided_once(
    cron: str, zone: str, steps: list[int], jitter_s: float
) -> None:
    """Ticks run plus ticks skipped are the same for every sequence of looks."""
    rule = schedule(cron, zone, jitter_s=jitter_s)
    start = seen = now = datetime(2026, 10, 24, 20, tzinfo=UTC)
    cut: list[datetime] = []
    skipped = 0
    for step in steps:
        now += timedelta(seconds=step)
        verdict = judge(rule, seen, now)
        cut += [when.astimezone(UTC) for when in verdict.run]
        skipped += verdict.skipped.count if verdict.skipped else 0
        seen = verdict.seen
    whole = judge(replace(rule, catch_up="all", catch_up_limit=10_000), start, now)
    assert len(cut) + skipped == len(whole.run)
    assert set(cut) <= {when.astimezone(UTC) for when in whole.run}
    assert cut == sorted(set(cut))


def test_wrong_rules_are_all_named() -> None:
    """Catch-up, its limit, overlap, jitter and both moments."""
    with pytest.raises(UsageError) as caught:
        schedule(
            "0 3 * * *", catch_up="some", catch_up_limit=0, overlap="x", jitter_s=-1.0,
            not_before="soon", not_after="32.13.",
        )  # fmt: skip
    places = [fault["where"] for fault in caught.value.details["faults"]]
    assert places == ["catch_up", "overlap", "catch_up_limit", "jitter", "not_before", "not_after"]
