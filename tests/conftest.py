"""Fixtures of every suite: a scrubbed environment, and a small workspace with a real gateway."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from workspace_world import end_gateway, write_workspace

from toolkit.client import Connection, disconnect, ensure_gateway
from toolkit.settings import Workspace

# An example that is slow says that the machine is busy.  The same examples each time: a suite that is
# a gate says what a change did; `HYPOTHESIS_PROFILE=explore make test` looks for new ones.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("toolkit", derandomize=True, **_COMMON)
settings.register_profile("explore", **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "toolkit"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith(("TOOLKIT_", "MLFLOW_", "JPY_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    yield
    disconnect()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace in a fresh folder, the working folder of the test; its gateway ends with it."""
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    monkeypatch.chdir(root)
    yield made
    end_gateway(made)


@pytest.fixture
def connection(workspace: Workspace) -> Iterator[Connection]:
    """A connected sandbox session of the workspace."""
    made = Connection(ensure_gateway(workspace.root), root=workspace.root).open(
        notebook="notebooks/n.ipynb"
    )
    yield made
    made.close()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], str], None]:
    """Wait until something holds, at most two minutes."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within 120 s"
            time.sleep(0.05)

    return wait
