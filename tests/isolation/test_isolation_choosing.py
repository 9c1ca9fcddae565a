"""Which level a run gets, and when it is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import ConfigurationError
from toolkit.execution.placing import ISOLATION_TAG, place
from toolkit.isolation import (
    Enclosure,
    EnclosureSpec,
    choose_level,
    probe,
    probe_again,
    probing,
    reached_level,
)
from toolkit.kernels import KernelPlan
from toolkit.ledger import Ledger
from toolkit.values import (
    Cause,
    Environment,
    IsolationLevel,
    RunKind,
    RunRecord,
    RunState,
    SystemClock,
)

L0, L1, L2, L3 = IsolationLevel
Make = Callable[..., EnclosureSpec]


@pytest.mark.without_bubblewrap
def test_without_bubblewrap_a_run_that_needs_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 78, and the command that mends it; what may do with less gets less."""
    monkeypatch.setenv("PATH", str(tmp_path))
    report = probe(L2)
    assert not report.holds
    assert choose_level(L1, L2).level is L1
    with pytest.raises(ConfigurationError) as caught:
        choose_level(L2, L3)
    assert caught.value.exit_code == 78
    assert "asks for isolation L2" in str(caught.value)
    assert "apt install bubblewrap" in (caught.value.next_step or "")


def test_the_answer_is_kept_until_the_machine_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Probing takes a second; another bubblewrap, boot or version of this package asks again."""
    cache = tmp_path / "isolation.json"
    assert reached_level(L2, cache).level is L2
    kept = json.loads(cache.read_text())
    assert kept["tried"] == 2
    kept["reached"] = {"level": 1, "reason": "written by the test", "next": None}
    cache.write_text(json.dumps(kept))
    assert reached_level(L2, cache).reason == "written by the test"
    monkeypatch.setenv("PATH", str(tmp_path))  # bubblewrap is gone
    found = reached_level(L2, cache)
    assert found.level is L1
    assert "not installed" in (found.reason or "")


def failed(cache: Path, *, ago_s: float) -> str:
    """Let the cache say that L2 was tried in vain so long ago."""
    reached_level(L2, cache)
    kept = json.loads(cache.read_text())
    kept["reached"] = {"level": 1, "reason": "the machine was busy", "next": None}
    kept["at_s"] = time.time() - ago_s
    cache.write_text(json.dumps(kept))
    return str(kept["key"])


def test_what_was_not_reached_is_tried_again_after_minutes(tmp_path: Path) -> None:
    """A start that took too long under load says nothing about the machine."""
    cache = tmp_path / "isolation.json"
    failed(cache, ago_s=10)
    assert choose_level(L1, L2, cache).reason == "the machine was busy"
    failed(cache, ago_s=130)
    assert choose_level(L2, L2, cache).level is L2
    failed(cache, ago_s=-600)
    assert choose_level(L2, L2, cache).level is L2, "a clock that was set back"


def test_a_changed_setting_of_the_system_is_tried_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of the refusal names one; who follows it need not wait."""
    cache = tmp_path / "isolation.json"
    settings = ["0", "", "1", "1", "1", "1"]
    monkeypatch.setattr(probing, "_settings", lambda: settings)
    failed(cache, ago_s=1)
    with pytest.raises(ConfigurationError, match="reaches L1"):
        choose_level(L2, L2, cache)
    settings[0] = "1"
    assert choose_level(L2, L2, cache).level is L2


def test_the_settings_are_those_of_the_system(tmp_path: Path) -> None:
    """One that a kernel does not have is empty."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/unprivileged_userns_clone").write_text("0\n")
    assert probing._settings(tmp_path) == ["0", "", "", "", "", ""]


def test_the_doctor_asks_anew_and_what_it_finds_counts(tmp_path: Path) -> None:
    """Nobody has to wait, or to find the cache, after mending a machine."""
    cache = tmp_path / "isolation.json"
    failed(cache, ago_s=1)
    reports = probe_again(cache)
    assert [report.level for report in reports] == [L0, L1, L2, L3]
    assert choose_level(L2, L2, cache).level is L2


# -- control groups: what L3 is more than a filter ------------------------------------------------


def test_without_control_groups_there_is_no_l3(tmp_path: Path, spec: Make) -> None:
    """The level is L2, told why; a policy that asks for L3 refuses, one that prefers it does not."""
    nothing = tmp_path / "no-groups"
    report = probe(L3, groups=nothing)
    assert not report.holds
    assert "control group" in (report.problem or "")
    found = choose_level(L2, L3, groups=nothing)
    assert found.level is L2
    assert "control group" in (found.reason or "")
    with pytest.raises(ConfigurationError, match=r"asks for isolation L3 .* reaches L2") as caught:
        choose_level(L3, L3, groups=nothing)
    assert caught.value.exit_code == 78
    assert "Delegate=yes" in (caught.value.next_step or "")
    with pytest.raises(ConfigurationError, match="no control group"):
        Enclosure(spec(L3), nothing).open()


def test_l3_is_what_its_group_holds(spec: Make) -> None:
    """Where groups can be made: many processes together die at the cap, and no more can start."""
    report = probe(L3)
    if report.problem is not None and "control group" in report.problem:
        assert reached_level(L3).level is L2, "this machine offers none"
        return
    seen = {each.name: each for each in report.probes}
    assert report.holds, report
    assert not seen["group memory"].escaped
    assert "EAGAIN" in seen["group processes"].seen
    with Enclosure(spec(L3)) as enclosure:  # without caps it counts all the same
        assert len(enclosure.ticket().groups) > 0
        assert enclosure.notes == ()


@pytest.mark.without_bubblewrap
@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": 1}', '{"key": "x", "tried": 9}'])
def test_a_broken_cache_is_asked_again(text: str, tmp_path: Path) -> None:
    """It is an optimisation and nothing else."""
    cache = tmp_path / "isolation.json"
    cache.write_text(text)
    assert reached_level(L1, cache).level is L1


def run_record(run_id: str) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        kind=RunKind.RUN,
        environment=Environment.PRODUCTION,
        user="ada",
        state=RunState.RUNNING,
    )


@pytest.mark.without_bubblewrap
def test_the_level_is_recorded_and_a_refusal_too(tmp_path: Path) -> None:
    """A run that may not start ends as denied, with the reason, and its kernel never starts."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        run = ledger.create_run(run_record("run-1"))
        plan, placed = place(lambda _: KernelPlan(level=L2), ledger, run, SystemClock())
        assert plan.level is L2
        assert placed.tags[ISOLATION_TAG] == "L2"
        assert ledger.get_run("run-1").tags[ISOLATION_TAG] == "L2"

        def refuse(_: RunRecord) -> KernelPlan:
            raise ConfigurationError("this machine reaches L0")

        run = ledger.create_run(run_record("run-2"))
        with pytest.raises(ConfigurationError):
            place(refuse, ledger, run, SystemClock())
        ended = ledger.get_run("run-2")
        assert (ended.state, ended.cause) == (RunState.DENIED, Cause.POLICY)
        assert ended.message == "this machine reaches L0"
    finally:
        ledger.close()
