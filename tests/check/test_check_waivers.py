"""Waivers: whose, for what, until when; and what happens on the day after."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.promotion.check import RULES, Report, Waivers, to_sarif
from toolkit.values import ManualClock

CLOCK = ManualClock()
TODAY = datetime.fromtimestamp(CLOCK.us / 1e6, UTC).date()
SOON = (TODAY + timedelta(days=30)).isoformat()
NOTEBOOK = "notebooks/rates.ipynb"


def entry(rule: str = "http-client", **members: Any) -> dict[str, Any]:
    """One entry; ``None`` leaves a member out."""
    made = {
        "rule": rule,
        "notebook": NOTEBOOK,
        "owner": "ana",
        "reason": "moves in March",
        "expires": SOON,
        **members,
    }
    return {name: value for name, value in made.items() if value is not None}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Waivers]:
    def run(*entries: dict[str, Any], now_us: int = CLOCK.us) -> Waivers:
        path = tmp_path / "waivers.yaml"
        path.write_text(json.dumps({"waivers": entries}), "utf-8")  # JSON is YAML
        return Waivers.load(path, now_us)

    return run


def apply(waivers: Waivers, report: Report, job: str | None = "rates") -> Report:
    return waivers.apply(report, notebook=NOTEBOOK, job=job)


def test_without_the_file_nothing_is_waived(tmp_path: Path, check: Any) -> None:
    """The file is optional."""
    report = check("import httpx")
    assert apply(Waivers.load(tmp_path / "waivers.yaml", CLOCK.us), report) is report


def test_a_waived_finding_does_not_count_and_is_told(load: Any, check: Any) -> None:
    """The notebook is fit; the report says who answers for what, until when and why."""
    report = apply(load(entry()), check("import httpx"))
    assert report.ok
    assert report.findings == ()
    assert report.to_json()["waived"] == [
        {
            "rule": "http-client",
            "where": "cell 3 line 1",
            "cell_id": "c3",
            "message": "httpx is imported",
            "target": f"notebook {NOTEBOOK}",
            "owner": "ana",
            "reason": "moves in March",
            "expires": SOON,
        }
    ]
    result = to_sarif([report])["runs"][0]["results"][0]
    assert result["suppressions"][0]["justification"] == f"moves in March (ana, until {SOON})"


@pytest.mark.parametrize(("days", "holds"), [(-1, False), (0, True), (1, True)])
def test_it_holds_through_its_last_day(days: int, holds: bool, load: Any, check: Any) -> None:
    """In UTC; from the next day on both the finding and the waiver by name stop the promotion."""
    expires = (TODAY + timedelta(days=days)).isoformat()
    report = apply(load(entry(expires=expires)), check("import httpx"))
    assert report.ok is holds
    if not holds:
        assert [f.rule for f in report.errors] == ["http-client", "expired-waiver"]
        told = report.errors[1].message
        assert all(word in told for word in ("waivers.yaml:1", "http-client", "ana", expires))


def test_the_clock_ends_it(load: Any, check: Any) -> None:
    """The same file, a later day."""
    clock = ManualClock()
    found = check("import httpx")
    assert apply(load(entry(), now_us=clock.now_us()), found).ok
    clock.advance(seconds=31 * 86_400)
    assert not apply(load(entry(), now_us=clock.now_us()), found).ok


def test_one_cell_one_job_or_the_whole_notebook(load: Any, check: Any) -> None:
    """Others are not excused; the entry for the cell is used before the one for all."""
    found = check("import httpx", "import requests")
    one = apply(load(entry(cell="c3")), found)
    assert [(f.rule, f.cell) for f in one.errors] == [("http-client", 4)]
    job = load(entry(notebook=None, job="rates"))
    assert apply(job, found).ok
    assert apply(job, found, job="other").findings == found.findings
    both = apply(load(entry(), entry(cell="c3", owner="ben")), found)
    assert [(w.finding.cell, w.owner) for w in both.waived] == [(3, "ben"), (4, "ana")]


def test_what_nothing_needs_is_a_warning(load: Any, check: Any) -> None:
    """Also when it has ended; waivers of other notebooks are not mentioned."""
    past = (TODAY - timedelta(days=9)).isoformat()
    entries = (entry(), entry("exit-call", expires=past), entry("direct-read", notebook="a.ipynb"))
    report = apply(load(*entries), check("x = 1"))
    assert report.ok
    assert [f.rule for f in report.findings] == ["unused-waiver"] * 2


BAD = {
    "there is no rule": {"rule": "no-such-rule"},
    "cannot be waived": {"rule": "secret-in-source"},
    "both or neither": {"job": "rates"},
    "plain path": {"notebook": "../x.ipynb"},
    "not a day": {"expires": "2026-02-30"},
    "more than 180 days": {"expires": (TODAY + timedelta(days=181)).isoformat()},
}


@pytest.mark.parametrize("told", sorted(BAD))
def test_a_faulty_entry_is_named_with_its_place(told: str, load: Any) -> None:
    """The file is refused as a whole: nobody is excused by half a file."""
    with pytest.raises(InvalidFile, match=told) as caught:
        load(entry(**BAD[told]))
    assert "waivers.0" in str(caught.value)


def test_all_faults_are_told_at_once(load: Any) -> None:
    """Two entries, two faults; a twin and a missing end are faults too."""
    with pytest.raises(InvalidFile, match="has 2 faults"):
        load(*(entry(**BAD[told]) for told in ("not a day", "cannot be waived")))
    with pytest.raises(InvalidFile, match="expires"):
        load(entry(expires=None))


def test_the_same_waiver_twice_is_a_fault(tmp_path: Path) -> None:
    """Two ends for one thing would leave the later one."""
    path = tmp_path / "waivers.yaml"
    path.write_text("waivers:\n" + f"- {json.dumps(entry())}\n" * 2, "utf-8")
    with pytest.raises(InvalidFile, match="waives the same as line 2"):
        Waivers.load(path, CLOCK.us)


def test_secrets_and_what_cannot_run_are_beyond_waivers() -> None:
    """The list is short, and these are on it."""
    fixed = {rule.id for rule in RULES if not rule.waivable}
    assert {f"secret-in-{part}" for part in ("source", "output", "metadata", "attachment")} < fixed
    assert {"does-not-parse", "wrong-kernel", "twin-keys", "not-json", "empty-notebook"} < fixed
    assert not fixed & {"http-client", "no-budget", "personal-data-in-output", "unknown-tool"}


@given(st.dictionaries(st.sampled_from(sorted(entry())), st.text(max_size=12) | st.integers()))
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_entry_is_read_or_refused_in_words(load: Any, members: dict[str, Any]) -> None:
    """Whatever stands in the file."""
    try:
        waivers = load(entry(**members)).waivers
    except InvalidFile as error:
        told = error
    else:
        assert waivers[0].expires.isoformat() == members.get("expires", SOON)
        return
    assert told.details["faults"]
