"""Real workers in processes of their own, over SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_world import postgres_server
from scheduling_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty workspace on SQLite; workers that a test leaves running are killed."""
    world = World(tmp_path, f"sqlite:///{tmp_path / 'engine.db'}")
    yield world
    world.close()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A workspace on SQLite with a worker that many tests share."""
    root = tmp_path_factory.mktemp("busy")
    world = World(root, f"sqlite:///{root / 'engine.db'}")
    world.start()
    yield world
    world.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as server:
        yield server.get_uri()


@pytest.fixture
def postgres(tmp_path: Path, postgres_url: str) -> Iterator[World]:
    """An empty workspace on PostgreSQL."""
    world = World(tmp_path, postgres_url)
    yield world
    world.close()
