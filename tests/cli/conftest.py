"""One workspace with one gateway per module; its MLflow database is made once."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from workspace_world import end_gateway, write_workspace

from toolkit.settings import Workspace
from toolkit.tracing import MlflowStore


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with tables: making one takes a second."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowStore(f"sqlite:///{folder / 'mlflow.db'}").client.search_experiments(max_results=1)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def shared_workspace(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path
) -> Iterator[Workspace]:
    """A workspace for all tests of a module."""
    root = tmp_path_factory.mktemp("cli") / "ws"
    root.mkdir()
    made = write_workspace(root)
    shutil.copy(mlflow_template, made.state / "mlflow.db")
    yield made
    end_gateway(made)


@pytest.fixture
def workspace(shared_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The module's workspace, as the working folder."""
    monkeypatch.chdir(shared_workspace.root)
    return shared_workspace
