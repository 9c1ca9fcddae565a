"""Cron expressions, time zones, and what a valid schedule is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.scheduling import Schedule, next_fires, tick_run_id
from toolkit.values import check_name

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(cron: str, timezone: str = "Europe/Berlin", name: str = "nightly") -> Schedule:
    return Schedule(name, "review", {}, cron, timezone, "ana")


def fires(cron: str, start: datetime, count: int, timezone: str = "Europe/Berlin") -> list[str]:
    """Local times with offset of the next ticks, without the year."""
    found = islice(next_fires(schedule(cron, timezone), start), count)
    return [when.isoformat()[5:] for when in found]


AUTUMN = datetime(2026, 10, 24, 23, 0, tzinfo=BERLIN)
SPRING = datetime(2027, 3, 27, 23, 0, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        ("30 2 * * *", AUTUMN, ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]),
        ("*/30 2 * * *", AUTUMN, ["10-25T02:00:00+02:00", "10-25T02:30:00+02:00"]),
        (
            "0 */2 * * *",
            AUTUMN,
            ["10-25T00:00:00+02:00", "10-25T02:00:00+02:00", "10-25T04:00:00+01:00"],
        ),
        (
            "30 * * * *",
            AUTUMN + timedelta(hours=3),
            ["10-25T02:30:00+02:00", "10-25T02:30:00+01:00", "10-25T03:30:00+01:00"],
        ),
        ("30 2 * * *", SPRING, ["03-28T03:00:00+02:00", "03-29T02:30:00+02:00"]),
        ("0,30 2,3 * * *", SPRING, ["03-28T03:00:00+02:00", "03-28T03:30:00+02:00"]),
        (
            "30 * * * *",
            SPRING + timedelta(hours=2),
            ["03-28T01:30:00+01:00", "03-28T03:30:00+02:00"],
        ),
    ],
)
def test_clock_changes(cron: str, start: datetime, expected: list[str]) -> None:
    """Named hours fire once in the double hour and after the gap; every hour means every hour."""
    assert fires(cron, start, len(expected)) == expected


def test_double_hour_is_one_run() -> None:
    """Both moments of 02:30 have one run id; for an hourly schedule they have two."""
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    second = first + timedelta(hours=1)
    nightly, hourly = schedule("30 2 * * *"), schedule("30 * * * *")
    assert tick_run_id(nightly, first) == tick_run_id(nightly, second)
    assert tick_run_id(hourly, first) != tick_run_id(hourly, second)


def test_half_hour_clock_changes() -> None:
    """Lord Howe Island moves by 30 minutes: 01:45 happens twice and counts once."""
    start = datetime(2026, 4, 4, 0, 0, tzinfo=UTC)
    assert fires("45 1 * * *", start, 2, "Australia/Lord_Howe") == [
        "04-05T01:45:00+11:00",
        "04-06T01:45:00+10:30",
    ]


def test_run_ids_are_safe_stable_and_apart() -> None:
    """The id is a name, the same in every process, and differs by schedule and by time."""
    long = "a" * 60 + ".b"
    when = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
    ids = {
        tick_run_id(schedule("30 2 * * *", "UTC", name), at)
        for name in ("nightly", "nightly2", long)
        for at in (when, when + timedelta(days=1))
    }
    assert len(ids) == 6
    assert all(check_name(run_id) for run_id in ids)
    assert tick_run_id(schedule("30 2 * * *", "UTC"), when) == "run-nightly-3bb55f39f1e75ce99d3c"


@pytest.mark.parametrize(
    ("cron", "word"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("@daily", "1 fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("60 * * * * *", "second"),
        ("*/0 * * * *", "never holds"),
        ("30-10 * * * *", "never holds"),
        ("5-5 * * * *", "write 5"),
        ("5/15 * * * *", "step without a range"),
        ("H * * * *", "minute"),
        ("R * * * *", "minute"),
        ("* * L * *", "day of month"),
        ("* * * * mon#2", "day of week"),
        ("1,,2 * * * *", "minute"),
        ("*-5 * * * *", "minute"),
        ("\u0663 * * * *", "minute"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 feb,apr *", "never fires"),
    ],
)
def test_bad_crons_are_refused_with_the_field(cron: str, word: str) -> None:
    """Each says which field, or that it never fires."""
    with pytest.raises(UsageError, match=word):
        schedule(cron)


@pytest.mark.parametrize(
    "cron",
    ["0 9 * * mon-fri", "0 0 1 jan,JUL *", "*/5 8-18/2 * * 1-5", "0 0 29 2 *", "* * * * * *"],
)
def test_good_crons_are_accepted(cron: str) -> None:
    """Names in any case, lists, ranges, steps, leap days, seconds."""
    assert schedule(cron).cron == cron


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field's text and the values it stands for."""
    number = st.integers(low, high)
    spans = st.tuples(st.lists(number, min_size=2, max_size=2, unique=True), st.integers(1, 9)).map(
        lambda t: (*sorted(t[0]), t[1])
    )
    items = st.one_of(
        st.just(("*", frozenset(range(low, high + 1)))),
        number.map(lambda n: (str(n), frozenset([n]))),
        spans.map(lambda s: (f"{s[0]}-{s[1]}/{s[2]}", frozenset(range(s[0], s[1] + 1, s[2])))),
    )
    return st.lists(items, min_size=1, max_size=3).map(
        lambda found: (",".join(t for t, _ in found), frozenset().union(*(v for _, v in found)))
    )


@given(
    field(0, 59),
    field(0, 23),
    field(1, 12),
    field(0, 7),
    st.integers(1_704_067_200, 1_893_456_000),
)
def test_ticks_are_when_the_fields_say(
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    month: tuple[str, frozenset[int]],
    weekday: tuple[str, frozenset[int]],
    start_s: int,
) -> None:
    """In UTC the next tick fits every field, lies ahead, and no fitting minute lies between."""
    found = schedule(f"{minute[0]} {hour[0]} * {month[0]} {weekday[0]}", "UTC")
    after = datetime.fromtimestamp(start_s, UTC)
    days = {number % 7 for number in weekday[1]}

    def fits(when: datetime) -> bool:
        return (
            when.minute in minute[1]
            and when.hour in hour[1]
            and when.month in month[1]
            and when.isoweekday() % 7 in days
        )

    tick = next(next_fires(found, after))
    assert tick > after
    assert fits(tick)
    between = (tick - timedelta(minutes=back) for back in range(1, 1500))
    assert not any(fits(when) for when in between if when > after)


def test_all_faults_of_a_schedule_at_once() -> None:
    """Name, job, parameter, cron, zone and author are all named in one error."""
    with pytest.raises(UsageError) as caught:
        Schedule("../x", "A@", {"__class__": 1, "x": float("nan")}, "61 25 * * *", "Mars/Base", " ")
    places = [fault["where"] for fault in caught.value.details["faults"]]
    assert places == [
        "name",
        "job",
        "parameters",
        "parameters",
        "cron",
        "cron",
        "timezone",
        "created_by",
    ]


@pytest.mark.parametrize(
    "zone", ["", "../etc/passwd", "europe/berlin", "CEST", "/usr/share", "\x00"]
)
def test_unknown_zones_are_refused(zone: str) -> None:
    """Only IANA names, as they are written."""
    with pytest.raises(UsageError, match="time zone"):
        schedule("0 0 * * *", zone)
