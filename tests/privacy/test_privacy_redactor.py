"""Secrets out of JSON values."""

from __future__ import annotations

import base64
import copy
import json
import random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_cases import FORMED, cases, email

from toolkit.errors import UsageError
from toolkit.privacy import Category, Detector, KnownSecrets, PiiMode, Redactor

CANARY = "Zk9-qT7_vb/W2x+Lm4.PdR8sYc1"
KNOWN = KnownSecrets({"PROVIDER_KEY": CANARY})
REDACTOR = Redactor(Detector(), KNOWN, salt="run-1")
MARK = "[secret PROVIDER_KEY #"


def chunks(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(0, len(text), n)]


def encodings() -> dict[str, str]:
    data = CANARY.encode()
    return {
        "plain": CANARY,
        "upper": CANARY.upper(),
        "base64": base64.b64encode(data).decode(),
        "base64+1": base64.b64encode(b"a" + data + b"zz").decode(),
        "base64+2": base64.b64encode(b"ab" + data + b"z").decode(),
        "base64url": base64.urlsafe_b64encode(b"user:" + data).decode(),
        "base64 lines": "\n".join(chunks(base64.b64encode(b"x" * 50 + data).decode(), 16)),
        "hex": data.hex(),
        "HEX": data.hex(":").upper(),
        "backslash x": "".join(f"\\x{byte:02x}" for byte in data),
        "backslash u": "".join(f"\\u{byte:04x}" for byte in data),
        "percent": quote(CANARY, safe=""),
        "all percent": "".join(f"%{byte:02X}" for byte in data),
        "json": json.dumps(json.dumps(CANARY)),
        "lines": "\n".join(chunks(CANARY, 5)),
        "escaped lines": "\\n".join(chunks(CANARY, 5)),
        "quotes": '" + "'.join(chunks(CANARY, 6)),
        "spaces": " ".join(CANARY),
    }


@pytest.mark.parametrize("form", sorted(encodings()))
@pytest.mark.parametrize("place", ["text", "value", "name", "deep"])
def test_known_values_are_found_however_they_are_written(form: str, place: str) -> None:
    """In every encoding and place; what is left does not hold the value in any of them."""
    written = encodings()[form]
    value: Any = {
        "text": f"before {written} after",
        "value": {"a": written},
        "name": {f"x {written}": 1},
        "deep": {"a": [{"b": ["c", {"d": f"<{written}>"}]}]},
    }[place]
    clean, findings = REDACTOR.redact(value)
    assert MARK in json.dumps(clean)
    assert {f.kind for f in findings} == {"PROVIDER_KEY"}
    assert KNOWN.find(json.dumps(clean)) == []
    assert written not in json.dumps(clean)


@pytest.mark.parametrize(
    "value",
    [
        ["start " + CANARY[:10], CANARY[10:] + " end"],
        {"messages": [{"role": "user", "content": CANARY[:9]}, {"role": "user", "content": CANARY[9:]}]},
        {"content": [{"type": "text", "text": CANARY[:9]}, {"type": "text", "text": CANARY[9:]}]},
        list(CANARY),
    ],
)  # fmt: skip
def test_known_values_are_found_across_neighbours(value: Any) -> None:
    """List elements, parts of messages and pieces of a stream are read together."""
    clean, _ = REDACTOR.redact(value)
    assert MARK in json.dumps(clean)
    whole = "".join(c for c in json.dumps(clean) if c.isalnum())
    assert CANARY[:9] not in json.dumps(clean)
    assert "".join(c for c in CANARY if c.isalnum()) not in whole


def test_a_value_keeps_its_mark_in_every_encoding() -> None:
    """The mark follows from the value and the run, so a resumed run finds its recorded calls."""
    marks = set()
    for written in encodings().values():
        clean = REDACTOR.redact({"a": written}).value["a"]
        start = clean.index(MARK)
        marks.add(clean[start : clean.index("]", start)])
    again = Redactor(Detector(), KnownSecrets([CANARY]), salt="run-1").text(CANARY)
    other = Redactor(Detector(), KNOWN, salt="run-2").text(CANARY)
    assert len(marks) == 1
    assert again.endswith(marks.pop()[-3:] + "]")
    assert other != REDACTOR.text(CANARY)


def test_nothing_is_said_about_the_value_elsewhere() -> None:
    """Neither findings nor `repr` hold it; a secret in a member's name is not in the place."""
    clean, findings = REDACTOR.redact({"args": {CANARY: CANARY}})
    assert CANARY not in repr(findings) + repr(KNOWN) + json.dumps(clean)
    assert {f.top for f in findings} == {"args"}


def test_short_values_are_exact_and_the_shortest_are_left_out() -> None:
    """Four characters are looked for as they are; fewer are everywhere, and are counted."""
    known = KnownSecrets({"PIN": "4#7!", "no": "ab"})
    redactor = Redactor(None, known, salt="r")
    assert redactor.text("pin 4#7! ok ab").startswith("pin [secret PIN #")
    assert known.too_short == 1
    assert len(known) == 1


def test_secrets_by_form_go_and_the_rest_stays() -> None:
    """Values of telling names, vendors' keys and private keys; numbers, null and order stay."""
    r = random.Random(5)
    value = {
        "password": "hunter22",
        "note": f"use {FORMED['github'](r)} now",
        "pem": FORMED["private-key"](r).split("\n"),
        "n": [1, 2.5, None, True, 12345678901],
    }
    before = copy.deepcopy(value)
    clean, findings = REDACTOR.redact(value)
    assert value == before
    assert list(clean) == list(value)
    assert clean["n"] == value["n"]
    assert clean["password"].startswith("[secret password #")
    assert clean["note"].startswith("use [secret GitHub token #")
    assert {f.place for f in findings} >= {"password", "note"}


def test_two_names_that_become_one_keep_both_values() -> None:
    """Nothing is lost where two names hold the same secret in different spelling."""
    clean, _ = REDACTOR.redact({CANARY: 1, CANARY.lower(): 2})
    assert sorted(clean.values()) == [1, 2]


def test_personal_data_is_told_or_goes() -> None:
    """`label` leaves it and says where it is; `redact` replaces it, numbers included."""
    value = {"to": email(random.Random(3)), "card": 4111111111111111}
    told = Redactor(Detector(), salt="r").redact(value)
    assert told.value is value
    assert {(f.top, f.category) for f in told.findings} == {
        ("to", Category.PII),
        ("card", Category.PII),
    }
    gone = Redactor(Detector(), salt="r", pii=PiiMode.REDACT).redact(value).value
    assert gone["to"].startswith("[pii e-mail address #")
    assert gone["card"].startswith("[pii payment card number #")


def test_a_value_without_secrets_is_the_same_object() -> None:
    """What needs no change is not copied."""
    value = {"a": ["plain", 1], "b": None}
    assert REDACTOR.redact(value).value is value


def test_too_deep_values_are_refused() -> None:
    """Deeper than 64 levels is a usage error, never a crash."""
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(UsageError, match="64 levels"):
        REDACTOR.redact(value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.just(CANARY)
    | st.sampled_from([c.text for c in cases("dev", 2)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
@settings(max_examples=200)
def test_what_was_cleaned_is_clean(value: Any) -> None:
    """Cleaning twice changes nothing more, gives the same text each time, and no known value stays."""
    clean = REDACTOR.redact(value).value
    assert REDACTOR.redact(value).value == clean
    assert CANARY not in json.dumps(clean)
    assert REDACTOR.redact(clean).value == clean


@given(
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.text("abcXYZ012+/-_.", min_size=16, max_size=60),
)
@settings(max_examples=150)
def test_any_known_value_is_found_in_base64_of_anything(
    before: bytes, after: bytes, secret: str
) -> None:
    """At each alignment, whatever stands around it, wherever enough letters and digits are left."""
    known = KnownSecrets([secret])
    folded = sum(c.isalnum() for c in base64.b64encode(secret.encode()).decode())
    if sum(c.isalnum() for c in secret) >= 8 and folded >= 16:
        assert known.find(base64.b64encode(before + secret.encode() + after).decode())
        assert known.find("x" + secret + "y")
