"""Triggers: signed events, new files, ends of other jobs; each event is one run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature
from scheduling_world import World, until

from toolkit.errors import ConfigurationError, Conflict, NotFound, UsageError
from toolkit.scheduling import NO_JOBS, Engine, RunStatus, Schedule, Trigger, sign
from toolkit.scheduling.duty import Duty
from toolkit.scheduling.intake import MAX_BODY, Intake, serving
from toolkit.scheduling.listings import Files, Listings, list_files
from toolkit.scheduling.signatures import verified_delivery
from toolkit.scheduling.triggers import value_at
from toolkit.scheduling.watchers import Watchers
from toolkit.values import ManualClock, RunState

SECRET = "a secret of tests"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock) -> Iterator[Engine]:
    with Engine("sqlite:///engine.db", root=tmp_path, clock=clock) as engine:
        yield engine


def http(**more: Any) -> Trigger:
    facts = {"secret_env": "EVENT_SECRET", "mapping": {"customer": "customer.id"}} | more
    return Trigger("crm", "review", "http", "ana", **facts)


def headers(
    body: bytes, clock: ManualClock, delivery: str = "d-1", **change: str
) -> dict[str, str]:
    now = str(clock.us // 1_000_000)
    return {
        "x-toolkit-delivery-id": delivery,
        "x-toolkit-timestamp": now,
        "x-toolkit-signature": sign(SECRET, delivery, now, body),
    } | change


def intake(engine: Engine, clock: ManualClock, secret: str | None = SECRET) -> Intake:
    return Intake(engine, secrets=lambda _: secret, clock=clock)


BODY = b'{"customer": {"id": 17}}'


def test_a_signed_event_starts_one_run_however_often_it_comes(
    engine: Engine, clock: ManualClock
) -> None:
    """The delivery's id is the key; the run gets the mapped value and knows its trigger."""
    engine.add_trigger(http(parameters={"limit": 3}))
    door = intake(engine, clock)
    answers = [door.receive("crm", headers(BODY, clock), BODY) for _ in range(3)]
    assert [code for code, _ in answers] == [202] * 3
    (run_id,) = {answer["run_id"] for _, answer in answers}
    assert [run.run_id for run in engine.pending()] == [run_id]
    assert door.receive("crm", headers(BODY, clock, "d-2"), BODY)[1]["run_id"] != run_id
    assert engine.get_trigger("crm").last_fired is not None
    other = b'{"customer": {"id": 18}}'
    assert door.receive("crm", headers(other, clock), other)[0] == 409


@pytest.mark.parametrize(
    "spoil",
    [
        {"x-toolkit-signature": "v1,AAAA"},
        {"x-toolkit-signature": ""},
        {"x-toolkit-signature": "é"},
        {"x-toolkit-delivery-id": "d-9"},
        {"x-toolkit-delivery-id": "d 1"},
        {"x-toolkit-timestamp": "1"},
        {"x-toolkit-timestamp": "now"},
    ],
)
def test_what_is_not_genuine_is_refused(
    engine: Engine, clock: ManualClock, spoil: dict[str, str]
) -> None:
    """A changed signature, id or time; nothing is queued, and the answer tells no more."""
    engine.add_trigger(http())
    wrong = intake(engine, clock).receive("crm", headers(BODY, clock, **spoil), BODY)
    unknown = intake(engine, clock).receive("no-such", headers(BODY, clock), BODY)
    assert wrong == unknown
    assert wrong[0] == 401
    assert engine.pending() == []


def test_old_events_and_missing_secrets_are_refused(engine: Engine, clock: ManualClock) -> None:
    """Five minutes either way; without a secret nothing is genuine."""
    engine.add_trigger(http())
    signed = headers(BODY, clock)
    assert intake(engine, clock, None).receive("crm", signed, BODY)[0] == 401
    clock.advance(seconds=301)
    assert intake(engine, clock).receive("crm", signed, BODY)[0] == 401
    clock.advance(seconds=-602)
    assert intake(engine, clock).receive("crm", signed, BODY)[0] == 401


def test_genuine_events_that_cannot_start_a_run(engine: Engine, clock: ManualClock) -> None:
    """No JSON, a missing value, a paused trigger."""
    engine.add_trigger(http())
    door = intake(engine, clock)
    assert door.receive("crm", headers(b"{", clock), b"{")[0] == 400
    code, answer = door.receive("crm", headers(b"{}", clock), b"{}")
    assert (code, "customer.id" in answer["error"]) == (422, True)
    engine.pause_trigger("crm")
    assert door.receive("crm", headers(BODY, clock), BODY)[0] == 423
    assert engine.pending() == []


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_a_signature_holds_for_one_body(body: bytes, other: bytes) -> None:
    """It verifies the signed bytes and no others, one of several while a secret changes."""
    clock = ManualClock()
    signed = headers(body, clock)
    signed["x-toolkit-signature"] = f"v1,old {signed['x-toolkit-signature']}"
    now_s = clock.us / 1e6
    assert verified_delivery(SECRET, "x-toolkit", signed, body, now_s) == "d-1"
    genuine = verified_delivery(SECRET, "x-toolkit", signed, other, now_s)
    assert (genuine == "d-1") == (other == body)


def test_mlflow_signs_as_we_verify(engine: Engine, clock: ManualClock) -> None:
    """A delivery made with MLflow's own code; another model's or action's is left alone."""
    engine.add_trigger(
        Trigger(
            "models",
            "review",
            "mlflow",
            "ana",
            secret_env="EVENT_SECRET",
            model="triage",
            mapping={"version": "data.version"},
        )
    )
    now = str(clock.us // 1_000_000)

    def deliver(action: str, model: str) -> tuple[int, dict[str, Any]]:
        data = {"name": model, "version": "4", "source": "models:/1", "tags": {}}
        text = json.dumps({"entity": "model_version", "action": action, "data": data})
        signature = _generate_hmac_signature(SECRET, "3f2a-1", now, text)
        sent = {"x-mlflow-delivery-id": "3f2a-1", "x-mlflow-timestamp": now}
        sent["x-mlflow-signature"] = signature
        return intake(engine, clock).receive("models", sent, text.encode())

    assert deliver("created", "other")[0] == 200
    assert deliver("deleted", "triage")[0] == 200
    assert engine.pending() == []
    assert deliver("created", "triage")[0] == 202
    assert len(engine.pending()) == 1


def test_over_a_real_socket(engine: Engine, clock: ManualClock) -> None:
    """202 for a signed event, 413 for a long one, 404 elsewhere; loopback addresses only."""
    engine.add_trigger(http())
    with serving(intake(engine, clock), "127.0.0.1:0") as address:
        url = f"{address}/events/crm"
        assert httpx.post(url, content=BODY, headers=headers(BODY, clock)).status_code == 202
        assert httpx.post(url, content=b"x" * (MAX_BODY + 1)).status_code == 413
        assert httpx.get(url).status_code == 405
        assert httpx.post(address).status_code == 404
        with pytest.raises(ConfigurationError), serving(intake(engine, clock), address[7:]):
            pass
    for wrong in ("0.0.0.0:1", "127.0.0.1", "example.org:80"):
        with pytest.raises(ConfigurationError):
            serving(intake(engine, clock), wrong)


# -- files -----------------------------------------------------------------------------------


def watch(engine: Engine, clock: ManualClock, told: list[str]) -> Any:
    """A function that lets seconds pass and looks."""
    watchers = Watchers(engine, clock, told.append, Listings(patience_s=60))

    def look(seconds: float) -> list[RunStatus]:
        clock.advance(seconds=seconds)
        with engine.tables.turn() as turn:
            assert turn is not None
            watchers.look(turn)
        return engine.pending()

    return look


def test_a_new_file_starts_a_run_once_it_rests(
    engine: Engine, clock: ManualClock, tmp_path: Path
) -> None:
    """Files from before do not count; one that grows waits; one that is gone and comes back is new."""
    folder = tmp_path / "in"
    folder.mkdir()
    before_s = clock.us / 1e6 - 1000
    (folder / "old.csv").write_text("x")
    os.utime(folder / "old.csv", (before_s, before_s))
    mapping = {"path": "path", "size": "size"}
    rule = Trigger("inbox", "review", "file", "ana", watch=str(folder / "*.csv"), mapping=mapping)
    engine.add_trigger(rule)
    told: list[str] = []
    look = watch(engine, clock, told)
    assert look(1) == []
    new = folder / "new.csv"
    new.write_text("a")
    (folder / "other.txt").write_text("a")
    assert look(10) == []
    new.write_text("ab")
    assert look(10) == []
    assert len(look(10)) == 1
    look(10)
    new.unlink()
    look(10)
    new.write_text("abc")
    look(10)
    assert len(look(10)) == 2
    assert told == []


def test_a_store_that_fails_is_told_once_and_looked_at_again(
    engine: Engine, clock: ManualClock
) -> None:
    """The reason stands in the list of triggers."""
    engine.add_trigger(Trigger("inbox", "review", "file", "ana", watch="nosuch://bucket/*"))
    told: list[str] = []
    look = watch(engine, clock, told)
    for _ in range(3):
        look(10)
    assert len(told) == 1
    assert "nosuch" in engine.get_trigger("inbox").fault


@pytest.fixture
def inbox(engine: Engine, tmp_path: Path) -> Path:
    """A watched folder."""
    folder = tmp_path / "disk" / "in"
    folder.mkdir(parents=True)
    engine.add_trigger(Trigger("inbox", "review", "file", "ana", watch=str(folder / "*.csv")))
    return folder


def were_there(inbox: Path, look: Any, *names: str) -> None:
    """Files from before the trigger, which do not count; seen once."""
    for name in names:
        (inbox / name).write_text(name)
        os.utime(inbox / name, (1_000_000, 1_000_000))
    assert look(1) == []


def test_a_folder_that_is_away_is_told_and_its_files_are_known_when_it_is_back(
    engine: Engine, clock: ManualClock, inbox: Path
) -> None:
    """Neither does a file count again, nor is one that came meanwhile overlooked."""
    told: list[str] = []
    look = watch(engine, clock, told)
    were_there(inbox, look, "a.csv", "b.csv")
    disk = inbox.parent
    disk.rename(disk.with_name("unplugged"))
    for _ in range(3):
        look(10)
    assert len(told) == 1
    assert str(inbox) in engine.get_trigger("inbox").fault
    disk.with_name("unplugged").rename(disk)
    (inbox / "c.csv").write_text("c")
    look(10)
    assert len(look(10)) == 1
    assert engine.get_trigger("inbox").fault == ""


def test_an_empty_mount_point_makes_no_file_new(
    engine: Engine, clock: ManualClock, inbox: Path
) -> None:
    """What is there in the place of an unmounted folder: the same path, with nothing in it."""
    look = watch(engine, clock, [])
    were_there(inbox, look, "a.csv", "b.csv")
    mounted = inbox.rename(inbox.with_name("mounted"))
    inbox.mkdir()
    look(10)
    look(86_400)
    inbox.rmdir()
    mounted.rename(inbox)
    look(10)
    assert look(10) == []
    (inbox / "a.csv").write_text("another content")
    (inbox / "b.csv").unlink()
    look(10)
    (inbox / "b.csv").write_text("another content, too")
    look(10)
    assert len(look(10)) == 1, "a file that comes back changed is new; one that changes is not"


def test_what_vanished_is_forgotten_after_a_week(
    engine: Engine, clock: ManualClock, inbox: Path
) -> None:
    """The table of files does not grow for ever, and the very same file counts again."""
    look = watch(engine, clock, [])
    were_there(inbox, look, "a.csv")
    kept = (inbox / "a.csv").rename(inbox.parent / "a.csv")
    look(10)
    look(8 * 86_400)
    kept.rename(inbox / "a.csv")
    look(10)
    assert len(look(10)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read_is_a_fault(tmp_path: Path) -> None:
    """A glob of it is empty, and says nothing."""
    tmp_path.chmod(0)
    try:
        with pytest.raises(PermissionError):
            list_files(f"{tmp_path}/*.csv")
    finally:
        tmp_path.chmod(0o700)


def test_the_folder_above_the_first_wildcard_has_to_be_there(tmp_path: Path) -> None:
    """Those below may come and go."""
    assert list_files(f"{tmp_path}/*/in/*.csv") == {}
    assert list_files(f"{tmp_path}/one.csv") == {}
    with pytest.raises(FileNotFoundError):
        list_files(f"{tmp_path}/none/*/x.csv")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        list_files(f"{tmp_path}/file/*.csv")


class Hanging:
    """Lists nothing of a store until it is let go; other places as usual."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.asked = 0

    def __call__(self, pattern: str) -> Files:
        if "slow-store" in pattern:
            self.asked += 1
            self.free.wait(120)
        return list_files(pattern)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.free.set()


def test_a_watch_that_hangs_keeps_neither_ticks_nor_other_watches_waiting(
    engine: Engine, clock: ManualClock, inbox: Path, hanging: Hanging, tmp_path: Path
) -> None:
    """It is told, begun no second time, and goes on when the store answers again."""
    engine.add_trigger(Trigger("a-hangs", "stuck", "file", "ana", watch=f"{tmp_path}/slow-store/*"))
    engine.add_schedule(Schedule("often", "nightly", {}, "* * * * *", "UTC", "ana"))
    told: list[str] = []
    listings = Listings(hanging, patience_s=0.2, limit_s=0.3)
    duty = Duty(
        engine, lambda: NO_JOBS, lambda event: told.append(event.message), listings=listings,
        clock=clock,
    )  # fmt: skip

    def seen(job: str) -> int:
        return sum(run.job.partition("@")[0] == job for run in engine.pending())

    def until_seen(count: int) -> None:
        def look() -> bool:
            clock.advance(seconds=10)
            duty.watch()
            return seen("review") == count

        until(look)

    duty.watch()
    (inbox / "a.csv").write_text("a")
    until_seen(1)
    clock.advance(seconds=60)
    duty.look()
    ticks = seen("nightly")
    assert ticks > 0
    until(lambda: duty.watch() or any("could not be listed" in text for text in told))
    clock.advance(seconds=60)
    duty.look()
    assert seen("nightly") > ticks
    assert not any("no worker ran in time" in text for text in told)
    assert hanging.asked == 1
    hanging.free.set()
    (tmp_path / "slow-store").mkdir()

    def recovered() -> bool:
        clock.advance(seconds=10)
        duty.watch()
        return engine.get_trigger("a-hangs").fault == ""

    until(recovered)


def test_each_part_of_the_duty_has_a_turn_of_its_own(engine: Engine, clock: ManualClock) -> None:
    """Whoever holds the turn of the watches, or tidies up, keeps no tick waiting."""
    tidied: list[str] = []
    duty = Duty(
        engine, lambda: NO_JOBS, lambda _: None, clock=clock,
        housekeep=lambda: tidied.append("yes"),
    )  # fmt: skip
    engine.add_schedule(Schedule("often", "nightly", {}, "* * * * *", "UTC", "ana"))
    with engine.tables.turn("watch") as first, engine.tables.turn("clean") as second:
        assert first is not None
        assert second is not None
        clock.advance(seconds=60)
        duty.look()
        duty.watch()
        duty.clean()
        assert tidied == [], "somebody else does"
    assert len(engine.pending()) == 1
    for _ in range(2):
        duty.clean()
    assert tidied == ["yes"]


# -- ends of jobs ----------------------------------------------------------------------------


def test_the_end_of_a_run_starts_another(busy: World) -> None:
    """With a real worker: success starts one, failure the other, each end once."""
    for on, job in (("success", "next"), ("failure", "repair")):
        busy.engine.add_trigger(
            Trigger(job, job, "job", "ana", after="first", on=on, mapping={"do": "state"})
        )
    busy.engine.submit("first", {"do": "0"}, run_id="run-first-good")
    busy.engine.submit("first", {"do": "1"}, run_id="run-first-bad")
    until(
        lambda: len([r for r in busy.run_ids() if r.startswith(("run-next-", "run-repair-"))]) >= 2
    )
    for name in ("next", "repair"):
        busy.engine.remove_trigger(name)
    ran = [run for run in busy.run_ids() if run.startswith(("run-next-", "run-repair-"))]
    assert len(ran) == len(set(ran)) == 2
    assert busy.ended("run-first-bad").state is RunState.FAILED


def test_triggers_do_not_run_in_circles(engine: Engine) -> None:
    """Neither directly nor by way of others."""
    with pytest.raises(UsageError, match="after itself"):
        Trigger("t", "a", "job", "ana", after="a")
    engine.add_trigger(Trigger("t1", "b", "job", "ana", after="a"))
    engine.add_trigger(Trigger("t2", "c@3", "job", "ana", after="b"))
    with pytest.raises(UsageError, match="after itself"):
        engine.add_trigger(Trigger("t3", "a", "job", "ana", after="c"))


# -- the list --------------------------------------------------------------------------------


def test_the_life_of_a_trigger(engine: Engine) -> None:
    """Added once, paused, resumed, removed; another of that name is a Conflict."""
    engine.add_trigger(http())
    engine.add_trigger(http())
    with pytest.raises(Conflict):
        engine.add_trigger(http(parameters={"limit": 1}))
    engine.pause_trigger("crm")
    assert engine.list_triggers()[0].paused
    engine.resume_trigger("crm")
    assert engine.get_trigger("crm").trigger == http()
    engine.remove_trigger("crm")
    for act in (engine.pause_trigger, engine.resume_trigger, engine.remove_trigger):
        with pytest.raises(NotFound):
            act("crm")


def test_all_faults_of_a_trigger_at_once() -> None:
    """Every field is named."""
    with pytest.raises(UsageError) as caught:
        Trigger(
            "../x", "A@", "http", " ", parameters={"x": 1}, mapping={"x": "a..b"},
            secret_env="my secret", every_s=-1.0,
        )  # fmt: skip
    places = [fault["where"] for fault in caught.value.details["faults"]]
    assert places == ["name", "job", "parameters", "mapping", "created_by", "secret", "every"]


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_a_place_is_found_or_refused(event: Any) -> None:
    """Whatever an event looks like, a place gives a value or a LookupError."""
    try:
        assert value_at(event, "a.0") == event["a"][0] if "a" in event else True
    except (LookupError, TypeError):
        with pytest.raises(LookupError):
            value_at(event, "a.0")
