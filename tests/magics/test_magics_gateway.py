"""The magics against the real gateway: a sandbox notebook, and a kernel under production rules."""

from __future__ import annotations

import os
import re

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from toolkit.client import ensure_gateway, wire
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.values import Environment, RunKind, RunRecord, RunState

SET = """
schema: evaluation/1
name: letters
description: Upper-case letters.
agent: upper
cases: cases.jsonl
scorers:
  - {name: correct, kind: exact}
"""
CASES = '{"id": "a", "inputs": {"text": "a"}, "expected": "A"}\n{"id": "b", "inputs": {"text": "b"}, "expected": "x"}\n'


def _execute(workspace, *cells: str):
    sources = ("%load_ext toolkit", *cells)
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    folder = {"metadata": {"path": str(workspace.root / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=120, resources=folder).execute()
    return [[output.get("data", output) for output in cell.outputs] for cell in notebook.cells]


def test_a_sandbox_notebook_is_governed_priced_and_scored(workspace):
    """Connection by workspace, card with the price, objections of production, scores by the gateway."""
    folder = workspace.registry / "evaluations" / "letters"
    folder.mkdir(parents=True)
    (folder / "set.yaml").write_text(SET)
    (folder / "cases.jsonl").write_text(CASES)
    loaded, card, unlisted, called, _, scored, status, cost = _execute(
        workspace,
        "%%model --out reply\nhello",
        "@toolkit.tool\ndef unlisted(n: int) -> int:\n    return n",
        "_ = unlisted(1)",
        "@toolkit.agent\ndef upper(text: str) -> str:\n    return text.upper()",
        "%evaluate letters",
        "%toolkit status",
        "%toolkit cost",
    )
    assert loaded[0]["text/plain"] == "toolkit is connected"
    assert card[0]["text/plain"] == "an answer"
    assert "7 + 3 tokens" in card[0]["text/html"]
    assert "$0.000013" in card[0]["text/html"]
    assert unlisted == []
    assert "production would deny tool unlisted" in called[0]["text/plain"]
    lines = scored[0]["text/plain"].split("\n")
    assert lines[0] == "letters: 2 of 2 cases answered by upper"
    assert lines[2].split()[:2] == ["correct", "0.5"]
    assert lines[-1] == "1 wrong: b"
    text = re.sub(r"<[^>]+>", " ", status[0]["text/html"])
    assert re.search(r"user\s+ana", text)
    assert re.search(r"calls\s+4, 0 denied, 0 failed", text)
    assert "$0.000013" in cost[0]["text/html"]


@pytest.fixture
def production(workspace, monkeypatch):
    """The environment of a kernel that runs a registered version."""
    token = new_token()
    ledger = Ledger.open(workspace.database_url)
    ledger.create_run(
        RunRecord(
            run_id="run-00000000000000000001",
            kind=RunKind.RUN,
            environment=Environment.PRODUCTION,
            user="ana",
            state=RunState.RUNNING,
            token_digest=token_digest(token),
        )
    )
    ledger.close()
    monkeypatch.setenv(wire.ENV_SOCKET, ensure_gateway(workspace.root))
    monkeypatch.setenv(wire.ENV_TOKEN, token)
    assert os.environ[wire.ENV_TOKEN] == token
    return workspace


def test_production_denies_with_the_policys_reason(production):
    """The kernel connects by its token; the denial carries the policy's reason and fails the cell."""
    with pytest.raises(CellExecutionError) as caught:
        _execute(production, "%%model\nhello", "reply = toolkit.model('hello', route='forbidden')")
    assert caught.value.ename == "CallDenied"
    assert "this route is closed for maintenance" in caught.value.evalue
