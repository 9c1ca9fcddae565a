"""Reproduce alone: the journal answers, and what it does not hold is a difference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from promotion_world import AGENT, REST, Desk

from toolkit.client import ensure_gateway
from toolkit.document import Notebook
from toolkit.ledger import Ledger
from toolkit.promotion import Stage
from toolkit.promotion.recall import Memory
from toolkit.promotion.reproduce import Reproduction, reproduce
from toolkit.values import RunKind, RunState, SystemClock

pytestmark = pytest.mark.slow


@pytest.fixture
def again(desk: Desk, tmp_path: Path):
    """Reproduce a notebook of the desk."""

    def go(path: Path, **changes: float) -> Stage:
        ledger = Ledger.open(desk.workspace.database_url)
        full = desk.workspace.root / path
        wanted = Reproduction(full, Notebook.read(full), str(path), "ana", tmp_path)
        wanted = dataclasses.replace(wanted, **changes)
        try:
            memory = Memory(desk.registry, ledger, "tried", "sha256:0", SystemClock(), used=False)
            return reproduce(wanted, ledger, lambda: ensure_gateway(desk.workspace.root), memory)
        finally:
            ledger.close()

    return go


LOUD = """@toolkit.agent
def loud(question: str) -> str:
    \"\"\"The same, for another reader.\"\"\"
    return toolkit.model(question).text"""
CLOCK = "import time\nprint('now', time.time_ns())"


@pytest.fixture(scope="module")
def tried(shared_desk: Desk) -> Path:
    """A notebook that was run once in the sandbox; tests change the file and reproduce it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_desk.workspace.root)
        path = shared_desk.write(
            "tried", AGENT, LOUD, "print(answer('Spain'))", "print(loud('France'))", *REST,
            CLOCK, (CLOCK, "nbval-ignore-output"),
        )  # fmt: skip
        shared_desk.try_out(path)
    return path


@pytest.fixture
def change(desk: Desk, tried: Path):
    """Change the text of the notebook that was tried out, for one test."""
    full = desk.workspace.root / tried
    good = full.read_text()

    def go(before: str, after: str) -> None:
        assert before in full.read_text()
        full.write_text(full.read_text().replace(before, after, 1))

    yield go
    full.write_text(good)


def test_what_gives_the_saved_outputs_passes_and_asks_nobody(
    desk: Desk, tried: Path, again
) -> None:
    """Recorded answers only; the one output that changes every time and is not tagged is told."""
    stage = again(tried)
    assert [(found.rule, found.cell) for found in stage.findings] == [("reproduce.output", 9)]
    assert stage.facts["journal"].startswith("trial-")
    ledger = Ledger.open(desk.workspace.database_url)
    run = ledger.get_run(stage.facts["run_id"])
    assert (run.kind, run.state) == (RunKind.REPRODUCTION, RunState.FAILED)
    assert ledger.totals(run.run_id).calls == 0
    ledger.close()


def test_code_that_was_changed_after_its_run_is_noticed(
    desk: Desk, tried: Path, again, change
) -> None:
    """Agents run as they are now: another answer, and a question that nobody recorded."""
    change("return toolkit.model(question).text", "return toolkit.model(question).text.upper()")
    change('return toolkit.model(question).text"', "return toolkit.model(question + '!').text\"")
    stage = again(tried)
    found = {finding.cell: finding.message for finding in stage.findings}
    assert "LABEL-MADRID" in found[5]
    assert "CallInDoubt: the notebook asks for model 'default'" in found[6]
    assert "did not record" in found[6]


def test_without_a_recorded_run_there_is_nothing_to_compare_with(desk: Desk, again) -> None:
    """The finding holds the command that makes one."""
    stage = again(desk.write("never-run"))
    assert [found.rule for found in stage.findings] == ["reproduce.no-journal"]
    assert "toolkit run notebooks/never-run.ipynb --save" in stage.findings[0].fix


def test_nbval_that_does_not_end_is_stopped(tried: Path, again, change) -> None:
    """The step has a limit of its own; told as a finding."""
    change("print(answer(", "time.sleep(60); print(answer(")
    change("import toolkit", "import toolkit, time")
    stage = again(tried, timeout_s=4.0)
    assert [found.rule for found in stage.findings] == ["reproduce.nbval"]
    assert "did not finish within 4 s" in stage.findings[0].message


def test_what_is_not_compared_is_listed_and_what_is_not_run_refuses(
    desk: Desk, tried: Path, again, change
) -> None:
    """Declared noise is part of the evidence; a cell that nbval skips was not reproduced."""
    change("print('now'", "# NBVAL_IGNORE_OUTPUT\\nprint('now'")
    stage = again(tried)
    assert stage.passed, stage.findings
    assert stage.facts["noise"] == [9, 10]
    assert "but for declared noise (cells 9, 10)" in stage.summary

    change("print(loud(", "# NBVAL_SKIP\\nprint(loud(")
    (found,) = again(tried).findings
    assert (found.rule, found.cell) == ("reproduce.skipped", 6)
