"""A signed registry, made once and copied for each test: keys are slow to make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from trust_world import STRICTER, World


@pytest.fixture(scope="session")
def blank_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("blank"))


@pytest.fixture(scope="session")
def released_world(blank_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = blank_world.copy(tmp_path_factory.mktemp("released"))
    world.promote_policy()
    world.promote_policy(environment="sandbox")
    world.seal(0.8)
    world.release(1)
    world.snapshot("old")
    world.promote_policy(STRICTER)
    world.seal(0.9)
    world.release(2)
    return world


@pytest.fixture
def world(blank_world: World, tmp_path: Path) -> World:
    """People, and nothing sealed yet."""
    return blank_world.copy(tmp_path)


@pytest.fixture
def released(released_world: World, tmp_path: Path) -> World:
    """Version 1 was in production (a copy of then is kept as ``old``), version 2 is.

    Then the policy of production was number 1, now it is 2; that of the sandbox is number 1.
    """
    return released_world.copy(tmp_path)


@pytest.fixture
def worlds(tmp_path: Path) -> Callable[..., World]:
    """Worlds with other thresholds."""
    count = iter(range(99))

    def make(**needed: int) -> World:
        folder = tmp_path / f"world-{next(count)}"
        folder.mkdir()
        return World(folder, **needed)

    return make
