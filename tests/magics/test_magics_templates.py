"""The starter notebook is valid, fit for production, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from toolkit.client import wire
from toolkit.document import Notebook
from toolkit.evaluation import EvaluationSet

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


@pytest.fixture
def starter():
    return nbformat.read(TEMPLATES / "agent.ipynb", as_version=4)


def test_the_starter_is_a_valid_notebook_with_named_cells(starter):
    """nbformat 4.5, every cell with an id that says what it is, no outputs, one parameters cell."""
    nbformat.validate(starter)
    assert (starter.nbformat, starter.nbformat_minor) == (4, 5)
    assert all(cell.id.replace("-", "").isalpha() for cell in starter.cells)
    assert not any(cell.get("outputs") for cell in starter.cells)
    tagged = [c.id for c in starter.cells if "parameters" in c.metadata.get("tags", [])]
    assert tagged == ["parameters"]


def test_the_starter_has_typed_parameters_and_declared_results():
    """What a promotion reads from it: two parameters, four results, no fault."""
    read = Notebook.read(TEMPLATES / "agent.ipynb")
    assert set(read.schema["properties"]) == {"messages", "route"}
    assert set(read.results) == {"topics", "billing", "technical", "other"}


def test_the_starter_runs_and_publishes_its_results(starter, gateway):
    """From top to bottom in a real kernel: three agent calls, four results."""
    topics = ["billing", "technical", "other"]
    gateway.answers = [{"text": "", "data": {"topic": topic}} for topic in topics]
    NotebookClient(starter, kernel_name="python3", timeout=60).execute()
    published = {b["name"]: b["arguments"]["value"] for b in gateway.asked(wire.RESULT)}
    assert published == {"topics": topics, **dict.fromkeys(topics, 1)}
    assert [b["kind"] for b in gateway.asked(wire.BEGIN)] == ["agent"] * 3


def test_the_starters_evaluation_set_fits_its_agent(starter):
    """Cases give the agent's argument and expect one of its topics."""
    cases = EvaluationSet.load(TEMPLATES / "evaluations" / "triage").cases
    assert len(cases) == 12
    assert {case.expected for case in cases} == {"billing", "technical", "other"}
    assert all(set(case.inputs) == {"message"} for case in cases)
    examples = "".join(cell.source for cell in starter.cells)
    assert not any(json.dumps(case.inputs["message"]) in examples for case in cases)
