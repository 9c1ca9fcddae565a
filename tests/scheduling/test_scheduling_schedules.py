"""Schedules: kept in the database, fired once per tick."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from scheduling_world import World, until

from toolkit.errors import Conflict, NotFound
from toolkit.scheduling import Engine, Schedule, tick_run_id
from toolkit.values import ManualClock, RunState


def schedule(name: str, cron: str = "30 2 * * *", **parameters: object) -> Schedule:
    return Schedule(name, "review@production", parameters, cron, "Europe/Berlin", "ana")


def test_schedules_are_listed_with_their_next_tick(world: World) -> None:
    """In the schedule's zone and in UTC."""
    clock = ManualClock(us=round(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1e6))
    engine = Engine(world.url, root=world.root, clock=clock)
    engine.add_schedule(schedule("nightly", limit=3))
    engine.add_schedule(schedule("daily", "0 9 * * *"))
    first, second = engine.list_schedules()
    assert (first.schedule.name, second.schedule) == ("daily", schedule("nightly", limit=3))
    assert second.next_fire == datetime(2026, 11, 22, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert str(second.next_fire) == "2026-11-22 02:30:00+01:00"
    assert str(second.next_fire_utc) == "2026-11-22 01:30:00+00:00"
    assert (second.paused, second.last_fired, second.last_fired_utc) == (False, None, None)
    engine.close()


def test_pause_resume_and_remove(world: World) -> None:
    """A paused schedule has no next tick; a removed one is gone; an unknown one is NotFound."""
    engine = world.engine
    engine.add_schedule(schedule("nightly"))
    engine.pause("nightly")
    (info,) = engine.list_schedules()
    assert (info.paused, info.next_fire, info.next_fire_utc) == (True, None, None)
    engine.resume("nightly")
    assert engine.list_schedules()[0].next_fire
    engine.remove("nightly")
    assert engine.list_schedules() == []
    for act in (engine.pause, engine.resume, engine.remove):
        with pytest.raises(NotFound):
            act("nightly")


def test_a_name_stands_for_one_schedule(world: World) -> None:
    """The same again is fine, another one is a Conflict unless it is meant to replace it."""
    world.engine.add_schedule(schedule("nightly"))
    world.engine.add_schedule(schedule("nightly"))
    other = schedule("nightly", "0 4 * * *")
    with pytest.raises(Conflict):
        world.engine.add_schedule(other)
    world.engine.pause("nightly")
    world.engine.add_schedule(other, replace=True)
    (info,) = world.engine.list_schedules()
    assert (info.schedule, info.paused) == (other, True)


def test_every_second_fires_every_second_once(busy: World) -> None:
    """The real scheduler: consecutive ticks, each with its deterministic id, none twice."""
    busy.engine.add_schedule(schedule("often", "* * * * * *", do="0"))
    until(lambda: sum(run.startswith("run-often-") for run in busy.run_ids()) >= 4)
    busy.engine.remove("often")
    ran = [run for run in busy.run_ids() if run.startswith("run-often-")]
    assert len(ran) == len(set(ran))
    started = datetime.now(UTC).replace(microsecond=0)
    ticks = {
        tick_run_id(schedule("often", "* * * * * *"), at): at
        for at in (started - timedelta(seconds=back) for back in range(120))
    }
    times = sorted(ticks[run] for run in ran)
    assert all(after - before == timedelta(seconds=1) for before, after in pairwise(times))
    assert busy.ended(ran[0]).schedule == "often"


def test_ticks_are_never_run_twice(busy: World) -> None:
    """Queueing the same window again, or with the schedule made anew, runs nothing again."""
    busy.engine.add_schedule(schedule("minutes", "* * * * *", do="0"))
    start = datetime(2026, 3, 1, 11, 59, 30, tzinfo=UTC)
    end = start + timedelta(minutes=5)
    assert busy.engine.backfill("minutes", start, end) == 5
    until(lambda: sum(run.startswith("run-minutes-") for run in busy.run_ids()) == 5)
    busy.engine.backfill("minutes", start, end)
    busy.engine.remove("minutes")
    busy.engine.add_schedule(schedule("minutes", "* * * * *", do="0"))
    busy.engine.backfill("minutes", start, end + timedelta(minutes=1))
    wanted = tick_run_id(schedule("minutes", "* * * * *"), end.replace(minute=4, second=0))
    busy.engine.remove("minutes")
    until(lambda: any(run.startswith("run-minutes-") for run in busy.run_ids()[-1:]))
    backfilled = [
        tick_run_id(schedule("minutes", "* * * * *"), start + timedelta(minutes=n, seconds=30))
        for n in range(6)
    ]
    assert wanted in backfilled
    until(lambda: set(backfilled) <= set(busy.run_ids()))
    assert all(busy.run_ids().count(run) == 1 for run in backfilled)


def test_the_double_hour_runs_once_through_the_engine(busy: World) -> None:
    """DBOS fires 02:30 twice on 2026-10-25; one run comes of it.  In spring it runs at 03:00."""
    busy.engine.add_schedule(schedule("dst", do="0"))
    for start in (datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2027, 3, 28, 0, tzinfo=UTC)):
        busy.engine.backfill("dst", start, start + timedelta(hours=3))
    until(lambda: len([run for run in busy.run_ids() if run.startswith("run-dst-")]) >= 2)
    busy.engine.submit("a", {"do": "0"}, run_id="run-behind")
    busy.ended("run-behind")
    until(lambda: not busy.engine.pending())
    expected = [
        tick_run_id(schedule("dst"), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        tick_run_id(schedule("dst"), datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),
    ]
    assert sorted(run for run in busy.run_ids() if run.startswith("run-dst-")) == sorted(expected)
    assert all(busy.ended(run).state is RunState.SUCCEEDED for run in expected)
