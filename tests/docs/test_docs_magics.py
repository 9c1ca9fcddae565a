"""The cells of docs/magics.md run, in their order, in one shell against a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_pages import blocks, page
from IPython.core.interactiveshell import InteractiveShell

from toolkit.ledger import Ledger
from toolkit.magics import unload_ipython_extension
from toolkit.settings import Workspace
from toolkit.values import CallKind, CallState

ANSWERS = """
answers:
  - when: {contains: Which topic}
    data: {topic: billing}
  - text: "Good morning, Ana."
    input_tokens: 7
    output_tokens: 3
"""


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    made = InteractiveShell()
    made.history_manager.enabled = False
    yield made
    unload_ipython_extension(made)


def test_the_cells_of_the_page_run(
    workspace: Workspace, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    """Load, ask, define a tool and an agent, evaluate, publish: all as written on the page."""
    _prepare(workspace.registry)
    names = shell.user_ns
    for block in page("docs/magics.md").blocks:
        if block.language == "python":
            shell.run_cell(block.text, store_history=False).raise_error()
    shown = capsys.readouterr().out
    assert names["greeting"].text == "Good morning, Ana."
    assert names["greeting"].cost_usd is not None
    assert names["sorted_as"].topic == names["reply"].data.topic == "billing"
    assert names["file_ticket"].__toolkit_effect__ == "write"
    assert names["settings"].limit == 20
    assert "2 of 2 cases answered by describe" in shown
    ledger = Ledger.open(workspace.database_url)
    try:
        (run,) = ledger.runs()
        calls = ledger.calls(run.run_id)
        assert ledger.results(run.run_id) == {"orders": 2, "cities": {"Lisbon": 2}}
    finally:
        ledger.close()
    assert {call.state for call in calls} == {CallState.OK}
    kinds = [call.intent.kind for call in calls]
    assert {CallKind.MODEL, CallKind.TOOL, CallKind.AGENT, CallKind.RESULT} == set(kinds)


def _prepare(registry: Path) -> None:
    """Answers for the page's prompts, and the evaluation set of docs/evaluation.md."""
    (registry / "answers.yaml").write_text(ANSWERS, "utf-8")
    folder = registry / "evaluations" / "orders"
    folder.mkdir()
    for block in blocks("yaml", "json", "python"):
        if block.file in ("set.yaml", "cases.jsonl", "close.py"):
            (folder / block.file).write_text(block.text, "utf-8")
