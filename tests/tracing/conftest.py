"""Shared parts of the tracing tests: a factory of calls, and real MLflow databases."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tracing_factory import Factory

from toolkit.tracing import MlflowStore


@pytest.fixture
def make() -> Factory:
    return Factory()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with tables, made once: creating it takes a second."""
    folder = tmp_path_factory.mktemp("mlflow-template")
    MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", artifacts=folder / "artifacts").experiment("x")
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Iterator[MlflowStore]:
    """A real MLflow store in SQLite."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}", artifacts=tmp_path / "artifacts")


@pytest.fixture
def rows(store: MlflowStore) -> Callable[[str], list[tuple[Any, ...]]]:
    """Read MLflow's tables past MLflow: what is really there."""
    path = store.uri.removeprefix("sqlite:///")

    def read(sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(sql).fetchall()

    return read
