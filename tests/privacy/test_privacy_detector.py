"""What the detector finds, leaves alone, and survives."""

from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_cases import FORMED, NAMED, NONE, PERSONAL, cases

from toolkit.privacy import Category, Detector, is_secret_name

DETECTOR = Detector()


def removed(text: str) -> str:
    """The text without what was found in it."""
    for finding in reversed(DETECTOR.find(text)):
        text = text[: finding.start] + "#" + text[finding.end :]
    return text


def test_recall_and_false_positives_on_the_held_out_set() -> None:
    """At least nine of ten planted values go, at most one of twenty look-alikes is touched."""
    planted, found, plain, wrong = 0, 0, 0, 0
    for case in cases("held-out"):
        if case.planted:
            planted += 1
            found += case.planted not in removed(case.text)
        else:
            plain += 1
            wrong += bool(DETECTOR.find(case.text))
    assert len(FORMED) + len(NAMED) >= 25
    assert len(NONE) >= 15
    assert planted >= 800
    assert plain >= 400
    assert found / planted >= 0.9
    assert wrong / plain <= 0.05


@pytest.mark.parametrize("kind", sorted(FORMED | NAMED | PERSONAL))
def test_every_kind_is_found(kind: str) -> None:
    """No kind is only carried by the average of the others."""
    mine = [c for split in ("dev", "held-out") for c in cases(split) if c.kind == kind]
    found = [c for c in mine if c.planted not in removed(c.text)]
    assert len(found) / len(mine) >= 0.9
    wanted = Category.PII if kind in PERSONAL else Category.SECRET
    categories = {f.category for c in found for f in DETECTOR.find(c.text)}
    assert wanted in categories


@pytest.mark.parametrize("kind", sorted(NONE))
def test_no_look_alike_is_mistaken_as_a_rule(kind: str) -> None:
    """At most one in ten of every kind of look-alike."""
    mine = [c for split in ("dev", "held-out") for c in cases(split) if c.kind == kind]
    wrong = [c.text for c in mine if DETECTOR.find(c.text)]
    assert len(wrong) / len(mine) <= 0.1, wrong[:3]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("IBAN GB82 WEST 1234 5698 7654 32 please", "IBAN"),
        ("card 4111 1111 1111 1111 exp 12/30", "payment card number"),
        ("pesel: 44051401359", "Polish identity number"),
        ("BSN 111222333", "Dutch citizen number"),
        ("id 11010519491231002X", "Chinese identity number"),
        ("codice RSSMRA85T10A562S", "Italian fiscal code"),
        ("AHV 756.9217.0769.85", "Swiss insurance number"),
        ("Aadhaar 2341 2341 2346", "Indian Aadhaar number"),
        ("Steuer-ID: 86095742719", "German tax number"),
        ("SIN 046 454 286", "Canadian social insurance number"),
        ("date of birth: 1980-03-12", "date of birth"),
        ("Passport No: C1234567", "passport number"),
        ("call me on 030 1234 5678", "telephone number"),
    ],
)
def test_numbers_of_people(text: str, kind: str) -> None:
    """Documented examples of each number are found where check digit or word agree."""
    assert [f.kind for f in DETECTOR.find(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "IBAN GB83 WEST 1234 5698 7654 32",  # wrong check digits
        "card 4111 1111 1111 1112",
        "pesel: 44051401358",
        "44051401359",  # nothing says that it is one
        "born to run 12 miles",
        "icon@2x.png noreply@corp.io git@corp.io:a/b.git",
        "2025-03-01 12:00:00 +0200",
        "call 0 times",
    ],
)
def test_numbers_that_are_none(text: str) -> None:
    """A wrong check digit, or no word before a plain number, is no finding."""
    assert DETECTOR.find(text) == []


def test_checksums_make_a_finding_sure() -> None:
    """A token whose checksum agrees scores 1; one that only looks right is found with less."""
    made = FORMED["github"](random.Random(1))
    wrong = made[:-1] + ("A" if made[-1] != "A" else "B")
    assert [f.score for f in DETECTOR.find(f"x {made} y")] == [1.0]
    assert 0.5 <= DETECTOR.find(f"x {wrong} y")[0].score < 1.0


def test_findings_never_hold_the_secret() -> None:
    """A finding can be printed."""
    key = FORMED["openai"](random.Random(2))
    assert key not in repr(DETECTOR.find(f"use {key} now"))


@given(st.text(max_size=400))
@settings(max_examples=200)
def test_any_text_is_survived_and_findings_are_in_order(text: str) -> None:
    """Findings lie in the text, in order, and do not overlap."""
    last = 0
    for f in DETECTOR.find(text):
        assert last <= f.start < f.end <= len(text)
        last = f.end


_PIECES = st.lists(
    st.sampled_from(
        ["sk-", "eyJa.", "-----BEGIN PRIVATE KEY-----", "://a:b", "@", "a.b", "token=", "password:", "'", '"', " ", "12-", "+1", "4111 ", "GB29", "Bearer ", "xoxb-1a2B3c4D5e", "\\", "\n", "-----END"]
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


def _processor_seconds(text: str) -> float:
    start = time.process_time()
    DETECTOR.find(text)
    return time.process_time() - start


@given(_PIECES)
@settings(max_examples=25)
def test_hostile_repetition_takes_linear_time(pieces: list[str]) -> None:
    """Eight times the text of any repeated trap takes nowhere near the 64 times of a quadratic pattern."""
    unit = "".join(pieces)
    short, long = unit * (4_000 // len(unit)), unit * (32_000 // len(unit))
    one = min(_processor_seconds(short) for _ in range(3))
    assert min(_processor_seconds(long) for _ in range(3)) < 30 * one + 0.05


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nextPageToken", None), ("x-api-key", "key"), ("dbPassword", "password"), ("monkey", None)],
)
def test_names_that_say_secret(name: str, kind: str | None) -> None:
    """Cursors and parts of other words are no credentials."""
    assert is_secret_name(name) == kind


@given(st.text(string.ascii_lowercase + " .,", max_size=500))
@settings(max_examples=100)
def test_lower_case_prose_holds_no_secret(text: str) -> None:
    """Words alone, whatever they say, are left alone."""
    assert DETECTOR.find(text) == []
