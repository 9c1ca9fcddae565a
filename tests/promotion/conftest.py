"""A workspace with an evaluation set of four cases, and a provider that knows three of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_world import Hall
from promotion_world import LABELS, SCRIPT, SET, Desk
from shelf_world import Shelf
from workspace_world import PRODUCTION, end_gateway, write_workspace

from toolkit.client import disconnect
from toolkit.ledger import Ledger


@pytest.fixture(scope="module")
def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One workspace and one gateway for all promotions of a module."""
    root = tmp_path_factory.mktemp("promotion") / "ws"
    root.mkdir()
    made = write_workspace(root)
    (made.registry / "answers.yaml").write_text(SCRIPT)
    policy = PRODUCTION.replace("gates: {}", "gates: {capitals: [{scorer: correct, minimum: 0.5}]}")
    (made.registry / "policies" / "production" / "policy.yaml").write_text(policy.lstrip())
    folder = made.registry / "evaluations" / "capitals"
    folder.mkdir()
    (folder / "set.yaml").write_text(SET)
    (folder / "cases.jsonl").write_text(
        "".join(
            json.dumps({"id": name.lower(), "inputs": {"question": name}, "expected": label}) + "\n"
            for name, label in LABELS.items()
        )
    )
    yield Desk(made)
    disconnect()
    end_gateway(made)


@pytest.fixture
def desk(shared_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The module's desk, in its workspace."""
    monkeypatch.chdir(shared_desk.workspace.root)
    return shared_desk


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(exist_ok=True)
    ledger = Ledger.open(made.database_url)
    yield Shelf(made, ledger)
    ledger.close()


@pytest.fixture
def hall(shelf: Shelf) -> Hall:
    """The promoter in process, with a player for the kernels."""
    return Hall(shelf.workspace, shelf.ledger)
