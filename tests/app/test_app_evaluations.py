"""``%evaluate`` in the sandbox, from the gateway's side: the set's own scorers and judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace_world import end_gateway, write_workspace

from toolkit.app.evaluations import SCORE, START, SandboxEvaluations
from toolkit.client import ensure_gateway
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import Environment, RunKind, RunRecord, RunState

HEAD = "schema: evaluation/1\nname: capitals\nagent: answer\nscorers:\n"
OWN = "  - {name: own, kind: custom, file: own.py}\n"
BRIEF = "  - {name: brief, kind: mlflow, mlflow: Guidelines, route: default, arguments: {guidelines: [Be brief.]}}\n"  # fmt: skip
FILE = """
def score(answer, label, inputs):
    if answer == "Rome":
        raise ValueError("not today")
    return answer == label
"""
CASES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(exist_ok=True)
    folder = made.registry / "evaluations" / "capitals"
    folder.mkdir()
    (folder / "own.py").write_text(FILE)
    lines = [{"id": n, "inputs": {"country": n}, "expected": c} for n, c in CASES.items()]
    (folder / "cases.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    yield made
    end_gateway(made)


def evaluated(workspace: Workspace, scorers: str, socket: Path | None = None) -> dict[str, Any]:
    """Score three answers of a session as the gateway does."""
    (workspace.registry / "evaluations" / "capitals" / "set.yaml").write_text(HEAD + scorers)
    ledger = Ledger.open(workspace.database_url)
    try:
        session = RunRecord("session-1", RunKind.SESSION, Environment.SANDBOX, "ana", state=RunState.RUNNING)  # fmt: skip
        ledger.create_run(session)
        asked = SandboxEvaluations(
            workspace.registry, ledger, Governance(workspace.registry), socket
        )
        paths = asked.handlers()

        async def both() -> dict[str, Any]:
            started = await paths[START](session, {"set": "capitals"})
            for name, answer in {"France": "Paris", "Italy": "Rome", "Spain": "Lisbon"}.items():
                case = f"{started['evaluation_run_id']}/{name}"
                ledger.answer_case(session.run_id, case, answer, None)
            body = {"evaluation_run_id": started["evaluation_run_id"]}
            return await paths[SCORE](session, body)

        verdict = asyncio.run(both())
        verdict["runs"] = [run for run in ledger.runs(limit=10) if run.kind is RunKind.EVALUATION]
        verdict["spent"] = [ledger.totals(run.run_id).cost.nanos for run in verdict["runs"]]
        return verdict
    finally:
        ledger.close()


def test_a_file_of_the_set_scores_in_the_sandbox(workspace: Workspace) -> None:
    """What it says counts, and what it failed on is shown with its reason, not as wrong."""
    verdict = evaluated(workspace, OWN)
    rows = {row["case_id"]: row for row in verdict["rows"]}
    assert rows["France"]["scores"] == {"own": True}
    assert rows["Spain"]["scores"] == {"own": False}
    assert rows["Italy"]["scores"] == {}
    assert rows["Italy"]["failures"] == {"own": "ValueError: not today"}
    assert (verdict["scores"]["own"]["mean"], verdict["scores"]["own"]["n"]) == (0.5, 2)
    assert verdict["runs"] == [], "a file asks no model, so it has no run"


@pytest.mark.slow
def test_judges_are_a_run_of_the_session(workspace: Workspace) -> None:
    """Their calls belong to a run below the session, which ends with them."""
    answers = 'answers:\n  - text: \'{"result": "yes", "rationale": "short"}\'\n'
    (workspace.registry / "answers.yaml").write_text(answers)
    socket = Path(ensure_gateway(workspace.root))
    verdict = evaluated(workspace, BRIEF, socket)
    assert [row["scores"] for row in verdict["rows"]] == [{"brief": True}] * 3
    (run,) = verdict["runs"]
    assert (run.parent_run_id, run.state) == ("session-1", RunState.SUCCEEDED)
    assert run.environment is Environment.SANDBOX
    assert verdict["spent"][0] > 0
