"""Ten thousand runs wait for people: rows, not memory; all are woken, and each finishes once."""

from __future__ import annotations

import pytest

from benchmarks.waiting import measure

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1_700)]


def test_ten_thousand_waiting_runs_cost_rows_and_all_go_on(capsys: pytest.CaptureFixture) -> None:
    """``measure`` itself refuses a lost run and one that finished twice."""
    seen = measure(10_000, slots=64, idle_s=10.0)
    with capsys.disabled():
        print(f"\n  {seen}")
    assert seen.runs == 10_000
    grown = (seen.rss_waiting - seen.rss_before) / seen.runs
    assert grown < 20_000, "a waiting run has no thread, no task, no process in the worker"
