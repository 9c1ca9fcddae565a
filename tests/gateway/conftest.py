"""One gateway for all tests of a module that leave it alive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_world import close_runs
from workspace_world import end_gateway, write_workspace

from toolkit.client import ensure_gateway
from toolkit.settings import Workspace


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose gateway serves a whole module; every test opens its own sessions."""
    root = tmp_path_factory.mktemp("shared") / "ws"
    root.mkdir()
    made = write_workspace(root)
    yield made
    end_gateway(made)


@pytest.fixture
def workspace(shared_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The shared workspace, as the working folder."""
    monkeypatch.chdir(shared_workspace.root)
    ensure_gateway(shared_workspace.root)
    return shared_workspace


@pytest.fixture
def own_workspace(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A workspace of the test's own, for tests that kill its gateway or break its files."""
    root = tmp_path_factory.mktemp("own") / "ws"
    root.mkdir()
    made = write_workspace(root)
    monkeypatch.chdir(root)
    yield made
    end_gateway(made)


@pytest.fixture(autouse=True)
def _closed_runs() -> Iterator[None]:
    """No test leaves a socket open."""
    yield
    close_runs()
