"""The same promises in a folder and in a bucket."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registry_world import FACTS, FILES, overwrite
from s3_world import new_address, raw, s3_server

from toolkit.errors import (
    ConfigurationError,
    InfrastructureError,
    IntegrityError,
    NotFound,
    UsageError,
)
from toolkit.registry import Registry
from toolkit.registry.storage import Bucket, DiskPlace, Place, S3Place, place_at
from toolkit.registry.storage.bucket import Changed
from toolkit.registry.storage.disk_folder import DiskFolder
from toolkit.registry.storage.lines import CLOSED_BYTES


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def address(server: str) -> str:
    return new_address(server)


@pytest.fixture(params=["disk", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Registry]:
    """Opens the same registry anew each time, as another machine would."""
    if request.param == "disk":
        return lambda: Registry(tmp_path / "registry")
    address: str = request.getfixturevalue("address")
    return lambda: Registry(tmp_path / "none", place=S3Place(Bucket(address)))


def s3_registry(address: str, cache: Path | None = None) -> Registry:
    return Registry(Path("none"), place=S3Place(Bucket(address), cache))


def test_a_version_is_sealed_found_and_moved(opened: Callable[[], Registry]) -> None:
    """What one machine seals, another loads, byte for byte."""
    registry = opened()
    assert registry.jobs() == []
    sealed = registry.seal("a", FILES, FACTS)
    registry.seal("a", {"notebook.ipynb": b"{}"}, FACTS)
    registry.set_alias("a", "production", 1, by="ben")
    other = opened()
    assert other.jobs() == ["a"]
    assert other.versions("a") == [1, 2]
    assert other.resolve("a").bundle_digest == sealed.bundle_digest
    assert other.load("a@production") == FILES
    other.set_alias("a", "production", 2, by="ben", expected=1)
    registry.rollback("a", by="ana")
    assert [move.after for move in other.alias_history("a")] == [1, 2, 1]
    assert other.verify() == []
    assert [r.event for r in other.audit()][1:3] == ["version.sealing", "version.sealed"]


def test_people_find_the_files_of_an_older_version(address: str, tmp_path: Path) -> None:
    """In a folder where they are, of a bucket as a copy."""
    for registry in (Registry(tmp_path / "registry"), s3_registry(address, tmp_path / "cache")):
        registry.seal("a", FILES, FACTS)
        shown = registry.show(registry.resolve("a@1"))
        assert {name: (shown / name).read_bytes() for name in FILES} == FILES


def test_what_is_not_there_is_not_found(opened: Callable[[], Registry]) -> None:
    """A missing job and a missing version read alike in both."""
    registry = opened()
    with pytest.raises(NotFound, match="no job"):
        registry.resolve("a@1")
    registry.seal("a", FILES, FACTS)
    with pytest.raises(NotFound, match="no version"):
        registry.resolve("a@2")


@pytest.mark.chaos  # many requests: `make chaos`, in CI as well
def test_promoters_at_once_get_dense_numbers(opened: Callable[[], Registry]) -> None:
    """Four at once: every number once, none left out, the chain whole."""
    sealed: list[int] = []

    def promote() -> None:
        registry = registries.pop()
        files = {"notebook.ipynb": b"{}"}
        sealed.extend(registry.seal("busy", files, FACTS).version for _ in range(2))

    registries = [opened() for _ in range(4)]
    threads = [threading.Thread(target=promote) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sealed) == list(range(1, 9))
    registry = opened()
    assert registry.versions("busy") == sorted(sealed)
    assert registry.verify() == []


class LateDisk(DiskPlace):
    """A network file system whose listings are out of date: they lack what is newer than 1."""

    class folder(DiskFolder):  # noqa: N801 - it overrides an attribute
        def names(self) -> list[str]:
            return [name for name in super().names() if not name.isdigit() or name == "1"]


class LateBucket(Bucket):
    """A bucket whose listings are out of date."""

    def list(self, prefix: str, *, at_most: int | None = None) -> list[tuple[str, int | None]]:
        found = super().list(prefix, at_most=at_most)
        return [(name, size) for name, size in found if not name.isdigit() or int(name) <= 1]


@pytest.fixture(params=["disk", "s3"])
def late(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """A registry whose listings lag behind, and the same one as it is."""
    if request.param == "disk":
        return LateDisk(tmp_path / "r"), DiskPlace(tmp_path / "r")
    address: str = request.getfixturevalue("address")
    return S3Place(LateBucket(address)), S3Place(Bucket(address))


def test_a_listing_that_lags_gives_no_number_twice(
    late: tuple[Place, Place], tmp_path: Path
) -> None:
    """The claim decides, not the listing; what is hidden from the listing is still found by name."""
    lagging = Registry(tmp_path / "r", place=late[0])
    for turn in range(1, 5):
        hint = tmp_path / "r" / ".locks" / "job-a.head"
        hint.unlink(missing_ok=True)  # as another machine, which remembers nothing
        assert lagging.seal("a", {"notebook.ipynb": b"%d" % turn}, FACTS).version == turn
    assert lagging.load("a@4") == {"notebook.ipynb": b"4"}
    honest = Registry(tmp_path / "r", place=late[1])
    assert honest.versions("a") == [1, 2, 3, 4]
    assert honest.load("a@2") == {"notebook.ipynb": b"2"}
    assert honest.verify() == []


def test_a_remembered_number_that_is_wrong_costs_a_listing(tmp_path: Path) -> None:
    """The last number is believed only if it is there and the next is not."""
    registry = Registry(tmp_path / "r")
    for _ in range(3):
        registry.seal("a", FILES, FACTS)
    hint = tmp_path / "r" / ".locks" / "job-a.head"
    for wrong in ("1 0\n", "9 0\n", "-3 0\n", "x", ""):
        hint.write_text(wrong)
        before = registry.versions("a")[-1]
        assert registry.seal("a", FILES, FACTS).version == before + 1
    assert registry.verify() == []


# -- the bucket ----------------------------------------------------------------------------


@pytest.mark.chaos  # many requests: `make chaos`, in CI as well
def test_every_changed_object_is_told(address: str) -> None:
    """A byte flipped in any object of the bucket is refused or found by verify, and named."""
    registry = s3_registry(address)
    registry.seal("a", FILES, FACTS)
    registry.set_alias("a", "production", 1, by="ana")
    bucket = raw(address)
    keys = [f"blobs/{name}" for name, _ in bucket.list("blobs/")]
    keys += ["jobs/a/1", "jobs/a/aliases.json", f"log/audit.jsonl/{0:016d}"]
    assert len(keys) == 6
    for key in keys:
        data = bucket.get(key).data
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        bucket.put(key, bytes(changed))
        faults = s3_registry(address).verify()
        assert faults, key
        assert all(fault.where for fault in faults)
        bucket.put(key, data)
    assert s3_registry(address).verify() == []


def test_a_planted_version_is_told(address: str) -> None:
    """A tree copied to the next number is no version of it."""
    registry = s3_registry(address)
    registry.seal("a", FILES, FACTS)
    bucket = raw(address)
    bucket.put("jobs/a/2", bucket.get("jobs/a/1").data)
    with pytest.raises(IntegrityError):
        registry.load("a@2")
    bucket.put("jobs/a/2", b"{}")
    assert [fault.where for fault in registry.verify()] == ["jobs/a/2"]


def test_a_removed_version_is_told(address: str) -> None:
    """The log says that it was sealed."""
    registry = s3_registry(address)
    registry.seal("a", FILES, FACTS)
    registry.seal("a", FILES, FACTS)
    raw(address).delete("jobs/a/2")
    assert [f.where for f in registry.verify()] == ["jobs/a/2"]


def test_copies_on_this_machine_are_hashed_again(address: str, tmp_path: Path) -> None:
    """A copy that was changed is not believed; verify reads the bucket, not the copies."""
    cache = tmp_path / "cache"
    registry = s3_registry(address, cache)
    registry.seal("a", FILES, FACTS)
    assert registry.load("a@1") == FILES
    copies = [path for path in cache.rglob("*") if path.is_file()]
    assert len(copies) >= len(FILES)
    for path in copies:
        overwrite(path, b"something else")
    assert registry.load("a@1") == FILES
    bucket = raw(address)
    for name, _ in bucket.list("blobs/"):
        bucket.put(f"blobs/{name}", b"gone")
    assert registry.load("a@1") == FILES  # the copies are what was sealed
    assert registry.verify()
    with pytest.raises(IntegrityError):
        s3_registry(address).load("a@1")


def test_the_log_grows_in_segments(address: str, tmp_path: Path) -> None:
    """Put together they are the log, byte for byte; each writer finds the end by itself."""
    registries = [s3_registry(address) for _ in range(2)]
    body = {"text": "x" * (CLOSED_BYTES // 3)}
    for turn in range(8):
        registries[turn % 2].record("x.y", {**body, "turn": turn}, by="ana")
    bucket = raw(address)
    segments = bucket.list("log/audit.jsonl/")
    assert len(segments) > 2
    joined = b"".join(bucket.get(f"log/audit.jsonl/{name}").data for name, _ in segments)
    place = S3Place(Bucket(address))
    assert place.read("log/audit.jsonl", 1 << 30) == joined
    assert place.size("log/audit.jsonl") == len(joined)
    middle = CLOSED_BYTES - 10
    assert place.read_at("log/audit.jsonl", middle, 99_999) == joined[middle : middle + 99_999]
    assert [r.body.get("turn") for r in registries[0].audit()] == [None, *range(8)]
    bucket.delete(f"log/audit.jsonl/{segments[1][0]}")
    assert [f.where for f in registries[0].verify()] == ["log/audit.jsonl"]


def test_a_log_segment_hidden_from_the_listing_is_not_lost(address: str) -> None:
    """Readers and writers go on to the segment that follows, listed or not."""
    body = {"text": "x" * CLOSED_BYTES}
    late = Registry(Path("none"), place=S3Place(LateBucket(address)))
    for turn in range(3):
        s3_registry(address).record("x.y", {**body, "turn": turn}, by="ana")
    late.record("x.y", {"turn": 3}, by="ben")
    assert [r.body.get("turn") for r in late.audit()] == [None, 0, 1, 2, 3]
    assert S3Place(LateBucket(address)).size("log/audit.jsonl") == late.audit_end()
    assert late.verify() == []


class LostAnswers(Bucket):
    """A network that loses the answer to every write: the client repeats it, and is refused."""

    def create(self, key: str, data: bytes) -> str:
        super().create(key, data)
        raise Changed(errno.ESTALE, "the repeated write")

    def put(self, key: str, data: bytes, *, match: str | None = None) -> str:
        etag = super().put(key, data, match=match)
        if match is None:
            return etag
        raise Changed(errno.ESTALE, "the repeated write")


def test_a_write_whose_answer_was_lost_counts_once(address: str) -> None:
    """No number is skipped, no record doubled, no alias moved twice."""
    registry = Registry(Path("none"), place=S3Place(LostAnswers(address)))
    assert [registry.seal("a", FILES, FACTS).version for _ in range(2)] == [1, 2]
    registry.set_alias("a", "production", 2, by="ana")
    honest = s3_registry(address)
    assert honest.verify() == []
    assert [r.event for r in honest.audit()] == [
        "audit.created",
        *["version.sealing", "version.sealed"] * 2,
        "alias.moving",
        "alias.moved",
    ]


def test_a_writer_that_lost_its_lock_overwrites_nothing(address: str) -> None:
    """What was read under a lock is replaced only while it is what was read."""
    slow, quick = S3Place(Bucket(address)), S3Place(Bucket(address))
    slow.write("jobs/a/aliases.json", b"0")
    with slow.lock("job-a"):
        assert slow.read("jobs/a/aliases.json", 9) == b"0"
        quick.write("jobs/a/aliases.json", b"1")  # its lease had ended, another took over
        with pytest.raises(InfrastructureError, match="same time") as refused:
            slow.write("jobs/a/aliases.json", b"2")
    assert refused.value.next_step == "run the command again"
    assert slow.read("jobs/a/aliases.json", 9) == b"1"


def test_a_lock_of_a_dead_holder_is_taken_over(address: str) -> None:
    """After its lease, by the server's clock."""
    from toolkit.registry.storage.lease import lease

    bucket = Bucket(address)
    bucket.put(".locks/job-a", b"somebody who died\n")
    with pytest.raises(InfrastructureError, match="held"), lease(bucket, "job-a", wait_s=0.05):
        pass
    with lease(bucket, "job-a", lease_s=-1.0):
        assert bucket.get(".locks/job-a").data != b"somebody who died\n"
    assert bucket.get(".locks/job-a").data == b"free\n"


def test_a_lock_that_changes_hands_is_waited_for(address: str) -> None:
    """Many are at work one after the other: who waits longer than for one of them does not fail."""
    from toolkit.registry.storage.lease import lease

    bucket, wait_s = Bucket(address), 0.5
    bucket.put(".locks/job-a", b"holder 0\n")

    def work() -> None:
        for n in range(1, 12):
            threading.Event().wait(0.1)
            bucket.put(".locks/job-a", b"holder %d\n" % n)
        bucket.put(".locks/job-a", b"free\n")

    others = threading.Thread(target=work)
    others.start()
    with lease(bucket, "job-a", wait_s=wait_s):
        others.join(5)
        assert not others.is_alive()  # they held it for twice as long as one of them may


@pytest.mark.parametrize(
    "text", ["s3://", "s3://B/x", "s3://bucket/../x", "gs://bucket/x", "s3://a b"]
)
def test_another_address_is_refused(text: str) -> None:
    """Before anything is asked of a network."""
    with pytest.raises(UsageError, match="not the address"):
        place_at(text)


def test_a_missing_bucket_is_a_configuration_error(server: str) -> None:
    """It is told by its name, with what to do."""
    with pytest.raises(ConfigurationError, match="no bucket nowhere-at-all"):
        s3_registry("s3://nowhere-at-all/x").seal("a", FILES, FACTS)


def test_a_server_that_is_down_is_told_as_such(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the storage is none of the registry's content, and no credential is told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-hush")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InfrastructureError, match="cannot be reached") as refused:
        s3_registry(address).resolve("a@1")
    assert "hush" not in json.dumps([str(refused.value), refused.value.details])


def test_the_setting_names_the_bucket(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions are in the bucket; policies and sets stay in the workspace's folder."""
    from toolkit.app.trusting import open_registry
    from toolkit.settings import open_workspace

    (tmp_path / "toolkit.toml").write_text(f'registry = "{address}"\n')
    monkeypatch.chdir(tmp_path)
    workspace = open_workspace()
    assert workspace.registry == tmp_path / "registry"
    registry = open_registry(workspace)
    assert registry.where == address
    sealed = registry.seal("a", FILES, FACTS)
    assert {p.name for p in sealed.path.iterdir()} == {*FILES, "job.yaml"}  # for people
    assert registry.load("a@1") == FILES
    assert not workspace.registry.exists()
    assert s3_registry(address).versions("a") == [1]
    assert list((workspace.state / "registry-cache").iterdir())
