"""The audit log: order, integrity, and what a crash leaves."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_world import FACTS, FILES, overwrite

from toolkit.errors import IntegrityError, UsageError
from toolkit.registry import AuditRecord, Registry, Sealed
from toolkit.values import ManualClock, digest_bytes, digest_json

NASTY = 'x\n{"forged": 1}\r\n\u2028\u2029\x1b[2J\x7f\x00\u0085\ud800'


def log_of(registry: Registry) -> Path:
    return registry.root / "log" / "audit.jsonl"


def events(registry: Registry) -> list[str]:
    return [record.event for record in registry.audit()]


@pytest.fixture
def filled(registry: Registry, clock: ManualClock) -> Registry:
    for turn in range(5):
        clock.advance(seconds=1)
        registry.record("review.note", {"turn": turn}, by="ana")
    return registry


def test_records_form_a_chain(filled: Registry) -> None:
    """Each record holds the hash of the one before and a hash of itself."""
    records = list(filled.audit())
    assert [r.n for r in records] == [1, 2, 3, 4, 5, 6]
    assert records[0].event == "audit.created"
    for before, after in pairwise(records):
        assert after.prev == before.hash
    facts = json.loads(log_of(filled).read_bytes().splitlines()[3])
    told = facts.pop("hash")
    assert digest_json(facts) == told
    assert filled.audit_head() == records[-1]


def test_sealing_and_moving_are_recorded_before_and_after(registry: Registry) -> None:
    """Nobody can seal or move without two records."""
    sealed = registry.seal("a", FILES, FACTS)
    registry.set_alias("a", "production", 1, by="ben")
    records = list(registry.audit())[1:]
    assert [(r.event, r.by) for r in records] == [
        ("version.sealing", "ana"),
        ("version.sealed", "ana"),
        ("alias.moving", "ben"),
        ("alias.moved", "ben"),
    ]
    assert records[1].body == {"name": "a", "version": 1, "bundle_digest": sealed.bundle_digest}


def test_nobody_is_unknown_unless_nobody_said(registry: Registry) -> None:
    """``by`` is taken from the argument, then from the body."""
    registry.record("x.y", {}, by="ana")
    registry.record("x.y", {"by": "ben"})
    registry.record("x.y", {})
    assert [r.by for r in registry.audit()][1:] == ["ana", "ben", "unknown"]


@pytest.mark.parametrize("event", ["version.sealed", "alias.moved", "audit.repaired", "a b", ""])
def test_own_events_cannot_be_forged(registry: Registry, event: str) -> None:
    """A caller cannot write the records that vouch for versions."""
    with pytest.raises(UsageError):
        registry.record(event, {})


def test_what_is_not_json_is_refused(registry: Registry) -> None:
    """Nothing is written for a body that cannot be hashed."""
    for body in ({"x": float("nan")}, {"x": object()}, {"x": "y" * (1 << 20)}):
        with pytest.raises(UsageError):
            registry.record("x.y", body)
    assert events(registry) == []


def test_nasty_text_stays_on_one_printable_line(registry: Registry) -> None:
    """Line feeds, separators and escape sequences neither forge a record nor reach a terminal."""
    registry.record("x.y", {"text": NASTY, NASTY: 1}, by=NASTY)
    lines = log_of(registry).read_bytes().split(b"\n")
    assert len(lines) == 3
    assert all(re.fullmatch(rb"[ -~]*", line) for line in lines)
    assert list(registry.audit())[1].body["text"] == NASTY
    assert registry.verify() == []


@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False), max_size=4),
    st.text(),
)
def test_records_round_trip(body: dict[str, object], by: str) -> None:
    """Reading a line gives an equal record with an equal line."""
    body = {k: v for k, v in body.items() if v not in (float("inf"), float("-inf"))}
    record = AuditRecord.of(3, "now", "x.y", by, body, "sha256:0")
    line = record.to_line()
    assert line.count(b"\n") == 1
    assert AuditRecord.from_line(line) == record
    assert AuditRecord.from_line(line).to_line() == line


# -- tampering -----------------------------------------------------------------------------


def rehashed(line: bytes, **changes: object) -> bytes:
    """A line with other facts and a hash that fits them, as a forger would write it."""
    facts = {**json.loads(line), **changes}
    facts.pop("hash")
    return AuditRecord.of(**facts).to_line()


MUTATIONS = {
    "altered": lambda ls: [*ls[:2], ls[2].replace(b'"turn":1', b'"turn":9'), *ls[3:]],
    "altered and hashed again": lambda ls: [*ls[:2], rehashed(ls[2], body={}), *ls[3:]],
    "removed": lambda ls: [*ls[:2], *ls[3:]],
    "first removed": lambda ls: ls[1:],
    "swapped": lambda ls: [ls[0], ls[2], ls[1], *ls[3:]],
    "doubled": lambda ls: [*ls[:2], ls[1], *ls[2:]],
    "inserted": lambda ls: [*ls[:2], rehashed(ls[2], n=3, event="x.forged"), *ls[2:]],
    "empty line": lambda ls: [*ls[:2], b"\n", *ls[2:]],
    "blank added": lambda ls: [*ls[:2], ls[2].replace(b"{", b"{ ", 1), *ls[3:]],
    "carriage return": lambda ls: [*ls[:2], ls[2].replace(b"\n", b"\r\n"), *ls[3:]],
    "twin key": lambda ls: [*ls[:2], ls[2].replace(b"{", b'{"by":"eve",', 1), *ls[3:]],
    "not JSON": lambda ls: [*ls[:2], b"nonsense\n", *ls[3:]],
    "not UTF-8": lambda ls: [*ls[:2], b"\xff\xfe\n", *ls[3:]],
    "deep": lambda ls: [*ls[:2], b"[" * 100_000 + b"\n", *ls[3:]],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_is_found(filled: Registry, mutation: str) -> None:
    """verify names the log and reading it raises."""
    lines = log_of(filled).read_bytes().splitlines(keepends=True)
    log_of(filled).write_bytes(b"".join(MUTATIONS[mutation](lines)))
    faults = filled.verify()
    assert faults
    assert all(fault.where.startswith("log/audit.jsonl:") for fault in faults)
    with pytest.raises(IntegrityError):
        list(filled.audit())


def test_no_flipped_byte_of_the_log_is_accepted(filled: Registry) -> None:
    """One bit of each byte: verify finds every one."""
    log = log_of(filled)
    whole = log.read_bytes()
    unseen = []
    for at in range(len(whole)):
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if not filled.verify():
            unseen.append(at)
    assert unseen == []


def test_one_altered_line_is_not_reported_for_the_whole_rest(filled: Registry) -> None:
    """The chain is picked up again after a damaged line."""
    lines = log_of(filled).read_bytes().splitlines(keepends=True)
    lines[1] = b"nonsense\n"
    log_of(filled).write_bytes(b"".join(lines))
    assert len(filled.verify()) == 1


def test_a_cut_tail_shows_against_a_kept_head(filled: Registry) -> None:
    """The chain alone cannot see it; the head that somebody kept does."""
    head = filled.audit_head()
    lines = log_of(filled).read_bytes().splitlines(keepends=True)
    log_of(filled).write_bytes(b"".join(lines[:-2]))
    assert filled.verify() == []
    assert filled.audit_head() != head


def test_a_damaged_end_is_not_continued(filled: Registry) -> None:
    """Nothing is recorded, and nothing sealed, on top of a broken chain."""
    log = log_of(filled)
    damaged = log.read_bytes().replace(b'"turn":4', b'"turn":5')
    log.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        filled.record("x.y", {})
    with pytest.raises(IntegrityError):
        filled.seal("a", FILES, FACTS)
    assert filled.versions("a") == []
    assert log.read_bytes() == damaged


def test_a_linked_log_is_refused(filled: Registry) -> None:
    """The log is a plain file or it is not the log."""
    log = log_of(filled)
    away = filled.root / "away"
    log.rename(away)
    log.symlink_to(away)
    assert [fault.where for fault in filled.verify()] == ["log/audit.jsonl"]


# -- crashes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_line_is_moved_aside_and_recorded(filled: Registry, kept: int) -> None:
    """What a crash cut off is kept in a file of its own, and the log says so."""
    log = log_of(filled)
    whole = log.read_bytes()
    torn = whole.splitlines(keepends=True)[-1][:kept]
    log.write_bytes(whole + torn)
    assert [fault.message for fault in filled.verify()] == ["the last line was cut by a crash"]
    assert len(list(filled.audit())) == 6
    filled.record("x.y", {}, by="ana")
    repaired = list(filled.audit())[-2]
    assert repaired.event == "audit.repaired"
    assert repaired.body["digest"] == digest_bytes(torn)
    assert (log.parent / repaired.body["kept_in"]).read_bytes() == torn
    assert filled.verify() == []


def test_a_log_that_is_all_torn_starts_again(registry: Registry) -> None:
    """Even the very first line may have been cut."""
    log_of(registry).parent.mkdir(parents=True)
    log_of(registry).write_bytes(b'{"at":')
    registry.record("x.y", {}, by="ana")
    assert events(registry) == ["audit.created", "audit.repaired", "x.y"]
    assert registry.verify() == []


def test_long_records_chain_too(registry: Registry) -> None:
    """The end of the log is found however long its last line is."""
    for size in (10, 300_000, 10, 70_000):
        registry.record("x.y", {"text": "é" * size})
    assert registry.verify() == []


# -- log against versions ------------------------------------------------------------------


def test_a_planted_version_is_found(registry: Registry, tmp_path: Path) -> None:
    """A valid version that was never recorded is reported."""
    registry.seal("a", FILES, FACTS)
    other = Registry(tmp_path / "other")
    planted = [other.seal("a", {"notebook.ipynb": b"{}"}, FACTS) for _ in range(2)][1]
    planted.path.rename(registry.root / "jobs/a/2")
    assert registry.load("a@2")
    assert [f.where for f in registry.verify()] == ["jobs/a/2/job.yaml"]


def test_a_removed_version_is_found(registry: Registry, sealed: Sealed) -> None:
    """What was sealed must be there."""
    sealed.path.rename(registry.root / "gone")
    assert [f.where for f in registry.verify()] == ["jobs/review/1"]


def test_a_replaced_version_is_found(registry: Registry, sealed: Sealed, tmp_path: Path) -> None:
    """Another valid version under the same number is reported with both digests."""
    twin = Registry(tmp_path / "other").seal("review", {"notebook.ipynb": b"{}"}, FACTS)
    sealed.path.rename(registry.root / "gone")
    twin.path.rename(sealed.path)
    (fault,) = registry.verify()
    assert sealed.bundle_digest in fault.message
    assert twin.bundle_digest in fault.message


def test_verify_reports_progress(registry: Registry, sealed: Sealed) -> None:
    """Each step is announced, and the last call says that all is done."""
    seen: list[tuple[int, int, str]] = []
    registry.verify(lambda *step: seen.append(step))
    assert seen == [(0, 2, "review@1"), (1, 2, "review: aliases"), (2, 2, "audit log")]


def test_an_empty_registry_is_fine(registry: Registry) -> None:
    """Nothing was written, nothing is wrong."""
    assert registry.verify() == []
    assert list(registry.audit()) == []
    assert registry.audit_head() is None
    assert registry.jobs() == []


def test_foreign_entries_among_jobs_are_named(registry: Registry, sealed: Sealed) -> None:
    """A file where a job's folder should be is reported, name escaped."""
    overwrite_target = registry.root / "jobs" / "Not\x1ba job"
    overwrite_target.write_bytes(b"")
    overwrite(overwrite_target, b"x")
    assert [f.where for f in registry.verify()] == ["jobs/Not\\x1ba job"]
