"""Several kernels for one evaluation: each question is asked once, whichever kernel has it."""

from __future__ import annotations

import os

import pytest
from promotion_world import SET, Desk

from toolkit.ledger import Ledger
from toolkit.values import RunKind

CORES = len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_two_kernels_share_the_cases_of_a_set(desk: Desk) -> None:
    """A run each, at the same time; scores, costs and attempts are those of all together."""
    header = desk.workspace.registry / "evaluations" / "capitals" / "set.yaml"
    header.write_text(SET + "kernels: 2\n")
    try:
        path = desk.write("shared")
        desk.try_out(path)
        done = desk.promote(path)
        again = desk.promote(path, "--again")
    finally:
        header.write_text(SET)
    assert done.code == 0, done.told
    (gate,) = done.json["gates"]
    assert (gate["observed"], gate["n"]) == (0.75, 4)
    with Ledger.open(desk.workspace.database_url) as ledger:
        runs = ledger.runs(job="shared", kind=RunKind.EVALUATION, limit=10)
        parts = [ledger.case_answers(run.run_id) for run in runs]
    assert len(runs) == min(2, CORES)
    assert sorted(case for part in parts for case in part) == ["france", "italy", "peru", "spain"]
    if len(runs) == 2:
        first, second = sorted(runs, key=lambda run: run.started_us or 0)
        assert (second.started_us or 0) < (first.ended_us or 0), "they ran at the same time"
    facts = desk.stage(done, "evaluate")["facts"]
    # Four agent calls and four model calls; and each kernel publishes the result.
    assert facts["calls"] == 8 + len(runs)
    assert facts["missing"] == 0
    assert again.code == 0, again.told
    assert desk.stage(again, "evaluate")["facts"]["cached_answers"] == 4
