"""Which level a run gets, and when it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.errors import ConfigurationError
from toolkit.execution.placing import ISOLATION_TAG, place
from toolkit.isolation import choose_level, probe, reached_level
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
