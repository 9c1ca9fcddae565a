"""What storms over real runs need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_machines import Bank
from loopback_world import serving
from postgres_world import postgres_server


@pytest.fixture
def bank() -> Iterator[Bank]:
    made = Bank()
    with serving(made.server):
        yield made


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]):
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return say


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="m-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def postgres() -> Iterator[dict[str, str]]:
    """A database server, and what it logged when it is gone before its time."""
    with postgres_server() as server:
        for name in ("ledger", "engine"):
            server.psql(f"CREATE DATABASE {name}")
        yield {name: server.get_uri(name) for name in ("ledger", "engine")}
