"""A real IPython shell with the extension loaded, in front of a small gateway."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from magics_gateway import WireGateway

from toolkit import client
from toolkit.client import wire
from toolkit.magics import load_ipython_extension, unload_ipython_extension


class Notebook:
    """A shell that runs cells and keeps what they show."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.published: list[dict] = []

    def run(self, cell: str, *, cell_id: str | None = None):
        """Run one cell; return IPython's result and keep the displays."""
        pub = CapturingDisplayPublisher(parent=self.shell)
        before, self.shell.display_pub = self.shell.display_pub, pub
        try:
            result = self.shell.run_cell(cell, store_history=True, cell_id=cell_id)
        finally:
            self.shell.display_pub = before
        self.published = [output["data"] for output in pub.outputs]
        return result

    def ok(self, cell: str, *, cell_id: str | None = None):
        """Run one cell that must succeed and return its value."""
        result = self.run(cell, cell_id=cell_id)
        result.raise_error()
        return result.result

    def fails(self, cell: str) -> Exception:
        """Run one cell that must fail and return its error."""
        error = self.run(cell).error_in_exec
        assert error is not None
        return error


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireGateway]:
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        made = WireGateway(Path(folder) / "gateway.sock")
        monkeypatch.setenv(wire.ENV_SOCKET, made.socket)
        monkeypatch.setenv(wire.ENV_TOKEN, "t" * 40)
        client.disconnect()
        yield made
        client.disconnect()
        made.close()


@pytest.fixture
def bare_shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    yield shell
    unload_ipython_extension(shell)


@pytest.fixture
def notebook(gateway: WireGateway, bare_shell: InteractiveShell) -> Notebook:
    load_ipython_extension(bare_shell)
    return Notebook(bare_shell)
