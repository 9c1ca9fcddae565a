"""A small registry with a clock that stands still."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_world import FACTS, FILES

from toolkit.registry import Registry, Sealed
from toolkit.values import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(tmp_path: Path, clock: ManualClock) -> Registry:
    return Registry(tmp_path / "registry", clock=clock)


@pytest.fixture
def sealed(registry: Registry) -> Sealed:
    return registry.seal("review", FILES, FACTS)
